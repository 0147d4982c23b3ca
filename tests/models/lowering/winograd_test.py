import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from flax import linen as nn
from jax import test_util

from bn_jax import models
from bn_jax.models.lowering import conv, thin, winograd
from tests.fixtures import (
  reference,
  strict,  # noqa: F401
)


def arrays(size, channels=3, features=2, dtype=np.float64):
  generator = np.random.default_rng(0)
  x = generator.normal(size=(2, *size, channels))
  kernel = generator.normal(size=(3, 3, channels, features))
  return x.astype(dtype), kernel.astype(dtype)


class AlgorithmTest(parameterized.TestCase):
  @parameterized.parameters('F43', 'PAIR')
  def test_matrices_make_a_correlation(self, name):
    """A' diag(G g) B' is the band of taps, tap by tap, in exact fractions."""
    made = getattr(winograd, name)
    inputs, taps, outputs = map(np.float64, made[2:])
    for tap in range(3):
      got = outputs @ np.diag(taps[:, tap]) @ inputs
      # Output i sees input i + tap of the padded axis.
      want = np.eye(made.tile, inputs.shape[1], tap + made.pad - 1)
      np.testing.assert_allclose(got, want, atol=1e-15)

  def test_values_at_the_points(self):
    """F(4, 3): 0, 5/8, -5/8, 3/2, -3/2 and infinity: the leading coefficient.

    A and B are exact in float32.
    """
    points = np.array([0, 5 / 8, -5 / 8, 3 / 2, -3 / 2])
    for matrix in (winograd.F43.inputs, winograd.F43.outputs):
      np.testing.assert_array_equal(np.float32(matrix), matrix)
    powers = points[:, None] ** np.arange(4)
    np.testing.assert_array_equal(np.array(winograd.F43.outputs).T[:-1], powers)
    taps = np.array(winograd.F43.taps)
    distances = points[:, None] - points[None] + np.eye(5)
    want = powers[:, :3] / distances.prod(axis=1, keepdims=True)
    np.testing.assert_allclose(taps[:-1], want, rtol=1e-15)
    np.testing.assert_array_equal(taps[-1], [0, 0, 1])
    for point, row in zip((*points, np.inf), winograd.F43.inputs, strict=True):
      others = np.poly(points[points != point])[::-1]
      np.testing.assert_array_equal(row[: len(others)], others)


class ConvolveTest(parameterized.TestCase):
  @parameterized.parameters(
    *((winograd, (height, width)) for height, width in (
      (1, 3), (2, 2), (2, 4), (8, 5), (7, 2), (6, 9)
    )),
    (thin, (4, 3)),
  )  # fmt: skip
  def test_is_the_convolution_and_its_derivatives(self, form, size):
    """Value, both gradients and a Hessian product, against the product form."""

    def all_of(convolve):
      def loss(x, kernel):
        return jnp.sin(convolve(x, kernel)).sum()

      @jax.jit
      def run(x, kernel):
        both = (0, 1)
        gradient = jax.grad(loss, both)
        product = jax.jvp(gradient, (x, kernel), (x, kernel))
        return convolve(x, kernel), product

      return run

    with jax.enable_x64(True):
      x, kernel = arrays(size)
      got = all_of(form.convolve)(x, kernel)
      want = all_of(lambda x, k: conv.convolve(x, k, lowering='product'))(
        x, kernel
      )
      for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        self.assertEqual(g.dtype, jnp.float64)
        np.testing.assert_allclose(g, w, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(
      got[0], reference.convolution(x, kernel, (1, 1), 'SAME'), atol=1e-10
    )

  def test_derivatives_of_both_modes_to_second_order(self):
    """Of a side of either algorithm, against finite differences."""
    with jax.enable_x64(True):
      x, kernel = arrays((4, 2), channels=2, features=1)
      test_util.check_grads(
        jax.jit(winograd.convolve), (x, kernel), order=2, modes=('fwd', 'rev')
      )

  def test_takes_no_examples(self):
    y = winograd.convolve(jnp.ones((0, 5, 2, 8)), jnp.ones((3, 3, 8, 4)))
    self.assertEqual(y.shape, (0, 5, 2, 4))

  def test_vmap(self):
    x, kernel = arrays((4, 4), dtype=np.float32)
    kernels = np.stack([kernel, 2 * kernel])
    got = jax.jit(jax.vmap(winograd.convolve, (None, 0)))(x, kernels)
    want = conv.convolve(x, kernel, lowering='product')
    np.testing.assert_allclose(got, np.stack([want, 2 * want]), atol=1e-4)

  @parameterized.parameters((16, 32, 8), (4, 128, 64), (2, 128, 64))
  def test_error_in_float32(self, side, channels, features):
    """Value and gradients are within 2e-6 of their size; rounded, not wrong.

    With the points 0, 1, -1, 2, -2 it would be 2.7e-6.
    """
    x, kernel = arrays((side, side), channels, features)
    dy = np.random.default_rng(1).normal(size=(2, side, side, features))

    def both_ways(convolve):
      @jax.jit
      def run(x, kernel, dy):
        y, pull = jax.vjp(convolve, x, kernel)
        return y, *pull(dy)

      return run

    with jax.enable_x64(True):
      want = both_ways(lambda x, k: conv.convolve(x, k, lowering='product'))(
        x, kernel, dy
      )
    narrow = (array.astype(np.float32) for array in (x, kernel, dy))
    got = both_ways(winograd.convolve)(*narrow)
    for g, w in zip(got, want, strict=True):
      self.assertEqual(g.dtype, jnp.float32)
      g, w = np.float64(g), np.float64(w)
      error = np.linalg.norm(g - w) / np.linalg.norm(w)
      self.assertBetween(error, 1e-9, 2e-6)

  def test_kernel_of_another_size(self):
    x, _ = arrays((4, 4))
    with self.assertRaisesRegex(
      ValueError, 'a kernel of 5 x 3; allowed: 3 x 3'
    ):
      winograd.convolve(x, np.zeros((5, 3, 3, 2)))


class LoweringTest(parameterized.TestCase):
  @parameterized.parameters(
    ((8, 8), (3, 3), 8, (1, 1), 'SAME', 'float32', 144),
    ((7, 3), (3, 3), 8, (1, 1), 'SAME', 'float32', 72),
    ((2, 2), (3, 3), 8, (1, 1), 'SAME', 'float32', 9),
    ((8, 8), (3, 3), 3, (1, 1), 'SAME', 'float32', None),
    ((8, 8), (1, 1), 8, (1, 1), 'SAME', 'float32', None),
    ((8, 8), (3, 3), 8, (2, 2), 'SAME', 'float32', None),
    ((8, 8), (3, 3), 8, (1, 1), 'VALID', 'float32', None),
    ((8, 1), (3, 3), 8, (1, 1), 'SAME', 'float32', None),
    ((8, 8), (3, 3), 8, (1, 1), 'SAME', 'bfloat16', None),
    ((32, 32), (3, 3), 33, (1, 1), 'SAME', 'float32', 2304),
  )
  def test_where_it_pays(
    self, size, window, channels, strides, padding, dtype, products
  ):
    """Multiplications of an example and a pair of channels; None: the other."""
    x = jnp.zeros((1, *size, channels), dtype)
    kernel = jnp.zeros((*window, channels, 5), dtype)
    keywords = dict(strides=strides, padding=padding)

    def jaxpr(lowering):
      return jax.make_jaxpr(
        lambda x, k: conv.convolve(x, k, lowering=lowering, **keywords)
      )(x, kernel)

    made = jaxpr('winograd')
    if products is None:
      self.assertEqual(str(made), str(jaxpr('product')))
      return
    dots = [e for e in made.eqns if e.primitive.name == 'dot_general']
    self.assertLen(dots, 1)
    batch, tiles, _ = dots[0].invars[0].aval.shape
    self.assertEqual(batch * tiles, products)

  @parameterized.parameters(
    ((32, 40), 16, 'float32', True),
    ((31, 40), 16, 'float32', False),
    ((32, 40), 17, 'float32', False),
    ((32, 40), 16, 'float64', False),
  )
  def test_few_channels_on_many_places(self, size, channels, dtype, is_thin):
    with jax.enable_x64(True):
      x = jax.ShapeDtypeStruct((1, *size, channels), dtype)
      kernel = jax.ShapeDtypeStruct((3, 3, channels, 16), dtype)
      made, form = (
        str(jax.make_jaxpr(function)(x, kernel))
        for function in (
          lambda x, k: conv.convolve(x, k, lowering='winograd'),
          (thin if is_thin else winograd).convolve,
        )
      )
    self.assertEqual(made, form)

  def test_kernels_gradient_of_few_channels(self):
    """A product; the library's would move the channels to the front."""
    x, kernel = arrays((32, 32), 8, 8, np.float32)

    def loss(kernel):
      return conv.convolve(x, kernel, lowering='winograd').sum()

    made = str(jax.make_jaxpr(jax.grad(loss))(kernel))
    self.assertEqual(made.count('conv_general_dilated['), 1)
    self.assertEqual(made.count('dot_general['), 1)

  def test_layer_has_the_parameters_of_flax(self):
    made = [
      jax.eval_shape(
        lambda x, layer=layer: layer.init_with_output(jax.random.key(0), x),
        jnp.zeros((2, 4, 4, 8)),
      )
      for layer in (conv.Conv(5, lowering='winograd'), nn.Conv(5, (3, 3)))
    ]
    self.assertEqual(*made)

  def test_network(self):
    """All of a VGG-11's layers but the first; its pools are the product's."""
    shapes = (1, 32, 32, 3), jnp.float32
    lowered = {}
    for lowering in ('product', 'winograd'):
      module = models.make(
        'vgg11', num_classes=3, norm='none', lowering=lowering
      )
      made = jax.make_jaxpr(
        lambda x, module=module: module.init_with_output(
          jax.random.key(0), x, statistics='running'
        )[0]
      )(jax.ShapeDtypeStruct(*shapes))
      lowered[lowering] = [
        e for e in made.eqns if e.primitive.name == 'dot_general'
      ]
    batched = [
      len(dot.invars[0].aval.shape) == 3 for dot in lowered['winograd']
    ]
    self.assertEqual(batched, [False, *[True] * 7, False])


if __name__ == '__main__':
  absltest.main()
