import functools

import jax
import numpy as np
from absl.testing import absltest, parameterized

from bn_jax import models
from tests.fixtures import (
  models_small,
  same_bits,
  strict,  # noqa: F401
)


def made(norm='none', shape=(10,), **keywords):
  """(module, variables)."""
  module = models.make('deep_linear', num_classes=10, norm=norm, **keywords)
  return module, models_small.variables(module, shape)


def count(variables):
  return sum(leaf.size for leaf in jax.tree.leaves(variables['params']))


class DeepLinearTest(parameterized.TestCase):
  @parameterized.parameters(
    # 25 matrices; 24 norms, 25 with the last; biases where no norm is.
    (dict(), 25 * 100),
    (dict(bias=True), 25 * 110),
    (dict(norm='batch'), 25 * 100 + 24 * 20),
    (dict(norm='batch', norm_last=True), 25 * 100 + 25 * 20),
    (dict(norm='batch', bias=True), 25 * 100 + 24 * 20 + 10),
    (dict(norm='batch', bias=True, norm_last=True), 25 * 100 + 25 * 20),
    (dict(norm='layer', bias=True, norm_last=True), 25 * 110 + 25 * 20),
    (dict(depth=1, features=3), 100),
    (dict(depth=2, features=3), 30 + 30),
  )
  def test_parameters(self, keywords, parameters):
    self.assertEqual(count(made(**keywords)[1]), parameters)

  def test_layers_of_the_paper(self):
    module, variables = made()
    rows = models.summarize(module, (10,))
    self.assertEqual(
      [(row.name, row.kernel) for row in rows],
      [(f'linear{i}', (10, 10)) for i in range(1, 26)],
    )
    self.assertEqual(
      [name for name, _ in models.layers(module, variables)],
      [row.name for row in rows],
    )

  @parameterized.parameters(False, True)
  def test_taps(self, norm_last):
    module, variables = made('batch', norm_last=norm_last)
    taps = models.taps(module)
    self.assertLen(taps, 25 if norm_last else 24)
    self.assertEqual(
      taps[-1], (f'linear{len(taps)}', f'linear{len(taps)}_norm')
    )
    self.assertIn(taps[-1][1], variables['params'])
    self.assertEqual('linear25_norm' in variables['params'], norm_last)

  def test_is_a_product_of_matrices(self):
    module, variables = made()
    x = models_small.inputs((10,))
    kernels = [
      np.float64(variables['params'][f'linear{i}']['kernel'])
      for i in range(1, 26)
    ]
    want = functools.reduce(np.matmul, kernels, np.float64(x))
    got = module.apply(variables, x, statistics='running')
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-4)

  def test_every_layer_is_normalised(self):
    module, variables = made('batch', depth=3)
    x = models_small.inputs((10,), 20)
    _, seen = module.apply(
      variables, x, statistics='batch', capture_intermediates=True, mutable=True
    )
    for layer, path in models.taps(module):
      own = variables['params'][path]
      normed = seen['intermediates'][path]['__call__'][0]
      np.testing.assert_allclose(normed.mean(axis=0), own['bias'], atol=1e-4)
      np.testing.assert_allclose(
        normed.std(axis=0), own['scale'], rtol=0.01, atol=0.01
      )
      self.assertNotIn('bias', variables['params'][layer])

  def test_images_are_flattened(self):
    module, variables = made(shape=(5, 2, 1))
    x = models_small.inputs((5, 2, 1))
    same_bits.assert_same(
      module.apply(variables, x, statistics='running'),
      module.apply(variables, x.reshape(4, 10), statistics='running'),
    )


if __name__ == '__main__':
  absltest.main()
