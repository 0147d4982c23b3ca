"""Measures on several devices, and masks that differ between them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import absltest, parameterized

from bn_jax import analysis, norms, placement, types
from bn_jax.data.batches import in_memory
from bn_jax.training import devices as devices_lib
from tests.fixtures import (
  layouts,
  strict,  # noqa: F401
  toys,
)


def setUpModule():
  # What is compared does not hang on optimization; compiling takes the time.
  jax.config.update('jax_disable_most_optimizations', True)


def tearDownModule():
  jax.config.update('jax_disable_most_optimizations', False)


MASK = np.array([0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 1, 0, 1, 1, 0, 1], bool)


@functools.cache
def placed(devices):
  """(problem, state, split, mesh) of a noisy network, as measures see it.

  In float64; the same, compiled once, for all tests.
  """
  mesh = devices_lib.mesh(devices)
  made = layouts.make(
    layouts.NORMS['noisy'],
    devices_lib.in_sight(mesh),
    jnp.float64,
  )
  whole = devices_lib.whole(mesh)
  state = jax.device_put(layouts.widened(made.init(0)), whole)
  split = jax.device_put(toys.split(layouts.EXAMPLES), whole)
  return made, state, split, mesh


class MeasuresTest(parameterized.TestCase):
  @parameterized.parameters(
    ('evaluation', {}, False), ('covariate_shift', {}, True),
    # Two chunks of eight examples.
    ('along_gradient', {
      'statistics': 'running', 'chunk_size': 8, 'per_layer': True,
      'curvature': True,
    }, True),
    ('activations', {}, True),
  )  # fmt: skip
  def test_eight_devices_see_what_one_sees(self, name, keywords, current):
    self.compare(name, keywords, current)

  @parameterized.parameters(
    ('along_gradient', {}, True), ('signal', {}, True),
    ('along_gradient', {'spread': 'points'}, True),
    ('along_gradient', {'spread': 'points', 'step_factors': (0.5, 1, 2)}, True),
    ('one_step_loss', {}, True), ('weights', {}, True),
    ('sharpness', {'radii': (0.1,), 'ascent_steps': 2}, True),
    ('sharpness', {'case': 'average', 'adaptive': True}, True),
    ('activations', {'statistics': 'running'}, False),
  )  # fmt: skip
  @pytest.mark.slow
  def test_so_do_the_others(self, name, keywords, current):
    self.compare(name, keywords, current)

  def compare(self, name, keywords, current):
    with jax.enable_x64(True):
      seen = []
      for devices in (1, 8):
        made, state, split, mesh = placed(devices)
        measure = analysis.make(name, **keywords)
        # 15 do not divide over 8 devices, 16 do.
        batches = (
          (made.batch(state, split),)
          if current
          else [
            devices_lib.laid(batch, mesh)
            for size in (15, 16)
            for batch in in_memory.padded_batches(split, batch_size=size)
          ]
        )
        seen.append(measure(made, state, batches))
      one, eight = seen
      self.assertEqual(one.keys(), eight.keys())
      for key in one:
        np.testing.assert_allclose(
          eight[key], one[key], rtol=1e-9, atol=1e-12, err_msg=key
        )

  def test_points_are_spread(self):
    """Two rounds over eight devices for nine points, in their order."""
    loss, params, *_ = toys.quadratic()
    sizes = np.linspace(0.1, 0.9, 9)
    want = analysis.along_gradient(loss, params, sizes)
    got = analysis.along_gradient(loss, params, sizes, devices=jax.devices())
    for key in want:
      np.testing.assert_allclose(got[key], want[key], rtol=1e-5, err_msg=key)

  def test_refuses_an_unknown_spread(self):
    with self.assertRaisesRegex(ValueError, 'allowed: batch, points'):
      analysis.make('along_gradient', spread='examples')

  def test_batches_are_cut_where_they_divide(self):
    mesh = devices_lib.mesh(8)
    split = toys.split(40)
    for size, whole in ((16, False), (15, True)):
      batch = devices_lib.laid(in_memory.first(split, size), mesh)
      self.assertEqual(batch.images.sharding.is_fully_replicated, whole)


class MaskedObjectiveTest(absltest.TestCase):
  @pytest.mark.slow  # compiles on four devices
  def test_devices_with_different_numbers_of_real_examples(self):
    """Mean over devices of objectives and gradients: those of the batch."""
    with jax.enable_x64(True):
      mesh = devices_lib.mesh(4)
      images = jax.random.normal(jax.random.key(1), (16, 4, 4, 1), jnp.float64)
      labels = jnp.arange(16, dtype=jnp.int32) % 3
      batch = types.Batch(images, labels, jnp.asarray(MASK))
      norm = layouts.NORMS['batch']
      key = jax.random.key(2)
      _, state, _ = layouts.ready(norm, 'jit', 1)
      state = jax.device_get(state)

      def gradient_of(layout, count, batch, first):
        spread = devices_lib.spread(layout, devices_lib.mesh(count))
        made = layouts.make(norm, spread, jnp.float64)
        (value, aux), gradient = jax.value_and_grad(
          made.objective, has_aux=True
        )(state.params, state.batch_stats, batch, key, first)
        aux['objective'] = value
        return spread.mean((gradient, aux))

      def on_a_device(batch):
        first = jax.lax.axis_index(devices_lib.AXIS) * 4
        return gradient_of('shard_map', 4, batch, first)

      got = jax.jit(
        jax.shard_map(
          on_a_device,
          mesh=mesh,
          in_specs=devices_lib.cut(mesh).spec,
          out_specs=devices_lib.whole(mesh).spec,
          check_vma=False,
        )
      )(batch)
      want = gradient_of('jit', 1, batch, 0)
      layouts.assert_equal(got, jax.device_get(want), 1e-9)


class TrapsTest(parameterized.TestCase):
  """What docs/devices.md says of gradients by hand: d/dw mean(w x) is 3.5."""

  @parameterized.parameters(
    (True, 'mean of gradients', 14.0), (False, 'mean of gradients', 3.5),
    (True, 'gradient of mean', 3.5), (False, 'gradient of mean', 0.5),
  )  # fmt: skip
  def test_shard_map(self, check_vma, kind, want):
    mesh = devices_lib.mesh(4)
    mean = lambda x: jax.lax.pmean(x, devices_lib.AXIS)

    def of_part(w, x):
      loss = lambda w: (w * x).mean()
      if kind == 'mean of gradients':
        return mean(jax.grad(loss)(w))
      return jax.grad(lambda w: mean(loss(w)))(w)

    got = jax.shard_map(
      of_part,
      mesh=mesh,
      in_specs=(devices_lib.whole(mesh).spec, devices_lib.cut(mesh).spec),
      out_specs=devices_lib.whole(mesh).spec,
      check_vma=check_vma,
    )(jnp.float32(1), jnp.arange(8.0))
    self.assertAlmostEqual(float(got), want)

  def test_one_key_draws_the_same_on_every_device(self):
    mesh = devices_lib.mesh(4)

    def drawn(function):
      whole, cut = devices_lib.whole(mesh).spec, devices_lib.cut(mesh).spec
      return np.asarray(
        jax.jit(
          jax.shard_map(
            function, mesh=mesh, in_specs=(whole, cut), out_specs=cut,
            check_vma=False,
          )
        )(jax.random.key(0), jnp.zeros((8, 50)))
      )  # fmt: skip

    naive = drawn(lambda key, x: x + jax.random.normal(key, x.shape))
    self.assertLen(np.unique(naive), 100)  # of 400 numbers
    apart = placement.Spread(4, devices_lib.AXIS)
    ours = drawn(lambda key, x: norms.add_noise(x, key, first=apart.first(8)))
    self.assertGreater(len(np.unique(ours)), 390)

  def test_moments_of_a_device_are_not_those_of_the_batch(self):
    """Sorted examples, as a data set on disk has them: 8 devices, 4 each."""
    x = jnp.repeat(jnp.arange(8.0), 4).reshape(32, 1)
    of_one = norms.moments(x, group_size=4)
    of_all = norms.moments(x)
    self.assertEqual(float(of_one.var.max()), 0.0)
    self.assertAlmostEqual(float(of_all.var[0, 0]), 5.25, places=5)


if __name__ == '__main__':
  absltest.main()
