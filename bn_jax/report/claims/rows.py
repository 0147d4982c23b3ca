"""Puts verdicts into words and numbers: a row, a dict of `COLUMNS`, a claim.

The same row is printed, kept in verdicts.json and .csv, and shown on the page.
"""

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bn_jax.report.claims import judging, reading
from bn_jax.report.results import conditions, curves, statistics

COLUMNS = {
  'figure': str,
  'size': str,
  'title': str,
  'id': str,
  'statement': str,
  'source': str,
  'statistic': str,
  'threshold': str,
  'measured': str,
  'mean': float | int | str | None,  # a text where it is not finite
  'low': float | int | str | None,
  'high': float | int | str | None,
  'values': dict,
  'seeds': int,
  'needed': int,
  'verdict': str,
  'detail': str,
}

Row = Mapping[str, Any]

_NUMBER = r'(-?[\d.]+(?:e[+-]?\d+)?)'
_THRESHOLD = re.compile(
  rf'(.*) (at most|at least|within) {_NUMBER}(?: and {_NUMBER})?'
)
_MOST_SEEDS = 100  # that are worth naming: nobody trains more
_SIGNS = {'value': '', 'ratio': ' / ', 'difference': ' − '}


def of(figure: reading.Figure, verdict: judging.Verdict) -> Row:
  """Returns a verdict as a row that JSON can hold.

  Of an order, mean, interval and values are those of the first comparison whose
  own verdict is that of the claim.
  """
  claim, standard = verdict.claim, verdict.standard
  decisive = [c for c in verdict.comparisons if c.verdict == verdict.verdict]
  return {
    'figure': figure.name,
    'size': verdict.size,
    'title': figure.title,
    'id': claim.id,
    'statement': claim.statement,
    'source': claim.source,
    'statistic': statistics.words(standard.statistic, standard.keywords),
    'threshold': _threshold(claim, standard),
    'measured': measured(verdict),
    **dict.fromkeys(('mean', 'low', 'high')),
    'values': {},
    'seeds': verdict.seeds,
    'needed': standard.seeds,
    'verdict': verdict.verdict,
    'detail': '; '.join(_details(verdict)),
    **(_numbers(decisive[0]) if decisive else {}),
  }


def _numbers(comparison: judging.Comparison) -> Row:
  values = {str(seed): _plain(v) for seed, v in comparison.values.items()}
  ends = {k: _plain(getattr(comparison, k)) for k in ('mean', 'low', 'high')}
  return {**ends, 'values': values}


def said(row: Row) -> str:
  """Returns the verdict of a row: 'holds', 'undecided (one seed)'."""
  undecided = row['verdict'] == judging.UNDECIDED
  return f'{row["verdict"]}{" (one seed)" * (undecided and row["seeds"] == 1)}'


def counted(rows: Sequence[Row]) -> str:
  """Returns '3 hold, 1 contradicted, 2 undecided, 0 not measured'."""
  return ', '.join(count(rows, verdict) for verdict in judging.VERDICTS)


def count(rows: Sequence[Row], verdict: str) -> str:
  """Returns '3 hold': how many of these verdicts there are."""
  number = sum(row['verdict'] == verdict for row in rows)
  return f'{number} {"hold" if verdict == judging.HOLDS else verdict}'


def in_short(row: Row) -> str:
  """Returns '0.41 (0.38 to 0.44), claimed at most 0.7'; '' of no numbers.

  Of an order 'batch 48 → none 118', which should grow to the right.
  """
  numbers, _, _ = row['measured'].partition(';')
  if not numbers or '→' in numbers:
    return numbers
  interval, _, _ = numbers.rpartition(', ')
  return f'{interval}, {asked(row)}'


def asked(row: Row) -> str:
  """Returns 'claimed at most 0.7'."""
  sides, _, _ = claimed(row)
  return f'claimed{row["threshold"].removeprefix(sides)}'


def plain(number: float | str | None) -> str:
  """Returns a number of a row in three digits; '' of none."""
  if isinstance(number, str):
    return 'never' if number == 'inf' else number
  return '' if number is None else short(number)


def claimed(row: Row) -> tuple[str, str, list[float]]:
  """Returns (sides, direction, numbers): ('a / b', 'at most', [0.7]).

  A file of verdicts that was written by hand may have other words there, which
  are all sides then.
  """
  match = _THRESHOLD.fullmatch(row['threshold'])
  if not match:
    return row['threshold'], '', []
  sides, direction, *numbers = match.groups()
  return sides, direction, [float(n) for n in numbers if n]


def would_decide(row: Row) -> str:
  """Returns what would decide an undecided claim; '' of others.

  How many seeds would have an interval that ends at the threshold, if their
  mean and their deviation were those of the seeds so far.
  """
  sides, _, ends = claimed(row)
  if row['verdict'] != judging.UNDECIDED or not ends:
    return ''
  if row['seeds'] == 1:
    return 'a second seed, and more: one has no interval'
  is_ratio = ' / ' in sides
  scale = math.log if is_ratio else float
  numbers = [row[key] for key in ('mean', 'low', 'high')]
  if any(isinstance(n, str) for n in numbers) or (
    is_ratio and min(*numbers, *ends) <= 0
  ):
    return 'more steps, in which it is reached'
  mean, low, high = map(scale, numbers)
  distance = min(abs(mean - scale(end)) for end in ends)
  deviation = (high - low) / 2 * row['seeds'] ** 0.5
  deviation /= curves.student(row['seeds'])
  for count in range(row['seeds'] + 1, _MOST_SEEDS + 1):
    if curves.student(count) * deviation < distance * count**0.5:
      return f'about {count} seeds, if mean and deviation stay what they are'
  return f'more than {_MOST_SEEDS} seeds: the mean is at the threshold'


def measured(verdict: judging.Verdict) -> str:
  """Returns '0.41 (0.38 to 0.44), 3 seeds; batchnorm 48, standard 118'.

  Of an order, 'batch 48 → none 118; ratio 2.46 (2.38 to 2.54), 3 seeds'.
  """
  if not verdict.comparisons:
    return ''
  claim, compare = verdict.claim, verdict.claim.compare
  intervals = ' and '.join(_interval(claim, c) for c in verdict.comparisons)
  text = f'{intervals}, {conditions.counted(verdict.seeds, "seed")}'
  if compare == 'value':
    return text
  # As the ratio, the means of its two runs are geometric.
  to, back = (np.log, np.exp) if compare == 'ratio' else (np.asarray, float)
  sides = [
    f'{name} {short(float(back(np.mean(to(numbers)))))}'
    for name, numbers in verdict.sides.items()
  ]
  if compare == 'order':
    ratios = f'ratio{"s" if len(sides) > 2 else ""}'
    return f'{" → ".join(sides)}; {ratios} {text}'
  return f'{text}; {", ".join(sides)}'


def _interval(claim: reading.Claim, comparison: judging.Comparison) -> str:
  mean, low, high = comparison[:3]
  if judging.is_endless(judging.how_of(claim), mean):
    return 'never reached'
  if len(comparison.values) == 1:
    return short(mean)
  return f'{short(mean)} ({short(low)} to {short(high)})'


def _threshold(claim: reading.Claim, standard: reading.Standard) -> str:
  """Returns 'batchnorm / standard at most 0.7'."""
  words = [
    side
    if isinstance(side, str)
    else f'the {claim.best} of {len(side)} ({side[0]} to {side[-1]})'
    for side in claim.runs
  ]
  sides = ' and '.join(
    _SIGNS[judging.how_of(claim)].join(words[index] for index in indices)
    for indices in judging.places(claim)
  )
  if claim.direction == 'within':
    low, high = standard.threshold
    return f'{sides} within {low:g} and {high:g}'
  return f'{sides} {claim.direction} {standard.threshold:g}'


def _details(verdict: judging.Verdict) -> list[str]:
  """Returns where interval and seeds lie, the runs chosen, and the notes."""
  if not verdict.comparisons:
    return list(verdict.notes)
  claim, details = verdict.claim, [_where(verdict)]
  if claim.compare == 'order' and verdict.seeds > 1:
    details.append(_plain_ratios(list(verdict.sides.values())))
  best_runs = [
    name
    for name, side in zip(verdict.sides, claim.runs)
    if not isinstance(side, str)
  ]
  if best_runs:
    details.append(f'best of their kind: {", ".join(best_runs)}')
  return [*details, *verdict.notes]


def _where(verdict: judging.Verdict) -> str:
  """Returns how many seeds are as claimed, and why the claim does not hold."""
  claim, threshold = verdict.claim, verdict.standard.threshold
  as_claimed = [
    all(
      judging.judged(claim, threshold, value, value) == judging.HOLDS
      for value in values
    )
    for values in zip(*(c.values.values() for c in verdict.comparisons))
  ]
  if len(as_claimed) == 1:
    return f'{"" if as_claimed[0] else "not "}on the claimed side'
  count = f'{sum(as_claimed)} of {len(as_claimed)} seeds on the claimed side'
  within = claim.direction == 'within'
  if verdict.verdict == judging.HOLDS:
    return count
  if verdict.verdict == judging.CONTRADICTED:
    where = 'outside' if within else 'on the other side'
    of_one = ' of one ratio' if len(verdict.comparisons) > 1 else ''
    return f'the whole interval{of_one} lies {where}; {count}'
  ends = threshold if within else (threshold,)
  intervals = [(c.low, c.high) for c in verdict.comparisons]
  if all(low == high and low in ends for low, high in intervals):
    return f'all at {intervals[0][0]:g} itself; {count}'
  across = [
    f'{end:g}'
    for end in ends
    if any(low <= end <= high for low, high in intervals)
  ]
  if not across:
    return f'left open by what was never reached; {count}'
  return f'the interval reaches across {" and ".join(across)}; {count}'


def _plain_ratios(columns: Sequence[Sequence[float]]) -> str:
  """Returns the plain mean and interval of each ratio of an order.

  No verdict rests on them: ratios are judged on logarithms.
  """

  def ratio(before: Sequence[float], after: Sequence[float]) -> str:
    never = sum(map(math.isinf, np.maximum(before, after)))
    if never:
      return f'never in {never} of {len(before)}'
    mean, half = curves.mean_and_interval(np.divide(after, before))
    return f'{mean:.3g} ± {half:.2g}'

  ratios = [ratio(a, b) for a, b in itertools.pairwise(columns)]
  return f'mean ratio{"s" if len(ratios) > 1 else ""} {", ".join(ratios)}'


def short(number: float) -> str:
  """Returns three digits, or all before the point from 1,000 to a million."""
  if math.isinf(number):
    return 'never'
  if 999.5 <= abs(number) < 1e6:
    return f'{number:,.0f}'
  return f'{number:.3g}'


def _plain(number: float) -> float | str:
  """Returns a number, or 'inf', '-inf' or 'nan', which JSON cannot hold."""
  return number if abs(number) < math.inf else str(number)
