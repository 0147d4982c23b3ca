"""Norms that see one value at a time: their formulas, and what is not so."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from scipy import special

from bn_jax import checks, norms
from tests.fixtures import strict  # noqa: F401

SCALE, BIAS = np.random.default_rng(1).normal(size=(2, 5))
NUMBERS = {'dyt': {'alpha': -0.7}, 'derf': {'alpha': -0.7, 'shift': 0.4}}
FORMULAS = {
  'dyt': lambda x: SCALE * np.tanh(-0.7 * x) + BIAS,
  'derf': lambda x: SCALE * special.erf(-0.7 * x + 0.4) + BIAS,
}
# x-transformers 2.31.10 (PyTorch 2.13.0, CPU build), DynamicTanh and Derf with
# PEER, for x = (7 i mod 11 - 4) / 3, i = 0, ..., 11 along [4, 3]: y, and the
# gradients of sum(y^3) for x, alpha, shift.
PEER = {
  'scale': [0.5, -1.0, 2.0], 'bias': [0.1, 0.2, 0.3], 'alpha': 0.7,
  'shift': 0.3,
}  # fmt: skip
PRINTED = {
  'dyt': (
    [[-0.2660721, -0.4043678, -0.158378], [0.5426759, -0.2355021, -0.5710042],
     [0.5116003, -0.029189, -0.9087356], [0.4660721, 0.2, -1.1642885]],
    [[0.0344884, -0.2179556, 0.0998172], [0.0668391, -0.0943789, 1.1096705],
     [0.0885862, -0.0016952, 2.2015064], [0.1058231, -0.084, 2.6415303]],
    {'alpha': -9.1451502},
  ),
  'derf': (
    [[-0.2147851, -0.6427008, 0.450228], [0.5918952, -0.5217373, -0.0726725],
     [0.5809687, -0.3492993, -0.5567846], [0.5594376, -0.1286268, -0.9591404]],
    [[0.0365976, -0.3600788, 0.9563991], [0.0230687, -0.3583518, 0.0243434],
     [0.0465301, -0.2175389, 1.2519637], [0.0810098, -0.0358303, 2.9192307]],
    {'alpha': -8.5255556, 'shift': 6.2390618},
  ),
}  # fmt: skip


def data(shape=(4, 3, 2, 5)):
  return np.random.default_rng(0).normal(1, 2, shape).astype(np.float32)


def apply(name, x, **keywords):
  layer = norms.make(name, **keywords).layer('norm1')
  params = {**NUMBERS[name], 'scale': SCALE, 'bias': BIAS}
  params = jax.tree.map(jnp.float32, params)
  return layer.apply({'params': params}, x, statistics='batch')


class PointwiseTest(parameterized.TestCase):
  @parameterized.product(
    name=tuple(FORMULAS), kind=('images', 'dense', 'channels_first', 'bfloat16')
  )
  def test_equals_its_formula(self, name, kind):
    x = data((24, 5)) if kind == 'dense' else data()
    if kind == 'channels_first':
      y = np.moveaxis(apply(name, np.moveaxis(x, -1, 1), axis=1), 1, -1)
    else:
      x = jnp.bfloat16(x) if kind == 'bfloat16' else x
      y = apply(name, x)
    self.assertEqual(y.dtype, x.dtype)
    # Computed in float32: what is left is the rounding of y alone.
    tolerance = 2**-8 if kind == 'bfloat16' else 1e-5
    np.testing.assert_allclose(
      np.float64(y), FORMULAS[name](np.float64(x)), rtol=tolerance, atol=1e-5
    )

  @parameterized.parameters(*FORMULAS)
  def test_equals_what_a_peer_printed(self, name):
    x = ((7 * np.arange(12) % 11 - 4) / np.float32(3)).reshape(4, 3)
    layer = norms.make(name).layer('norm1')
    y, of_x, numbers = PRINTED[name]
    params = {
      key: jnp.float32(PEER[key]) for key in (*numbers, 'scale', 'bias')
    }

    def loss(params, x):
      y = layer.apply({'params': params}, x, statistics='batch')
      return (y**3).sum(), y

    (of_params, got_x), got = jax.grad(loss, (0, 1), has_aux=True)(params, x)
    np.testing.assert_allclose(got, y, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(got_x, of_x, rtol=1e-5, atol=1e-6)
    for key, value in numbers.items():
      np.testing.assert_allclose(of_params[key], value, rtol=1e-5)

  @parameterized.parameters(*FORMULAS)
  def test_is_bounded_and_takes_no_scale_or_shift_out(self, name):
    for size in (1.0, 1e4, 1e37):
      away = np.abs(np.asarray(apply(name, size * data())) - np.float32(BIAS))
      self.assertLessEqual((away - np.abs(np.float32(SCALE))).max(), 1e-6)
    y = apply(name, data())
    for other in (3 * data(), data() + 3):
      self.assertGreater(np.abs(apply(name, other) - y).max(), 0.1)

  @parameterized.parameters(*FORMULAS)
  def test_begins_as_in_its_paper(self, name):
    for keywords, alpha in (({}, 0.5), ({'alpha_init': 2.0}, 2)):
      layer = norms.make(name, **keywords).layer('norm1')
      params = layer.init(jax.random.key(0), data(), statistics='batch')
      want = {'alpha': alpha, 'shift': 0, 'scale': 1, 'bias': 0}
      for key, value in params['params'].items():
        np.testing.assert_array_equal(value, want[key])
        self.assertEqual(value.shape, (5,) if key in ('scale', 'bias') else ())
      self.assertEqual({*params['params'], 'shift'}, set(want))

  @parameterized.parameters(float('nan'), float('inf'), '1', None, True)
  def test_refuses_another_start(self, value):
    for name in FORMULAS:
      with self.assertRaisesRegex(checks.Refused, 'alpha_init is'):
        norms.make(name, alpha_init=value)


if __name__ == '__main__':
  absltest.main()
