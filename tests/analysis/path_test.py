import functools
import pathlib
from unittest import mock

import chex
import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from bn_jax import analysis, norms, types
from bn_jax.data.batches import in_memory
from bn_jax.norms import population
from bn_jax.storage import journal as storage
from bn_jax.training import devices as devices_lib
from tests.analysis import journal_test
from tests.fixtures import (
  layouts,
  same_bits,
  strict,  # noqa: F401
  toys,
)


def setUpModule():
  jax.config.update('jax_disable_most_optimizations', True)


def tearDownModule():
  jax.config.update('jax_disable_most_optimizations', False)


def double_well(params):
  """Sum of (x^2 - 1)^2: at 0 it is 1 for each x, at 1 and -1 it is 0."""
  return jnp.sum((params['x'] ** 2 - 1) ** 2)


OVER = ('batch', 'reset', 'interpolated')


class ClosedFormTest(parameterized.TestCase):
  def test_an_indefinite_quadratic(self):
    """f(t) is above its chord by t (1 - t) / 2 times -d'Hd."""
    with jax.enable_x64(True):
      generator = np.random.default_rng(0)
      hessian = generator.normal(size=(6, 6))
      hessian = hessian + hessian.T - 4 * np.eye(6)
      slope, a, b = generator.normal(size=(3, 6))
      bent = (b - a) @ hessian @ (b - a)
      self.assertLess(bent, 0)
      value = lambda x: 0.5 * x @ hessian @ x + slope @ x
      got = analysis.barrier(
        lambda p: 0.5 * p @ jnp.asarray(hessian) @ p + jnp.asarray(slope) @ p,
        jnp.asarray(a), jnp.asarray(b),
      )  # fmt: skip
    t = np.linspace(0, 1, 21)
    rise = value(b) - value(a)
    want = value(a) + t * rise - 0.5 * t * (1 - t) * bent
    np.testing.assert_array_equal(got['t'], t)
    np.testing.assert_allclose(got['loss'], want, rtol=1e-12)
    np.testing.assert_allclose(got['barrier'], -bent / 8, rtol=1e-12)
    mean = (value(a) + value(b)) / 2
    np.testing.assert_allclose(
      got['barrier_of_mean'], (want - mean).max(), rtol=1e-12
    )
    shapes = {name: array.shape for name, array in got.items()}
    self.assertEqual(
      shapes,
      {'t': (21,), 'loss': (21,), 'barrier': (), 'barrier_of_mean': ()},
    )

  def test_a_convex_loss_has_none(self):
    """But above the mean of its ends it rises by half of their difference."""
    loss, params, *_ = toys.quadratic()
    other = jax.tree.map(lambda x: 2 * x + 1, params)
    got = analysis.barrier(loss, params, other, points=7)
    self.assertEqual(got['barrier'], 0)
    self.assertEqual(got['loss'].argmax(), 6)
    half = (got['loss'][-1] - got['loss'][0]) / 2
    np.testing.assert_allclose(got['barrier_of_mean'], half, rtol=1e-12)

  def test_two_wells(self):
    """Ends with one loss: both definitions are the height of the middle."""
    ends = [{'x': jnp.full(3, value)} for value in (1.0, -1.0)]
    got = analysis.barrier(double_well, *ends, points=5)
    np.testing.assert_array_equal(got['loss'], [0, 27 / 16, 3, 27 / 16, 0])
    self.assertEqual(got['barrier'], 3)
    self.assertEqual(got['barrier_of_mean'], 3)

  def test_beside_the_loss(self):
    at = lambda x: {'accuracy': x.mean(), 'loss': (x**2).sum()}
    got = analysis.path(at, jnp.zeros(2), jnp.ones(2), points=3)
    self.assertEqual(list(got), ['t', 'loss', 'accuracy'])
    np.testing.assert_array_equal(got['accuracy'], [0, 0.5, 1])
    np.testing.assert_array_equal(got['loss'], [0, 0.5, 2])

  def test_what_is_not_finite_stays(self):
    """Of ends that are not finite, the other end sees nothing."""
    log = lambda x: jnp.sum(jnp.log(jnp.abs(x) - 0.5))
    got = analysis.barrier(log, jnp.ones(1), -jnp.ones(1), points=5)
    self.assertTrue(np.isfinite(got['loss'][[0, -1]]).all())
    self.assertTrue(np.isnan(got['loss'][2]))
    self.assertEqual(got['loss'][1], -np.inf)
    self.assertEqual(got['barrier'], np.inf)
    self.assertEqual(got['barrier_of_mean'], np.inf)
    got = analysis.barrier(
      lambda x: x.sum(), jnp.ones(1), jnp.full(1, np.inf), points=3
    )
    np.testing.assert_array_equal(got['loss'], [1, np.inf, np.inf])
    self.assertTrue(np.isnan(got['barrier']))
    self.assertTrue(np.isnan(got['barrier_of_mean']))

  def test_chunks(self):
    generator = np.random.default_rng(0)
    x = jnp.asarray(generator.normal(size=(10, 3)))
    loss = lambda x, w: {'loss': jnp.mean((x @ w) ** 4), 'half': 0.5 * x.mean()}
    a, b = jnp.asarray(generator.normal(size=(2, 3)))
    whole = analysis.barrier(functools.partial(loss, x), a, b, points=4)
    chunked = analysis.chunked(loss, x, chunk_size=4, group_size=1)
    got = analysis.barrier(chunked, a, b, points=4)
    for name, value in whole.items():
      np.testing.assert_allclose(got[name], value, rtol=1e-5, atol=1e-7)
    # Of 4 points and 3 chunks, each is kept.
    for left in range(1, 13):
      journal = journal_test.Journal()
      journal.left = left
      with self.assertRaises(journal_test.Killed):
        analysis.barrier(chunked, a, b, points=4, journal=journal)
      journal.left = None
      again = analysis.barrier(chunked, a, b, points=4, journal=journal)
      same_bits.assert_same(again, got)

  def test_is_compiled_once(self):
    traced = chex.assert_max_traces(lambda x, w: jnp.sum(x * w**2), n=1)
    for seed in range(4):
      x = jnp.full(3, float(seed))
      loss = jax.tree_util.Partial(traced, x)
      analysis.barrier(loss, jnp.zeros(3), jnp.ones(3), points=3)

  def test_called_as_it_is(self):
    """A loss that JAX cannot trace, since it makes a number of Python."""
    loss = lambda x: jnp.asarray(float(x.sum()) ** 2)
    ends = jnp.ones(2), -jnp.ones(2)
    with self.assertRaisesRegex(ValueError, 'traced by JAX.*compiled=False'):
      analysis.path(loss, *ends)
    got = analysis.path(loss, *ends, points=3, compiled=False)
    np.testing.assert_array_equal(got['loss'], [4, 0, 4])

  def test_refuses(self):
    ones = {'a': jnp.ones(2), 'b': {'c': jnp.ones(3)}}
    loss = lambda p: p['a'].sum()
    for other, said in (
      ({'a': jnp.ones(2)}, "the other end is another tree.*without 'b/c'"),
      ({**ones, 'd': jnp.ones(1)}, "another tree.*with 'd'"),
      ({**ones, 'a': jnp.ones(3)}, r"end of 'a' has shape \(3,\)"),
      ({**ones, 'a': jnp.ones(2, complex)}, "end of 'a' is complex"),
    ):
      with self.assertRaisesRegex(ValueError, said):
        analysis.barrier(loss, ones, other)
    for points in (1, 0, 2.0, None):
      with self.assertRaisesRegex(ValueError, 'points is .*: 2, 3, 4, ...'):
        analysis.path(loss, ones, ones, points)
    for bad, said in (
      (lambda p: {'accuracy': p['a'].sum()}, "the dict has 'accuracy'.*'loss'"),
      (lambda p: {'loss': p['a']}, r'the loss is float32\[2\]'),
      (lambda p: {'loss': 1.0, 'hits': 3}, 'the hits is int32'),
      (lambda p: p['a'], r'the loss is float32\[2\]; it must be a real scalar'),
    ):
      with self.assertRaisesRegex(ValueError, said):
        analysis.path(bad, ones, ones)


@functools.cache
def trained(norm, steps):
  """(problem, its state after steps from seed 0, a batch of 16)."""
  made = toys.classifier(norm)
  state, split = made.init(0), toys.split()
  for _ in range(steps):
    state = toys.step(made)(state, split)
  return made, state, in_memory.first(split, 16)


def permuted(state, order):
  """The same network: its channels, and all that is of them, in this order."""
  take = lambda tree: jax.tree.map(lambda x: x[..., order], tree)
  params = dict(state.params)
  params['conv1'] = take(params['conv1'])
  params['norm1'] = take(params['norm1'])
  kernel = params['logits']['kernel']
  cells = kernel.reshape(-1, len(order), kernel.shape[-1])[:, order]
  params['logits'] = {
    **params['logits'], 'kernel': cells.reshape(kernel.shape),
  }  # fmt: skip
  return state._replace(
    params=params, batch_stats={'norm1': take(state.batch_stats['norm1'])}
  )


def looked(made, state, other, batch, journal=None, **keywords):
  look = analysis.make('path', **{'points': 5, **keywords})
  return look(made, state, [batch], journal, states=toys.States({'0': other}))


class NetworkTest(parameterized.TestCase):
  def test_the_ends(self):
    """Each is what the network is there, with these statistics."""
    made, state, batch = trained('batch', 8)
    other = trained('batch', 20)[1]
    got = looked(made, state, other, batch)
    for end, one in ((0, state), (-1, other)):
      _, aux = made.objective(one.params, one.batch_stats, batch, None)
      inputs = {'params': one.params, 'batch_stats': one.batch_stats}
      module = toys.Net(norms.make('batch'))
      found = norms.population_statistics(module, inputs, [batch.images])
      at = {
        'interpolated': one,
        'reset': one._replace(batch_stats=found.batch_stats),
      }
      for name, state_at in at.items():
        sums = made.evaluate(state_at, batch)
        np.testing.assert_allclose(
          got[f'{name}/loss'][end], sums['loss'] / 16, rtol=1e-6
        )
        self.assertEqual(got[f'{name}/accuracy'][end], sums['correct'] / 16)
      np.testing.assert_allclose(
        got['batch/loss'][end], aux['data_loss'], rtol=1e-6
      )
      self.assertEqual(got['batch/accuracy'][end], aux['accuracy'])
    middles = [got[f'{name}/loss'][2] for name in OVER]
    self.assertLen(set(middles), 3)

  def test_a_point_between(self):
    made, state, batch = trained('batch', 8)
    other = trained('batch', 20)[1]
    got = looked(made, state, other, batch, points=3, over=['interpolated'])
    middle = jax.tree.map(
      lambda a, b: (np.float64(a) + np.float64(b)) / 2,
      (state.params, state.batch_stats), (other.params, other.batch_stats),
    )  # fmt: skip
    params, batch_stats = jax.tree.map(jnp.float32, middle)
    between = state._replace(params=params, batch_stats=batch_stats)
    sums = made.evaluate(between, batch)
    np.testing.assert_allclose(
      got['interpolated/loss'][1], sums['loss'] / 16, rtol=1e-6
    )
    self.assertEqual(
      list(got),
      ['t', *(f'interpolated/{name}' for name in (
        'loss', 'accuracy', 'barrier', 'barrier_of_mean',
      ))],
    )  # fmt: skip

  def test_permuted_channels(self):
    """The copy is the same function, and yet there is a barrier between."""
    made, state, batch = trained('batch', 80)
    other = permuted(state, np.array([2, 0, 3, 1]))
    got = looked(made, state, other, batch)
    for name in OVER:
      loss = got[f'{name}/loss']
      np.testing.assert_allclose(loss[-1], loss[0], rtol=1e-5)
      self.assertGreater(got[f'{name}/barrier'], 0.1, name)
      np.testing.assert_allclose(
        got[f'{name}/barrier'], got[f'{name}/barrier_of_mean'], rtol=1e-4
      )
    # Where a part of it stays behind, it is another function.
    half = other._replace(batch_stats=state.batch_stats)
    got = looked(made, state, half, batch, over=['interpolated'])
    self.assertNotAlmostEqual(*got['interpolated/loss'][[0, -1]], places=3)

  def test_nothing_is_changed(self):
    made, state, batch = trained('batch', 8)
    other = trained('batch', 20)[1]
    before = jax.tree.map(np.array, (state, other))
    looked(made, state, other, batch)
    same_bits.assert_same(jax.tree.map(np.array, (state, other)), before)

  @parameterized.parameters('none', 'layer')
  def test_without_running_statistics(self, norm):
    """One function, computed once, under each name."""
    made, state, batch = trained(norm, 4)
    calls = []

    def evaluate(*arguments, **keywords):
      calls.append(keywords['statistics'])
      return made.evaluate(*arguments, **keywords)

    counting = made._replace(evaluate=evaluate, group_size=1)
    got = looked(counting, state, trained(norm, 8)[1], batch)
    self.assertEqual(calls, ['batch'] * 5)
    self.assertLen(got, 13)
    for name in ('loss', 'accuracy', 'barrier', 'barrier_of_mean'):
      same_bits.assert_same(got[f'reset/{name}'], got[f'batch/{name}'])
      same_bits.assert_same(got[f'interpolated/{name}'], got[f'batch/{name}'])

  def test_groups(self):
    """Statistics over 8 of the 16 examples; sums over both."""
    made, state, batch = trained('batch', 8)
    got = looked(
      made, state, state, batch, group_size=8, points=2, over=['batch', 'reset']
    )
    halves = [
      jax.tree.map(lambda leaf, part=part: leaf[part], batch)
      for part in (slice(8), slice(8, None))
    ]
    losses = [
      made.objective(state.params, state.batch_stats, half, None)[1][
        'data_loss'
      ]
      for half in halves
    ]
    np.testing.assert_allclose(got['batch/loss'][0], np.mean(losses), rtol=1e-6)
    inputs = [half.images for half in halves]
    found = made.population(state, inputs)
    sums = made.evaluate(state._replace(batch_stats=found.batch_stats), batch)
    np.testing.assert_allclose(
      got['reset/loss'][0], sums['loss'] / 16, rtol=1e-6
    )
    with self.assertRaisesRegex(
      ValueError, 'chunk_size is 8: batch statistics'
    ):
      looked(made, state, state, batch, chunk_size=8)
    running = looked(
      made, state, state, batch, chunk_size=6, points=2, over=['interpolated']
    )
    np.testing.assert_allclose(
      running['interpolated/loss'][0], made.evaluate(state, batch)['loss'] / 16,
      rtol=1e-6,
    )  # fmt: skip

  def test_padding(self):
    """Examples that are none change nothing, with any statistics."""
    made, state, batch = trained('batch', 8)
    other = trained('batch', 20)[1]
    filler = jax.tree.map(lambda leaf: leaf[:4] + leaf[4:8], batch)
    padded = types.Batch(
      *(jnp.concatenate(pair) for pair in zip(batch[:2], filler[:2])),
      jnp.arange(20) < 16,
    )
    got = looked(made, state, other, padded)
    want = looked(made, state, other, batch)
    for name, value in want.items():
      np.testing.assert_allclose(got[name], value, rtol=1e-5, atol=1e-6)

  def test_another_network(self):
    made, state, batch = trained('batch', 8)
    fewer = {k: v for k, v in state.params.items() if k != 'logits'}
    for other, said in (
      (state._replace(params=fewer), "another tree.*without 'logits/bias'"),
      (state._replace(batch_stats={}), "another tree.*without 'norm1/mean'"),
    ):
      with self.assertRaisesRegex(ValueError, said):
        looked(made, state, other, batch)

  def counting(self):
    """(a problem, what counts its passes): of batches, and for statistics."""
    made, *_ = trained('batch', 8)
    passes = [journal_test.Counted(made.evaluate)]
    moments = population._moments
    passes.append(journal_test.Counted(moments))
    patch = mock.patch.object(population, '_moments', passes[1])
    self.enterContext(patch)
    evaluate = lambda *args, statistics: passes[0](*args, statistics)
    return made._replace(evaluate=evaluate), passes

  def test_goes_on_to_the_same_bits(self):
    """Neither points nor parts of one that a journal has are computed again.

    Of three points and three statistics, over two groups: 18 passes, and six
    for the statistics of the population.
    """
    _, state, batch = trained('batch', 8)
    other = trained('batch', 20)[1]
    made, passes = self.counting()
    look = functools.partial(
      looked, made, state, other, batch, points=3, group_size=8
    )
    calls = lambda: sum(one.calls for one in passes)
    whole = look()
    self.assertEqual([one.calls for one in passes], [18, 6])
    journal = journal_test.Journal()
    look(journal)
    self.assertLen(journal, 9)  # what was of a point in progress is gone
    for stores_last in (True, False):
      for left in range(1, 25):
        journal = journal_test.Journal()
        journal.left, journal.stores_last = left, stores_last
        before = calls()
        with self.assertRaises(journal_test.Killed):
          look(journal)
        journal.left = None
        same_bits.assert_same(look(journal), whole)
        self.assertEqual(calls() - before, 24 + (not stores_last))

  def test_goes_on_from_disk(self):
    """Ended at each thing that it keeps, in files with a tree in their keys."""
    _, state, batch = trained('batch', 8)
    made, passes = self.counting()
    look = functools.partial(
      looked, made, state, trained('batch', 20)[1], batch, points=2,
      over=['reset'], group_size=8,
    )  # fmt: skip
    want = look()
    folder = pathlib.Path(self.create_tempdir().full_path) / 'kept'
    keep = storage.Journal.keep

    def ending(journal, name, arrays):
      keep(journal, name, arrays)
      raise journal_test.Killed

    with mock.patch.object(storage.Journal, 'keep', ending):
      for _ in range(8):
        with self.assertRaises(journal_test.Killed):
          look(storage.Journal(folder))
    same_bits.assert_same(look(storage.Journal(folder)), want)
    self.assertEqual([one.calls for one in passes], [8, 8])

  def test_eight_devices(self):
    """In float32: to 1e-5 of the numbers on one."""
    results = []
    for count in (1, 8):
      mesh = devices_lib.mesh(count)
      made = layouts.make({'name': 'batch'}, devices_lib.in_sight(mesh))
      whole = devices_lib.whole(mesh)
      states = jax.device_put([made.init(seed) for seed in (0, 1)], whole)
      batch = devices_lib.laid(in_memory.first(toys.split(), 16), mesh)
      results.append(looked(made, *states, batch))
    one, eight = results
    self.assertEqual(list(one), list(eight))
    for name, value in one.items():
      np.testing.assert_allclose(eight[name], value, rtol=1e-5, atol=1e-6)

  def test_refuses(self):
    for keywords, said in (
      ({'points': 1}, 'points is 1; allowed: 2, 3, 4, ...'),
      ({'over': ['running']}, 'over is .*batch, reset, interpolated'),
      ({'over': []}, 'over is .*one or more of batch'),
      ({'over': 'batch'}, 'over is'),
      ({'to': ''}, "to is ''; allowed: a step such as '0'"),
      ({'to': 250}, 'to is 250; allowed: a step'),
      ({'to': None}, 'to is None'),
    ):
      with self.assertRaisesRegex(ValueError, said):
        analysis.make('path', **keywords)


if __name__ == '__main__':
  absltest.main()
