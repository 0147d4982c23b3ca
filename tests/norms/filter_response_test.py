"""Filter response normalization and its unit, against formula and laws."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from bn_jax import norms
from tests.fixtures import (
  models_small,
  strict,  # noqa: F401
)

SCALE, BIAS = np.random.default_rng(1).normal(size=(2, 5))
PARAMS = {'scale': np.float32(SCALE), 'bias': np.float32(BIAS)}


def data(shape=(4, 3, 2, 5)):
  return np.random.default_rng(0).normal(1, 2, shape).astype(np.float32)


def apply(x, params=PARAMS, mask=None, **keywords):
  layer = norms.make('frn', **keywords).layer('norm1')
  return layer.apply({'params': params}, x, statistics='batch', mask=mask)


def formula(x, epsilon=1e-6):
  x = np.float64(x)
  square = (x**2).mean(tuple(range(1, x.ndim - 1)), keepdims=True)
  return SCALE * x / np.sqrt(square + epsilon) + BIAS


class FilterResponseNormTest(parameterized.TestCase):
  @parameterized.parameters('images', 'channels_first', 'bfloat16')
  def test_equals_its_formula(self, kind):
    x = data()
    if kind == 'channels_first':
      y = np.moveaxis(apply(np.moveaxis(x, -1, 1), axis=1), 1, -1)
    else:
      x = jnp.bfloat16(x) if kind == 'bfloat16' else x
      y = apply(x)
    self.assertEqual(y.dtype, x.dtype)
    # Computed in float32: what is left is the rounding of y alone.
    tolerance = 2**-8 if kind == 'bfloat16' else 1e-5
    np.testing.assert_allclose(
      np.float64(y), formula(x), rtol=tolerance, atol=1e-5
    )

  @parameterized.parameters((), (1, 1))
  def test_learns_epsilon_where_there_is_one_position(self, *positions):
    """Otherwise y would be the sign of x."""
    x = data((6, *positions, 5))
    layer = norms.make('frn').layer('norm1')
    params = layer.init(jax.random.key(0), x, statistics='batch')['params']
    self.assertEqual(params['epsilon_l'], np.float32(1e-4))
    for value in (1e-4, -3.0):  # its absolute value is added
      y = apply(x, {**PARAMS, 'epsilon_l': jnp.float32(value)})
      want = formula(x, 1e-6 + abs(value))
      np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-5)

  def test_takes_the_scale_of_a_channel_of_an_example_out(self):
    x = data()
    size = np.random.default_rng(2).uniform(0.1, 9, (4, 1, 1, 5))
    y = apply(x, epsilon=0.0)
    scaled = apply(np.float32(size * x), epsilon=0.0)
    np.testing.assert_allclose(scaled, y, rtol=1e-5, atol=1e-6)
    shifted = apply(x + 3, epsilon=0.0)
    self.assertGreater(np.abs(shifted - y).max(), 0.1)

  def test_padding_positions_do_not_count(self):
    x = data()
    mask = np.ones(x.shape[:-1], bool)
    mask[:, 2:] = False
    y = apply(x, mask=mask)
    want = formula(x[:, :2])
    np.testing.assert_allclose(y[:, :2], want, rtol=1e-5, atol=1e-5)

  def test_unit_is_a_relu_with_a_learned_threshold(self):
    x = data()
    tau = np.linspace(-1, 1, 5, dtype=np.float32)
    for axis, moved in ((-1, x), (1, np.moveaxis(x, -1, 1))):
      unit = norms.make('frn', axis=axis).unit('unit1')
      variables = unit.init(jax.random.key(0), moved, statistics='batch')
      np.testing.assert_array_equal(variables['params']['tau'], np.zeros(5))
      y = unit.apply({'params': {'tau': tau}}, moved, statistics='batch')
      np.testing.assert_array_equal(
        np.moveaxis(y, axis, -1), np.maximum(x, tau)
      )

  def test_a_threshold_learns_in_half_precision(self):
    """From what lies below it, here a value in 20: no sum may lose it."""
    unit, x = norms.make('frn').unit('unit1'), jnp.bfloat16(data((512, 8, 5)))

    def loss(tau):
      y = unit.apply({'params': {'tau': tau}}, x, statistics='batch')
      return y.sum(dtype=jnp.float32)

    slope = jax.jit(jax.grad(loss))(np.full(5, -2.25, 'float32'))
    want = (np.float32(x) <= -2.25).sum((0, 1))
    np.testing.assert_allclose(slope, want, rtol=1e-3)

  def test_takes_the_place_of_the_relu_of_a_network(self):
    """A large threshold of one layer hides what is before it."""
    module, shape = models_small.make('mlp', 'frn')
    variables = models_small.variables(module, shape)
    variables['params']['dense2_unit']['tau'] += 1e6
    x = models_small.inputs(shape)
    y = jax.jit(lambda x: module.apply(variables, x, statistics='batch'))(x)
    np.testing.assert_array_equal(y, np.broadcast_to(y[:1], y.shape))


if __name__ == '__main__':
  absltest.main()
