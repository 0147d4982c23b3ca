import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import absltest, parameterized
from jax import test_util

from bn_jax import norms
from tests.fixtures import (
  reference,
  strict,  # noqa: F401
)


def setUpModule():
  # Numbers hang little on optimization, compiling takes the time.
  jax.config.update('jax_disable_most_optimizations', True)


def tearDownModule():
  jax.config.update('jax_disable_most_optimizations', False)


INF = float('inf')


def data(shape=(12, 3, 4), mean=2.0):
  generator = np.random.default_rng(0)
  x = generator.normal(mean, 1.5, size=shape).astype(np.float32)
  scale, bias = generator.normal(size=(2, shape[-1])).astype(np.float32)
  return x, scale, bias


class LpNormTest(parameterized.TestCase):
  @parameterized.product(
    p=(1, 2, 3.5, INF), centred=(False, True), group_size=(None, 4),
    masked=(False, True),
  )  # fmt: skip
  def test_equals_the_oracle(self, p, centred, group_size, masked):
    x, scale, bias = data()
    mask = np.arange(12) % 4 != 1 if masked else None
    if masked:
      x[~mask] = 1e3  # must not matter
    y, found = norms.lp_norm(
      x, scale, bias, p=p, centred=centred, group_size=group_size, mask=mask
    )
    want, mean_GC, scale_GC = reference.lp_norm(
      x, scale, bias, p, centred, group_size, mask
    )
    real = np.ones(12, bool) if mask is None else mask
    np.testing.assert_allclose(y[real], want[real], rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(found.mean, mean_GC, rtol=1e-5)
    np.testing.assert_allclose(found.scale_p, scale_GC, rtol=1e-5)

  @parameterized.parameters((1, True), (INF, False))
  def test_derivatives_in_both_modes_to_second_order(self, p, centred):
    self.check_derivatives(p, centred)

  @parameterized.parameters(
    (1, False), (2, True), (2, False), (3, True), (3, False), (INF, True),
  )  # fmt: skip
  @pytest.mark.slow  # two seconds each
  def test_derivatives_of_the_others(self, p, centred):
    self.check_derivatives(p, centred)

  def check_derivatives(self, p, centred):
    with jax.enable_x64(True):
      x, scale, bias = (jnp.asarray(a, jnp.float64) for a in data((5, 3)))

      @jax.jit
      def f(x, scale, bias):
        y, found = norms.lp_norm(x, scale, bias, p=p, centred=centred)
        return jnp.sin(y), found.scale_p

      test_util.check_grads(f, (x, scale, bias), 2, modes=('fwd', 'rev'))

  @parameterized.parameters(1, 2, INF)
  def test_scale_of_x_does_not_matter_and_its_shift_does(self, p):
    x, scale, bias = data()

    def y(x):
      return norms.lp_norm(x, scale, bias, p=p, epsilon=0.0)[0]

    np.testing.assert_allclose(y(7 * x), y(x), rtol=1e-4, atol=1e-5)
    self.assertGreater(float(jnp.abs(y(x + 1) - y(x)).max()), 0.1)

  def test_l2_of_mean_zero_is_batch_norm(self):
    x, scale, bias = data()
    x = x - x.mean((0, 1), keepdims=True)
    got, _ = norms.lp_norm(x, scale, bias, p=2)
    want, _ = norms.batch_norm(x, scale, bias)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    centred, _ = norms.lp_norm(x + 50, scale, bias, p=2, centred=True)
    np.testing.assert_allclose(centred, want, rtol=1e-4, atol=1e-4)

  def test_of_mean_zero_and_variance_one_has_less_spread_off_centre(self):
    """p = 2: std = sigma / sqrt(sigma^2 + mu^2)."""
    x, _, _ = data(mean=3.0)
    y, _ = norms.lp_norm(x, jnp.ones(4), jnp.zeros(4), p=2, epsilon=0.0)
    x = np.float64(x).reshape(-1, 4)
    want = x.std(0) / np.sqrt(x.var(0) + x.mean(0) ** 2)
    np.testing.assert_allclose(np.std(y, axis=(0, 1)), want, rtol=1e-5)

  @parameterized.parameters(0.5, 0, -1, float('nan'))
  def test_refuses_what_is_no_norm(self, p):
    x, scale, bias = data()
    with self.assertRaisesRegex(ValueError, f'p is {p}; allowed: 1 or more'):
      norms.lp_norm(x, scale, bias, p=p)
    with self.assertRaisesRegex(ValueError, f'p is {p}; allowed: 1 or more'):
      norms.make('lp', p=p)

  @parameterized.parameters('l1', 'l2', 'linf')
  def test_layer_keeps_running_averages(self, name):
    p = {'l1': 1, 'l2': 2, 'linf': INF}[name]
    x, _, _ = data()
    layer = norms.make(name, momentum=0.8, group_size=6).layer('norm1')
    variables = layer.init(jax.random.key(0), x, statistics='running')
    y, new = layer.apply(
      variables, x, statistics='batch', mutable=['batch_stats']
    )
    want, mean_GC, scale_GC = reference.lp_norm(x, 1, 0, p, group_size=6)
    np.testing.assert_allclose(y, want, rtol=2e-5, atol=2e-5)
    stats = new['batch_stats']
    np.testing.assert_allclose(stats['mean'], 0.2 * mean_GC.mean(0), rtol=1e-5)
    np.testing.assert_allclose(
      stats['scale_p'], 0.8 + 0.2 * scale_GC.mean(0), rtol=1e-5
    )
    stats = {'mean': np.full(4, 2.0), 'scale_p': np.full(4, 4.0)}
    y = layer.apply(
      {**variables, 'batch_stats': stats}, x, statistics='running'
    )
    np.testing.assert_allclose(y, (x - 2) / 4, rtol=1e-6, atol=1e-6)


if __name__ == '__main__':
  absltest.main()
