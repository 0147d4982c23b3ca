import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from flax import linen as nn

from bn_jax.models import lowering as lowering_lib
from bn_jax.models.lowering import conv, pool
from tests.fixtures import (
  same_bits,
  strict,  # noqa: F401
)

SIZES = ((7, 6), (2, 3), (1, 1))


def setUpModule():
  # Numbers hang little on optimization, compiling takes the time.
  jax.config.update('jax_disable_most_optimizations', True)


def tearDownModule():
  jax.config.update('jax_disable_most_optimizations', False)


def images(size, kind='distinct', seed=0):
  generator = np.random.default_rng(seed)
  x = generator.normal(size=(2, *size, 3)).astype(np.float32)
  if kind == 'ties':  # in most windows the maximum is not the only one
    x = np.round(x)
  elif kind in ('inf', 'nan'):
    chosen = generator.uniform(size=x.shape) < (0.7 if kind == 'inf' else 0.05)
    x[chosen] = -np.inf if kind == 'inf' else np.nan
  return jnp.asarray(x)


def windows(x, window, stride):
  """Of float64 NumPy: (place of the window, its pixels [N, h, w, C])."""
  pads, places = [], []
  for size in x.shape[1:3]:
    count = -(-size // stride)
    pads.append(max((count - 1) * stride + window - size, 0) // 2)
    places.append(range(count))
  for i in places[0]:
    for j in places[1]:
      top, left = i * stride - pads[0], j * stride - pads[1]
      rows = slice(max(top, 0), top + window)
      columns = slice(max(left, 0), left + window)
      yield (i, j), (rows, columns), np.float64(x)[:, rows, columns]


def pulled(f, x):
  """(y, dx, dy) of a function and some gradient of its output."""
  dy = np.random.default_rng(1).normal(size=jax.eval_shape(f, x).shape)

  @jax.jit
  def both_ways(x, dy):
    y, pull = jax.vjp(f, x)
    return y, pull(dy)[0]

  return *both_ways(x, jnp.asarray(dy, x.dtype)), dy


def both(function, **keywords):
  return {
    lowering: lambda x, lowering=lowering: function(
      x, lowering=lowering, **keywords
    )
    for lowering in lowering_lib.LOWERINGS
  }


class MaxPoolTest(parameterized.TestCase):
  @parameterized.product(
    size=SIZES, kernel=((3, 1), (3, 2), (2, 1), (5, 3)),
    kind=('distinct', 'ties'),
  )  # fmt: skip
  def test_equals_the_oracle_in_value_and_gradient(self, size, kernel, kind):
    x = images(size, kind)
    for f in both(pool.max_pool, window=kernel[0], stride=kernel[1]).values():
      y, dx, dy = pulled(f, x)
      want, want_dx = np.zeros(y.shape), np.zeros(x.shape)
      for place, where, seen in windows(x, *kernel):
        flat = seen.reshape(len(x), -1, 3)
        first = flat.argmax(axis=1)  # row by row, the first of equal ones
        want[:, *place] = flat.max(axis=1)
        for n, c in np.ndindex(len(x), 3):
          row, column = np.divmod(first[n, c], seen.shape[2])
          row, column = row + where[0].start, column + where[1].start
          want_dx[n, row, column, c] += dy[n, *place, c]
      np.testing.assert_array_equal(y, want)
      np.testing.assert_allclose(dx, want_dx, atol=1e-5)

  @parameterized.parameters(*SIZES)
  def test_symmetric_padding(self, *size):
    """As without padding, of maps with one row of -inf on all sides."""
    x = images(size, 'distinct')
    edges = ((0, 0), (1, 1), (1, 1), (0, 0))
    padded = jnp.pad(x, edges, constant_values=-jnp.inf)

    def wanted(padded):
      return nn.max_pool(padded, (3, 3), (2, 2), 'VALID')

    for f in both(pool.max_pool, padding='symmetric').values():
      y, dx, dy = pulled(f, x)
      want, pull = jax.vjp(wanted, padded)
      np.testing.assert_array_equal(y, want)
      (want_dx,) = pull(jnp.asarray(dy, x.dtype))
      np.testing.assert_allclose(dx, want_dx[:, 1:-1, 1:-1], atol=1e-5)

  @parameterized.product(size=SIZES, stride=(1, 2))
  def test_lowerings_agree_at_minus_infinity(self, size, stride):
    made = both(pool.max_pool, stride=stride)
    x = images(size, 'inf')
    want, want_dx, _ = pulled(made['library'], x)
    for lowering in ('product', 'auto'):
      y, dx, _ = pulled(made[lowering], x)
      same_bits.assert_same(y, want)
      np.testing.assert_allclose(dx, want_dx, atol=1e-5)

  @parameterized.product(size=SIZES, stride=(1, 2))
  def test_nan_stays_nan(self, size, stride):
    x = images(size, 'nan')
    for f in both(pool.max_pool, stride=stride).values():
      want = np.full(f(x).shape, 0.0)
      for place, _, seen in windows(x, 3, stride):
        want[:, *place] = seen.max(axis=(1, 2))
      np.testing.assert_array_equal(f(x), want)

  @parameterized.parameters(*lowering_lib.LOWERINGS)
  def test_second_derivatives_and_forward_mode(self, lowering):
    x, dx = images((6, 6)), images((6, 6), seed=2)
    gradient = jax.jit(
      jax.grad(lambda x: (pool.max_pool(x, lowering=lowering) ** 3).sum())
    )
    _, curvature = jax.jvp(gradient, (x,), (dx,))
    # The same places win nearby.
    apart = gradient(x + 1e-3 * dx) - gradient(x - 1e-3 * dx)
    np.testing.assert_allclose(curvature, apart / 2e-3, atol=0.02)

  @parameterized.parameters(
    (pool.max_pool, 'cuda', 0), (pool.max_pool, 'tpu', 1),
    (conv.max_pool, 'cuda', 0), (conv.max_pool, 'tpu', 1),
  )  # fmt: skip
  def test_of_gpus_has_no_gradient_of_windows(self, function, platform, count):
    def total(x):
      return function(x, lowering='library').sum()

    traced = jax.jit(jax.grad(total)).trace(images((8, 8)))
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    self.assertEqual(text.count('"stablehlo.select_and_scatter"'), count)

  def test_refuses(self):
    x = images((4, 4))
    with self.assertRaisesRegex(
      ValueError, 'stride is 4; allowed: 1 <= stride'
    ):
      pool.max_pool(x, window=3, stride=4)
    with self.assertRaisesRegex(ValueError, "'fast'"):
      pool.max_pool(x, lowering='fast')
    with self.assertRaisesRegex(ValueError, "'fast'"):
      pool.average_pool(x, lowering='fast')


class AveragePoolTest(parameterized.TestCase):
  @parameterized.product(size=SIZES, window=(2, 3))
  def test_equals_the_oracle_in_value_and_gradient(self, size, window):
    x = images(size)
    for f in both(pool.average_pool, window=window).values():
      y, dx, dy = pulled(f, x)
      want, want_dx = np.zeros(y.shape), np.zeros(x.shape)
      for place, where, seen in windows(x, window, 1):
        pixels = seen.shape[1] * seen.shape[2]  # those of the padding are none
        want[:, *place] = seen.sum(axis=(1, 2)) / pixels
        want_dx[:, *where] += dy[:, *place][:, None, None] / pixels
      np.testing.assert_allclose(y, want, atol=1e-6)
      np.testing.assert_allclose(dx, want_dx, atol=1e-5)

  @parameterized.parameters(*lowering_lib.LOWERINGS)
  def test_a_constant_stays_one_at_the_border(self, lowering):
    y = pool.average_pool(jnp.full((1, 5, 4, 2), 3.0), lowering=lowering)
    np.testing.assert_allclose(y, 3, rtol=1e-6)

  @parameterized.product(
    function=(pool.max_pool, pool.average_pool),
    lowering=lowering_lib.LOWERINGS,
  )
  def test_keeps_the_dtype(self, function, lowering):
    x = images((4, 4)).astype(jnp.bfloat16)
    self.assertEqual(function(x, lowering=lowering).dtype, jnp.bfloat16)

  def test_global(self):
    x = images((5, 4))
    np.testing.assert_allclose(
      pool.global_average(x), np.float64(x).mean(axis=(1, 2)), atol=1e-6
    )


if __name__ == '__main__':
  absltest.main()
