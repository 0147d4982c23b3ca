import json
import pathlib

import jax
import numpy as np
from absl.testing import absltest, parameterized

from bn_jax.experiment import divergence
from bn_jax.storage.records import Record
from tests.fixtures import (
  faults,
  same_bits,
  strict,  # noqa: F401
)


def setUpModule():
  # The same for all programs that are compared bit for bit.
  jax.config.update('jax_disable_most_optimizations', True)


def tearDownModule():
  jax.config.update('jax_disable_most_optimizations', False)


STOP = {'on_nonfinite': 'stop', 'max_skips': None}
NAN, INF = float('nan'), float('inf')


def skip(count):
  return {'on_nonfinite': 'skip', 'max_skips': count}


def row(objective=2.5, gradient_norm=3.0, **more):
  values = {'objective': objective, 'gradient_norm': gradient_norm}
  values = {**values, 'learning_rate': 0.1, **more}
  return Record(7, 'train', {k: np.float32(v) for k, v in values.items()})


class MessageTest(parameterized.TestCase):
  def said(self, row):
    return divergence.message(row, 7, pathlib.Path('w/standard/seed0'))

  @parameterized.parameters(
    (dict(objective=NAN, gradient_norm=NAN), 'the objective is not finite'),
    (dict(objective=INF), 'the objective is not finite'),
    (dict(gradient_norm=INF), 'the gradient is not finite'),
    (dict(), 'parameters, running statistics or the optimizer would not be'),
  )
  def test_why(self, changes, why):
    self.assertIn(f'diverged at step 7: {why}', self.said(row(**changes)))

  def test_all_that_it_takes_to_go_on(self):
    said = self.said(row(gradient_norm=INF))
    for words in (
      'objective 2.5, gradient norm inf, learning rate 0.1',
      'the last good state is checkpoint 7',
      'the same command with --config.on_nonfinite=skip --config.max_skips=10',
      'a new --workdir with --config.init_from=w/standard/seed0',
    ):
      self.assertIn(words, said)
    self.assertNotIn('left out', said)
    self.assertLen(said.splitlines(), 1)

  def test_after_some_were_left_out(self):
    said = self.said(row(gradient_norm=INF, skipped=3))
    self.assertIn('after 3 left out', said)
    self.assertIn('the same command with --config.max_skips=6;', said)

  def test_facts_are_json(self):
    facts = divergence.facts(row(gradient_norm=INF, skipped=3), 5)
    self.assertEqual(
      json.loads(json.dumps(facts, allow_nan=False)),
      {
        'step': 7,
        'why': 'the gradient is not finite',
        'row': {
          'objective': 2.5,
          'gradient_norm': 'Infinity',
          'learning_rate': 0.1,
          'skipped': 3,
        },
        'checkpoint': 5,
      },
    )

  def test_the_newest_row_is_kept(self):
    sink = divergence.LastRow()
    self.assertIsNone(sink.row)
    sink.write(row())
    sink.write(Record(8, 'test', {'loss': 1.0}))
    self.assertEqual(sink.row.step, 7)


class GoesOnTest(parameterized.TestCase):
  @parameterized.parameters(
    (STOP, STOP, False), (STOP, skip(1), True), (skip(3), skip(3), False),
    (skip(3), skip(4), True), (skip(3), skip(2), False), (skip(1), STOP, False),
    ({}, STOP, False), ({}, skip(1), True),
  )  # fmt: skip
  def test_where_more_may_be_left_out(self, before, now, want):
    self.assertEqual(divergence.goes_on(before, now['max_skips']), want)

  @parameterized.parameters((None, 1), (1, 2))
  def test_as_if_it_had_been_allowed_from_the_beginning(self, before, now):
    """Bit for bit, from the state at which it stopped."""
    split, steps = faults.split(faults.STATISTICS), faults.bad_steps(9)[now]
    want = faults.run(*faults.ready(max_skips=now), split, steps)[-1]
    closed = faults.run(*faults.ready(max_skips=before), split, steps)[-1]
    self.assertFalse(closed.finite)
    same, fresh = faults.ready(max_skips=before)
    opened = divergence.reopened(closed)._replace(ring=fresh.ring)
    again = faults.run(same, opened, split, 3)[-1]
    same_bits.assert_same(again._replace(ring=closed.ring), closed)
    at = int(closed.step)
    for name, values in again.ring.items():  # its row is there again
      self.assertEqual(values[at], closed.ring[name][at])
    step, fresh = faults.ready(max_skips=now)
    opened = opened._replace(ring=fresh.ring)
    got = faults.run(step, opened, split, steps - int(closed.step))[-1]
    self.assertEqual(got.skipped, now)
    for name in got._fields:
      if name != 'ring':
        same_bits.assert_same(getattr(got, name), getattr(want, name))


if __name__ == '__main__':
  absltest.main()
