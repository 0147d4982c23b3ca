import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from flax import linen as nn

from bn_jax import norms
from tests.fixtures import (
  same_bits,
  strict,  # noqa: F401
)

KEY = jax.random.key(5)


def setUpModule():
  # Numbers hang little on optimization, compiling takes the time.
  jax.config.update('jax_disable_most_optimizations', True)


def tearDownModule():
  jax.config.update('jax_disable_most_optimizations', False)


def normal(shape, seed=0):
  return jax.random.normal(jax.random.key(seed), shape)


class AddNoiseTest(parameterized.TestCase):
  def test_moments_given_the_unit(self):
    """E = mu and Var = sigma^2 + r_sigma^2 + r_mu^2 / 3, channel by channel.

    mu and sigma are read off the noise without its parts per element, which is
    drawn from the same keys.
    """
    x = normal((300, 40, 8))
    x = (x - x.mean((0, 1), keepdims=True)) / x.std((0, 1), keepdims=True)
    y = norms.add_noise(x, KEY)
    plain = norms.add_noise(x, KEY, r_mu=0.0, r_sigma=0.0)
    mu, sigma = plain.mean((0, 1)), plain.std((0, 1))
    np.testing.assert_allclose(y.mean((0, 1)), mu, atol=5e-3)
    variance = sigma**2 + 0.1**2 + 0.1**2 / 3
    np.testing.assert_allclose(y.var((0, 1)), variance, rtol=1e-2)

  def test_units_are_drawn_from_their_ranges(self):
    """Over 4,000 units: mu ~ U(-.5, .5), sigma ~ U(1, 1.25)."""
    x = jnp.stack([jnp.ones(4000), -jnp.ones(4000)])
    y = norms.add_noise(x, KEY, r_mu=0.0, r_sigma=0.0)
    mu, sigma = (y[0] + y[1]) / 2, (y[0] - y[1]) / 2
    for values, low, high in ((mu, -0.5, 0.5), (sigma, 1.0, 1.25)):
      self.assertGreaterEqual(values.min(), low - 1e-6)
      self.assertLessEqual(values.max(), high + 1e-6)
      width = high - low
      np.testing.assert_allclose(
        values.mean(), (low + high) / 2, atol=0.02 * width
      )
      np.testing.assert_allclose(values.std(), width / 12**0.5, rtol=0.03)

  def test_elements_are_drawn_around_their_unit(self):
    x = jnp.stack([jnp.zeros(4000), jnp.ones(4000)])
    y = norms.add_noise(x, KEY, n_mu=0.0, n_sigma=1.0)
    shift = y[0]
    self.assertLessEqual(jnp.abs(shift).max(), 0.1 + 1e-6)
    np.testing.assert_allclose(shift.std(), 0.1 / 3**0.5, rtol=0.03)
    # The factor of the second row, its shift unknown: variances add.
    np.testing.assert_allclose(y[1].mean(), 1.0, atol=0.01)
    np.testing.assert_allclose(y[1].var(), 0.1**2 + 0.1**2 / 3, rtol=0.06)

  def test_the_mean_of_a_unit_jumps_by_a_third_between_steps(self):
    x = jnp.zeros((1, 4000))
    steps = [
      norms.add_noise(x, jax.random.fold_in(KEY, t), r_mu=0.0) for t in (0, 1)
    ]
    change = jnp.abs(steps[1] - steps[0])
    np.testing.assert_allclose(change.mean(), 1 / 3, rtol=0.03)
    self.assertLessEqual(change.max(), 1.0)

  def test_an_example_does_not_see_how_many_stand_beside_it(self):
    x = normal((6, 3, 3, 4))
    all_of_them = norms.add_noise(x, KEY)
    some = norms.add_noise(x[:2], KEY)
    same_bits.assert_same(all_of_them[:2], some)
    self.assertFalse((all_of_them[0] - x[0] == all_of_them[1] - x[1]).any())

  def test_a_part_of_a_batch_says_where_it_begins(self):
    x = normal((6, 3, 3, 4))
    whole = norms.add_noise(x, KEY)
    part = norms.add_noise(x[4:], KEY, first=4)
    same_bits.assert_same(part, whole[4:])
    self.assertTrue((norms.add_noise(x[4:], KEY) != whole[4:]).any())

  def test_gradients_flow_through_the_factor(self):
    x = normal((4, 5))
    y, pull = jax.vjp(lambda x: norms.add_noise(x, KEY), x)
    (dx,) = pull(jnp.ones_like(y))
    shift = norms.add_noise(jnp.zeros_like(x), KEY)
    np.testing.assert_allclose(dx, (y - shift) / x, rtol=1e-4)

  def test_keeps_shape_and_dtype(self):
    for shape in ((3, 5), (3, 2, 2, 5)):
      y = norms.add_noise(jnp.zeros(shape, jnp.bfloat16), KEY)
      self.assertEqual((y.shape, y.dtype), (shape, jnp.bfloat16))


class NoisyLayerTest(parameterized.TestCase):
  def test_a_unit_is_a_channel_along_the_axis(self):
    x = normal((8, 3, 5, 4))
    last, second = (
      norms.make('noisy', axis=axis).layer('norm1') for axis in (-1, 1)
    )
    rngs = {'params': KEY, 'noise': KEY}
    want, _ = last.init_with_output(rngs, x, statistics='batch')
    moved, _ = second.init_with_output(
      rngs, jnp.moveaxis(x, -1, 1), statistics='batch'
    )
    np.testing.assert_allclose(
      jnp.moveaxis(moved, 1, -1), want, rtol=1e-5, atol=1e-5
    )

  def test_acts_if_and_only_if_its_rng_is_passed(self):
    x = normal((8, 3, 3, 4))
    noisy = norms.make('noisy').layer('norm1')
    plain = norms.make('batch').layer('norm1')
    variables = plain.init(KEY, x, statistics='running')
    equal = same_bits.assert_same
    for statistics in norms.STATISTICS:
      for_mode = dict(statistics=statistics, mutable=['batch_stats'])
      want, want_stats = plain.apply(variables, x, **for_mode)
      silent, _ = noisy.apply(variables, x, **for_mode)
      equal(silent, want)
      loud, stats = noisy.apply(variables, x, rngs={'noise': KEY}, **for_mode)
      self.assertFalse((loud == want).any())
      # The statistics are those of what came before the noise.
      jax.tree.map(equal, stats, want_stats)

  def test_is_added_after_scale_and_bias(self):
    x = normal((8, 4))
    layer = norms.make('noisy', r_mu=0.0, r_sigma=0.0).layer('norm1')
    params = {'scale': jnp.full(4, 10.0), 'bias': jnp.full(4, -100.0)}
    stats = {'mean': jnp.zeros(4), 'var': jnp.ones(4)}
    variables = {'params': params, 'batch_stats': stats}

    def output(**rngs):
      return layer.apply(
        variables, x, statistics='batch', mutable=['batch_stats'], **rngs
      )[0]

    before, after = output(), output(rngs={'noise': KEY})
    # after = sigma * before + mu: a line with 1 <= sigma <= 1.25.
    slope = (after[1] - after[0]) / (before[1] - before[0])
    self.assertBetween(float(slope.min()), 1.0 - 1e-3, 1.25)
    shift = after[0] - slope * before[0]
    self.assertLessEqual(float(jnp.abs(shift).max()), 0.5 + 2e-3)

  def test_layers_and_keys_draw_apart(self):
    x, norm = jnp.zeros((2, 50)), norms.make('noise')

    class Two(nn.Module):
      @nn.compact
      def __call__(self, x):
        return [norm.layer(name)(x, statistics='batch') for name in ('a', 'b')]

    draw = jax.jit(lambda key: Two().apply({}, x, rngs={'noise': key}))
    a, b = draw(KEY)
    self.assertFalse((a == b).any())
    same_bits.assert_same(draw(KEY)[0], a)
    self.assertFalse((draw(jax.random.key(6))[0] == a).any())

  def test_alone_it_is_the_same_noise_on_nothing(self):
    x = normal((8, 4))
    layer = norms.make('noise').layer('norm1')
    self.assertTrue(norms.make('noise').bias_before)
    same_bits.assert_same(layer.apply({}, x, statistics='batch'), x)
    loud = layer.apply({}, x, statistics='batch', rngs={'noise': KEY})
    self.assertFalse((loud == x).any())

  @parameterized.parameters(
    (dict(n_sigma=0.9), 'n_sigma is 0.9; allowed: 1 or more'),
    (dict(n_mu=-1), 'n_mu is -1'),
    (dict(r_mu=float('nan')), 'r_mu is nan'),
    (dict(r_sigma=-0.1), 'r_sigma is -0.1'),
  )
  def test_refuses(self, keywords, message):
    for name in ('noisy', 'noise'):
      with self.assertRaisesRegex(ValueError, message):
        norms.make(name, **keywords)
    with self.assertRaisesRegex(ValueError, 'momentum is 1'):
      norms.make('noisy', momentum=1)


if __name__ == '__main__':
  absltest.main()
