"""Surfaces: quadratics at every cell, and the same points by other ways."""

import functools
from unittest import mock

import chex
import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from bn_jax import analysis, keys, trees, types
from bn_jax.analysis import chunks, planes, points
from bn_jax.data.batches import in_memory
from tests.analysis import journal_test, programs_test
from tests.fixtures import (
  same_bits,
  strict,  # noqa: F401
  toys,
)

# Neither sorted nor even, and of other lengths.
AXES = ((0.5, -1.0, 0.0), (2.0, 0.25, 1.0, -0.5), (0.0, -3.0))


def setUpModule():
  jax.config.update('jax_disable_most_optimizations', True)


def tearDownModule():
  jax.config.update('jax_disable_most_optimizations', False)


def directions_of(params, count):
  return [
    jax.tree.map(lambda x, k=k: jnp.cos(k + x), params) for k in range(count)
  ]


def small():
  """(a loss with BN, params, two directions), in float32."""
  program = programs_test.plain()
  loss = jax.tree_util.Partial(
    program.loss_of, program.kept, programs_test.batch()
  )
  key = jax.random.key(2)
  along = analysis.random_directions(program.params, 2, key)
  return loss, program.params, along


class QuadraticTest(parameterized.TestCase):
  @parameterized.product(count=(1, 2, 3), together=(1, 5, 'auto'))
  def test_every_cell(self, count, together):
    with jax.enable_x64(True):
      loss, params, hessian, slope = toys.quadratic()
      along = directions_of(params, count)
      got = analysis.surface(
        loss, params, along, AXES[:count], together=together
      )['loss']
      again = analysis.surface(
        loss, params, tuple(along), [np.array(axis) for axis in AXES[:count]]
      )['loss']
    self.assertEqual(got.shape, tuple(map(len, AXES[:count])))
    for cell in np.ndindex(got.shape):
      x = toys.flat(params)
      for axis, d, i in zip(AXES, along, cell):
        x = x + axis[i] * toys.flat(d)
      want = 0.5 * x @ hessian @ x + slope @ x
      np.testing.assert_allclose(got[cell], want, rtol=1e-12)
    np.testing.assert_allclose(again, got, rtol=1e-12)

  def test_a_line_takes_a_list_of_numbers(self):
    loss, params, along = small()
    flat, nested = (
      analysis.surface(loss, params, along[:1], axis)['loss']
      for axis in ([0.5, 0.0, 1.0], [[0.5, 0.0, 1.0]])
    )
    same_bits.assert_same(flat, nested)
    np.testing.assert_allclose(flat[1], loss(params), rtol=1e-6)

  def test_beside_the_loss(self):
    """A dict of the loss and others; each is kept by a journal."""
    params, along = {'w': jnp.array([1.0, 2.0])}, [{'w': jnp.ones(2)}]
    at = lambda x, p: {
      'mean': p['w'].mean() + x[0],
      'loss': (p['w'] ** 2).sum(),
    }
    loss = analysis.chunked(at, jnp.arange(4.0), chunk_size=2, group_size=1)
    look = functools.partial(
      analysis.surface, loss, params, along, [0.0, 1.0], together=1
    )
    want = look()
    self.assertEqual(list(want), ['loss', 'mean'])
    np.testing.assert_array_equal(want['loss'], [5, 13])
    np.testing.assert_array_equal(want['mean'], [2.5, 3.5])
    for left in range(1, 5):
      journal = journal_test.Journal()
      journal.left = left
      with self.assertRaises(journal_test.Killed):
        look(journal=journal)
      journal.left = None
      same_bits.assert_same(look(journal=journal), want)
    with self.assertRaisesRegex(ValueError, 'the mean is int32.*real scalar'):
      analysis.surface(lambda p: {'loss': 1.0, 'mean': 3}, params, along, [0.0])

  def test_not_finite_stays_in_its_cell(self):
    loss = lambda p: jnp.log(p['w'][0]) + p['w'][1] ** 40
    params = {'w': jnp.array([1.0, 1.0])}
    along = [{'w': jnp.array([1.0, 0.0])}, {'w': jnp.array([0.0, 1.0])}]
    got = analysis.surface(loss, params, along, ([0, -1, -2], [0, 99]))['loss']
    np.testing.assert_array_equal(
      np.isfinite(got), [[True, False], [False, False], [False, False]]
    )
    np.testing.assert_array_equal(np.isnan(got[2]), True)
    self.assertEqual((got[0, 1], got[1, 0]), (np.inf, -np.inf))

  def test_low_precision_moves_in_float32(self):
    """bfloat16 parameters move by less than their last digit, in sum."""
    params = {'w': jnp.ones(4, jnp.bfloat16)}
    along = [{'w': jnp.ones(4, jnp.bfloat16)}] * 2
    loss = lambda p: p['w'].astype(jnp.float32).sum()
    got = analysis.surface(loss, params, along, ([0.003], [0.003]))['loss']
    self.assertEqual(got.dtype, np.float32)
    np.testing.assert_allclose(got, 4 * 1.0078125)


class WaysTest(parameterized.TestCase):
  """The same points side by side, in chunks, over devices, and resumed."""

  def test_side_by_side(self):
    loss, params, along = small()
    looped, together, uneven = (
      analysis.surface(loss, params, along, AXES[:2], together=count)['loss']
      for count in (1, 12, 5)
    )
    np.testing.assert_allclose(together, looped, rtol=2e-6)
    np.testing.assert_allclose(uneven, looped, rtol=2e-6)

  def test_devices(self):
    """One point a device at a time is the same bits as one after the other."""
    loss, params, along = small()
    look = lambda **keywords: analysis.surface(
      loss, params, along, AXES[:2], **keywords
    )
    want = look(together=1)
    same_bits.assert_same(look(together=1, devices=jax.devices()), want)
    several = look(devices=jax.devices()[:3])
    np.testing.assert_allclose(several['loss'], want['loss'], rtol=2e-6)

  @parameterized.parameters((1, ()), (5, ()), (1, 3))
  def test_chunks(self, together, devices):
    """The weighted sum over chunks, the last of which is shorter."""
    with jax.enable_x64(True):
      x = jnp.asarray(np.random.default_rng(0).normal(size=(10, 3)))
      loss_of = lambda x, p: jnp.mean(jnp.cos(x @ p['w']))
      params = {'w': jnp.array([0.3, -0.2, 1.0])}
      along = directions_of(params, 2)
      whole, in_chunks = (
        analysis.surface(
          loss, params, along, AXES[:2], together=together,
          devices=jax.devices()[: devices or 0],
        )['loss']
        for loss in (
          lambda p: loss_of(x, p),
          analysis.chunked(loss_of, x, chunk_size=4, group_size=1),
        )
      )  # fmt: skip
    np.testing.assert_allclose(in_chunks, whole, rtol=1e-12)

  @parameterized.product(chunked=(False, True), stores_last=(False, True))
  def test_interrupted_and_resumed(self, chunked, stores_last):
    """At every point and chunk, to the same bits, and nothing done twice."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(10, 3)), jnp.float32)
    loss_of = lambda x, p: jnp.mean(jnp.cos(x @ p['w']))
    loss = jax.tree_util.Partial(loss_of, x)
    if chunked:
      loss = analysis.chunked(loss_of, x, chunk_size=4, group_size=1)
    params = {'w': jnp.array([0.3, -0.2, 1.0])}
    along = directions_of(params, 2)
    look = lambda journal=None: analysis.surface(
      loss, params, along, AXES[:2], together=5, journal=journal
    )
    want = look()
    rounds, parts = 3, len(chunks.parts_of(loss)[0])
    for left in range(1, rounds * parts + 1):
      journal = journal_test.Journal()
      journal.left, journal.stores_last = left, stores_last
      with self.assertRaises(journal_test.Killed):
        look(journal)
      journal.left = None
      counted = journal_test.Counted(points._round)
      with mock.patch.object(points, '_round', counted):
        same_bits.assert_same(look(journal), want)
      self.assertEqual(counted.calls, rounds * parts - left + 1 - stores_last)

  @parameterized.parameters(1, 2, 3)
  def test_resumed_with_rounds_of_another_size(self, left):
    """On other devices points begin anew: none is another's value."""
    loss = lambda p: p['w'].sum()
    params, along = {'w': jnp.zeros(1)}, [{'w': jnp.ones(1)}]
    look = lambda journal, **keywords: analysis.surface(
      loss, params, along, np.arange(7.0), journal=journal, **keywords
    )['loss']
    journal = journal_test.Journal()
    journal.left = left
    with self.assertRaises(journal_test.Killed):
      look(journal, together=2)
    journal.left = None
    got = look(journal, together=1, devices=jax.devices()[:3])
    np.testing.assert_array_equal(got, np.arange(7.0))

  def test_a_convolution_or_callback_is_taken_alone(self):
    x = jnp.ones((2, 5, 5, 1))

    def convolved(p):
      return jax.lax.conv_general_dilated(
        x, p['w'], (1, 1), 'SAME',
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      ).sum()  # fmt: skip

    def called(p):
      shape = jax.ShapeDtypeStruct((), jnp.float32)
      return jax.pure_callback(lambda w: w.sum(), shape, p['w'])

    params = {'w': jnp.ones((3, 3, 1, 1))}
    grid = np.zeros((7, 1), np.float32)
    for loss, want in (
      (convolved, 1),
      (jax.jit(convolved), 1),
      (jax.checkpoint(convolved), 1),
      (called, 1),
      (lambda p: p['w'].sum(), 7),
      (lambda p: jnp.tanh(jnp.ones((2000, 1000)) + p['w'].sum()).sum(), 1),
    ):
      along = directions_of(params, 1)
      loss = jax.tree_util.Partial(loss)
      self.assertEqual(points._fitting(loss, params, along, grid), want)
      got = analysis.surface(loss, params, along, [0.0, 1.0])['loss']
      np.testing.assert_allclose(got[0], loss(params), rtol=1e-6)

  @parameterized.parameters(
    programs_test.plain, programs_test.linen, programs_test.flax_nnx,
    programs_test.equinox,
  )  # fmt: skip
  def test_programs(self, make):
    """One function in four libraries: one surface, and nothing touched."""
    program = make()
    before = programs_test.bits(program.owned)
    # Weights of a layer are stored in another order by each of them.
    along = [jax.tree.map(lambda x, k=k: (0.1 + k) * x, program.params)
             for k in range(2)]  # fmt: skip
    traced = chex.assert_max_traces(program.loss_of, n=1)
    for seed in range(3):
      batch = programs_test.batch(seed)
      loss = jax.tree_util.Partial(traced, program.kept, batch)
      got = analysis.surface(loss, program.params, along, AXES[:2])['loss']
      for i, j in ((0, 0), (1, 3), (2, 1)):
        factor = 1 + 0.1 * AXES[0][i] + 1.1 * AXES[1][j]
        point = jax.tree.map(lambda x, f=factor: f * x, program.params)
        want = program.loss_of(program.kept, batch, point)
        np.testing.assert_allclose(got[i, j], want, rtol=2e-5)
    same_bits.assert_same(programs_test.bits(program.owned), before)


class RefusesTest(parameterized.TestCase):
  @parameterized.parameters(
    ({'directions': ()}, r'directions is \(\); allowed: a list or tuple'),
    ({'directions': toys.quadratic()[1]}, 'directions is a tree like the pa'),
    ({'directions': [{'a': jnp.ones(2)}]}, 'the direction 0 is another tree'),
    (
      {'directions': [{'a': jnp.ones(2), 'b': {'c': jnp.ones(3)}}]},
      r"the direction 0 of 'b/c' has shape \(3,\); the parameter has \(4,\)",
    ),
    ({'coordinates': ([0.0],)}, 'coordinates has 1 lists for 2 directions'),
    ({'coordinates': [[0.0]] * 3}, 'coordinates has 3 lists for 2 dire'),
    (
      {'coordinates': [0.0, 1.0]},
      r'coordinates is \[0.0, 1.0\]; allowed: a list for each direct',
    ),
    ({'coordinates': ([0.0], [])}, r'coordinates\[1\] is \[\]; allowed: one'),
    ({'coordinates': ([0.0], [np.nan])}, r'coordinates\[1\] is \[nan\]; all'),
    ({'coordinates': ([0.0], 'abc')}, r"coordinates\[1\] is 'abc'; allowed"),
    ({'together': 0}, r"together is 0; allowed: 1, 2, 3, ... or 'auto'"),
    ({'loss': lambda p: p['a']}, r'the loss is float32\[2\]; it must be a re'),
    ({'params': {'a': 1}}, "parameter 'a' is int32; allowed: floating point"),
  )
  def test_refuses(self, keywords, said):
    loss, params, *_ = toys.quadratic()
    given = {
      'loss': loss,
      'params': params,
      'directions': directions_of(params, 2),
      'coordinates': AXES[:2],
    }
    with self.assertRaisesRegex(ValueError, said):
      analysis.surface(**{**given, **keywords})


class Kept:
  """A `types.States` of a training of a few steps."""

  def __init__(self, problem, count):
    self.every = [problem.init(0)]
    for _ in range(count - 1):
      self.every.append(toys.step(problem)(self.every[-1], toys.split()))

  def at(self, reference):
    return self.every[int(reference)]

  def steps(self):
    return tuple(range(len(self.every)))


class MeasureTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.problem = toys.classifier('batch', weight_decay=0.1)
    cls.states = Kept(cls.problem, 4)
    cls.state = cls.states.every[-1]
    cls.batch = in_memory.first(toys.split(), 8)

  def look(self, state=None, journal=None, **keywords):
    state = self.state if state is None else state
    before = jax.tree.map(np.array, state)
    got = analysis.make('surface', **keywords)(
      self.problem, state, [self.batch], journal, states=self.states
    )
    same_bits.assert_same(jax.tree.map(np.array, state), before)
    return got

  @parameterized.product(
    statistics=('batch', 'running'), penalised=(True, False)
  )
  def test_random(self, statistics, penalised):
    """The problem's loss at each point, of directions that a seed draws."""
    got = self.look(
      statistics=statistics, penalised=penalised, points=3, extent=0.5
    )
    key = keys.of(jax.random.key(0), types.Purpose.MEASURE)
    along = analysis.random_directions(self.state.params, 2, key)
    loss = self.problem.loss(self.state, self.batch, statistics, penalised)
    np.testing.assert_array_equal(got['x'], [-0.5, 0, 0.5])
    np.testing.assert_array_equal(got['y'], got['x'])
    for i, j in np.ndindex(3, 3):
      point = self.state.params
      for c, d in zip((got['x'][i], got['y'][j]), along):
        point = trees.add_scaled(point, c, d)
      np.testing.assert_allclose(got['loss'][i, j], loss(point), rtol=1e-5)
      sums = self.problem.evaluate(
        self.state._replace(params=point), self.batch, statistics=statistics
      )
      self.assertEqual(got['accuracy'][i, j], sums['correct'] / sums['count'])
    self.assertGreater(len(set(got['accuracy'].flat)), 1)
    np.testing.assert_allclose(got['loss_0'], got['loss'][1, 1], rtol=1e-6)
    lengths = [np.linalg.norm(toys.flat(d)) for d in along]
    np.testing.assert_allclose(got['scales'], lengths, rtol=1e-5)
    self.assertEqual(got['zero_filters'], 0)
    self.assertEqual(
      list(got),
      ['x', 'y', 'loss', 'accuracy', 'loss_0', 'scales', 'zero_filters'],
    )

  def test_accuracy_takes_no_further_pass(self):
    """As many convolutions and products as the loss alone."""
    counts = []
    for of in (self.problem.loss, self.problem.scores):
      program = str(
        jax.make_jaxpr(of(self.state, self.batch, 'batch'))(self.state.params)
      )
      counts.append([program.count(n) for n in ('conv_general', 'dot_general')])
    self.assertEqual(counts[1], counts[0])
    self.assertGreater(sum(counts[0]), 1)

  def test_accuracy_in_chunks(self):
    got = self.look(statistics='running', chunk_size=3, points=3)
    want = self.look(statistics='running', points=3)
    np.testing.assert_allclose(got['accuracy'], want['accuracy'], rtol=1e-6)
    np.testing.assert_allclose(got['loss'], want['loss'], rtol=1e-5)

  def test_a_seed_is_a_direction_at_every_step(self):
    first, last, other = (
      self.look(state, points=3, normalise='none', seed=seed)
      for state, seed in (
        (self.states.at('0'), 0), (self.state, 0), (self.state, 1),
      )
    )  # fmt: skip
    np.testing.assert_array_equal(first['scales'], last['scales'])
    self.assertNotEqual(list(other['scales']), list(last['scales']))

  @parameterized.parameters(1, 2)
  def test_eigenvectors(self, dimensions):
    """Of a quadratic, those of its matrix, the largest number positive."""
    with jax.enable_x64(True):
      loss, params, hessian, _ = toys.quadratic()
      grid = planes.Grid('eigenvectors', 'filter', dimensions, 3, 0.5, 0)
      state = self.state._replace(params=params)
      plane = grid.plane(lambda state: loss, state, None, None)
    values, vectors = np.linalg.eigh(hessian)
    got = np.array([toys.flat(d) for d in plane.directions])
    want = vectors[:, ::-1].T[:dimensions]
    want = [v if v.max() > -v.min() else -v for v in want]
    np.testing.assert_allclose(got, want, atol=2e-3)
    np.testing.assert_allclose(
      plane.more['eigenvalues'], values[::-1][:dimensions], rtol=1e-5
    )
    np.testing.assert_array_equal(plane.more['converged'], [1] * dimensions)
    np.testing.assert_array_equal(plane.axes, [[-0.5, 0, 0.5]] * dimensions)

  @parameterized.parameters(1, 2)
  def test_trajectory(self, dimensions):
    """A box around the path; each checkpoint has its own loss."""
    got = self.look(
      directions='trajectory', dimensions=dimensions, points=5,
      statistics='running',
    )  # fmt: skip
    np.testing.assert_array_equal(got['path_steps'], [0, 1, 2, 3])
    for state, value in zip(self.states.every, got['path_loss'], strict=True):
      want = self.problem.loss(state, self.batch, 'running')(state.params)
      np.testing.assert_allclose(value, want, rtol=1e-6)
    self.assertEqual(got['path_loss'][-1], got['loss_0'])
    np.testing.assert_array_equal(got['path'][-1], 0)
    self.assertEqual(got['loss'].shape, (5,) * dimensions)
    self.assertEqual('y' in got, dimensions == 2)
    np.testing.assert_allclose(got['scales'], 1, rtol=1e-6)
    self.assertEqual(got['variance'].shape, (dimensions,))
    for k in range(dimensions):
      low, high = got['path'][:, k].min(), got['path'][:, k].max()
      axis = got['xy'[k]]
      np.testing.assert_allclose(axis[0], low - (high - low) / 10, rtol=1e-6)
      np.testing.assert_allclose(axis[-1], high + (high - low) / 10, rtol=1e-6)

  def test_trajectory_of_a_step_between(self):
    """Of the checkpoints up to that one, which is the end."""
    got = self.look(self.states.at('2'), directions='trajectory', points=2)
    np.testing.assert_array_equal(got['path_steps'], [0, 1, 2])
    with self.assertRaisesRegex(
      ValueError, 'a trajectory of 2 checkpoints up to step 1; allowed: 3 or'
    ):
      self.look(self.states.at('1'), directions='trajectory')

  @parameterized.parameters((1, 1), (3, 0))
  def test_trajectory_of_a_state_that_is_not_finite(self, step, count):
    """Is told by its step, before the loss of it or of a later one."""
    states = Kept(self.problem, 1)
    states.every = list(self.states.every)
    params = jax.tree.map(lambda x: x * jnp.nan, self.state.params)
    states.every[step] = states.every[step]._replace(params=params)
    losses = []
    loss_of = lambda state: losses.append(state) or (lambda params: 0.0)
    grid = planes.Grid('trajectory', 'filter', 2, 3, 1.0, 0)
    with self.assertRaisesRegex(
      ValueError, f'^the checkpoint of step {step} is not finite, the first su'
    ):
      grid.plane(loss_of, states.every[-1], states, None)
    self.assertLen(losses, count)

  @parameterized.parameters('trajectory', 'eigenvectors')
  def test_interrupted_and_resumed(self, directions):
    """After 4 checkpoints, or the eigenvectors; the parameters; 9 points."""
    look = lambda journal: self.look(
      journal=journal, directions=directions, points=3
    )
    want = look(None)
    for left in (1, 3, 5, 8, 11):
      journal = journal_test.Journal()
      journal.left = left
      with self.assertRaises(journal_test.Killed):
        look(journal)
      journal.left = None
      same_bits.assert_same(look(journal), want)

  @parameterized.parameters('batch', 'points')
  def test_devices(self, spread):
    """8 find the same as 1; with a point a device to the same bits."""
    want = self.look(points=3)
    mesh = jax.make_mesh((8,), ('batch',), (jax.sharding.AxisType.Auto,))
    whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    halves = jax.sharding.NamedSharding(
      mesh, jax.sharding.PartitionSpec('batch')
    )
    state = jax.device_put(self.state, whole)
    batch = jax.device_put(self.batch, halves if spread == 'batch' else whole)
    got = analysis.make('surface', points=3, spread=spread)(
      self.problem, state, [batch]
    )
    if spread == 'points':
      got['loss_0'] = want['loss_0']  # of one point, on all devices
      same_bits.assert_same(got, want)
    np.testing.assert_allclose(got['loss'], want['loss'], rtol=1e-5)

  @parameterized.parameters(
    ({'directions': 'filter'}, "directions is 'filter'; allowed: random, "),
    ({'normalise': None}, 'normalise is None; allowed: filter, layer, none'),
    ({'dimensions': 3}, 'dimensions is 3; allowed: 1, 2'),
    ({'points': 1}, 'points is 1; allowed: 2, 3, 4, ...'),
    ({'extent': 0.0}, 'extent is 0.0; allowed: above 0 and finite'),
    ({'seed': -1}, 'seed is -1; allowed: 0, 1, 2, ...'),
    (
      {'spread': 'points', 'chunk_size': 4, 'statistics': 'running'},
      "chunk_size is 4 with spread 'points'; allowed: None",
    ),
  )
  def test_refuses(self, keywords, said):
    with self.assertRaisesRegex(ValueError, said):
      analysis.make('surface', **keywords)

  def test_cost(self):
    """A value a point, and one at the parameters."""
    kind = analysis.kind_of('surface')
    section = {'points': 21, 'dimensions': 2, 'directions': 'random'}
    self.assertEqual(kind.cost(section, 3), analysis.Cost(values=442))
    self.assertEqual(kind.others(section), ())
    section = {**section, 'directions': 'eigenvectors'}
    self.assertEqual(
      kind.cost(section, 3), analysis.Cost(values=442, products=200)
    )
    section = {**section, 'directions': 'trajectory', 'dimensions': 1}
    self.assertEqual(kind.cost(section, 3), analysis.Cost(values=22 + 10))
    self.assertEqual(kind.others(section), ('*',))


if __name__ == '__main__':
  absltest.main()
