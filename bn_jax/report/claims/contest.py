"""Which runs stand for the sides of a claim, and the seeds that they have."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from bn_jax.report.claims import claim_files
from bn_jax.report.results import curves, statistics


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
      f'{name}/seed{number}'
      for name in names
      for number, seed in sorted(self.seeds[name].items())
      if not curves.has_ended(seed)
    ]
    return [f'not finished: {", ".join(going)}'] if going else []

  def steps(self, name: str, seed: int) -> int:
    """That a run had to make."""
    return self.seeds[name][seed].manifest['config']['steps']


def standing(
  side: str | tuple[str, ...],
  best: str,
  standard: claim_files.Standard,
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
  means = {name: _mean(name, shared, standard, found) for name in side}
  known = {name: mean for name, mean in means.items() if not math.isnan(mean)}
  if not known:
    raise NotMeasured(f'nothing recorded by any of {len(side)} runs')
  choose = {'lowest': min, 'highest': max}[best]
  return choose(known, key=known.__getitem__)


def _mean(
  name: str,
  shared: set[int],
  standard: claim_files.Standard,
  found: Found,
) -> float:
  """The mean over seeds; nan of a run that diverged too early."""
  numbers = []
  for seed in sorted(shared):
    number = statistics.of(standard.statistic, found.seeds[name][seed])
    diverged = found.seeds[name][seed].manifest['status'] == 'diverged'
    if math.isnan(number) and not diverged:
      raise NotMeasured(f'not recorded: {name}/seed{seed}')
    numbers.append(number)
  return sum(numbers) / len(numbers)
