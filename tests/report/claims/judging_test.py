"""Verdicts on made-up numbers of which it is known what they show."""

import math
from unittest import mock

import numpy as np
from absl.testing import absltest, parameterized
from scipy import stats

from bn_jax.report.claims import judging, reading, rows
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
  (count,) = reading.COMPARISONS[compare]
  given = {
    'statistic': 'made_up', 'seeds': 3, 'runs': ('a', 'b')[:count],
    'best': 'lowest', **changes,
  }  # fmt: skip
  standard = reading.Standard(given['statistic'], {}, threshold, given['seeds'])
  return reading.Claim(
    'id', 'statement', 'source', given['runs'], compare, direction,
    given['best'], {'small': standard},
  )  # fmt: skip


def evidence(notes=None, **runs):
  """run -> numbers, of seeds 0, 1, ...; a pair is (number, status)."""
  seeds = {}
  for name, numbers in runs.items():
    seeds[name] = {}
    for k, number in enumerate(numbers):
      number, status = number if isinstance(number, tuple) else (number, 'done')
      seed = hand_made.seed(k, status=status, steps=STEPS)
      seed.manifest['made_up'] = number
      seeds[name][k] = seed
  return judging.Evidence(seeds, notes or {})


class Judged:
  """A verdict, and the row that is shown of it."""

  def __init__(self, verdict):
    self.verdict, self.comparisons = verdict.verdict, verdict.comparisons
    self.row = rows.of(reading.Figure('p/figure1', 'VGG', ()), verdict)
    self.measured, self.detail = self.row['measured'], self.row['detail']
    self.said = rows.said(self.row)


class JudgeTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(mock.patch.dict(statistics.STATISTICS, _MADE_UP))
    self.enter_context(mock.patch.object(statistics, 'STEPS', ('steps',)))

  def judge(self, made, notes=None, **runs):
    return Judged(judging.verdict(made, 'small', evidence(notes, **runs)))

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
    self.assertEqual(holds.verdict, 'holds', holds.detail)
    self.assertEqual(holds.detail, '3 of 3 seeds on the claimed side')
    across = self.judge(made, a=unsure, **b)
    self.assertEqual(across.verdict, 'undecided', across.detail)
    self.assertIn('the interval reaches across', across.detail)
    wrong = self.judge(made, a=bad, **b)
    self.assertEqual(wrong.verdict, 'contradicted', wrong.detail)
    self.assertIn('the whole interval lies', wrong.detail)
    self.assertIn('0 of 3 seeds on the claimed side', wrong.detail)
    few = self.judge(made, a=good[:2], **b)
    self.assertEqual(
      (few.verdict, few.detail, few.measured, few.row['mean']),
      ('not measured', '2 of 3 seeds', '', None),
    )

  def test_the_interval_of_a_difference_is_that_of_pairs(self):
    """Seeds that differ by 100 from each other, runs by 1 and a little."""
    a, b = [101.0, 201.1, 300.9], [100.0, 200.0, 300.0]
    made = self.judge(claim('difference', 'at least', 0.5), a=a, b=b)
    differences = np.subtract(a, b)
    half = stats.t.ppf(0.975, 2) * differences.std(ddof=1) / 3**0.5
    self.assertAlmostEqual(made.comparisons[0].mean, 1.0)
    self.assertAlmostEqual(made.comparisons[0].low, 1 - half)
    self.assertAlmostEqual(made.comparisons[0].high, 1 + half)
    self.assertEqual(made.verdict, 'holds')

  def test_the_interval_of_a_ratio_is_on_logarithms(self):
    made = self.judge(
      claim('ratio', 'at most', 1.0), a=[1, 2, 4], b=[10, 10, 10]
    )
    log = np.log([0.1, 0.2, 0.4])
    half = stats.t.ppf(0.975, 2) * log.std(ddof=1) / 3**0.5
    self.assertAlmostEqual(made.comparisons[0].mean, 0.2)
    self.assertAlmostEqual(made.comparisons[0].low, math.exp(log.mean() - half))
    self.assertAlmostEqual(
      made.comparisons[0].high, math.exp(log.mean() + half)
    )
    # Geometric, as it is: its sides are 2 and 10.
    self.assertEndsWith(made.measured, '3 seeds; a 2, b 10')
    made = self.judge(
      claim('difference', 'at most', 1.0), a=[1, 2, 4], b=[10, 10, 10]
    )
    self.assertEndsWith(made.measured, '3 seeds; a 2.33, b 10')

  def test_numbers_are_said_in_three_digits_and_counts_in_full(self):
    for number, expected in (
      (1000 - 1e-12, '1,000'), (999.6, '1,000'), (999.4, '999'),
      (123_456.7, '123,457'), (2e6, '2e+06'),
    ):  # fmt: skip
      made = self.judge(claim('value', 'at most', 1.0), a=[number] * 3)
      self.assertStartsWith(made.measured, f'{expected} ({expected} to')

  def test_equal_runs_are_no_better_than_each_other(self):
    same = {'a': [7, 8, 9], 'b': [7, 8, 9]}
    for how, threshold in (('ratio', 1.0), ('difference', 0.0)):
      for direction in ('at most', 'at least'):
        made = self.judge(claim(how, direction, threshold), **same)
        self.assertEqual(made.verdict, 'undecided', made.detail)
        self.assertStartsWith(made.detail, f'all at {threshold:g} itself')
    ends = claim('difference', 'within', (-1, 1))
    self.assertEqual(self.judge(ends, **same).verdict, 'holds')

  def test_a_value_at_its_threshold_holds(self):
    """That it diverged is 1, and all seeds agree."""
    for direction in ('at most', 'at least'):
      made = self.judge(claim('value', direction, 0.1), a=[0.1] * 3)
      self.assertEqual(made.verdict, 'holds')
      self.assertEqual(made.comparisons[0][:3], (0.1, 0.1, 0.1))

  def test_only_seeds_of_one_number_that_have_ended_are_pairs(self):
    going = [(1, 'done'), (1, 'diverged'), (1, 'running'), (1, 'interrupted')]
    made = claim('ratio', 'at most', 1.0, seeds=2)
    found = self.judge(made, a=going, b=[2, 2, 2, 2, 2])
    self.assertEqual(found.verdict, 'holds')
    self.assertEqual(list(found.comparisons[0].values), [0, 1])
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

  @parameterized.parameters(
    ('value', 'at most', 1.5), ('ratio', 'at most', 1.0),
    ('difference', 'at most', 0.0), ('difference', 'within', (-2, 0)),
  )  # fmt: skip
  def test_one_seed_decides_nothing(self, how, direction, threshold):
    made = claim(how, direction, threshold, seeds=1)
    b = {} if how == 'value' else {'b': [2]}
    for number, where in ((1, 'on'), (9, 'not on')):
      found = self.judge(made, a=[number], **b)
      self.assertEqual(found.verdict, 'undecided')
      self.assertEqual(found.said, 'undecided (one seed)')
      self.assertEqual(found.detail, f'{where} the claimed side')
      self.assertIn(', 1 seed', found.measured)
    # Two are enough, and none is missing a word.
    two = self.judge(made, a=[1, 1], **{name: [2, 2] for name in b})
    self.assertEqual(two.said, 'holds')

  def test_the_plain_network_never_gets_there(self):
    """It counts as the steps that it had; more of them it would have needed."""
    speed = claim('ratio', 'at most', 0.7, statistic='steps')
    found = self.judge(speed, a=[100, 110, 120], b=[900, INF, INF])
    self.assertEqual(found.verdict, 'holds')
    self.assertEqual(found.comparisons[0].values, {0: 1 / 9, 1: 0.11, 2: 0.12})
    self.assertIn('b never in 2 of 3 seeds', found.detail)
    # 0.9 or anything below: the other side is not shown.
    close = self.judge(speed, a=[900, 900, 900], b=[INF, INF, INF])
    self.assertEqual(close.verdict, 'undecided')
    self.assertEqual(
      close.detail,
      'left open by what was never reached; 0 of 3 seeds on the claimed side; '
      'b never in 3 of 3 seeds',
    )

  def test_what_should_be_fast_never_gets_there(self):
    speed = claim('ratio', 'at most', 0.7, statistic='steps')
    found = self.judge(speed, a=[100, INF, 100], b=[900, 900, 900])
    self.assertEqual(found.verdict, 'undecided')
    self.assertEqual(found.comparisons[0].mean, INF)
    self.assertEqual(
      found.detail,
      'left open by what was never reached; 2 of 3 seeds on the claimed side; '
      'a never in 1 of 3 seeds',
    )
    # 1,000 steps over 900 is more than 0.7 already.
    every = self.judge(speed, a=[INF, INF, INF], b=[900, 900, 900])
    self.assertEqual(every.verdict, 'contradicted')
    self.assertStartsWith(every.measured, 'never reached, 3 seeds; a never')
    # But it may be less than twice as many.
    twice = claim('ratio', 'at most', 2, statistic='steps')
    every = self.judge(twice, a=[INF, INF, INF], b=[900, 900, 900])
    self.assertEqual(every.verdict, 'undecided')

  def test_where_neither_gets_there_nothing_is_known(self):
    speed = claim('ratio', 'at most', 0.7, statistic='steps')
    some = self.judge(speed, a=[100, INF, 100], b=[900, INF, 900])
    self.assertEqual(some.verdict, 'undecided')
    none = self.judge(speed, a=[INF, INF, INF], b=[INF, INF, INF])
    self.assertEqual(
      (none.verdict, none.detail), ('not measured', 'never reached by any run')
    )

  def test_the_best_of_several_stands_for_them(self):
    """The lowest mean; its seeds are then paired, whichever number it had."""
    best = claim('ratio', 'at most', 1.0, runs=(('a1', 'a2'), ('b1', 'b2')))
    runs = {
      'a1': [1, 5, 3], 'a2': [2, 2, 2.2], 'b1': [4, 4, 4], 'b2': [9, 9, 3],
    }  # fmt: skip
    found = self.judge(best, **runs)
    self.assertEqual(found.verdict, 'holds')
    self.assertEqual(found.comparisons[0].values, {0: 0.5, 1: 0.5, 2: 0.55})
    self.assertEndsWith(found.detail, 'best of their kind: a2, b1')
    highest = best._replace(best='highest')
    found = self.judge(highest, **runs)
    self.assertEndsWith(found.detail, 'best of their kind: a1, b2')
    self.assertEqual(found.verdict, 'undecided')

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

  @parameterized.parameters(
    # Twice as much each time, within a little; the second about the same; less.
    ([1, 1.1, 0.9], [2, 2.1, 1.9], [4, 4.1, 3.9], 'holds', 3),
    ([1, 1.1, 0.9], [2, 2.1, 1.9], [2.1, 1.9, 2], 'undecided', 2),
    ([1, 1.1, 0.9], [2, 2.1, 1.9], [1.5, 1.6, 1.4], 'contradicted', 0),
    ([1, 1.1, 0.9], [1.1, 0.9, 1], [0.5, 0.4, 0.3], 'contradicted', 0),
  )
  def test_an_order_is_one_of_neighbours(self, a, b, c, expected, right):
    made = order('a', 'b', 'c')
    found = self.judge(made, a=a, b=b, c=c)
    self.assertEqual(found.verdict, expected, found.detail)
    self.assertIn(f'{right} of 3 seeds on the claimed side', found.detail)
    for comparison, (before, after) in zip(
      found.comparisons, ((a, b), (b, c)), strict=True
    ):
      log = np.log(np.divide(after, before))
      half = stats.t.ppf(0.975, 2) * log.std(ddof=1) / 3**0.5
      for number, exponent in zip(
        comparison[:3], (log.mean(), log.mean() - half, log.mean() + half)
      ):
        self.assertAlmostEqual(number, math.exp(exponent))
    # The row has the numbers of the neighbours that decide.
    pair = 1 if found.comparisons[0].verdict != expected else 0
    self.assertEqual(found.row['mean'], found.comparisons[pair].mean)

  def test_an_order_is_shown_with_plain_means(self):
    found = self.judge(order('a', 'b', 'c'), a=[1, 3], b=[4, 6], c=[30, 70])
    half = stats.t.ppf(0.975, 1) * 1 / 2**0.5 * 2**0.5  # of ratios 4 and 2
    self.assertIn(f'mean ratios 3 ± {half:.2g}, 9.58 ± ', found.detail)
    self.assertStartsWith(found.measured, 'a 2 → b 5 → c 50; ratios 2.83 (')
    self.assertEqual(found.row['threshold'], 'b / a and c / b at least 1')

  def test_an_order_of_one_seed_and_of_what_was_never_reached(self):
    made = order('a', 'b', statistic='steps')
    one = self.judge(made, a=[100], b=[INF])
    self.assertEqual(one.said, 'undecided (one seed)')
    self.assertEqual(one.measured, 'a 100 → b never; ratio 10, 1 seed')
    self.assertEqual(one.detail, 'on the claimed side; b never in 1 of 1 seeds')
    some = self.judge(made, a=[100, 100, 90], b=[900, INF, INF])
    self.assertEqual(some.verdict, 'holds')
    self.assertEqual(
      some.detail,
      '3 of 3 seeds on the claimed side; mean ratio never in 2 of 3; b never '
      'in 2 of 3 seeds',
    )
    turned = self.judge(made, a=[INF, INF, INF], b=[500, 510, 490])
    self.assertEqual(turned.verdict, 'contradicted')


def order(*names, statistic='made_up'):
  standard = reading.Standard(statistic, {}, 1.0, 1)
  return reading.Claim(
    'id', 'statement', 'source', names, 'order', 'at least', 'lowest',
    {'small': standard},
  )  # fmt: skip


class SpanTest(parameterized.TestCase):
  @parameterized.parameters(
    ('value', (7,), 7, 7),
    ('value', (INF,), 1000, INF),
    ('ratio', (10, 40), 0.25, 0.25),
    ('ratio', (10, INF), 0, 0.01),
    ('ratio', (INF, 10), 100, INF),
    ('ratio', (INF, INF), 0, INF),
    ('difference', (10, 40), -30, -30),
    ('difference', (10, INF), -INF, -990),
    ('difference', (INF, 10), 990, INF),
    ('difference', (INF, INF), -INF, INF),
  )
  def test_never_is_from_the_steps_on(self, how, sides, low, high):
    self.assertEqual(judging.span(how, sides, (STEPS, STEPS)), (low, high))

  def test_what_is_no_number(self):
    for how, sides in (
      ('value', (NAN,)),
      ('ratio', (NAN, 1)),
      ('ratio', (0, 1)),
    ):
      self.assertTrue(all(map(math.isnan, judging.span(how, sides, (9, 9)))))


class SideTest(parameterized.TestCase):
  @parameterized.parameters(
    ('value', 'at most', 5, (5, 5), 'holds'),
    ('value', 'at most', 5, (5, 6), 'undecided'),
    ('value', 'at most', 5, (5.1, 6), 'contradicted'),
    ('value', 'at least', 5, (5, 6), 'holds'),
    ('value', 'at least', 5, (4, 5), 'undecided'),
    ('value', 'at least', 5, (4, 4.9), 'contradicted'),
    # The threshold of a comparison is on neither side.
    ('ratio', 'at most', 1, (0.5, 1), 'undecided'),
    ('ratio', 'at most', 1, (0.5, 0.9), 'holds'),
    ('ratio', 'at most', 1, (1, 2), 'undecided'),
    ('ratio', 'at least', 1, (1, 2), 'undecided'),
    ('ratio', 'at least', 1, (1.1, 2), 'holds'),
    ('ratio', 'at least', 1, (0.5, 0.9), 'contradicted'),
    ('value', 'within', (4, 6), (4, 6), 'holds'),
    ('value', 'within', (4, 6), (3, 4), 'undecided'),
    ('value', 'within', (4, 6), (3, 9), 'undecided'),
    ('value', 'within', (4, 6), (2, 3.9), 'contradicted'),
    ('value', 'within', (4, 6), (6.1, 7), 'contradicted'),
  )
  def test_of_all_that_lies_between(
    self, how, direction, threshold, ends, expected
  ):
    made = claim(how, direction, threshold)
    self.assertEqual(judging.judged(made, threshold, *ends), expected)


if __name__ == '__main__':
  absltest.main()
