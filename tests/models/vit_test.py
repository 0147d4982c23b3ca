import math

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from bn_jax import models, norms
from bn_jax.models import vit
from tests.fixtures import (
  models_small,
  strict,  # noqa: F401
)


def setUpModule():
  # Numbers hang little on optimization, compiling takes the time.
  jax.config.update('jax_disable_most_optimizations', True)


def tearDownModule():
  jax.config.update('jax_disable_most_optimizations', False)


def dense(params, x):
  return x @ np.float64(params['kernel']) + np.float64(params['bias'])


def normed(params, x):
  """Layer normalization of each patch."""
  x = x - x.mean(axis=-1, keepdims=True)
  x = x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-5)
  return x * np.float64(params['scale']) + np.float64(params['bias'])


def gelu(x):
  return x * (1 + np.vectorize(math.erf)(x / np.sqrt(2))) / 2


def attended(qkv, heads):
  q, k, v = (
    part.reshape(*part.shape[:2], heads, -1).swapaxes(1, 2)
    for part in np.split(qkv, 3, axis=-1)
  )  # [N, heads, T, D]
  logits = q @ k.swapaxes(2, 3) / np.sqrt(q.shape[-1])
  weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
  y = (weights / weights.sum(axis=-1, keepdims=True)) @ v
  return y.swapaxes(1, 2).reshape(*qkv.shape[:2], -1)


def by_hand(params, x, side, heads, depth):
  """The formulas of the file's docstring, in float64."""
  count, height, width, _ = x.shape
  x = np.stack(
    [
      x[:, i : i + side, j : j + side].reshape(count, -1)
      for i in range(0, height, side)
      for j in range(0, width, side)
    ],
    axis=1,
  )
  x = dense(params['patches'], x)
  x = x + vit._positions((height // side, width // side), x.shape[-1])
  for k in range(depth):
    own = params[f'block{k + 1}']
    y = dense(own['qkv'], normed(own['qkv_norm'], x))
    x = x + dense(own['out'], attended(y, heads))
    y = gelu(dense(own['mlp1'], normed(own['mlp1_norm'], x)))
    x = x + dense(own['mlp2'], y)
  x = normed(params['logits_norm'], x).mean(axis=1)
  return dense(params['logits'], x)


class ViTTest(parameterized.TestCase):
  def test_equals_numpy(self):
    keywords, shape = models_small.SMALL['vit_tiny']
    norm = norms.make('layer', per='position')
    network = models.make('vit_tiny', num_classes=7, norm=norm, **keywords)
    variables = models_small.variables(network, shape)
    x = models_small.inputs(shape)
    want = by_hand(
      variables['params'], np.float64(x), keywords['patch'],
      keywords['heads'], keywords['depth'],
    )  # fmt: skip
    got = network.apply(variables, x, statistics='running')
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)

  @parameterized.parameters(
    ('none', {}, 2_675_914), ('batch', {}, 2_680_906),
    ('batch', dict(width=48, depth=2, patch=2), 57_754),
  )  # fmt: skip
  def test_parameters(self, norm, keywords, parameters):
    """Twelve width^2 a block, and biases; two numbers a channel and norm."""
    network = models.make('vit_tiny', num_classes=10, norm=norm, **keywords)
    rows = models.summarize(network, (32, 32, 3))
    width, depth = keywords.get('width', 192), keywords.get('depth', 6)
    inputs = 3 * keywords.get('patch', 4) ** 2
    count = depth * (12 * width**2 + 9 * width)
    count += (inputs + 1) * width + (width + 1) * 10
    count += 2 * width * (2 * depth + 1) if norm == 'batch' else 0
    self.assertEqual(sum(row.parameters for row in rows), count)
    self.assertEqual(count, parameters)

  def test_positions_are_told_apart(self):
    """Without them the order of the patches would not matter."""
    positions = vit._positions((8, 8), 16)
    self.assertEqual(positions.shape, (64, 16))
    # Of row 3 and column 5, sines and cosines of wave lengths that grow evenly
    # in their logarithm, from 2 pi to 2 pi * 10,000.
    angles = np.outer([3, 5], [1, 1 / 21.544347, 1 / 464.15888, 1e-4])
    want = np.concatenate([np.sin(angles), np.cos(angles)], axis=1).ravel()
    np.testing.assert_allclose(positions[8 * 3 + 5], want, rtol=1e-6)
    distance = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
    self.assertGreater(distance[~np.eye(64, dtype=bool)].min(), 0.3)
    # Neighbours are nearer to each other than the corners of the image.
    self.assertLess(distance[0, 1], distance[0, 63])
    np.testing.assert_allclose(distance[0, 1], distance[0, 8])

  def test_batch_statistics_are_over_the_patches_of_all_examples(self):
    network, shape = models_small.make('vit_tiny', 'batch')
    x = models_small.inputs(shape, 16)
    _, seen = network.apply(
      models_small.variables(network, shape) | {'batch_stats': {}}, x,
      statistics='batch', capture_intermediates=True, mutable=True,
    )  # fmt: skip
    y = seen['intermediates']['block1']['qkv_norm']['__call__'][0]
    params = seen['params']['block1']['qkv_norm']
    y = (y - params['bias'][None, None]) / params['scale'][None, None]
    self.assertEqual(y.shape, (16, 4, 8))
    np.testing.assert_allclose(y.mean(axis=(0, 1)), 0, atol=1e-5)
    np.testing.assert_allclose(y.var(axis=(0, 1)), 1, atol=1e-3)

  def test_the_network_ends_with_a_mean_in_float32(self):
    x = jnp.full((1, 4096, 1), 1, jnp.bfloat16).at[:, :2048].set(3)
    self.assertEqual(vit.Mean().apply({}, x).item(), 2)

  @parameterized.parameters(
    (dict(width=10), 'width is 10; allowed: a multiple of 4'),
    (dict(width=8, heads=3), 'heads is 3; allowed: None, or what divides 8'),
    (dict(depth=0), 'depth is 0'),
    (dict(patch=0), 'patch is 0'),
  )
  def test_refuses(self, keywords, message):
    with self.assertRaisesRegex(ValueError, message):
      models.make('vit_tiny', num_classes=2, **keywords)

  def test_refuses_parts_of_patches(self):
    network = models.make('vit_tiny', num_classes=2, patch=4)
    with self.assertRaisesRegex(
      ValueError, '8 x 6 pixels has no whole patches of 4 x 4; allowed: sides'
    ):
      models.summarize(network, (8, 6, 1))


if __name__ == '__main__':
  absltest.main()
