"""Whether the records of runs bear a claim out.

Seeds of one number are a pair: they began with the same weights and saw the
same batches. A claim holds if the mean over seeds and the whole of its 95 %
interval lie on the claimed side; whatever else was measured fails.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from bn_jax.report.claims import claim_files, compare, contest
from bn_jax.report.results import curves, statistics

HOLDS, FAILS, UNKNOWN = 'holds', 'fails', 'not measured'


class Numbers(NamedTuple):
  """What was measured.

  Attributes:
    mean: over seeds, of a ratio the geometric one; not finite where a seed
      never reached what it had to.
    low, high: the ends of its 95 % interval (Student's t, of a ratio on
      logarithms); the number itself for one seed.
    values: seed -> its number.
    sides: run -> the mean over these seeds of its own number, of a ratio the
      geometric one, too.
  """

  mean: float
  low: float
  high: float
  values: dict[int, float]
  sides: dict[str, float]


class Verdict(NamedTuple):
  """How a claim came off.

  Attributes:
    claim: it.
    size: at which it was judged.
    numbers: None of what was not measured.
    verdict: 'holds', 'fails' or 'not measured'.
    detail: in how many seeds, or why not.
  """

  claim: claim_files.Claim
  size: str
  numbers: Numbers | None
  verdict: str
  detail: str


def verdict(
  claim: claim_files.Claim, size: str, found: contest.Found
) -> Verdict:
  """How a claim comes off at a size that it has."""
  standard = claim.sizes[size]
  try:
    names = [
      contest.standing(side, claim.best, standard, found) for side in claim.runs
    ]
    values, notes = _paired(claim, standard, names, found)
  except contest.NotMeasured as why:
    return Verdict(claim, size, None, UNKNOWN, str(why))
  shared = {
    name: _mean(
      claim.compare, [_read(standard, found, name, k) for k in values]
    )
    for name in names
  }
  numbers = _numbers(claim.compare, values, shared)
  holds = is_on_side(claim, standard.threshold, numbers.low, numbers.high)
  chosen = [
    name for name, side in zip(names, claim.runs) if not isinstance(side, str)
  ]
  details = [_detail(claim, standard.threshold, numbers)]
  if chosen:
    details.append(f'best of their kind: {", ".join(chosen)}')
  details += notes
  return Verdict(
    claim, size, numbers, HOLDS if holds else FAILS, '; '.join(details)
  )


def is_on_side(
  claim: claim_files.Claim, threshold, low: float, high: float
) -> bool:
  """Whether all from low to high lies on the claimed side of a threshold.

  The threshold itself does, but where one run is to be above or below another:
  equal runs are no better than each other.
  """
  if claim.direction == 'within':
    return threshold[0] <= low and high <= threshold[1]
  equal = claim.compare == 'value'
  if claim.direction == 'at most':
    return high < threshold or (equal and high == threshold)
  return low > threshold or (equal and low == threshold)


def _paired(
  claim: claim_files.Claim,
  standard: claim_files.Standard,
  names: Sequence[str],
  found: contest.Found,
) -> tuple[dict[int, float], list[str]]:
  """(seed -> its number, what is to be said of others and of 'never').

  Raises:
    NotMeasured: fewer seeds than are needed.
  """
  ended = set.intersection(*(set(found.ended(name)) for name in names))
  values, absent, undefined = {}, [], []
  never = dict.fromkeys(names, 0)
  for seed in sorted(ended):
    sides = [_read(standard, found, name, seed) for name in names]
    limits = [found.steps(name, seed) for name in names]
    value = compare.number(claim.compare, claim.direction, sides, limits)
    if math.isnan(value):
      blank = [name for name, side in zip(names, sides) if math.isnan(side)]
      absent += [f'{name}/seed{seed}' for name in blank]
      undefined += [] if blank else [f'seed{seed}']
      continue
    values[seed] = value
    for name, side in zip(names, sides):
      never[name] += math.isinf(side)
  missing = found.unfinished(names)
  if absent:
    missing.append(f'not recorded: {", ".join(absent)}')
  if undefined:
    missing.append(f'no ratio of positive numbers: {", ".join(undefined)}')
  if len(values) < standard.seeds:
    few = f'{len(values)} of {standard.seeds} seeds'
    raise contest.NotMeasured('; '.join([few, *missing]))
  said = [
    f'{name} never in {count} of {len(values)} seeds'
    for name, count in never.items()
    if count
  ]
  return values, said + missing


def _read(
  standard: claim_files.Standard, found: contest.Found, name: str, seed: int
) -> float:
  return statistics.of(standard.statistic, found.seeds[name][seed])


def _mean(how: str, numbers: Sequence[float]) -> float:
  if how != 'ratio':
    return float(np.mean(numbers))
  with np.errstate(divide='ignore'):  # 0 beside what was never reached
    return float(np.exp(np.mean(np.log(numbers))))


def _numbers(
  how: str, values: Mapping[int, float], sides: dict[str, float]
) -> Numbers:
  listed = list(values.values())
  if any(compare.fails_at_once(how, value) for value in listed):
    worst = next(v for v in listed if compare.fails_at_once(how, v))
    return Numbers(worst, worst, worst, dict(values), sides)
  if len(set(listed)) == 1:
    return Numbers(listed[0], listed[0], listed[0], dict(values), sides)
  if how == 'ratio':
    mean, half = curves.mean_and_interval(np.log(listed))
    ends = (mean, mean - half, mean + half)
    return Numbers(*map(math.exp, ends), dict(values), sides)
  mean, half = curves.mean_and_interval(listed)
  return Numbers(mean, mean - half, mean + half, dict(values), sides)


def _detail(claim: claim_files.Claim, threshold, numbers: Numbers) -> str:
  """In how many seeds, and where the interval lies of what fails."""
  values = list(numbers.values.values())
  right = sum(is_on_side(claim, threshold, v, v) for v in values)
  counted = f'{right} of {len(values)} seeds on the claimed side'
  if len(values) == 1:
    return 'one seed: an illustration'
  if is_on_side(claim, threshold, numbers.low, numbers.high):
    return counted
  if any(compare.fails_at_once(claim.compare, value) for value in values):
    return counted
  ends = threshold if claim.direction == 'within' else (threshold,)
  if numbers.low == numbers.high and numbers.low in ends:
    return f'all at {numbers.low:g} itself; {counted}'
  across = [end for end in ends if numbers.low <= end <= numbers.high]
  if across:
    reached = ' and '.join(f'{end:g}' for end in across)
    return f'the interval reaches across {reached}: nothing is shown; {counted}'
  said = 'outside' if claim.direction == 'within' else 'on the other side'
  return f'the whole interval lies {said}; {counted}'
