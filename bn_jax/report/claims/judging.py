"""Whether the records of runs bear a claim out.

Seeds of one number are a pair: they began with the same weights and saw the
same batches. What is judged is the 95 % interval over pairs (Student's t; of a
ratio on logarithms). A claim holds where all of it lies on the claimed side of
the threshold, is contradicted where all of it lies on the other side, and is
undecided where it reaches across. One seed has no interval: it decides nothing.

An order a < b < c is about the ratios of neighbours, b / a and c / b. It holds
if all of them are above 1: so it holds wrongly no more often than one ratio
would, and needs no correction for their number. It is contradicted if one of
them is below 1: wrongly so, of two, up to twice as often as one would be.

A number of steps may be inf: never within the steps of the run. It then lies
anywhere from these on, and what is compared in the seed lies in a range. The
interval is from the low end of that of the ranges' low ends to the high end of
that of their high ends: 'never' counts for or against a claim no further than
the steps that were made. The number shown of a seed is the worse end for it.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from bn_jax.report.claims import reading
from bn_jax.report.results import curves, statistics
from bn_jax.storage import run_folder

HOLDS, CONTRADICTED, UNDECIDED = 'holds', 'contradicted', 'undecided'
UNKNOWN = 'not measured'
VERDICTS = (HOLDS, CONTRADICTED, UNDECIDED, UNKNOWN)

# Below all that a comparison can give, as inf is above all.
_LOWEST = {'value': -math.inf, 'ratio': 0.0, 'difference': -math.inf}


class NotMeasured(Exception):
  """Why a claim cannot be judged."""


class Evidence(NamedTuple):
  """The runs that a claim is about, as far as there are records.

  Attributes:
    seeds: run -> number of a seed -> it, whether it has ended or not.
    notes: run -> why it is not there, where there is something to say.
  """

  seeds: Mapping[str, Mapping[int, curves.Seed]]
  notes: Mapping[str, str]

  def ended(self, name: str) -> list[int]:
    """Returns the seeds of a run that go on no more.

    Raises:
      NotMeasured: there is no such run.
    """
    if name not in self.seeds:
      note = f' ({self.notes[name]})' if name in self.notes else ''
      raise NotMeasured(f'no run {name}{note}')
    return [k for k, seed in self.seeds[name].items() if curves.has_ended(seed)]

  def unfinished(self, names: Sequence[str]) -> list[str]:
    """Returns one sentence about the seeds that go on, or none."""
    going = [
      run_folder.label(name, number)
      for name in names
      for number, seed in sorted(self.seeds[name].items())
      if not curves.has_ended(seed)
    ]
    return [f'not finished: {", ".join(going)}'] if going else []

  def number(self, standard: reading.Standard, name: str, seed: int) -> float:
    """Returns the statistic of a run's seed."""
    return statistics.of(
      standard.statistic, standard.keywords, self.seeds[name][seed]
    )

  def steps(self, name: str, seed: int) -> int:
    """Returns how many steps a run had to make."""
    return self.seeds[name][seed].manifest['config']['steps']


class Comparison(NamedTuple):
  """What was measured of one run, or of two that are compared.

  Attributes:
    mean: over seeds, of a ratio the geometric one; not finite where a seed
      never reached what it had to.
    low, high: the ends of its 95 % interval; the number itself for one seed.
    values: seed -> its number.
    verdict: of this comparison alone.
  """

  mean: float
  low: float
  high: float
  values: dict[int, float]
  verdict: str


class Verdict(NamedTuple):
  """How a claim came off.

  Attributes:
    claim: it.
    size: at which it was judged.
    verdict: one of `VERDICTS`.
    comparisons: of an order each run with the one before it, else one; none of
      what was not measured.
    sides: run -> its own numbers, of these seeds.
    notes: of what nothing is known, and why.
  """

  claim: reading.Claim
  size: str
  verdict: str
  comparisons: tuple[Comparison, ...]
  sides: Mapping[str, Sequence[float]]
  notes: tuple[str, ...]

  @property
  def standard(self) -> reading.Standard:
    """Returns what it is held to."""
    return self.claim.sizes[self.size]

  @property
  def seeds(self) -> int:
    """Returns how many seeds were judged."""
    return len(self.comparisons[0].values) if self.comparisons else 0


def verdict(claim: reading.Claim, size: str, evidence: Evidence) -> Verdict:
  """Returns how a claim comes off at a size that it has."""
  standard = claim.sizes[size]
  try:
    names = [
      _standing(side, claim.best, standard, evidence) for side in claim.runs
    ]
    numbers, notes = _paired(claim, standard, names, evidence)
  except NotMeasured as reason:
    return Verdict(claim, size, UNKNOWN, (), {}, (str(reason),))
  comparisons = []
  for compared in places(claim):
    spans = {
      seed: span(
        how_of(claim),
        [sides[k] for k in compared],
        [evidence.steps(names[k], seed) for k in compared],
      )
      for seed, sides in numbers.items()
    }
    comparisons.append(_comparison(claim, standard.threshold, spans))
  verdicts = [one.verdict for one in comparisons]
  worst = next(v for v in (CONTRADICTED, UNDECIDED, HOLDS) if v in verdicts)
  columns = dict(zip(names, zip(*numbers.values())))
  return Verdict(claim, size, worst, tuple(comparisons), columns, tuple(notes))


def how_of(claim: reading.Claim) -> str:
  """Returns how two neighbours are compared: an order by their ratio."""
  return 'ratio' if claim.compare == 'order' else claim.compare


def judged(claim: reading.Claim, threshold, low: float, high: float) -> str:
  """Returns the verdict on all that lies from low to high.

  Where runs are compared, the threshold itself is on neither side: equal runs
  are no better than each other. A value may lie at its threshold.
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
  """Returns in which range a, a / b or a - b of a seed lies.

  Both ends are the number itself unless something was never reached; they are
  nan where a side is nan or a ratio is not of two positive numbers.

  Args:
    how: 'value', 'ratio' or 'difference'.
    sides: (a,) or (a, b).
    steps: that the run of each side had.
  """
  if any(map(math.isnan, sides)):
    return math.nan, math.nan
  never = [math.isinf(side) for side in sides]
  least = [
    float(most) if inf else side for side, most, inf in zip(sides, steps, never)
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
  """Returns the places of the sides that are compared with each other."""
  every = range(len(claim.runs))
  if claim.compare == 'order':
    return [(after, before) for before, after in itertools.pairwise(every)]
  return [tuple(every)]


def _standing(
  side: str | tuple[str, ...],
  best: str,
  standard: reading.Standard,
  evidence: Evidence,
) -> str:
  """Returns the run that stands for a side: of several, the best.

  It is the one whose mean over the seeds that all of them have is the lowest or
  the highest; one that diverged before it recorded anything is none.

  Raises:
    NotMeasured: one of them has too few seeds, or was not measured.
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
  known = {name: mean for name, mean in means.items() if not math.isnan(mean)}
  if not known:
    raise NotMeasured(f'nothing recorded by any of {len(side)} runs')
  choose = {'lowest': min, 'highest': max}[best]
  return choose(known, key=known.__getitem__)


def _mean_of(
  name: str, shared: set[int], standard: reading.Standard, evidence: Evidence
) -> float:
  """Returns the mean over seeds; nan of a run that diverged too early."""
  numbers = []
  for seed in sorted(shared):
    number = evidence.number(standard, name, seed)
    if math.isnan(number) and not statistics.diverged(
      evidence.seeds[name][seed]
    ):
      raise NotMeasured(f'not recorded: {run_folder.label(name, seed)}')
    numbers.append(number)
  return sum(numbers) / len(numbers)


def _paired(
  claim: reading.Claim,
  standard: reading.Standard,
  names: Sequence[str],
  evidence: Evidence,
) -> tuple[dict[int, list[float]], list[str]]:
  """Returns the numbers of each seed, and what is to be said of others.

  Raises:
    NotMeasured: fewer seeds than are needed, or nothing is known of any.
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
  said = [
    f'{name} never in {count} of {len(numbers)} seeds'
    for name, count in zip(names, never.sum(axis=0))
    if count
  ]
  return numbers, said + missing


def _comparison(
  claim: reading.Claim, threshold, spans: Mapping[int, tuple[float, float]]
) -> Comparison:
  """Returns what is said of seed -> range, and the verdict on it."""
  how = how_of(claim)
  values = {seed: _worst(claim, how, one) for seed, one in spans.items()}
  mean, low, high = _interval(how, list(values.values()))
  if len(spans) == 1:
    return Comparison(mean, low, high, values, UNDECIDED)
  lows, highs = zip(*spans.values())
  _, lowest, _ = _interval(how, lows)
  *_, highest = _interval(how, highs)
  return Comparison(
    mean, low, high, values, judged(claim, threshold, lowest, highest)
  )


def _worst(claim: reading.Claim, how: str, ends: tuple[float, float]) -> float:
  """Returns the end of a range that is the worse for a claim."""
  low, high = ends
  is_up = claim.direction == 'within' and is_endless(how, high)
  return high if is_up or claim.direction == 'at most' else low


def _interval(how: str, numbers: Sequence[float]) -> tuple[float, float, float]:
  """Returns the mean and both ends of the interval; of a ratio geometric."""
  endless = [number for number in numbers if is_endless(how, number)]
  if endless or len(set(numbers)) == 1:
    return ((endless or numbers)[0],) * 3
  if how == 'ratio':
    mean, half = curves.mean_and_interval(np.log(numbers))
    return math.exp(mean), math.exp(mean - half), math.exp(mean + half)
  mean, half = curves.mean_and_interval(numbers)
  return mean, mean - half, mean + half
