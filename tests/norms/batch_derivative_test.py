"""The derivative of the layer against that of the formulas, and its memory."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from bn_jax import norms
from tests.fixtures import strict  # noqa: F401


def plainly(x, scale, bias, groups, mask, epsilon):
  """Algorithm 1 and its moments, in operations that JAX differentiates."""
  x = jnp.where(mask.reshape(-1, *(1,) * (x.ndim - 1)), x, 0)
  x_GMC = x.reshape(groups, -1, x.shape[-1])
  real = jnp.repeat(mask, x.size // x.shape[0] // x.shape[-1])
  real_GM1 = real.reshape(groups, -1, 1)
  count = real_GM1.sum(1, keepdims=True)
  mean = jnp.where(real_GM1, x_GMC, 0).sum(1, keepdims=True) / count
  square = jnp.where(real_GM1, (x_GMC - mean) ** 2, 0)
  var = square.sum(1, keepdims=True) / count
  y = (x_GMC - mean) / jnp.sqrt(var + epsilon) * scale.reshape(1, 1, -1)
  y = (y + bias.reshape(1, 1, -1)).reshape(x.shape)
  return y, mean[:, 0], var[:, 0]


class DerivativeTest(parameterized.TestCase):
  @parameterized.product(
    shape=((8, 3), (8, 2, 3, 3)),
    groups=(1, 2),
    masked=(False, True),
    epsilon=(0.0, 1e-2),
  )
  def test_equals_that_of_the_formulas(self, shape, groups, masked, epsilon):
    """Values, both modes, and the second order, along random directions."""
    with jax.enable_x64(True):
      generator = np.random.default_rng(2)
      x = jnp.asarray(generator.normal(3, 2, size=shape))
      scale, bias = jnp.asarray(generator.normal(size=(2, 3)))
      mask = jnp.arange(8) % 4 != 1 if masked else jnp.ones(8, bool)

      def ours(x, scale, bias):
        y, moments = norms.batch_norm(
          x, scale, bias,
          group_size=8 // groups,
          mask=mask if masked else None,
          epsilon=epsilon,
        )  # fmt: skip
        return y, moments.mean, moments.var

      def theirs(x, scale, bias):
        return plainly(x, scale, bias, groups, mask, epsilon)

      at = (x, scale, bias)
      along = jax.tree.map(lambda a: generator.normal(size=a.shape), at)
      weights = jax.tree.map(
        lambda a: generator.normal(size=a.shape), jax.eval_shape(theirs, *at)
      )

      def all_of(f):
        def loss(*at):
          total = jax.tree.map(lambda w, y: jnp.sum(w * y), weights, f(*at))
          return sum(jnp.sin(part) for part in total)

        gradient = jax.grad(loss, (0, 1, 2))
        return (
          jax.jvp(f, at, along), gradient(*at), jax.jvp(gradient, at, along)
        )  # fmt: skip

      got, want = jax.jit(lambda: (all_of(ours), all_of(theirs)))()
      jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9),
        got, want,
      )  # fmt: skip

  @parameterized.product(dtype=('float32', 'bfloat16'), group_size=(None, 8))
  def test_keeps_the_input_and_four_numbers_a_channel(self, dtype, group_size):
    x = jnp.ones((32, 6, 6, 5), dtype)

    def y(x, scale, bias):
      return norms.batch_norm(x, scale, bias, group_size=group_size)[0]

    _, pull = jax.vjp(y, x, jnp.ones(5), jnp.zeros(5))
    kept = jax.tree.leaves(pull)
    large = [leaf for leaf in kept if leaf.size >= x.size]
    small = [leaf for leaf in kept if leaf.size < x.size]
    self.assertEqual([(leaf.size, leaf.dtype) for leaf in large], [
      (x.size, jnp.dtype(dtype))
    ])  # fmt: skip
    groups = 1 if group_size is None else 4
    self.assertLessEqual(sum(leaf.size for leaf in small), 4 * 5 * groups)

  def test_no_sum_writes_its_centred_input(self):
    """Forward and backward pass write y and dx, and nothing else as large."""
    if jax.default_backend() != 'cpu':
      self.skipTest('how the CPU compiler fuses')
    shape = (64, 16, 16, 32)

    @jax.jit
    def both(x, scale, bias, dy):
      y, pull = jax.vjp(lambda *at: norms.batch_norm(*at)[0], x, scale, bias)
      return y, pull(dy)

    x, channels = jnp.ones(shape), jnp.ones(32)
    text = both.lower(x, channels, channels, x).compile().as_text()
    _, entry = text.split('ENTRY')
    written = [
      dims
      for dims, operation in re.findall(
        r'= f32\[([\d,]+)\]\S* ([\w-]+)\(', entry
      )
      if math.prod(int(d) for d in dims.split(',')) == x.size
      and operation not in ('parameter', 'bitcast')
    ]
    self.assertLen(written, 2)


if __name__ == '__main__':
  absltest.main()
