import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from bn_jax import errors, types
from bn_jax.storage.records import Record
from bn_jax.training import loop
from tests.fixtures import strict  # noqa: F401

_OF_A_LANE = ('probes', 'sinks', 'arrays', 'timing', 'save')


class Kept(list):
  """A sink that keeps what it takes."""

  def write(self, record):
    values = {name: float(value) for name, value in record.values.items()}
    self.append(Record(int(record.step), record.name, values))


def start(step=0, ring=4):
  """A state of one number, which each step increases by one."""
  scalar = jnp.asarray(step, jnp.int32)
  return types.TrainState(
    step=scalar,
    params=jnp.asarray(float(step)),
    batch_stats={},
    opt_state=(),
    key=jnp.zeros(2, jnp.uint32),
    order=types.EpochOrder(scalar, scalar, scalar),
    ring={'x': jnp.zeros(ring)},
    finite=jnp.asarray(True),
  )


def stepper(nan_at=-1):
  """x_t = t is recorded at step t; at `nan_at` the latch closes."""

  @jax.jit
  def step(state):
    bad = state.step == nan_at
    finite = state.finite & ~bad
    place = state.step % state.ring['x'].shape[0]
    value = jnp.where(bad, jnp.nan, state.params)
    new = state._replace(
      step=state.step + finite,
      params=state.params + finite,
      ring={'x': state.ring['x'].at[place].set(value)},
      finite=finite,
    )
    return new

  return step


class LoopTest(parameterized.TestCase):
  def run_loop(self, state=None, steps=10, **keywords):
    self.sink, self.timing, self.saved = Kept(), Kept(), {}
    self.arrays = Kept()

    def save(step, state):
      self.saved.setdefault(step, float(state.params))

    defaults = {
      'steps': steps,
      'probes': (),
      'sinks': (self.sink,),
      'arrays': self.arrays,
      'timing': self.timing,
      'save': save,
      'save_every_steps': 1000,
    }
    given = defaults | keywords
    lane = loop.Lane(**{name: given.pop(name) for name in _OF_A_LANE})
    step = given.pop('step', stepper())
    self.numbers = []

    def advance(state, number):
      self.numbers.append(number)
      for _ in range(number):
        state = step(state)
      return state

    (outcome,) = loop.run(state or start(), advance, [lane], **given)
    return outcome

  @parameterized.product(ring=(1, 3, 4, 100), steps=(1, 4, 10), most=(1, 6))
  def test_every_row_once_in_order(self, ring, steps, most):
    outcome = self.run_loop(start(ring=ring), steps, most=most)
    self.assertEqual(outcome, loop.Outcome('done', steps))
    want = [Record(t, 'train', {'x': t}) for t in range(steps)]
    self.assertEqual(self.sink, want)

  @parameterized.parameters(
    (1, [1] * 10), (2, [2, 1, 2, 1, 2, 1, 1]), (9, [3, 2, 1, 3, 1])
  )
  def test_records_lie_in_the_order_of_steps(self, most, numbers):
    probe = loop.Probe('look', lambda s: {'v': s.params}, every_steps=3)
    self.run_loop(steps=10, probes=[probe], save_every_steps=5, most=most)
    self.assertEqual(self.numbers, numbers)
    steps = [record.step for record in self.sink]
    self.assertEqual(steps, sorted(steps))
    looks = [r for r in self.sink if r.name == 'look']
    self.assertEqual([r.step for r in looks], [0, 3, 6, 9, 10])
    self.assertEqual([r.values['v'] for r in looks], [0, 3, 6, 9, 10])

  def test_a_state_beyond_the_last_step_is_done(self):
    outcome = self.run_loop(start(step=12), steps=10)
    self.assertEqual(outcome, loop.Outcome('done', 12))
    self.assertEmpty(self.sink)

  def test_arrays_go_to_their_own_place(self):
    probe = loop.Probe('a', lambda s: {'v': s.params}, 5, arrays=True)
    self.run_loop(steps=5, probes=[probe])
    self.assertEqual(
      [(r.name, r.step) for r in self.arrays], [('a', 0), ('a', 5)]
    )
    self.assertNotIn('a', [record.name for record in self.sink])

  @parameterized.parameters(1, 4, 7)
  def test_goes_on_with_the_same_records(self, stop):
    """From a saved state on, the lines are those of an uninterrupted run."""
    probe = loop.Probe('look', lambda s: {'v': s.params}, every_steps=2)
    self.run_loop(probes=[probe])
    whole = list(self.sink)
    self.run_loop(start(stop), probes=[probe])
    self.assertEqual(self.sink, [r for r in whole if r.step >= stop])

  def test_saves(self):
    self.run_loop(steps=10, save_every_steps=4)
    self.assertEqual(self.saved, {0: 0, 4: 4, 8: 8, 10: 10})

  @parameterized.product(nan_at=(0, 3, 9), most=(1, 4))
  def test_divergence(self, nan_at, most):
    outcome = self.run_loop(step=stepper(nan_at), most=most)
    self.assertEqual(outcome, loop.Outcome('diverged', nan_at))
    self.assertEqual([r.step for r in self.sink], list(range(nan_at + 1)))
    self.assertTrue(np.isnan(self.sink[-1].values['x']))
    # The last good values, under the step at which they were good.
    self.assertEqual(self.saved[nan_at], nan_at)
    self.assertLessEqual(max(self.saved), nan_at)

  def test_stop_saves_the_state_of_that_step(self):
    asked = []

    def stopped():
      asked.append(1)
      return len(asked) > 6

    with self.assertRaisesRegex(errors.Interrupted, 'stopped at step'):
      self.run_loop(stopped=stopped)
    (step,) = [step for step in self.saved if step]
    self.assertEqual(self.saved[step], step)
    self.assertEqual([r.step for r in self.sink], list(range(step)))

  def test_stop_during_a_look(self):
    flag = []
    first = loop.Probe('a', lambda s: flag.append(1) or {'v': 0}, 1000)
    second = loop.Probe('b', lambda s: {'v': 0}, 1000)
    with self.assertRaises(errors.Interrupted):
      self.run_loop(probes=[first, second], stopped=lambda: bool(flag))
    self.assertEqual([r.name for r in self.sink], ['a'])
    self.assertIn(0, self.saved)

  def test_times_are_apart_and_count_every_step(self):
    probe = loop.Probe('look', lambda s: {'v': s.params}, every_steps=3)
    self.run_loop(probes=[probe])
    steps = sum(r.values['steps'] for r in self.timing if r.name == 'train')
    looks = sum(r.values['looks'] for r in self.timing if r.name == 'look')
    self.assertEqual((steps, looks), (10, 5))
    self.assertTrue(all('seconds' not in r.values for r in self.sink))

  @parameterized.parameters(
    (0, 5, 12, True), (1, 5, 12, False), (5, 5, 12, True),
    (12, 5, 12, True), (7, 1, 12, True), (11, 12, 11, True),
  )  # fmt: skip
  def test_due(self, step, every_steps, last, want):
    self.assertEqual(loop.due(step, every_steps, last), want)


if __name__ == '__main__':
  absltest.main()
