"""Whether a number grows from each run to the next, in every seed.

Seeds of one number are a pair: they saw the same batches, from the same
weights. Of one that goes on nothing is known yet.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from bn_jax.report.results import curves

Read = Callable[[curves.Seed], float]


class Claim(NamedTuple):
  """A claim, and how these runs answer it.

  Attributes:
    statement: what is claimed.
    numbers: what was measured, means over the seeds, in the order claimed.
    verdict: 'holds' (in every seed), 'fails' (in every seed), 'mixed' or 'not
      measured'.
    detail: in how many seeds, and ratios with their 95 % intervals.
  """

  statement: str
  numbers: str
  verdict: str
  detail: str


def claim(
  statement: str,
  runs: Sequence[curves.Run],
  read: Read,
  show: Callable[[float], str],
) -> Claim:
  """The claim that a number grows strictly from each run to the next."""
  begun = _shared(run.seeds for run in runs)
  ended = _shared(filter(curves.has_ended, run.seeds) for run in runs)
  read_of = [{seed.seed: read(seed) for seed in run.seeds} for run in runs]
  rows = [[found[seed] for found in read_of] for seed in sorted(ended)]
  rows = [row for row in rows if not _unknown(row)]
  if not rows:
    why = 'not finished' if begun - ended else 'no seed has all of them'
    return Claim(statement, '', 'not measured', why)
  order = [all(a < b for a, b in itertools.pairwise(row)) for row in rows]
  verdict = {len(rows): 'holds', 0: 'fails'}.get(sum(order), 'mixed')
  columns = list(zip(*rows))
  numbers = ' → '.join(
    f'{run.config["norm"]["name"]} {_mean(column, show)}'
    for run, column in zip(runs, columns)
  )
  details = [f'{sum(order)} of {len(rows)} seeds', _ratios(columns)]
  if len(rows) == 1:
    details = ['one seed: an illustration']
  if begun - ended:
    details.append(f'{len(begun - ended)} not finished')
  return Claim(statement, numbers, verdict, '; '.join(details))


def _shared(seeds_of_runs) -> set[int]:
  """The numbers of the seeds that every run has."""
  return set.intersection(
    *({seed.seed for seed in seeds} for seeds in seeds_of_runs)
  )


def _mean(values: Sequence[float], show: Callable[[float], str]) -> str:
  never = sum(map(math.isinf, values))
  if 0 < never < len(values):
    return f'never in {never} of {len(values)}'
  return show(float(np.mean(values)))


def _ratios(columns: Sequence[Sequence[float]]) -> str:
  """Of each number to the one before it: mean over seeds and its interval."""
  said = [_ratio(a, b) for a, b in itertools.pairwise(columns)]
  return f'ratio{"s" if len(said) > 1 else ""} {", ".join(said)}'


def _ratio(before: Sequence[float], after: Sequence[float]) -> str:
  pairs = list(zip(before, after))
  never = sum(any(map(math.isinf, pair)) for pair in pairs)
  if never:
    return f'never in {never} of {len(pairs)}'
  if not all(before):
    return 'undefined'
  mean, half = curves.mean_and_interval([b / a for a, b in pairs])
  return f'{mean:.3g} ± {half:.2g}'


def _unknown(row: Sequence[float]) -> bool:
  """Whether nothing can be said: a nan, or none of them ever got there."""
  return any(map(math.isnan, row)) or all(map(math.isinf, row))
