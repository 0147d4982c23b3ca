import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from flax import linen as nn

from bn_jax.models import lowering as lowering_lib
from bn_jax.models.lowering import conv, pool
from tests.fixtures import (
  reference,
  strict,  # noqa: F401
)


def setUpModule():
  # Numbers hang little on optimization, compiling takes the time.
  jax.config.update('jax_disable_most_optimizations', True)


def tearDownModule():
  jax.config.update('jax_disable_most_optimizations', False)


def arrays(size, window, channels=3, features=4, seed=0):
  generator = np.random.default_rng(seed)
  x = generator.normal(size=(2, *size, channels)).astype(np.float32)
  kernel = generator.normal(size=(*window, channels, features))
  return jnp.asarray(x), jnp.asarray(kernel, jnp.float32)


class ConvolveTest(parameterized.TestCase):
  @parameterized.product(
    case=(
      ((8, 8), (3, 3), 'SAME'),
      ((8, 8), (3, 3), 'VALID'),
      ((7, 5), (3, 3), 'SAME'),
      ((7, 5), (3, 3), 'VALID'),
      ((6, 9), (1, 1), 'SAME'),
      ((8, 7), (2, 5), 'SAME'),
      ((8, 7), (2, 5), 'VALID'),
      ((1, 1), (3, 3), 'SAME'),
    ),
    strides=((1, 1), (2, 2), (2, 1)),
  )
  def test_lowerings_equal_the_oracle_in_value_and_gradient(
    self, case, strides
  ):
    size, window, padding = case
    x, kernel = arrays(size, window)
    want = reference.convolution(x, kernel, strides, padding)
    dy = jnp.asarray(np.random.default_rng(1).normal(size=want.shape), x.dtype)
    gradients = {}
    for lowering in lowering_lib.LOWERINGS:

      def f(x, kernel, lowering=lowering):
        return conv.convolve(
          x, kernel, strides=strides, padding=padding, lowering=lowering
        )

      y, pull = jax.vjp(f, x, kernel)
      np.testing.assert_allclose(y, want, rtol=1e-4, atol=1e-5)
      gradients[lowering] = pull(dy)
    for got in gradients.values():
      for g, w in zip(got, gradients['library']):
        np.testing.assert_allclose(g, w, rtol=1e-4, atol=1e-4)

  @parameterized.parameters(1, 7)
  def test_symmetric_padding(self, window):
    """As without padding, of images with zeros on all sides."""
    x, kernel = arrays((8, 7), (window, window))
    edges = ((0, 0), (window // 2,) * 2, (window // 2,) * 2, (0, 0))
    want = reference.convolution(np.pad(x, edges), kernel, (2, 2), 'VALID')
    pads = conv.pads('symmetric', (window, window), (2, 2))
    for lowering in ('library', 'winograd'):
      y = conv.convolve(
        x, kernel, strides=(2, 2), padding=pads, lowering=lowering
      )
      np.testing.assert_allclose(y, want, rtol=1e-4, atol=1e-4)

  def test_forward_mode(self):
    x, kernel = arrays((4, 4), (3, 3))
    for lowering in lowering_lib.LOWERINGS:
      _, tangent = jax.jvp(
        lambda k, lowering=lowering: conv.convolve(x, k, lowering=lowering),
        (kernel,),
        (kernel,),
      )
      np.testing.assert_allclose(
        tangent, reference.convolution(x, kernel, (1, 1), 'SAME'), atol=1e-4
      )

  @parameterized.product(
    lowering=lowering_lib.LOWERINGS,
    dtype=('uint8', 'int32', 'bool', 'complex64'),
  )
  def test_refuses_what_is_not_floating_point(self, lowering, dtype):
    """Its kernel would be cast to integers too."""
    x = np.ones((2, 4, 4, 3), dtype)
    for layer in (
      conv.Conv(5, lowering=lowering),
      conv.DepthwiseConv(2, lowering=lowering),
    ):
      with self.assertRaisesRegex(ValueError, f'x is {dtype}; allowed'):
        jax.eval_shape(layer.init, jax.random.key(0), x)
    kernel = np.ones((3, 3, 3, 5), dtype)
    with self.assertRaisesRegex(ValueError, f'kernel is {dtype}; allowed'):
      conv.convolve(np.ones((2, 4, 4, 3)), kernel, lowering=lowering)
    for pooled in (conv.max_pool, pool.max_pool, pool.average_pool):
      with self.assertRaisesRegex(ValueError, f'x is {dtype}; allowed'):
        pooled(x, lowering=lowering)

  def test_unknown_lowering(self):
    x, kernel = arrays((4, 4), (3, 3))
    with self.assertRaisesRegex(ValueError, "'produkt'.*'product'"):
      conv.convolve(x, kernel, lowering='produkt')


class ConvTest(parameterized.TestCase):
  @parameterized.parameters(*lowering_lib.LOWERINGS)
  def test_has_the_parameters_of_flax(self, lowering):
    x, _ = arrays((6, 6), (3, 3))
    flax = nn.Conv(5, (3, 3))
    ours = conv.Conv(5, lowering=lowering)
    variables = flax.init(jax.random.key(0), x)
    made = ours.init(jax.random.key(0), x)
    shapes = jax.tree.map(jnp.shape, variables)
    self.assertEqual(jax.tree.map(jnp.shape, made), shapes)
    np.testing.assert_allclose(
      ours.apply(variables, x), flax.apply(variables, x), rtol=1e-4, atol=1e-5
    )

  def test_the_gradient_of_the_bias_in_bfloat16(self):
    """It counts the outputs; a sum in bfloat16 would stop at 256."""
    layer = conv.Conv(2, (1, 1))
    x = jnp.ones((4, 16, 16, 1), jnp.bfloat16)
    variables = layer.init(jax.random.key(0), x)
    total = lambda v: layer.apply(v, x).astype(jnp.float32).sum()
    bias = jax.jit(jax.grad(total))(variables)['params']['bias']
    np.testing.assert_array_equal(bias, np.float32([1024, 1024]))

  def test_glorot_variance(self):
    """Uniform in +-sqrt(6 / (fan_in + fan_out)): variance 2 / (sum)."""
    x = jnp.zeros((1, 4, 4, 32))
    kernel = conv.Conv(64).init(jax.random.key(0), x)['params']['kernel']
    want = 2 / (9 * (32 + 64))
    self.assertAlmostEqual(float(kernel.var()) / want, 1, delta=0.03)


class DepthwiseConvTest(parameterized.TestCase):
  @parameterized.product(
    size=((7, 5), (1, 1)), window=((7, 7), (2, 3)), strides=((1, 1), (2, 2))
  )  # fmt: skip
  def test_lowerings_equal_the_oracle_in_value_and_gradient(
    self, size, window, strides
  ):
    """Channel by channel, each with its own kernel to 8 outputs."""
    x, _ = arrays(size, window)
    _, kernel = arrays(size, window, channels=1, features=3 * 8)
    want = np.concatenate(
      [
        reference.convolution(
          x[..., c : c + 1], kernel[..., 8 * c : 8 * c + 8], strides, 'SAME'
        )
        for c in range(3)
      ],
      axis=-1,
    )
    dy = jnp.asarray(np.random.default_rng(1).normal(size=want.shape), x.dtype)
    gradients = {}
    for lowering in lowering_lib.LOWERINGS:
      layer = conv.DepthwiseConv(8, window, strides, lowering=lowering)

      @jax.jit
      def both_ways(x, kernel, dy, layer=layer):
        y, pull = jax.vjp(
          lambda x, kernel: layer.apply({'params': {'kernel': kernel}}, x),
          x,
          kernel,
        )
        return y, pull(dy)

      y, gradients[lowering] = both_ways(x, kernel, dy)
      np.testing.assert_allclose(y, want, rtol=1e-4, atol=1e-4)
    for got in gradients.values():
      for g, w in zip(got, gradients['library']):
        np.testing.assert_allclose(g, w, rtol=1e-4, atol=1e-4)

  def test_has_the_parameters_of_flax(self):
    x, _ = arrays((6, 6), (3, 3))
    flax = nn.Conv(24, (3, 3), feature_group_count=3, use_bias=False)
    variables = flax.init(jax.random.key(0), x)
    np.testing.assert_allclose(
      conv.DepthwiseConv(8).apply(variables, x), flax.apply(variables, x),
      rtol=1e-4, atol=1e-5,
    )  # fmt: skip


class MaxPoolTest(parameterized.TestCase):
  @parameterized.parameters((8, 8), (7, 5), (2, 3))
  def test_lowerings_agree_in_value_and_gradient(self, height, width):
    x, _ = arrays((height, width), (1, 1))
    # Few distinct values: in most windows the maximum is not the only one.
    x = jnp.round(x)
    want, pull_want = jax.vjp(lambda x: conv.max_pool(x, lowering='library'), x)
    dy = jnp.asarray(np.random.default_rng(1).normal(size=want.shape), x.dtype)
    for lowering in ('product', 'auto'):
      y, pull = jax.vjp(
        lambda x, lowering=lowering: conv.max_pool(x, lowering=lowering), x
      )
      # Of 0 and -0 either may be the maximum.
      np.testing.assert_array_equal(y, want)
      np.testing.assert_array_equal(pull(dy)[0], pull_want(dy)[0])

  @parameterized.parameters(0, 1, 2, 3)
  def test_nan_stays_nan(self, place):
    x = np.zeros((1, 2, 2, 1), np.float32)
    x[0, place // 2, place % 2] = np.nan
    y = conv.max_pool(jnp.asarray(x), lowering='product')
    self.assertTrue(np.isnan(y).all())


if __name__ == '__main__':
  absltest.main()
