import functools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from flax import linen as nn

from bn_jax import norms
from bn_jax.norms import population
from bn_jax.training import devices
from tests.analysis import journal_test
from tests.fixtures import (
  same_bits,
  strict,  # noqa: F401
)


def setUpModule():
  # Numbers hang little on optimization, compiling takes the time.
  jax.config.update('jax_disable_most_optimizations', True)


def tearDownModule():
  jax.config.update('jax_disable_most_optimizations', False)


class Net(nn.Module):
  """Two layers with norms, a nonlinearity between; noise where it is passed."""

  norm: norms.Norm

  @nn.compact
  def __call__(self, x, *, statistics, mask=None):
    for number in (1, 2):
      x = nn.Dense(4, use_bias=False, name=f'dense{number}')(x)
      x = nn.relu(
        self.norm.layer(f'norm{number}')(x, statistics=statistics, mask=mask)
      )
    return x


def made(name='batch', **keywords):
  module = Net(norms.make(name, **keywords))
  variables = module.init(jax.random.key(0), batches()[0], statistics='running')
  return module, variables


def batches(count=5, size=6):
  generator = np.random.default_rng(0)
  return list(
    generator.normal(2, 3, size=(count, size, 2, 3)).astype(np.float32)
  )


def dense(variables, number, x):
  kernel = np.float64(variables['params'][f'dense{number}']['kernel'])
  return np.float64(x) @ kernel


def normalised(x, mean, var):
  return np.maximum((x - mean) / np.sqrt(var + 1e-5), 0)


class PopulationTest(parameterized.TestCase):
  @parameterized.parameters(None, 2)
  def test_algorithm_2(self, group_size):
    """E[x], and m/(m-1) E[var]; m is values, so positions count."""
    module, variables = made(group_size=group_size)
    found = norms.population_statistics(module, variables, batches())
    self.assertEqual((found.batches, found.examples), (5, 30))
    groups = np.concatenate(batches()).reshape(-1, (group_size or 6) * 2, 3)
    m = groups.shape[1]
    x = dense(variables, 1, groups)
    stats = found.batch_stats['norm1']
    np.testing.assert_allclose(stats['mean'], x.mean((0, 1)), rtol=1e-5)
    np.testing.assert_allclose(
      stats['var'], m / (m - 1) * x.var(1).mean(0), rtol=1e-5
    )
    # The second layer sees batches that the first has normalised by their own.
    x = normalised(x, x.mean(1, keepdims=True), x.var(1, keepdims=True))
    x = dense(variables, 2, x)
    stats = found.batch_stats['norm2']
    np.testing.assert_allclose(stats['mean'], x.mean((0, 1)), rtol=1e-4)
    np.testing.assert_allclose(
      stats['var'], m / (m - 1) * x.var(1).mean(0), rtol=1e-4
    )

  def test_pooled_variance_is_that_of_all_values(self):
    module, variables = made()
    found = norms.population_statistics(
      module, variables, batches(), variance='pooled'
    )
    x = dense(variables, 1, np.concatenate(batches())).reshape(-1, 4)
    np.testing.assert_allclose(
      found.batch_stats['norm1']['var'], x.var(0), rtol=1e-5
    )
    np.testing.assert_allclose(
      found.batch_stats['norm1']['mean'], x.mean(0), rtol=1e-5
    )

  def test_layer_after_layer(self):
    """The literal reading: the first layer infers when the second is found."""
    module, variables = made()
    found = norms.population_statistics(
      module, variables, batches(), layerwise=True
    )
    x = dense(variables, 1, np.stack(batches()))
    for number in (1, 2):
      stats = found.batch_stats[f'norm{number}']
      mean, var = x.mean((0, 1, 2)), 12 / 11 * x.var((1, 2)).mean(0)
      np.testing.assert_allclose(stats['mean'], mean, rtol=1e-4)
      np.testing.assert_allclose(stats['var'], var, rtol=1e-4)
      if number == 1:
        x = dense(variables, 2, normalised(x, mean, var))
    at_once = norms.population_statistics(module, variables, batches())
    a, b = (f.batch_stats['norm2']['var'] for f in (found, at_once))
    self.assertGreater(float(jnp.abs(a / b - 1).max()), 1e-3)

  def test_expected_variance_is_that_of_the_source(self):
    """m/(m-1): for batches of two values the biased one is half of it."""
    module, variables = made(group_size=1)
    pairs = batches(2000, 1)
    found = norms.population_statistics(module, variables, pairs)
    kernel = np.float64(variables['params']['dense1']['kernel'])
    want = 9 * (kernel**2).sum(0)
    np.testing.assert_allclose(
      found.batch_stats['norm1']['var'], want, rtol=0.08
    )

  @parameterized.product(
    variance=('within', 'pooled'), held=(1e4, np.inf, np.nan)
  )
  def test_padding_never_enters(self, variance, held):
    module, variables = made()
    padded = []
    for x in batches():
      mask = np.arange(6) < 4
      padded.append((np.where(mask[:, None, None], x, held), mask))
    got = norms.population_statistics(
      module, variables, padded, variance=variance
    )
    want = norms.population_statistics(
      module, variables, [x[:4] for x in batches()], variance=variance
    )
    self.assertEqual(got.examples, 20)
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
      got.batch_stats, want.batch_stats,
    )  # fmt: skip

  @parameterized.parameters(
    ('batch', 'within', True),
    ('batch', 'pooled', False),
    ('lp', 'within', False),
  )
  def test_goes_on_from_a_journal(self, norm, variance, layerwise):
    """To the same bits, and no batch that it has is taken again."""
    module, variables = made(norm, group_size=3)
    masks = [np.arange(6) < number for number in (6, 5, 4)]
    padded = list(zip(batches(3), masks))
    moments = journal_test.Counted(population._moments)
    self.enterContext(mock.patch.object(population, '_moments', moments))
    find = functools.partial(
      norms.population_statistics, module, variables, padded,
      variance=variance, layerwise=layerwise,
    )  # fmt: skip
    want, passes = find(), 3 if layerwise else 1
    times = 3 * passes
    self.assertEqual(moments.calls, times)
    for left in range(1, times + 1):
      journal = journal_test.Journal()
      journal.left = left
      moments.calls = 0
      with self.assertRaises(journal_test.Killed):
        find(journal=journal)
      journal.left = None
      same_bits.assert_same(find(journal=journal), want)
      self.assertEqual(moments.calls, times)
      self.assertLen(journal, passes)
      self.assertEqual(journal['population/0']['examples'], 15)

  def test_running_averages_and_momentum_have_no_influence(self):
    module, variables = made(momentum=0.1, running_average='corrected_ema')
    other = jax.tree.map(lambda a: a + 5, variables['batch_stats'])
    found = [
      norms.population_statistics(
        module, {**variables, 'batch_stats': stats}, batches(),
        layerwise=layerwise,
      ).batch_stats['norm2']['mean']
      for stats in (variables['batch_stats'], other)
      for layerwise in (False, True)
    ]  # fmt: skip
    same_bits.assert_same(found[0], found[2])
    np.testing.assert_allclose(found[1], found[3], rtol=1e-6)

  @parameterized.parameters(
    'batch', 'noisy', 'batch_renorm', 'l1', 'iternorm', 'evonorm_b0'
  )
  def test_of_every_layer_that_keeps_some(self, name):
    module, variables = made(name)
    before = jax.tree.map(np.asarray, variables['batch_stats'])
    found = norms.population_statistics(module, variables, iter(batches()))
    self.assertEqual(
      jax.tree.structure(found.batch_stats), jax.tree.structure(before)
    )
    x = dense(variables, 1, np.stack(batches()))
    stats = found.batch_stats['norm1']
    if name == 'evonorm_b0':  # it keeps the variance alone
      want = 12 / 11 * x.var((1, 2)).mean(0)
      np.testing.assert_allclose(stats['var'], want, rtol=1e-5)
    else:
      np.testing.assert_allclose(stats['mean'], x.mean((0, 1, 2)), rtol=1e-5)
    if name == 'l1':
      want = np.abs(x).mean((1, 2)).mean(0)
      np.testing.assert_allclose(stats['scale_p'], want, rtol=1e-4)
    if name == 'iternorm':  # the mean of the batches' matrices
      layer = norms.make(name, running_average='cumulative').layer('norm1')
      own = layer.init(
        jax.random.key(0), np.float32(x[0]), statistics='running'
      )
      for one in np.float32(x):
        _, new = layer.apply(
          own, one, statistics='batch', mutable=['batch_stats']
        )
        own = {**own, **new}
      want = own['batch_stats']['whitening']
      np.testing.assert_allclose(stats['whitening'], want, rtol=1e-4)
    # What it was given is as it was.
    same_bits.assert_same(variables['batch_stats'], before)

  def test_same_on_eight_devices(self):
    mesh = devices.mesh(8)
    module, variables = made()
    spread = made(spread=devices.in_sight(mesh))[0]
    xs = batches(3, 16)
    want = norms.population_statistics(module, variables, xs)
    on_all = jax.device_put(variables, devices.whole(mesh))
    got = norms.population_statistics(
      spread, on_all, [jax.device_put(x, devices.cut(mesh)) for x in xs]
    )
    self.assertEqual(got.examples, want.examples)
    for a, b in zip(
      jax.tree.leaves(got.batch_stats), jax.tree.leaves(want.batch_stats)
    ):
      self.assertLen(a.sharding.device_set, 8)
      np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)

  def test_far_from_zero(self):
    module, variables = made()
    variables['params']['dense1']['kernel'] = jnp.eye(3, 4)
    xs = [np.float32(1e4 + 0.1 * x) for x in batches()]
    for variance in norms.population.VARIANCES:
      found = norms.population_statistics(
        module, variables, xs, variance=variance
      )
      x = np.float64(xs).reshape(5, -1, 3)
      want = 12 / 11 * x.var(1).mean(0)
      if variance == 'pooled':
        want = x.reshape(-1, 3).var(0)
      got = found.batch_stats['norm1']['var'][:3]
      np.testing.assert_allclose(got, want, rtol=1e-3)

  def test_refuses(self):
    module, variables = made()
    call = norms.population_statistics
    with self.assertRaisesRegex(ValueError, 'no batches; allowed: one or'):
      call(module, variables, [])
    with self.assertRaisesRegex(ValueError, "variance is 'all'; allowed: with"):
      call(module, variables, batches(), variance='all')
    with self.assertRaisesRegex(ValueError, 'gone through once; .*a list'):
      call(module, variables, iter(batches()), layerwise=True)
    with self.assertRaisesRegex(ValueError, 'no group of two real values'):
      call(module, variables, [(batches()[0], np.zeros(6, bool))])
    plain = made('layer')
    with self.assertRaisesRegex(ValueError, 'keeps no batch statistics'):
      call(*plain, batches())


if __name__ == '__main__':
  absltest.main()
