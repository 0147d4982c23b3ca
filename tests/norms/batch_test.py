import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from jax import test_util

from bn_jax import norms
from tests.fixtures import (
  jaxprs,
  reference,
  same_bits,
  strict,  # noqa: F401
)

SHAPES = ((12, 5), (12, 3, 2, 5), (12, 7, 5))


def data(shape, seed=0, mean=0.0, std=1.0):
  generator = np.random.default_rng(seed)
  x = generator.normal(mean, std, size=shape).astype(np.float32)
  scale = generator.normal(1, 0.5, size=shape[-1]).astype(np.float32)
  bias = generator.normal(size=shape[-1]).astype(np.float32)
  return x, scale, bias


class BatchNormTest(parameterized.TestCase):
  @parameterized.product(
    shape=SHAPES,
    group_size=(None, 4, 12),
    mask=(None, 'some'),
    mean=(0.0, 50.0),
  )
  def test_equals_the_oracle(self, shape, group_size, mask, mean):
    x, scale, bias = data(shape, mean=mean)
    if mask:
      mask = np.arange(12) % 3 != 1
      x[~mask] = 1e6  # must not matter
    y, moments = norms.batch_norm(
      x, scale, bias, group_size=group_size, mask=mask
    )
    want, mean_GC, var_GC, count_G = reference.batch_norm(
      x, scale, bias, group_size, mask
    )
    real = np.ones(12, bool) if mask is None else mask
    np.testing.assert_allclose(y[real], want[real], rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(moments.mean, mean_GC, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(moments.var, var_GC, rtol=1e-5)
    np.testing.assert_array_equal(moments.count, count_G)

  @parameterized.parameters(
    (3000.0, 1.0), (1e4, 0.1), (1e4, 0.01), (-1e4, 1.0), (0.0, 1e-3)
  )
  def test_far_from_zero(self, mean, std):
    """E[x^2] - E[x]^2 gives 0 to 2 for N(3000, 1) in float32."""
    x, scale, bias = data((64, 8, 8, 4), mean=mean, std=std)
    y, moments = norms.batch_norm(x, scale, bias)
    want, mean_GC, var_GC, _ = reference.batch_norm(x, scale, bias)
    np.testing.assert_allclose(moments.mean, mean_GC, rtol=1e-7, atol=1e-7)
    np.testing.assert_allclose(moments.var, var_GC, rtol=1e-3)
    np.testing.assert_allclose(y, want, atol=2e-3)

  @parameterized.parameters(1, 2, 5, 60, 128)
  def test_whatever_the_first_values_are(self, outliers):
    """The shift is found from a sample, which may be of something else."""
    x, scale, bias = data((128, 3), mean=1e4, std=0.1)
    x[:outliers] = 0
    for order in (x, x[::-1], np.random.default_rng(1).permutation(x)):
      _, moments = norms.batch_norm(np.ascontiguousarray(order), scale, bias)
      _, mean_GC, var_GC, _ = reference.batch_norm(x, scale, bias)
      np.testing.assert_allclose(moments.mean, mean_GC, rtol=1e-6)
      np.testing.assert_allclose(moments.var, var_GC, rtol=1e-5)

  def test_constant_channel_has_variance_zero(self):
    x = jnp.full((32, 8, 8, 2), 1e4 + 0.3, jnp.float32)
    y, moments = norms.batch_norm(x, jnp.ones(2), jnp.full(2, 7.0))
    np.testing.assert_array_equal(moments.var, 0)
    np.testing.assert_array_equal(y, 7)

  @parameterized.product(shape=SHAPES, epsilon=(1e-3, 1e-1))
  def test_gradient_as_printed_in_the_paper(self, shape, epsilon):
    x, scale, bias = data(shape, mean=3.0)
    dy = np.random.default_rng(5).normal(size=shape).astype(np.float32)

    def f(x, scale, bias):
      return norms.batch_norm(x, scale, bias, epsilon=epsilon)[0]

    _, pull = jax.vjp(f, *map(jnp.asarray, (x, scale, bias)))
    got = pull(jnp.asarray(dy))
    want = reference.batch_norm_gradient(x, scale, dy, epsilon)
    for g, w in zip(got, want):
      w = w.reshape(g.shape)
      np.testing.assert_allclose(g, w, rtol=1e-4, atol=1e-4)

  @parameterized.parameters(None, 3)
  def test_derivatives_in_both_modes_to_second_order(self, group_size):
    with jax.enable_x64(True):
      generator = np.random.default_rng(1)
      x = jnp.asarray(generator.normal(2, 1, size=(6, 2, 3)))
      scale, bias = jnp.asarray(generator.normal(size=(2, 3)))
      mask = jnp.array([True, True, False, True, True, True])

      def f(x, scale, bias):
        y, moments = norms.batch_norm(
          x, scale, bias, group_size=group_size, mask=mask, epsilon=1e-3
        )
        return jnp.sin(y) * mask[:, None, None], moments.mean, moments.var

      f = jax.jit(f)  # or it runs one operation at a time, and compiles each
      test_util.check_grads(f, (x, scale, bias), 2, modes=('fwd', 'rev'))

  def test_statistics_are_float32_for_bfloat16_input(self):
    x, scale, bias = data((64, 4, 4, 3), mean=5, std=0.1)
    x = jnp.asarray(x, jnp.bfloat16)
    y, moments = norms.batch_norm(x, scale, bias)
    self.assertEqual(y.dtype, jnp.bfloat16)
    self.assertEqual(moments.var.dtype, jnp.float32)
    _, _, var_GC, _ = reference.batch_norm(np.float64(x), scale, bias)
    np.testing.assert_allclose(moments.var, var_GC, rtol=1e-5)

  def test_nothing_is_cut_from_bfloat16_in_float32(self):
    # For a slice the compiler for TPUs writes all of its operand to memory.
    x = jax.ShapeDtypeStruct((64, 4, 4, 8), jnp.bfloat16)
    affine = jnp.ones(8), jnp.zeros(8)
    traced = jax.jit(lambda x: norms.batch_norm(x, *affine)).trace(x)
    cuts = [
      equation.invars[0].aval.dtype.name
      for equation in jaxprs.equations(traced.jaxpr.jaxpr)
      if 'slice' in equation.primitive.name
      and equation.invars[0].aval.size == x.size
    ]
    self.assertNotEmpty(cuts)
    self.assertEqual(set(cuts), {'bfloat16'})

  def test_group_of_the_whole_batch_is_no_group(self):
    x, scale, bias = data((12, 3, 5))
    whole, _ = norms.batch_norm(x, scale, bias)
    grouped, _ = norms.batch_norm(x, scale, bias, group_size=12)
    same_bits.assert_same(whole, grouped)

  def test_masked_equals_removed(self):
    x, scale, bias = data((8, 3, 5))
    mask = np.array([1, 0, 1, 1, 0, 1, 1, 1], bool)
    masked, _ = norms.batch_norm(x, scale, bias, mask=mask)
    removed, _ = norms.batch_norm(x[mask], scale, bias)
    np.testing.assert_allclose(masked[mask], removed, rtol=1e-5, atol=1e-6)

  def test_padding_of_nan_does_not_spread(self):
    x, scale, bias = data((8, 3, 5))
    mask = np.arange(8) != 0
    x[0] = np.nan
    y, moments = norms.batch_norm(x, scale, bias, mask=mask)
    self.assertTrue(np.isfinite(y[1:]).all())
    self.assertTrue(np.isfinite(moments.var).all())

  @parameterized.parameters(
    (dict(group_size=5), 'does not divide the batch of 12'),
    (dict(group_size=0), 'group_size is 0; allowed: 1, 2, 3, ... or None'),
    (dict(mask=np.ones(3, bool)), 'mask has shape'),
  )
  def test_refuses(self, keywords, message):
    x, scale, bias = data((12, 5))
    with self.assertRaisesRegex(ValueError, message):
      norms.batch_norm(x, scale, bias, **keywords)

  def test_refuses_rank_one_and_foreign_parameters(self):
    x, scale, bias = data((12, 5))
    with self.assertRaisesRegex(ValueError, r'allowed: \[N, ..., C\]'):
      norms.batch_norm(x[0], scale, bias)
    with self.assertRaisesRegex(ValueError, '5 channels'):
      norms.batch_norm(x, scale[:1], bias)


class BatchNormLayerTest(parameterized.TestCase):
  def layer(self, **keywords):
    return norms.make('batch', **keywords).layer('norm1')

  def variables(self, layer, x):
    return layer.init(jax.random.key(0), x, statistics='running')

  def test_collections(self):
    x, _, _ = data((6, 2, 3))
    variables = self.variables(self.layer(), x)
    self.assertCountEqual(variables, ['params', 'batch_stats'])
    self.assertCountEqual(variables['params'], ['scale', 'bias'])
    np.testing.assert_array_equal(variables['batch_stats']['mean'], 0)
    np.testing.assert_array_equal(variables['batch_stats']['var'], 1)

  def test_init_in_batch_mode_leaves_the_statistics_at_their_start(self):
    x, _, _ = data((6, 2, 3), mean=4)
    variables = self.layer().init(jax.random.key(0), x, statistics='batch')
    np.testing.assert_array_equal(variables['batch_stats']['mean'], 0)

  @parameterized.product(
    group_size=(None, 2), running_variance=('biased', 'unbiased')
  )
  def test_running_average(self, group_size, running_variance):
    x, _, _ = data((6, 2, 3), mean=4)
    layer = self.layer(
      group_size=group_size, momentum=0.8, running_variance=running_variance
    )
    variables = self.variables(layer, x)
    _, new = layer.apply(
      variables, x, statistics='batch', mutable=['batch_stats']
    )
    _, mean_GC, var_GC, count_G = reference.batch_norm(x, 1, 0, group_size)
    if running_variance == 'unbiased':
      var_GC = var_GC * (count_G / (count_G - 1))[:, None]
    stats = new['batch_stats']
    np.testing.assert_allclose(stats['mean'], 0.2 * mean_GC.mean(0), rtol=1e-5)
    np.testing.assert_allclose(
      stats['var'], 0.8 + 0.2 * var_GC.mean(0), rtol=1e-5
    )

  def test_group_of_padding_alone_does_not_count(self):
    x, _, _ = data((6, 2, 3), mean=4)
    layer = self.layer(group_size=2, momentum=0.0)
    mask = np.array([1, 1, 1, 1, 0, 0], bool)
    _, new = layer.apply(
      self.variables(layer, x), x, statistics='batch', mask=mask,
      mutable=['batch_stats'],
    )  # fmt: skip
    _, mean_GC, _, _ = reference.batch_norm(x[:4], 1, 0, 2)
    np.testing.assert_allclose(
      new['batch_stats']['mean'], mean_GC.mean(0), rtol=1e-5
    )

  def test_written_only_if_mutable(self):
    x, _, _ = data((6, 2, 3), mean=4)
    layer = self.layer()
    variables = self.variables(layer, x)
    frozen = layer.apply(variables, x, statistics='batch')
    moved, _ = layer.apply(
      variables, x, statistics='batch', mutable=['batch_stats']
    )
    same_bits.assert_same(frozen, moved)

  def test_running_mode_is_the_affine_map_of_the_collection(self):
    x, scale, bias = data((6, 2, 3), mean=4)
    stats = {'mean': np.float32([1, 2, 3]), 'var': np.float32([4, 5, 6])}
    variables = {
      'params': {'scale': scale, 'bias': bias},
      'batch_stats': stats,
    }
    y = self.layer().apply(variables, x, statistics='running')
    want = (
      scale
      * (np.float64(x) - stats['mean'])
      / np.sqrt(np.float64(stats['var']) + 1e-5)
    )
    np.testing.assert_allclose(y, want + bias, rtol=1e-5, atol=1e-5)
    alone = self.layer().apply(variables, x[:1], statistics='running')
    same_bits.assert_same(alone, y[:1])

  @parameterized.parameters(
    (dict(momentum=1.0), 'momentum'),
    (dict(momentum=-0.1), 'momentum'),
    (dict(epsilon=-1.0), 'epsilon'),
    (dict(group_size=0), 'group_size'),
    (dict(running_variance='both'), 'running_variance'),
  )
  def test_make_refuses(self, keywords, message):
    with self.assertRaisesRegex(ValueError, message):
      norms.make('batch', **keywords)


if __name__ == '__main__':
  absltest.main()
