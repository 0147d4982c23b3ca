"""Verdicts on made-up numbers that must hold, or fail, or cannot be judged."""

import math
from unittest import mock

import numpy as np
from absl.testing import absltest, parameterized
from scipy import stats

from bn_jax.report.claims import files, judge, verdicts
from bn_jax.report.results import statistics
from tests.fixtures import (
  hand_made,
  strict,  # noqa: F401
)

STEPS = 1000
INF, NAN = math.inf, math.nan
# Instead of a statistic: a number that the test gives each seed.
_MADE_UP = {
  'made_up': lambda seed: seed.manifest['made_up'],
  'steps': lambda seed: seed.manifest['made_up'],
}


def claim(compare, direction, threshold, **changes):
  count = files.COMPARISONS[compare]
  given = {
    'statistic': 'made_up', 'seeds': 3, 'runs': ('a', 'b')[:count],
    'best': 'lowest', **changes,
  }  # fmt: skip
  standard = files.Standard(
    {'name': given['statistic']}, threshold, given['seeds']
  )
  return files.Claim(
    'id', 'statement', 'source', given['runs'], compare, direction,
    given['best'], {'small': standard},
  )  # fmt: skip


def found(notes=None, **runs):
  """run -> numbers, of seeds 0, 1, ...; a pair is (number, status)."""
  seeds = {}
  for name, numbers in runs.items():
    seeds[name] = {}
    for k, number in enumerate(numbers):
      number, status = number if isinstance(number, tuple) else (number, 'done')
      seed = hand_made.seed(k, status=status, steps=STEPS)
      seed.manifest['made_up'] = number
      seeds[name][k] = seed
  return judge.Found(seeds, notes or {})


class JudgeTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(mock.patch.dict(statistics.STATISTICS, _MADE_UP))
    self.enter_context(mock.patch.object(statistics, 'STEPS', ('steps',)))

  def judge(self, made, notes=None, **runs):
    return judge.verdict(made, 'small', found(notes, **runs))

  @parameterized.parameters(
    # Well on the claimed side; across the threshold; on the other side.
    ('value', 'at most', 5.0, [4, 4.1, 3.9], [4, 5.2, 4.5], [6, 6.1, 5.9]),
    ('value', 'at least', 5.0, [6, 6.1, 5.9], [4.8, 6, 6], [4, 4.1, 3.9]),
    ('value', 'within', (4, 6), [5, 5.1, 4.9], [5.9, 6.1, 5.8], [7, 7.1, 6.9]),
    ('value', 'within', (4, 6), [5, 5.1, 4.9], [3.9, 4.1, 4.2], [2, 2.1, 1.9]),
    ('ratio', 'at most', 0.7, [2, 2.1, 1.9], [2, 2.6, 3.2], [4, 4.1, 3.9]),
    ('ratio', 'at least', 2, [9, 9.1, 8.9], [6, 9, 12], [4, 4.1, 3.9]),
    ('ratio', 'within', (0.5, 2), [4, 4.1, 3.9], [8, 8.3, 7.6], [20, 20, 21]),
    ('difference', 'at most', 0, [3, 3.1, 2.9], [3, 5, 3.9], [5, 5.1, 4.9]),
    ('difference', 'at least', 1, [6, 6.1, 5.9], [5, 6, 5.4], [4, 4.1, 3.9]),
    ('difference', 'within', (-1, 1), [4, 4.1, 3.9], [5, 5.2, 4.7], [9, 9, 8]),
  )
  def test_each_way(self, compare, direction, threshold, good, unsure, bad):
    """b is 4 in all seeds."""
    made = claim(compare, direction, threshold)
    b = {'b': [4, 4, 4]} if compare != 'value' else {}
    holds = self.judge(made, a=good, **b)
    self.assertEqual(holds.verdict, 'holds', holds)
    self.assertEqual(holds.detail, '3 of 3 seeds on the claimed side')
    across = self.judge(made, a=unsure, **b)
    self.assertEqual(across.verdict, 'fails', across)
    self.assertIn('reaches across', across.detail)
    self.assertIn('nothing is shown', across.detail)
    fails = self.judge(made, a=bad, **b)
    self.assertEqual(fails.verdict, 'fails', fails)
    self.assertIn('the whole interval lies', fails.detail)
    self.assertIn('0 of 3 seeds on the claimed side', fails.detail)
    few = self.judge(made, a=good[:2], **b)
    self.assertEqual(
      (few.verdict, few.detail, few.numbers),
      ('not measured', '2 of 3 seeds', None),
    )

  def test_the_interval_of_a_difference_is_that_of_pairs(self):
    """Seeds that differ by 100 from each other, runs by 1 and a little."""
    a, b = [101.0, 201.1, 300.9], [100.0, 200.0, 300.0]
    made = self.judge(claim('difference', 'at least', 0.5), a=a, b=b)
    differences = np.subtract(a, b)
    half = stats.t.ppf(0.975, 2) * differences.std(ddof=1) / 3**0.5
    self.assertAlmostEqual(made.numbers.mean, 1.0)
    self.assertAlmostEqual(made.numbers.low, 1 - half)
    self.assertAlmostEqual(made.numbers.high, 1 + half)
    self.assertEqual(made.verdict, 'holds')

  def test_the_interval_of_a_ratio_is_on_logarithms(self):
    made = self.judge(
      claim('ratio', 'at most', 1.0), a=[1, 2, 4], b=[10, 10, 10]
    )
    log = np.log([0.1, 0.2, 0.4])
    half = stats.t.ppf(0.975, 2) * log.std(ddof=1) / 3**0.5
    self.assertAlmostEqual(made.numbers.mean, 0.2)
    self.assertAlmostEqual(made.numbers.low, math.exp(log.mean() - half))
    self.assertAlmostEqual(made.numbers.high, math.exp(log.mean() + half))
    # Geometric, as it is: its sides are 2 and 10.
    self.assertAlmostEqual(made.numbers.sides['a'], 2.0)
    self.assertAlmostEqual(made.numbers.sides['b'], 10.0)
    made = self.judge(
      claim('difference', 'at most', 1.0), a=[1, 2, 4], b=[10, 10, 10]
    )
    self.assertEqual(made.numbers.sides, {'a': 7 / 3, 'b': 10.0})

  def test_numbers_are_said_in_three_digits_and_counts_in_full(self):
    for number, expected in (
      (1000 - 1e-12, '1,000'), (999.6, '1,000'), (999.4, '999'),
      (123_456.7, '123,457'), (2e6, '2e+06'),
    ):  # fmt: skip
      made = self.judge(claim('value', 'at most', 1.0), a=[number] * 3)
      said = verdicts.measured(made.claim, made.numbers)
      self.assertStartsWith(said, f'{expected} ({expected} to')

  def test_equal_runs_are_no_better_than_each_other(self):
    same = {'a': [7, 8, 9], 'b': [7, 8, 9]}
    for how, threshold in (('ratio', 1.0), ('difference', 0.0)):
      for direction in ('at most', 'at least'):
        made = self.judge(claim(how, direction, threshold), **same)
        self.assertEqual(made.verdict, 'fails', made)
        self.assertStartsWith(made.detail, f'all at {threshold:g} itself')
    ends = claim('difference', 'within', (-1, 1))
    self.assertEqual(self.judge(ends, **same).verdict, 'holds')

  def test_a_value_at_its_threshold_holds(self):
    """That it diverged is 1, and all seeds agree."""
    for direction in ('at most', 'at least'):
      made = self.judge(claim('value', direction, 0.1), a=[0.1] * 3)
      self.assertEqual(made.verdict, 'holds')
      self.assertEqual(made.numbers[:3], (0.1, 0.1, 0.1))

  def test_only_seeds_of_one_number_that_have_ended_are_pairs(self):
    going = [(1, 'done'), (1, 'diverged'), (1, 'running'), (1, 'interrupted')]
    made = claim('ratio', 'at most', 1.0, seeds=2)
    found = self.judge(made, a=going, b=[2, 2, 2, 2, 2])
    self.assertEqual(found.verdict, 'holds')
    self.assertEqual(list(found.numbers.values), [0, 1])
    self.assertEqual(
      found.detail,
      '2 of 2 seeds on the claimed side; not finished: a/seed2, a/seed3',
    )
    made = claim('ratio', 'at most', 1.0, seeds=3)
    found = self.judge(made, a=going, b=[2, 2, 2, 2, 2])
    self.assertEqual(found.verdict, 'not measured')
    self.assertEqual(
      found.detail, '2 of 3 seeds; not finished: a/seed2, a/seed3'
    )

  def test_what_was_not_recorded_in_a_seed_is_not_measured_there(self):
    runs = {'a': [1, NAN, 1, 1], 'b': [2, 2, 2, 2]}
    found = self.judge(claim('ratio', 'at most', 1), **runs)
    self.assertEqual(found.verdict, 'holds')
    self.assertEqual(
      found.detail,
      '3 of 3 seeds on the claimed side; not recorded: a/seed1',
    )
    found = self.judge(claim('ratio', 'at most', 1, seeds=4), **runs)
    self.assertEqual(
      (found.verdict, found.detail),
      ('not measured', '3 of 4 seeds; not recorded: a/seed1'),
    )

  def test_a_ratio_is_of_positive_numbers(self):
    found = self.judge(claim('ratio', 'at most', 1), a=[0, 1, 1], b=[1, 1, -1])
    self.assertEqual(found.verdict, 'not measured')
    self.assertIn(
      '1 of 3 seeds; no ratio of positive numbers: seed0, seed2', found.detail
    )

  def test_a_run_that_is_not_there(self):
    notes = {'b': 'not as configured: steps 10 instead of 1000'}
    found = self.judge(claim('ratio', 'at most', 1), notes, a=[1, 1, 1])
    self.assertEqual(found.verdict, 'not measured')
    self.assertEqual(found.detail, f'no run b ({notes["b"]})')

  def test_one_seed_is_an_illustration(self):
    made = claim('ratio', 'at most', 1.0, seeds=1)
    found = self.judge(made, a=[1], b=[2])
    self.assertEqual(
      (found.verdict, found.detail), ('holds', 'one seed: an illustration')
    )
    self.assertEqual(found.numbers[:3], (0.5, 0.5, 0.5))
    self.assertEqual(self.judge(made, a=[2], b=[1]).verdict, 'fails')

  def test_the_plain_network_never_gets_there(self):
    """It counts as the steps that it had; more of them it would have needed."""
    speed = claim('ratio', 'at most', 0.7, statistic='steps')
    found = self.judge(speed, a=[100, 110, 120], b=[900, INF, INF])
    self.assertEqual(found.verdict, 'holds')
    self.assertEqual(found.numbers.values, {0: 1 / 9, 1: 0.11, 2: 0.12})
    self.assertIn('b never in 2 of 3 seeds', found.detail)
    close = self.judge(speed, a=[900, 900, 900], b=[INF, INF, INF])
    self.assertEqual(close.verdict, 'fails')

  def test_what_should_be_fast_never_gets_there(self):
    speed = claim('ratio', 'at most', 0.7, statistic='steps')
    found = self.judge(speed, a=[100, INF, 100], b=[900, 900, 900])
    self.assertEqual(found.verdict, 'fails')
    self.assertEqual(found.numbers.mean, INF)
    self.assertEqual(
      found.detail,
      '2 of 3 seeds on the claimed side; a never in 1 of 3 seeds',
    )
    both = self.judge(speed, a=[100, INF, 100], b=[900, INF, 900])
    self.assertEqual(both.verdict, 'fails')

  def test_the_best_of_several_stands_for_them(self):
    """The lowest mean; its seeds are then paired, whichever number it had."""
    best = claim('ratio', 'at most', 1.0, runs=(('a1', 'a2'), ('b1', 'b2')))
    runs = {
      'a1': [1, 5, 3], 'a2': [2, 2, 2.2], 'b1': [4, 4, 4], 'b2': [9, 9, 3],
    }  # fmt: skip
    found = self.judge(best, **runs)
    self.assertEqual(found.verdict, 'holds')
    self.assertEqual(found.numbers.values, {0: 0.5, 1: 0.5, 2: 0.55})
    self.assertEndsWith(found.detail, 'best of their kind: a2, b1')
    highest = best._replace(best='highest')
    found = self.judge(highest, **runs)
    self.assertEndsWith(found.detail, 'best of their kind: a1, b2')
    self.assertEqual(found.verdict, 'fails')

  def test_none_is_chosen_of_a_search_that_is_not_complete(self):
    best = claim('value', 'at most', 1.0, runs=(('a1', 'a2'),))
    found = self.judge(best, a1=[0, 0, 0], a2=[0, (0, 'running'), 0])
    self.assertEqual(found.verdict, 'not measured')
    self.assertIn('a2 has 2; not finished: a2/seed1', found.detail)
    found = self.judge(best, a1=[0, 0, 0])
    self.assertEqual(found.detail, 'no run a2')
    found = self.judge(best, a1=[0, 0, 0], a2=[0, NAN, 0])
    self.assertEqual(found.detail, 'not recorded: a2/seed1')

  def test_one_that_diverged_before_it_recorded_anything_is_not_best(self):
    best = claim('value', 'at most', 1.0, runs=(('a1', 'a2'),))
    early = [(NAN, 'diverged')] * 3
    found = self.judge(best, a1=early, a2=[0, 0, 0])
    self.assertEqual(found.verdict, 'holds')
    self.assertEndsWith(found.detail, 'best of their kind: a2')


class CompareTest(parameterized.TestCase):
  @parameterized.parameters(
    ('value', 'at most', (INF,), INF),
    ('value', 'at least', (INF,), 1000),
    ('value', 'within', (INF,), INF),
    ('ratio', 'at most', (10, INF), 0.01),
    ('ratio', 'at most', (INF, 10), INF),
    ('ratio', 'at least', (INF, 10), 100),
    ('ratio', 'at least', (10, INF), 0),
    ('ratio', 'within', (10, INF), 0),
    ('ratio', 'within', (INF, 10), INF),
    ('difference', 'at most', (10, INF), -990),
    ('difference', 'at most', (INF, 10), INF),
    ('difference', 'at least', (INF, 10), 990),
    ('difference', 'at least', (10, INF), -INF),
    ('ratio', 'at most', (INF, INF), INF),
    ('ratio', 'at least', (INF, INF), 0),
    ('ratio', 'within', (INF, INF), INF),
    ('difference', 'at least', (INF, INF), -INF),
  )
  def test_never_does_not_help_a_claim(self, how, direction, sides, expected):
    found = judge.compared(how, direction, sides, (STEPS, STEPS))
    self.assertEqual(found, expected)
    # Whatever fails at once is on the wrong side of any threshold.
    if judge.fails_at_once(how, found):
      threshold = {'within': (1e-9, 1e9), 'at most': 1e9, 'at least': 1e-9}
      made = claim(how, direction, threshold[direction])
      self.assertFalse(
        judge.is_on_side(made, threshold[direction], found, found)
      )


if __name__ == '__main__':
  absltest.main()
