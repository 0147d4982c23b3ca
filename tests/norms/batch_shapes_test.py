"""Where the channels are, what the mask covers, and groups too small."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from bn_jax import norms
from tests.fixtures import (
  reference,
  same_bits,
  strict,  # noqa: F401
)


def data(shape, mean=2.0):
  generator = np.random.default_rng(0)
  x = generator.normal(mean, 1.5, size=shape).astype(np.float32)
  scale, bias = generator.normal(size=(2, shape[-1])).astype(np.float32)
  return x, scale, bias


class AxisTest(parameterized.TestCase):
  @parameterized.product(
    axis=(1, 2, 3, -1, -3), norm=('batch', 'l1', 'batch_renorm')
  )
  def test_any_axis_may_hold_the_channels(self, axis, norm):
    x, _, _ = data((6, 2, 3, 4))
    last = norms.make(norm, group_size=3).layer('norm1')
    moved = norms.make(norm, group_size=3, axis=axis).layer('norm1')
    variables = last.init(jax.random.key(0), x, statistics='running')
    mask = np.random.default_rng(1).random((6, 2, 3)) < 0.7
    for statistics in norms.STATISTICS:
      keywords = dict(statistics=statistics, mask=mask, mutable=['batch_stats'])
      want, stats = last.apply(variables, x, **keywords)
      got, new = moved.apply(variables, np.moveaxis(x, -1, axis), **keywords)
      same_bits.assert_same(np.moveaxis(got, axis, -1), want)
      same_bits.assert_same(new, stats)

  @parameterized.parameters(0, 4, -4)
  def test_refuses_what_is_no_axis_of_channels(self, axis):
    x, scale, bias = data((6, 2, 3, 4))
    with self.assertRaisesRegex(ValueError, f'axis is {axis}; allowed'):
      norms.batch_norm(x, scale, bias, axis=axis)


class PositionMaskTest(parameterized.TestCase):
  @parameterized.product(
    shape=((8, 5, 3), (8, 4, 2, 3)), group_size=(None, 2), norm=('batch', 'l2')
  )
  def test_masked_positions_never_enter(self, shape, group_size, norm):
    x, scale, bias = data(shape)
    mask = np.random.default_rng(1).random(shape[:-1]) < 0.6
    x[~mask] = 1e4
    keywords = dict(group_size=group_size, mask=mask)
    if norm == 'batch':
      y, found = norms.batch_norm(x, scale, bias, **keywords)
      want, mean, _, count = reference.batch_norm(x, scale, bias, **keywords)
    else:
      y, found = norms.lp_norm(x, scale, bias, p=2, **keywords)
      want, mean, _ = reference.lp_norm(x, scale, bias, 2, **keywords)
      groups = mask.reshape(len(found.count), -1)
      count = groups.sum(1)
    np.testing.assert_allclose(y[mask], want[mask], rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(found.mean, mean, rtol=1e-5)
    np.testing.assert_array_equal(found.count, count)

  def test_example_from_a_bug_report(self):
    """tensorflow#30161: mean 3 and variance 2, not 1.5 and 3.25."""
    x = jnp.array([[[1.0], [2], [3], [4], [5], [0], [0], [0], [0], [0]]])
    mask = x[..., 0] > 0
    _, moments = norms.batch_norm(x, jnp.ones(1), jnp.zeros(1), mask=mask)
    self.assertAlmostEqual(float(moments.mean[0, 0]), 3, places=6)
    self.assertAlmostEqual(float(moments.var[0, 0]), 2, places=6)

  @parameterized.parameters('layer', 'group', 'instance', 'rms')
  def test_norms_of_one_example_leave_positions_out_too(self, name):
    x, _, _ = data((4, 6, 8))
    layer = norms.make(name).layer('norm1')
    variables = layer.init(jax.random.key(0), x, statistics='running')
    mask = np.arange(6) < 4
    want = layer.apply(variables, x[:, mask], statistics='batch')
    x[:, ~mask] = 1e4
    masks = np.broadcast_to(mask, (4, 6))
    got = layer.apply(variables, x, statistics='batch', mask=masks)
    np.testing.assert_allclose(got[:, mask], want, rtol=1e-5, atol=1e-5)

  @parameterized.parameters((3,), (8, 5), (8, 4, 3), (8, 4, 2, 3))
  def test_refuses_another_shape(self, *shape):
    x, scale, bias = data((8, 4, 2, 3))
    with self.assertRaisesRegex(
      ValueError, r'mask has shape .*; allowed: \(8,\) or \(8, 4, 2\)'
    ):
      norms.batch_norm(x, scale, bias, mask=np.ones(shape, bool))


class GroupOfOneTest(parameterized.TestCase):
  """It would output the bias, whatever the data."""

  @parameterized.parameters(
    ((1, 3), None), ((6, 3), 1), ((6, 1, 3), 1), ((1, 1, 1, 3), None)
  )
  def test_is_refused(self, shape, group_size):
    x, scale, bias = data(shape)
    with self.assertRaisesRegex(ValueError, 'has groups of one value'):
      norms.batch_norm(x, scale, bias, group_size=group_size)
    with self.assertRaisesRegex(ValueError, 'has groups of one value'):
      norms.lp_norm(x, scale, bias, p=1, group_size=group_size)

  def test_one_example_with_positions_is_not(self):
    x, scale, bias = data((6, 2, 3))
    y, _ = norms.batch_norm(x, scale, bias, group_size=1)
    want, *_ = reference.batch_norm(x, scale, bias, group_size=1)
    np.testing.assert_allclose(y, want, rtol=1e-4, atol=1e-4)

  def test_instance_norm_of_one_position_is_refused(self):
    x, _, _ = data((6, 3))
    layer = norms.make('instance').layer('norm1')
    with self.assertRaisesRegex(ValueError, 'has groups of one value'):
      layer.init(jax.random.key(0), x, statistics='batch')


class StoppedTest(parameterized.TestCase):
  """Ioffe and Szegedy (2015), section 2: statistics outside the gradient."""

  def train(self, stop, steps=200):
    """(loss, bias) at each step of descent on x = u + b, y = BN(x)."""
    generator = np.random.default_rng(0)
    u = jnp.asarray(generator.normal(size=(32, 1)), jnp.float32)
    target = u + 3.0

    @jax.jit
    def step(b):
      def loss(b):
        y, _ = norms.batch_norm(
          u + b, jnp.ones(1), jnp.zeros(1), stop_statistics_gradient=stop
        )
        return jnp.mean((y - target) ** 2)

      value, gradient = jax.value_and_grad(loss)(b)
      return value, b - 0.1 * gradient

    b, history = jnp.zeros((1, 1)), []
    for _ in range(steps):
      value, b = step(b)
      history.append((float(value), float(b[0, 0])))
    return np.array(history).T

  def test_the_bias_grows_while_the_loss_stays(self):
    loss, bias = self.train(stop=True)
    np.testing.assert_allclose(loss, loss[0], rtol=1e-4)
    # Each step adds the same, without end.
    np.testing.assert_allclose(np.diff(bias), bias[0], rtol=1e-2)
    self.assertGreater(bias[-1], 50)

  def test_with_their_gradient_it_stays(self):
    _, bias = self.train(stop=False)
    np.testing.assert_allclose(bias, 0, atol=1e-4)

  def test_value_is_the_same(self):
    x, scale, bias = data((8, 2, 2, 3))
    got, _ = norms.batch_norm(x, scale, bias, stop_statistics_gradient=True)
    want, _ = norms.batch_norm(x, scale, bias)
    same_bits.assert_same(got, want)

  def test_a_network_of_it_has_biases(self):
    self.assertTrue(
      norms.make('batch', stop_statistics_gradient=True).bias_before
    )


class SmallFloatTest(parameterized.TestCase):
  @parameterized.product(
    dtype=('bfloat16', 'float16'), mean=(0.0, 5.0), statistics=norms.STATISTICS
  )
  def test_layer_in_half_precision_keeps_float32(self, dtype, mean, statistics):
    x, _, _ = data((64, 4, 4, 3), mean=mean)
    x = jnp.asarray(0.1 * (x - mean) + mean, dtype)
    layer = norms.make('batch', momentum=0.0).layer('norm1')
    variables = layer.init(jax.random.key(0), x, statistics='running')
    y, new = layer.apply(
      variables, x, statistics='batch', mutable=['batch_stats']
    )
    want, mean_GC, var_GC, _ = reference.batch_norm(np.float64(x), 1, 0)
    np.testing.assert_allclose(
      new['batch_stats']['mean'], mean_GC[0], rtol=1e-6, atol=1e-6
    )
    np.testing.assert_allclose(new['batch_stats']['var'], var_GC[0], rtol=1e-5)
    if statistics == 'running':
      y = layer.apply({**variables, **new}, x, statistics='running')
    self.assertEqual(y.dtype, jnp.dtype(dtype))
    np.testing.assert_allclose(np.float64(y), want, rtol=1e-2, atol=1e-2)

  def test_large_halves_do_not_overflow(self):
    """The square of 1000 is beyond float16."""
    x = jnp.asarray(np.linspace(-60_000, 60_000, 32).reshape(16, 2), 'float16')
    y, moments = norms.batch_norm(x, jnp.ones(2), jnp.zeros(2))
    self.assertTrue(bool(jnp.isfinite(y).all()))
    np.testing.assert_allclose(
      moments.var, np.float64(x).var(0, keepdims=True), rtol=1e-5
    )


if __name__ == '__main__':
  absltest.main()
