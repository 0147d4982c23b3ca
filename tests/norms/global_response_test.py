"""Global response normalization, against its formula and its laws."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from bn_jax import norms
from tests.fixtures import (
  same_bits,
  strict,  # noqa: F401
)

SCALE, BIAS = np.random.default_rng(1).normal(size=(2, 5))
PARAMS = {'scale': np.float32(SCALE), 'bias': np.float32(BIAS)}


def data(dtype=np.float32):
  return np.random.default_rng(0).normal(1, 2, size=(4, 3, 2, 5)).astype(dtype)


def apply(x, params=PARAMS, mask=None, **keywords):
  layer = norms.make('grn', **keywords).layer('norm1')
  return layer.apply({'params': params}, x, statistics='batch', mask=mask)


def formula(x, epsilon=1e-6):
  x = np.float64(x)
  norm = np.sqrt((x**2).sum(tuple(range(1, x.ndim - 1)), keepdims=True))
  share = norm / (norm.mean(-1, keepdims=True) + epsilon)
  return SCALE * (x * share) + BIAS + x


class GlobalResponseNormTest(parameterized.TestCase):
  @parameterized.parameters('images', 'dense', 'channels_first', 'bfloat16')
  def test_equals_its_formula(self, kind):
    x = data()
    x = x.reshape(-1, 5) if kind == 'dense' else x
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

  def test_begins_as_the_identity(self):
    layer = norms.make('grn').layer('norm1')
    y, variables = layer.init_with_output(
      jax.random.key(0), data(), statistics='batch'
    )
    same_bits.assert_same(y, jnp.asarray(data()))
    self.assertEqual(variables.keys(), {'params'})

  def test_a_scale_of_x_stays_and_a_shift_does_not(self):
    """y - bias is homogeneous: n does not depend on the scale of x."""
    x = data()
    y, scaled, shifted = (
      apply(z, epsilon=0.0) - PARAMS['bias'].reshape(1, 1, 1, 5)
      for z in (x, 3 * x, x + 1)
    )
    np.testing.assert_allclose(scaled, 3 * y, rtol=1e-5, atol=1e-5)
    self.assertGreater(float(np.abs(shifted - y - 1).max()), 0.1)

  def test_channels_compete(self):
    """The channel of most response is raised; one that is 0 gets bias alone."""
    x = data()
    x[..., 0], x[..., 1] = 0, 10 * np.abs(x[..., 1])
    share = apply(x, {'scale': np.ones(5), 'bias': np.zeros(5)}) / x - 1
    self.assertGreater(float(share[..., 1].min()), 2)
    self.assertLess(float(share[..., 2:].max()), 1)
    np.testing.assert_allclose(
      apply(x)[..., 0], np.full((4, 3, 2), PARAMS['bias'][0])
    )

  def test_a_dead_channel_has_a_derivative(self):
    """The root of a norm has none at 0; an image that is 0 has neither."""
    x = data()
    x[..., 0], x[3] = 0, 0
    for epsilon in (1e-6, 0.0):
      loss = lambda x, epsilon=epsilon: (apply(x, epsilon=epsilon) ** 3).sum()
      slope, curve = jax.jvp(jax.grad(loss), (x,), (np.ones_like(x),))
      self.assertTrue(np.isfinite(slope).all() and np.isfinite(curve).all())
      np.testing.assert_allclose(
        slope[..., 0], np.full((4, 3, 2), 3 * BIAS[0] ** 2), rtol=1e-5
      )

  def test_padding_positions_count_as_zero(self):
    x, mask = data(), np.random.default_rng(2).random((4, 3, 2)) < 0.6
    x[~mask] = np.inf
    y = apply(x, mask=mask)
    want = formula(np.where(mask[..., None], x, 0))
    np.testing.assert_allclose(y[mask], want[mask], rtol=1e-5, atol=1e-5)


if __name__ == '__main__':
  absltest.main()
