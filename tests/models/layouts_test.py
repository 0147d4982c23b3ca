"""Every network trains the same on any device, and with less kept or exact."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import absltest, parameterized

from bn_jax import losses, models, norms, optim, types
from bn_jax.data.batches import order
from bn_jax.training import devices as devices_lib
from bn_jax.training import problem
from tests.fixtures import (
  models_small,
  strict,  # noqa: F401
)

BATCH = 8
CHEAP = ('mlp', 'deep_linear')
OTHERS = ('bn_inception', 'inception', 'resnet20', 'resnet50', 'vgg11')


def setUpModule():
  # What is compared does not hang on optimization; compiling takes the time.
  jax.config.update('jax_disable_most_optimizations', True)


def tearDownModule():
  jax.config.update('jax_disable_most_optimizations', False)


def split(shape):
  images = models_small.inputs(shape, examples=2 * BATCH)
  channels = shape[-1]
  return types.Split(
    images,
    jnp.arange(2 * BATCH) % 7,
    jnp.zeros(channels),
    jnp.ones(channels),
  )


def trained(name, layout='jit', devices=1, dtype='float64', remat=False):
  """Parameters, statistics and metrics after two steps.

  In float64: a deep network makes rounding larger with every layer.
  """
  with jax.enable_x64(dtype == 'float64'):
    return _trained(name, layout, devices, dtype, remat)


def widened(tree):
  """float32 as float64, if that is switched on."""
  if not jax.config.jax_enable_x64:
    return tree
  wide = lambda x: x.astype('float64') if x.dtype == 'float32' else x
  return jax.tree.map(wide, tree)


def _trained(name, layout, devices, dtype, remat):
  mesh = devices_lib.mesh(devices)
  spread = devices_lib.spread(layout, mesh)
  module, shape = models_small.make(name, norms.make('batch', spread=spread))
  made = problem.make(
    module,
    optim.sgd(optim.constant(learning_rate=0.01)),
    sampler=order.sampler(num_examples=2 * BATCH, batch_size=BATCH),
    penalty=optim.weight_decay(weight_decay=0.0),
    image_shape=shape,
    layers=models.layers,
    taps=models.taps(module),
    loss=losses.cross_entropy(),
    ring_size=2,
    spread=spread,
    compute_dtype=jnp.dtype(dtype),
    remat=remat,
  )
  state = widened(made.init(0))
  placement = devices_lib.placement(state, mesh, shard_state=False)
  step = devices_lib.step(layout, made.step, mesh, placement)
  state = jax.device_put(state, placement)
  data = jax.device_put(widened(split(shape)), devices_lib.whole(mesh))
  for _ in range(2):
    state = step(state, data)
  return jax.device_get((state.params, state.batch_stats, state.ring))


@functools.cache
def alone(name, dtype='float64'):
  return trained(name, dtype=dtype)


class LayoutsTest(parameterized.TestCase):
  @parameterized.parameters(('mlp', 'pmap', 4), ('deep_linear', 'shard_map', 2))
  def test_layouts(self, name, *where):
    self.assert_close(trained(name, *where), alone(name))

  @parameterized.product(
    name=(*CHEAP, *OTHERS),
    where=(('jit', 4), ('pmap', 4), ('shard_map', 4)),
  )
  @pytest.mark.slow
  def test_layouts_of_every_network(self, name, where):
    self.assert_close(trained(name, *where), alone(name))

  @parameterized.parameters(*CHEAP)
  def test_recomputing_changes_nothing(self, name):
    self.assert_close(trained(name, remat=True), alone(name))

  @parameterized.parameters(*OTHERS)
  @pytest.mark.slow
  def test_recomputing_changes_nothing_in_deep_networks(self, name):
    self.assert_close(trained(name, remat=True), alone(name))

  @parameterized.parameters(*CHEAP)
  def test_bfloat16(self, name):
    self.assert_near(name)

  @parameterized.parameters(*OTHERS)
  @pytest.mark.slow
  def test_bfloat16_of_deep_networks(self, name):
    self.assert_near(name)

  def assert_near(self, name):
    """Eight bits of products; the first loss is nearly that of float32."""
    params, batch_stats, ring = trained(name, dtype='bfloat16')
    for leaf in jax.tree.leaves((params, batch_stats)):
      self.assertEqual(leaf.dtype, np.float32)
      self.assertTrue(np.isfinite(leaf).all())
    want = alone(name, 'float32')[2]['data_loss'][0]
    self.assertNotEqual(ring['data_loss'][0], want)
    self.assertAlmostEqual(ring['data_loss'][0], want, delta=0.1 * want)

  def assert_close(self, got, want):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
      error = np.abs(np.float64(a) - b).max() / max(np.abs(b).max(), 1e-3)
      self.assertLess(error, 1e-7)


if __name__ == '__main__':
  absltest.main()
