import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from bn_jax import models
from tests.fixtures import (
  models_small,
  strict,  # noqa: F401
)


def count(module, shape):
  return sum(row.parameters for row in models.summarize(module, shape))


def setUpModule():
  # Numbers hang little on optimization, compiling takes the time.
  jax.config.update('jax_disable_most_optimizations', True)


def tearDownModule():
  jax.config.update('jax_disable_most_optimizations', False)


class MLPTest(parameterized.TestCase):
  @parameterized.parameters(('none', 99_710), ('batch', 100_010))
  def test_parameters_of_the_paper(self, norm, parameters):
    module = models.make('mlp', num_classes=10, norm=norm)
    self.assertEqual(count(module, (28, 28, 1)), parameters)
    self.assertEqual(count(module, (28 * 28,)), parameters)

  @parameterized.parameters(
    ('sigmoid', lambda x: 1 / (1 + np.exp(-x))),
    ('relu', lambda x: np.maximum(x, 0)),
    ('tanh', np.tanh),
  )
  def test_equals_numpy(self, activation, function):
    module = models.make(
      'mlp', num_classes=3, hidden=(5, 4), activation=activation
    )
    shape = (2, 3, 2)
    variables = models_small.variables(module, shape)
    x = models_small.inputs(shape)
    want = np.float64(x).reshape(4, -1)
    for name in ('dense1', 'dense2', 'logits'):
      own = variables['params'][name]
      want = want @ np.float64(own['kernel']) + np.float64(own['bias'])
      want = want if name == 'logits' else function(want)
    got = module.apply(variables, x, statistics='running')
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)

  def test_norms_stand_before_the_nonlinearities(self):
    module = models.make('mlp', num_classes=3, norm='batch', hidden=(50, 5))
    x = models_small.inputs((20,), 16)
    variables = jax.jit(module.init, static_argnames='statistics')(
      jax.random.key(0), x, statistics='running'
    )
    _, seen = module.apply(
      variables, x, statistics='batch', capture_intermediates=True, mutable=True
    )
    self.assertNotIn('logits_norm', variables['params'])
    for layer, path in models.taps(module):
      normed = seen['intermediates'][path]['__call__'][0]
      np.testing.assert_allclose(normed.mean(axis=0), 0, atol=1e-5)
      np.testing.assert_allclose(normed.var(axis=0), 1, atol=0.01)
      self.assertNotIn('bias', variables['params'][layer])

  @parameterized.parameters(0.1, 0.02)
  def test_initial_weights_are_gaussian(self, std):
    module = models.make('mlp', num_classes=10, initial_std=std)
    x = jnp.zeros((1, 784))
    kernel = module.init(jax.random.key(1), x, statistics='running')['params'][
      'dense1'
    ]['kernel']
    # 78,400 of them: the standard deviation of both figures is 0.3 and 1 %.
    self.assertAlmostEqual(float(kernel.std()) / std, 1, delta=0.015)
    self.assertAlmostEqual(float((kernel**4).mean()) / std**4, 3, delta=0.15)

  def test_initial_weights_of_glorot(self):
    module = models.make('mlp', num_classes=10, initial_std=None)
    x = jnp.zeros((1, 784))
    params = module.init(jax.random.key(1), x, statistics='running')['params']
    largest = (6 / (784 + 100)) ** 0.5
    kernel = params['dense1']['kernel']
    self.assertLessEqual(float(jnp.abs(kernel).max()), largest)
    self.assertGreater(float(jnp.abs(kernel).max()), 0.99 * largest)


if __name__ == '__main__':
  absltest.main()
