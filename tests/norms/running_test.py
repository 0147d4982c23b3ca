"""Running averages, and what of a batch enters them."""

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


def batches(count=4, shape=(6, 2, 3)):
  generator = np.random.default_rng(0)
  return generator.normal(3, 2, size=(count, *shape)).astype(np.float32)


def after(layer, xs, **keywords):
  """batch_stats after so many batches, and before them."""
  variables = layer.init(jax.random.key(0), xs[0], statistics='running')
  params, stats = variables['params'], variables['batch_stats']
  for x in xs:
    _, new = layer.apply(
      {'params': params, 'batch_stats': stats}, x, statistics='batch',
      mutable=['batch_stats'], **keywords,
    )  # fmt: skip
    stats = new['batch_stats']
  return stats


class RunningAverageTest(parameterized.TestCase):
  def moments(self, xs):
    flat = np.float64(xs).reshape(len(xs), -1, 3)
    return flat.mean(1), flat.var(1)

  def test_ema_keeps_a_share_of_its_beginning(self):
    xs = batches()
    stats = after(norms.make('batch', momentum=0.8).layer('norm1'), xs)
    mean_BC, var_BC = self.moments(xs)
    weights = 0.2 * 0.8 ** np.arange(3, -1, -1)
    np.testing.assert_allclose(stats['mean'], weights @ mean_BC, rtol=1e-5)
    np.testing.assert_allclose(
      stats['var'], weights @ var_BC + 0.8**4, rtol=1e-5
    )
    self.assertNotIn('count', stats)

  def test_corrected_ema_does_not(self):
    xs = batches()
    layer = norms.make(
      'batch', momentum=0.8, running_average='corrected_ema'
    ).layer('norm1')
    mean_BC, var_BC = self.moments(xs)
    weights = 0.2 * 0.8 ** np.arange(3, -1, -1) / (1 - 0.8**4)
    stats = after(layer, xs)
    np.testing.assert_allclose(stats['mean'], weights @ mean_BC, rtol=1e-5)
    np.testing.assert_allclose(stats['var'], weights @ var_BC, rtol=1e-5)
    first = after(layer, xs[:1])
    np.testing.assert_allclose(first['var'], var_BC[0], rtol=1e-5)

  @parameterized.parameters('batch', 'noisy', 'batch_renorm')
  def test_cumulative_is_the_mean_of_all(self, name):
    xs = batches()
    layer = norms.make(name, running_average='cumulative').layer('norm1')
    mean_BC, var_BC = self.moments(xs)
    stats = after(layer, xs)
    np.testing.assert_allclose(stats['mean'], mean_BC.mean(0), rtol=1e-5)
    np.testing.assert_allclose(stats['var'], var_BC.mean(0), rtol=1e-5)
    self.assertEqual(int(stats['count']), 4)

  @parameterized.parameters('ema', 'corrected_ema', 'cumulative')
  def test_a_batch_of_padding_moves_nothing(self, kind):
    xs = batches()
    layer = norms.make('batch', running_average=kind).layer('norm1')
    before = after(layer, xs[:2])
    variables = {
      'params': {'scale': jnp.ones(3), 'bias': jnp.zeros(3)},
      'batch_stats': before,
    }
    _, new = layer.apply(
      variables, xs[2], statistics='batch', mask=jnp.zeros(6, bool),
      mutable=['batch_stats'],
    )  # fmt: skip
    same_bits.assert_same(new['batch_stats'], before)

  def test_make_refuses(self):
    with self.assertRaisesRegex(ValueError, "is 'mean'; allowed: ema, correct"):
      norms.make('batch', running_average='mean')

  def test_equals_flax(self):
    """Ten steps of flax.linen.BatchNorm with its exact variance."""
    xs = batches(10)
    layer = norms.make('batch', momentum=0.9).layer('norm1')
    theirs = nn.BatchNorm(momentum=0.9, epsilon=1e-5, use_fast_variance=False)
    variables = layer.init(jax.random.key(0), xs[0], statistics='running')
    for x in xs:
      got, new = layer.apply(
        variables, x, statistics='batch', mutable=['batch_stats']
      )
      want, new_theirs = theirs.apply(
        variables, x, use_running_average=False, mutable=['batch_stats']
      )
      np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)
      for name in ('mean', 'var'):
        np.testing.assert_allclose(
          new['batch_stats'][name], new_theirs['batch_stats'][name], rtol=1e-6
        )
      variables = {**variables, **new}
    np.testing.assert_allclose(
      layer.apply(variables, xs[0], statistics='running'),
      theirs.apply(variables, xs[0], use_running_average=True),
      rtol=1e-6, atol=1e-6,
    )  # fmt: skip


class MomentsTest(parameterized.TestCase):
  """A batch's own statistics, for whoever asks."""

  @parameterized.product(statistics=norms.STATISTICS, group_size=(None, 2))
  def test_are_those_of_its_groups(self, statistics, group_size):
    x = batches(1)[0]
    layer = norms.make('batch', group_size=group_size).layer('norm1')
    variables = layer.init(jax.random.key(0), x, statistics='running')
    self.assertNotIn('moments', variables)
    _, new = layer.apply(
      variables, x, statistics=statistics, mutable=['moments']
    )
    self.assertEqual(list(new), ['moments'])
    found = new['moments']['batch']
    want = norms.moments(x, group_size=group_size)
    for name in ('mean', 'var', 'count'):
      same_bits.assert_same(found[name], getattr(want, name))


if __name__ == '__main__':
  absltest.main()
