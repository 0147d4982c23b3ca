"""Judges whether the records of runs bear a claim out.

Runs with one seed are a pair: they begin with the same weights and see the same
batches. What is judged is the 95 % interval over pairs (Student's t; of a ratio
on logarithms). A claim holds if the whole interval lies on the claimed side of
the threshold, is contradicted if all of it lies on the other side, and is
undecided if it reaches across. One seed has no interval and decides nothing.

An order a < b < c is about the ratios of neighbours, b / a and c / b. It holds
if all intervals lie above 1. So chance makes it hold no more often than one
ratio, and the intervals need no correction for their number. It is contradicted
if one of them lies below 1: by chance up to twice as often as one ratio is.

A number of steps may be inf: not reached within the steps of the run, which may
need any number from these on. The comparison in that seed then has a range of
values. What is judged reaches from the low end of the interval of all low ends
to the high end of the interval of all high ends: 'never' counts no further than
the steps that were made. A seed's number is the end worse for the claim.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from bn_jax.report.claims import reading
from bn_jax.report.results import curves, pairs, statistics
from bn_jax.storage import run_folder

HOLDS, CONTRADICTED, UNDECIDED = 'holds', 'contradicted', 'undecided'
UNKNOWN = 'not measured'
VERDICTS = (HOLDS, CONTRADICTED, UNDECIDED, UNKNOWN)

# The low end of a range that has none; inf is the high end.
_LOWEST = {'value': -math.inf, 'ratio': 0.0, 'difference': -math.inf}


class NotMeasured(Exception):
  """Why a claim cannot be judged."""


class Evidence(NamedTuple):
  """The runs that a claim is about, as far as there are records."""

  # Run -> number of a seed -> its records, ended or not.
  seeds: Mapping[str, Mapping[int, curves.Seed]]
  notes: Mapping[str, str]  # run without records -> what is known of it

  def ended(self, name: str) -> list[int]:
    """Returns the seeds of a run that are done or diverged.

    Raises:
      NotMeasured: there is no such run.
    """
    if name not in self.seeds:
      note = f' ({self.notes[name]})' if name in self.notes else ''
      raise NotMeasured(f'no run {name}{note}')
    return [k for k, seed in self.seeds[name].items() if curves.has_ended(seed)]

  def unfinished(self, names: Sequence[str]) -> list[str]:
    """Returns a note on the seeds that have not ended, or none."""
    labels = [
      run_folder.label(name, number)
      for name in names
      for number, seed in sorted(self.seeds[name].items())
      if not curves.has_ended(seed)
    ]
    return [f'not finished: {", ".join(labels)}'] if labels else []

  def number(self, standard: reading.Standard, name: str, seed: int) -> float:
    """Returns the statistic of a run's seed."""
    of_seed = self.seeds[name][seed]
    return statistics.of(standard.statistic, standard.keywords, of_seed)


class Comparison(NamedTuple):
  """What was measured of one run, or of two that are compared."""

  # Over `values`, of a ratio geometric; if some are endless (see `is_endless`),
  # the first of them.
  mean: float
  # The ends of its 95 % interval; the mean for one seed.
  low: float
  high: float
  values: dict[int, float]  # seed -> its number, or the worse end of its range
  verdict: str  # of this comparison alone


class Verdict(NamedTuple):
  """How a claim came off."""

  claim: reading.Claim
  size: str  # at which the claim was judged
  verdict: str  # one of `VERDICTS`
  # Of an order each run with the one before it, else one; none if the claim was
  # not measured.
  comparisons: tuple[Comparison, ...]
  sides: Mapping[str, Sequence[float]]  # run -> its numbers, one a seed
  notes: tuple[str, ...]  # what is missing and why, and which runs never reach

  @property
  def standard(self) -> reading.Standard:
    """Returns what the claim is held to."""
    return self.claim.sizes[self.size]

  @property
  def seeds(self) -> int:
    """Returns how many seeds were judged."""
    return len(self.comparisons[0].values) if self.comparisons else 0


def verdict(claim: reading.Claim, size: str, evidence: Evidence) -> Verdict:
  """Returns how a claim comes off at a size, which must be in its `sizes`."""
  standard = claim.sizes[size]
  try:
    names = [
      _run_of_side(side, claim, standard, evidence) for side in claim.runs
    ]
    numbers, notes = _paired(claim, standard, names, evidence)
  except NotMeasured as reason:
    return Verdict(claim, size, UNKNOWN, (), {}, (str(reason),))
  steps_of = lambda name, seed: evidence.seeds[name][seed].config['steps']
  comparisons = []
  for indices in places(claim):
    spans = {
      seed: span(
        how_of(claim),
        [sides[k] for k in indices],
        [steps_of(names[k], seed) for k in indices],
      )
      for seed, sides in numbers.items()
    }
    comparisons.append(_comparison(claim, standard.threshold, spans))
  verdicts = [comparison.verdict for comparison in comparisons]
  worst = next(v for v in (CONTRADICTED, UNDECIDED, HOLDS) if v in verdicts)
  columns = dict(zip(names, zip(*numbers.values())))
  return Verdict(claim, size, worst, tuple(comparisons), columns, tuple(notes))


def how_of(claim: reading.Claim) -> str:
  """Returns how two neighbours are compared: an order by their ratio."""
  return 'ratio' if claim.compare == 'order' else claim.compare


def judged(claim: reading.Claim, threshold, low: float, high: float) -> str:
  """Returns the verdict on an interval from low to high.

  Where runs are compared, the threshold itself is on neither side: of equal
  runs none is better. A value may lie at its threshold.
  """
  if claim.direction == 'within':
    lowest, highest = threshold
    if lowest <= low and high <= highest:
      return HOLDS
    return CONTRADICTED if high < lowest or highest < low else UNDECIDED
  if claim.direction == 'at least':
    # The mirror image of 'at most'.
    low, high, threshold = -high, -low, -threshold
  if high < threshold or (claim.compare == 'value' and high == threshold):
    return HOLDS
  return CONTRADICTED if low > threshold else UNDECIDED


def span(
  how: str, sides: Sequence[float], steps: Sequence[int]
) -> tuple[float, float]:
  """Returns the range of a, a / b or a - b in one seed.

  Both ends are the number itself unless a side is inf, never reached; they are
  nan if a side is nan or a ratio is not of two positive numbers.

  Args:
    how: 'value', 'ratio' or 'difference'.
    sides: (a,) or (a, b).
    steps: of each side, the steps of the run: the least that inf can mean.
  """
  if any(map(math.isnan, sides)):
    return math.nan, math.nan
  never = [math.isinf(side) for side in sides]
  least = [
    float(count) if is_inf else side
    for side, count, is_inf in zip(sides, steps, never)
  ]
  if how == 'value':
    number = least[0]
  elif how == 'difference':
    number = least[0] - least[1]
  else:
    a, b = least
    number = a / b if a > 0 and b > 0 else math.nan
  # More steps of a make the number higher, more of b lower.
  low = _LOWEST[how] if len(never) > 1 and never[1] else number
  return low, math.inf if never[0] else number


def is_endless(how: str, number: float) -> bool:
  """Returns whether a number is the end of a range that has none."""
  return math.isinf(number) or (how == 'ratio' and number == 0)


def places(claim: reading.Claim) -> list[tuple[int, ...]]:
  """Returns the indices of the sides of each comparison, in `claim.runs`."""
  indices = range(len(claim.runs))
  if claim.compare == 'order':
    return [(after, before) for before, after in itertools.pairwise(indices)]
  return [tuple(indices)]


def _run_of_side(side, claim, standard, evidence: Evidence) -> str:
  """Returns the run that stands for a side: of several, the best.

  That is the run with the lowest or the highest mean over the seeds that all
  runs of the side have; runs that diverged before any record do not count.

  Raises:
    NotMeasured: a run is missing, or lacks seeds or records; or all diverged.
  """
  if isinstance(side, str):
    return side
  ended = {name: set(evidence.ended(name)) for name in side}
  shared = set.intersection(*ended.values())
  if len(shared) < standard.seeds:
    fewest = min(side, key=lambda name: len(ended[name]))
    few = (
      f'{len(shared)} of {standard.seeds} seeds of every run to choose from; '
      f'{fewest} has {len(ended[fewest])}'
    )
    raise NotMeasured('; '.join([few, *evidence.unfinished([fewest])]))
  means = {name: _mean_of(name, shared, standard, evidence) for name in side}
  means = {name: mean for name, mean in means.items() if not math.isnan(mean)}
  if not means:
    raise NotMeasured(f'nothing recorded by any of {len(side)} runs')
  choose = {'lowest': min, 'highest': max}[claim.best]
  return choose(means, key=means.__getitem__)


def _mean_of(name: str, shared: set[int], standard, evidence) -> float:
  """Returns the mean over seeds; nan if one diverged before any record."""
  numbers = []
  for seed in sorted(shared):
    number = evidence.number(standard, name, seed)
    has_diverged = curves.has_diverged(evidence.seeds[name][seed])
    if math.isnan(number) and not has_diverged:
      raise NotMeasured(f'not recorded: {run_folder.label(name, seed)}')
    numbers.append(number)
  return sum(numbers) / len(numbers)


def _paired(
  claim: reading.Claim, standard: reading.Standard, names, evidence: Evidence
) -> tuple[dict[int, list[float]], list[str]]:
  """Returns seed -> the numbers of its sides, and notes on what is missing.

  Raises:
    NotMeasured: a run is missing, too few seeds, or nothing is ever reached.
  """
  ended = set.intersection(*(set(evidence.ended(name)) for name in names))
  numbers, absent, undefined = {}, [], []
  for seed in sorted(ended):
    sides = [evidence.number(standard, name, seed) for name in names]
    blank = [name for name, side in zip(names, sides) if math.isnan(side)]
    if blank:
      absent += [run_folder.label(name, seed) for name in blank]
    elif how_of(claim) == 'ratio' and min(sides) <= 0:
      undefined.append(run_folder.seed_name(seed))
    else:
      numbers[seed] = sides
  missing = evidence.unfinished(names)
  if absent:
    missing.append(f'not recorded: {", ".join(absent)}')
  if undefined:
    missing.append(f'no ratio of positive numbers: {", ".join(undefined)}')
  if len(numbers) < standard.seeds:
    few = f'{len(numbers)} of {standard.seeds} seeds'
    raise NotMeasured('; '.join([few, *missing]))
  never = np.isinf(list(numbers.values()))
  if len(names) > 1 and never.all():
    raise NotMeasured('; '.join(['never reached by any run', *missing]))
  notes = [
    f'{name} never in {count} of {len(numbers)} seeds'
    for name, count in zip(names, never.sum(axis=0))
    if count
  ]
  return numbers, notes + missing


def _comparison(
  claim: reading.Claim, threshold, spans: Mapping[int, tuple[float, float]]
) -> Comparison:
  """Returns the comparison, from seed -> range."""
  how = how_of(claim)
  values = {}  # of each seed the end that is worse for the claim
  for seed, (low, high) in spans.items():
    is_up = claim.direction == 'within' and is_endless(how, high)
    values[seed] = high if is_up or claim.direction == 'at most' else low
  mean, low, high = _interval(how, list(values.values()))
  if len(spans) == 1:
    return Comparison(mean, low, high, values, UNDECIDED)
  lows, highs = zip(*spans.values())
  _, lowest, _ = _interval(how, lows)
  *_, highest = _interval(how, highs)
  return Comparison(
    mean, low, high, values, judged(claim, threshold, lowest, highest)
  )


def _interval(how: str, numbers: Sequence[float]) -> tuple[float, float, float]:
  """Returns the mean and both ends of its interval; of a ratio geometric."""
  endless = [number for number in numbers if is_endless(how, number)]
  return pairs.interval(endless[:1] or numbers, how == 'ratio')
