"""Whether the records of runs bear a claim out.

Seeds of one number are a pair: they began with the same weights and saw the
same batches. A claim holds if the mean over seeds and the whole of its 95 %
interval lie on the claimed side; whatever else was measured fails.

A number of steps may be inf: never within the steps of the run. It is taken so
that the claim is not helped: where more steps would be for the claim, as the
number of steps that the run had; where they are against it, the seed fails.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from bn_jax.report.claims import files
from bn_jax.report.results import curves, statistics
from bn_jax.storage import run_folder

HOLDS, FAILS, UNKNOWN = 'holds', 'fails', 'not measured'

# Below all that a comparison can give, as inf is above all.
_LOWEST = {'value': -math.inf, 'ratio': 0.0, 'difference': -math.inf}


class NotMeasured(Exception):
  """Why a claim cannot be judged."""


class Found(NamedTuple):
  """The runs of a figure of which there are records.

  Attributes:
    seeds: run -> number of a seed -> it, whether it has ended or not.
    notes: run -> why it is not there, where there is something to say.
  """

  seeds: Mapping[str, Mapping[int, curves.Seed]]
  notes: Mapping[str, str]

  def ended(self, name: str) -> list[int]:
    """The seeds of a run that go on no more.

    Raises:
      NotMeasured: there is no such run.
    """
    if name not in self.seeds:
      note = f' ({self.notes[name]})' if name in self.notes else ''
      raise NotMeasured(f'no run {name}{note}')
    seeds = self.seeds[name]
    return [number for number in seeds if curves.has_ended(seeds[number])]

  def unfinished(self, names: Sequence[str]) -> list[str]:
    """One sentence about the seeds that go on, or none."""
    going = [
      run_folder.label(name, number)
      for name in names
      for number, seed in sorted(self.seeds[name].items())
      if not curves.has_ended(seed)
    ]
    return [f'not finished: {", ".join(going)}'] if going else []

  def number(self, standard: files.Standard, name: str, seed: int) -> float:
    """The statistic of a run's seed."""
    return statistics.of(standard.statistic, self.seeds[name][seed])

  def steps(self, name: str, seed: int) -> int:
    """That a run had to make."""
    return self.seeds[name][seed].manifest['config']['steps']


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

  claim: files.Claim
  size: str
  numbers: Numbers | None
  verdict: str
  detail: str


def verdict(claim: files.Claim, size: str, found: Found) -> Verdict:
  """How a claim comes off at a size that it has."""
  standard = claim.sizes[size]
  try:
    names = [
      _standing(side, claim.best, standard, found) for side in claim.runs
    ]
    values, notes = _paired(claim, standard, names, found)
  except NotMeasured as why:
    return Verdict(claim, size, None, UNKNOWN, str(why))
  shared = {
    name: _mean(
      claim.compare, [found.number(standard, name, k) for k in values]
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


def is_on_side(claim: files.Claim, threshold, low: float, high: float) -> bool:
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


def compared(
  compare: str, direction: str, sides: Sequence[float], steps: Sequence[int]
) -> float:
  """a, a / b or a - b of a seed.

  inf, -inf or, of a ratio, 0 where it fails for what was never reached; nan
  where a side is nan or a ratio is not of two positive numbers.

  Args:
    compare: 'value', 'ratio' or 'difference'.
    direction: 'at most', 'at least' or 'within'.
    sides: (a,) or (a, b).
    steps: that the run of each side had.
  """
  if any(map(math.isnan, sides)):
    return math.nan
  lowest = _LOWEST[compare]
  never = [math.isinf(side) for side in sides]
  if all(never) and len(sides) > 1:
    return lowest if direction == 'at least' else math.inf
  if any(never):
    # More steps of a make the number higher, more of b lower.
    helps = 'at least' if never[0] else 'at most'
    if direction != helps:
      return math.inf if never[0] else lowest
    sides = [
      float(most) if inf else side
      for side, most, inf in zip(sides, steps, never)
    ]
  if compare == 'value':
    return sides[0]
  a, b = sides
  if compare == 'difference':
    return a - b
  return a / b if a > 0 and b > 0 else math.nan


def fails_at_once(compare: str, number: float) -> bool:
  """Whether a number stands for what was never reached."""
  return math.isinf(number) or (compare == 'ratio' and number == 0)


def _standing(
  side: str | tuple[str, ...],
  best: str,
  standard: files.Standard,
  found: Found,
) -> str:
  """The run that stands for a side: of several, the best.

  It is the one whose mean over the seeds that all of them have is the lowest or
  the highest; one that diverged before it recorded anything is none.

  Raises:
    NotMeasured: one of them has too few seeds, or was not measured.
  """
  if isinstance(side, str):
    return side
  ended = {name: set(found.ended(name)) for name in side}
  shared = set.intersection(*ended.values())
  if len(shared) < standard.seeds:
    fewest = min(side, key=lambda name: len(ended[name]))
    going = found.unfinished([fewest])
    few = (
      f'{len(shared)} of {standard.seeds} seeds of every run to choose from; '
      f'{fewest} has {len(ended[fewest])}'
    )
    raise NotMeasured('; '.join([few, *going]))
  means = {name: _mean_of(name, shared, standard, found) for name in side}
  known = {name: mean for name, mean in means.items() if not math.isnan(mean)}
  if not known:
    raise NotMeasured(f'nothing recorded by any of {len(side)} runs')
  choose = {'lowest': min, 'highest': max}[best]
  return choose(known, key=known.__getitem__)


def _mean_of(
  name: str, shared: set[int], standard: files.Standard, found: Found
) -> float:
  """The mean over seeds; nan of a run that diverged too early."""
  numbers = []
  for seed in sorted(shared):
    number = found.number(standard, name, seed)
    if math.isnan(number) and not statistics.diverged(found.seeds[name][seed]):
      raise NotMeasured(f'not recorded: {run_folder.label(name, seed)}')
    numbers.append(number)
  return sum(numbers) / len(numbers)


def _paired(
  claim: files.Claim,
  standard: files.Standard,
  names: Sequence[str],
  found: Found,
) -> tuple[dict[int, float], list[str]]:
  """(seed -> its number, what is to be said of others and of 'never').

  Raises:
    NotMeasured: fewer seeds than are needed.
  """
  ended = set.intersection(*(set(found.ended(name)) for name in names))
  values, absent, undefined = {}, [], []
  never = dict.fromkeys(names, 0)
  for seed in sorted(ended):
    sides = [found.number(standard, name, seed) for name in names]
    limits = [found.steps(name, seed) for name in names]
    value = compared(claim.compare, claim.direction, sides, limits)
    if math.isnan(value):
      blank = [name for name, side in zip(names, sides) if math.isnan(side)]
      absent += [run_folder.label(name, seed) for name in blank]
      undefined += [] if blank else [run_folder.seed_name(seed)]
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
    raise NotMeasured('; '.join([few, *missing]))
  said = [
    f'{name} never in {count} of {len(values)} seeds'
    for name, count in never.items()
    if count
  ]
  return values, said + missing


def _mean(how: str, numbers: Sequence[float]) -> float:
  if how != 'ratio':
    return float(np.mean(numbers))
  with np.errstate(divide='ignore'):  # 0 beside what was never reached
    return float(np.exp(np.mean(np.log(numbers))))


def _numbers(
  how: str, values: Mapping[int, float], sides: dict[str, float]
) -> Numbers:
  listed = list(values.values())
  never = [value for value in listed if fails_at_once(how, value)]
  if never or len(set(listed)) == 1:
    ends = [(never or listed)[0]] * 3
  elif how == 'ratio':
    mean, half = curves.mean_and_interval(np.log(listed))
    ends = map(math.exp, (mean, mean - half, mean + half))
  else:
    mean, half = curves.mean_and_interval(listed)
    ends = mean, mean - half, mean + half
  return Numbers(*ends, dict(values), sides)


def _detail(claim: files.Claim, threshold, numbers: Numbers) -> str:
  """In how many seeds, and where the interval lies of what fails."""
  values = list(numbers.values.values())
  right = sum(is_on_side(claim, threshold, v, v) for v in values)
  counted = f'{right} of {len(values)} seeds on the claimed side'
  if len(values) == 1:
    return 'one seed: an illustration'
  if is_on_side(claim, threshold, numbers.low, numbers.high):
    return counted
  if any(fails_at_once(claim.compare, value) for value in values):
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
