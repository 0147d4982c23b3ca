"""SeeDNorm, against its formula, RMS normalization and its laws."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from bn_jax import norms
from tests.fixtures import strict  # noqa: F401

ALPHA, BETA, SCALE = np.random.default_rng(1).normal(size=(3, 6))
PARAMS = jax.tree.map(
  np.float32, {'alpha': ALPHA, 'beta': BETA, 'scale': SCALE}
)


def data():
  return np.random.default_rng(0).normal(0.3, 2, (4, 3, 2, 6)).astype('float32')


def apply(x, params=PARAMS, mask=None, **keywords):
  layer = norms.make('seednorm', **keywords).layer('norm1')
  return layer.apply({'params': params}, x, statistics='batch', mask=mask)


def formula(x, per, heads):
  x = np.float64(x)
  axes = (3,) if per == 'position' else (1, 2, 3)
  root = np.sqrt((x**2).mean(axes, keepdims=True) + 1e-5)
  mean = x if per == 'position' else x.mean((1, 2), keepdims=True)
  parts = (mean * BETA).reshape(*mean.shape[:-1], heads, -1)
  response = np.repeat(np.tanh(parts.sum(-1)), 6 // heads, axis=-1)
  return (response * ALPHA + SCALE) * x / root


class SelfRescaledNormTest(parameterized.TestCase):
  @parameterized.product(
    per=('example', 'position'), heads=(1, 3), axis=(-1, 1)
  )
  def test_equals_its_formula(self, per, heads, axis):
    x = data()
    y = apply(np.moveaxis(x, -1, axis), per=per, heads=heads, axis=axis)
    want = formula(x, per, heads)
    np.testing.assert_allclose(
      np.moveaxis(y, axis, -1), want, rtol=1e-4, atol=1e-5
    )

  @parameterized.parameters('example', 'position')
  def test_begins_as_rms(self, per):
    x = data()
    ours, rms = (
      norms.make(name, per=per).layer('norm1') for name in ('seednorm', 'rms')
    )
    y, variables = ours.init_with_output(
      jax.random.key(0), x, statistics='batch'
    )
    want, _ = rms.init_with_output(jax.random.key(0), x, statistics='batch')
    np.testing.assert_allclose(y, want, rtol=1e-6)
    np.testing.assert_array_equal(variables['params']['alpha'], np.ones(6))
    np.testing.assert_array_equal(variables['params']['beta'], np.zeros(6))

  def test_keeps_a_share_of_the_scale_of_x(self):
    """Only while beta is not 0, and less and less as x grows."""
    x = data()
    plain = {**PARAMS, 'beta': np.zeros(6, 'float32')}
    keywords = dict(rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(apply(9 * x, plain), apply(x, plain), **keywords)
    self.assertGreater(np.abs(apply(9 * x) - apply(x)).max(), 0.1)
    np.testing.assert_allclose(apply(1e5 * x), apply(1e4 * x), **keywords)

  @parameterized.parameters('example', 'position')
  def test_padding_positions_do_not_count(self, per):
    x = data()
    mask = np.ones(x.shape[:-1], bool)
    mask[:, 2:] = False
    y = apply(x, mask=mask, per=per)
    want = formula(x[:, :2], per, 1)
    np.testing.assert_allclose(y[:, :2], want, rtol=1e-4, atol=1e-5)

  def test_half_precision_is_computed_in_float32(self):
    x = jnp.bfloat16(data())
    y = apply(x)
    self.assertEqual(y.dtype, x.dtype)
    want = formula(x, 'example', 1)
    np.testing.assert_allclose(np.float64(y), want, rtol=2**-8, atol=1e-5)

  @parameterized.parameters((4, ValueError), (0, ValueError), (2.0, ValueError))
  def test_refuses_heads(self, heads, error):
    with self.assertRaisesRegex(error, f'heads is {heads}; allowed: '):
      apply(data(), heads=heads)


if __name__ == '__main__':
  absltest.main()
