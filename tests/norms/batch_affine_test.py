"""`affine` and `bias_before` of Batch Normalization: section 2 of its paper."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from bn_jax import errors, models, norms
from bn_jax.config import build, defaults, resolve
from tests.fixtures import (
  same_bits,
  strict,  # noqa: F401
)

_X = jnp.asarray(np.random.default_rng(0).normal(size=(12, 3)), jnp.float32)


def applied(variables, statistics='batch', **keywords):
  layer = norms.make('batch', **keywords).layer(None)
  y, _ = layer.apply(
    variables, _X, statistics=statistics, mutable=['batch_stats']
  )
  return y


class AffineTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    layer = norms.make('batch').layer(None)
    made = layer.init(jax.random.key(0), _X, statistics='batch')
    params = {
      'scale': jnp.array([1.0, 2.0, 3.0]),
      'bias': jnp.array([0.5, 0.0, -1.0]),
    }
    self.variables = {**made, 'params': params}

  def gradient(self, statistics, **keywords):
    def loss(params):
      variables = {**self.variables, 'params': params}
      return jnp.sum(jnp.sin(applied(variables, statistics, **keywords)))

    return jax.grad(loss)(self.variables['params'])

  @parameterized.parameters('batch', 'running')
  def test_without_no_gradient_comes_to_scale_and_bias(self, statistics):
    for leaf in jax.tree.leaves(self.gradient(statistics, affine=False)):
      np.testing.assert_array_equal(leaf, 0)
    for leaf in jax.tree.leaves(self.gradient(statistics)):
      self.assertGreater(float(jnp.abs(leaf).max()), 0.01)

  @parameterized.parameters('batch', 'running')
  def test_changes_no_value(self, statistics):
    same_bits.assert_same(
      applied(self.variables, statistics, affine=False),
      applied(self.variables, statistics),
    )

  @parameterized.parameters(
    (dict(affine=1), 'affine is 1; allowed: True, False'),
    (dict(bias_before='yes'), "bias_before is 'yes'; allowed: True, False"),
  )
  def test_refuses(self, keywords, message):
    with self.assertRaisesRegex(ValueError, message):
      norms.make('batch', **keywords)


class PenaltyTest(parameterized.TestCase):
  @parameterized.parameters(('affine', False), ('frozen', True))
  def test_on_all_parameters_would_move_what_is_to_stay(self, key, value):
    config = defaults.get_config()
    config.runs = defaults.runs(one=dict(norm={'name': 'batch', key: value}))
    config.model = dict(name='mlp', hidden=(4,))
    config.weight_decay = 0.1
    config.measures = {}
    run = resolve.experiment(config.to_dict(), {}).runs['one']
    build.problem(run)
    with self.assertRaisesRegex(errors.ConfigError, f'norm.{key}={value}: '):
      build.problem(run.replace(weight_decay_on='all'))


class BiasBeforeTest(parameterized.TestCase):
  @parameterized.parameters(
    (dict(), False),
    (dict(bias_before=True), True),
    (dict(stop_statistics_gradient=True), True),
    (dict(stop_statistics_gradient=True, bias_before=False), False),
  )
  def test_a_layer_before_it_has_a_bias_or_none(self, keywords, has_bias):
    norm = norms.make('batch', **keywords)
    network = models.make('mlp', num_classes=2, hidden=(4,), norm=norm)
    x = jnp.ones((3, 5, 5, 1))
    made = jax.eval_shape(
      lambda: network.init(jax.random.key(0), x, statistics='batch')
    )
    self.assertEqual('bias' in made['params']['dense1'], has_bias)

  @parameterized.parameters((False, 0.0), (True, 0.1))
  def test_its_gradient_is_zero_unless_the_statistics_are_constants(
    self, stopped, least
  ):
    """Section 2 of the paper: for x = u + b, d loss / d b = sum of dy."""
    norm = norms.make('batch', bias_before=True,
                      stop_statistics_gradient=stopped)  # fmt: skip
    network = models.make('mlp', num_classes=2, hidden=(4,), norm=norm)
    x = jax.random.normal(jax.random.key(1), (9, 5, 5, 1))
    variables = network.init(jax.random.key(0), x, statistics='batch')

    def loss(params):
      y, _ = network.apply(
        {**variables, 'params': params}, x, statistics='batch',
        mutable=['batch_stats'],
      )  # fmt: skip
      return jnp.sum(jax.nn.log_softmax(y)[:, 0])

    bias = jax.jit(jax.grad(loss))(variables['params'])['dense1']['bias']
    size = float(jnp.abs(bias).max())
    if stopped:
      self.assertGreater(size, least)
    else:
      self.assertLess(size, 1e-5)


if __name__ == '__main__':
  absltest.main()
