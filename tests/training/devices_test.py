"""The same numbers on 1, 2, 4 and 8 devices, in every layout."""

import functools
import itertools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import absltest, parameterized

from bn_jax.experiment import cost
from bn_jax.training import devices as devices_lib
from tests.fixtures import (
  strict,  # noqa: F401
  toys,
)
from tests.fixtures.layouts import (
  BATCH,
  EXAMPLES,
  LAYOUTS,
  NORMS,
  OTHER_STATISTICS,
  assert_equal,
  make,
  ready,
)


def setUpModule():
  # What is compared does not hang on optimization; compiling takes the time.
  jax.config.update('jax_disable_most_optimizations', True)


def tearDownModule():
  jax.config.update('jax_disable_most_optimizations', False)


def trained(norm, layout='jit', devices=1, *, dtype='float32', **keywords):
  """What training is after one step, its gradients in it, and after five."""
  with jax.enable_x64(dtype == 'float64'):
    step, state, split = ready(
      norm, layout, devices, dtype=jnp.dtype(dtype), **keywords
    )
    state = step(state, split)
    first = jax.device_get(state)
    for _ in range(4):
      state = step(state, split)
    return first, jax.device_get(state)


@functools.cache
def alone(norm, dtype='float32', seed=0):
  """The same on one device."""
  norms = {**NORMS, **OTHER_STATISTICS}
  return trained(norms[norm], dtype=dtype, seed=seed)


class LayoutsTest(parameterized.TestCase):
  def compare(self, norm, layout, devices, dtype, tolerance, seed=0):
    want = alone(norm, dtype, seed)
    got = trained(
      {**NORMS, **OTHER_STATISTICS}[norm],
      layout,
      devices,
      dtype=dtype,
      seed=seed,
    )
    for a, b in zip(got, want):
      self.assertTrue(a.finite)
      assert_equal(a, b, tolerance)

  @parameterized.parameters(*zip(NORMS, itertools.cycle(LAYOUTS)))
  def test_eight_devices_in_float64(self, norm, layout):
    self.compare(norm, layout, 8, 'float64', 1e-9)

  @pytest.mark.slow  # one of those below
  def test_fewer_devices_in_float64(self):
    self.compare('noisy', 'pmap', 4, 'float64', 1e-9)

  @parameterized.product(norm=tuple(OTHER_STATISTICS), layout=LAYOUTS)
  @pytest.mark.slow  # some seconds each
  def test_other_statistics(self, norm, layout):
    self.compare(norm, layout, 8, 'float64', 1e-9)

  @parameterized.product(
    norm=tuple(NORMS), layout=LAYOUTS, devices=(1, 2, 4, 8),
    precision=(('float64', 1e-9), ('float32', 1e-4)),
  )  # fmt: skip
  @pytest.mark.slow
  def test_all_of_it(self, norm, layout, devices, precision):
    self.compare(norm, layout, devices, *precision, seed=1)

  @pytest.mark.slow  # float64 says more
  def test_eight_devices_in_float32(self):
    # With seed 0 an input of the ReLU is 5e-8: rounding takes it across.
    self.compare('noisy', 'shard_map', 8, 'float32', 1e-4, seed=1)

  def test_the_cases_are_four_networks(self):
    """Or equality of layouts would say little about each."""
    kernels = [
      alone(norm, 'float64')[1].params['conv1']['kernel'] for norm in NORMS
    ]
    for i, one in enumerate(kernels):
      for other in kernels[:i]:
        self.assertGreater(np.abs(one - other).max(), 1e-3)

  def test_a_group_is_the_whole_batch_or_lies_in_a_device(self):
    self.check_group('shard_map')

  @parameterized.parameters('jit', 'pmap')
  @pytest.mark.slow
  def test_so_in_the_other_layouts(self, layout):
    self.check_group(layout)

  def check_group(self, layout):
    whole = dict(name='batch', group_size=BATCH)
    with jax.enable_x64(True):
      step, state, split = ready(whole, layout, 4, dtype=jnp.dtype('float64'))
      first = jax.device_get(step(state, split))
    assert_equal(first, alone('batch', 'float64')[0], 1e-9)
    if layout == 'jit':
      return
    across = dict(name='batch', group_size=8)  # a device has four
    step, state, split = ready(across, layout, 4)
    with self.assertRaisesRegex(ValueError, 'one of 4 devices holds'):
      step.trace(state, split)


class MicroBatchesTest(parameterized.TestCase):
  @parameterized.parameters(
    ('batch', 'jit', 1), ('noisy', 'jit', 4), ('noisy', 'shard_map', 4),
  )  # fmt: skip
  @pytest.mark.slow  # compiles two steps
  def test_each_is_a_statistics_group(self, norm, layout, devices):
    """Whose gradients are averaged, and whose statistics enter once a step."""
    want = trained(dict(name=norm, group_size=4), dtype='float64')
    got = trained(
      dict(name=norm), layout, devices, dtype='float64', micro_batches=4
    )
    for a, b in zip(got, want):
      assert_equal(a, b, 1e-9)


class MemoryTest(parameterized.TestCase):
  def test_recomputing_changes_nothing(self):
    self.check_recomputing('shard_map', 8)

  @pytest.mark.slow  # compiles a step
  def test_so_on_one_device(self):
    self.check_recomputing('jit', 1)

  def check_recomputing(self, layout, devices):
    got = trained(NORMS['noisy'], layout, devices, dtype='float64', remat=True)
    for a, b in zip(got, alone('noisy', 'float64')):
      assert_equal(a, b, 1e-9)

  def test_recomputing_keeps_products_and_statistics(self):
    """Nothing is multiplied twice, and no device is asked twice."""
    plans, maxima = [], []
    for remat in (False, True):
      step, state, split = ready(NORMS['batch'], 'jit', 8, remat=remat)
      traced = step.trace(state, split)
      plans.append(cost.of(traced, state.params, 8))
      maxima.append(str(traced.jaxpr).count(' = max '))
    self.assertEqual(plans[0].flops, plans[1].flops)
    sizes = [sorted(c.sizes for c in found.collectives) for found in plans]
    self.assertEqual(*sizes)
    self.assertGreater(maxima[1], maxima[0])  # the ReLU is

  def test_a_sharded_state_is_the_same(self):
    self.enterContext(mock.patch.object(devices_lib, '_SMALLEST_SHARDED', 8))
    got = trained(NORMS['noisy'], devices=4, dtype='float64', shard_state=True)
    for a, b in zip(got, alone('noisy', 'float64')):
      assert_equal(a, b, 1e-9)

  def test_large_arrays_are_shared_out_and_small_ones_are_not(self):
    mesh = devices_lib.mesh(8)
    shape = lambda *sizes: jax.ShapeDtypeStruct(sizes, jnp.float32)
    state = make(NORMS['none'], devices_lib.in_sight(mesh)).init(0)
    params = {
      'large': shape(512, 4096), 'odd': shape(511, 511), 'small': shape(64),
    }  # fmt: skip
    state = state._replace(params=params, opt_state=(params,))
    for shard_state in (False, True):
      placed = devices_lib.placement(state, mesh, shard_state=shard_state)
      for found in (placed.params, placed.opt_state[0]):
        self.assertEqual(
          {name: tuple(place.spec) for name, place in found.items()},
          {
            'large': (None, 'data') if shard_state else (),
            'odd': (),
            'small': (),
          },
        )
      self.assertEqual(tuple(placed.order.permutation.spec), ())


class PrecisionTest(absltest.TestCase):
  def test_bfloat16_products_and_float32_everything_else(self):
    mesh = devices_lib.mesh(1)
    spread = devices_lib.spread('jit', mesh)
    made = make(NORMS['batch'], spread, jnp.bfloat16)
    state = made.init(0)
    text = str(jax.make_jaxpr(made.step)(state, toys.split(EXAMPLES)))
    products = [line for line in text.splitlines() if 'dot_general' in line]
    self.assertNotEmpty(products)
    for line in products:
      self.assertIn('bf16', line.split('=')[0])
    after = jax.jit(made.step)(state, toys.split(EXAMPLES))
    dtypes = lambda tree: {leaf.dtype for leaf in jax.tree.leaves(tree)}
    for tree in (after.params, after.batch_stats, after.opt_state):
      self.assertLessEqual(
        dtypes(tree), {jnp.dtype('float32'), jnp.dtype('int32')}
      )
    want = alone('batch')[0]
    assert_equal(after.ring['objective'][:1], want.ring['objective'][:1], 0.02)
    self.assertNotEqual(after.ring['objective'][0], want.ring['objective'][0])


class MeshTest(absltest.TestCase):
  def test_as_many_as_there_are(self):
    self.assertEqual(devices_lib.mesh(3).size, 3)
    for count in (0, 9):
      with self.assertRaisesRegex(
        ValueError, f'devices is {count}; allowed: 1 to 8'
      ):
        devices_lib.mesh(count)

  def test_unknown_layout(self):
    with self.assertRaisesRegex(ValueError, 'known: jit, pmap, shard_map'):
      devices_lib.spread('vmap', devices_lib.mesh(1))


if __name__ == '__main__':
  absltest.main()
