"""What Santurkar et al. (2018) claim of an order of runs, and how these answer.

Runs are compared only if they differ in nothing but the norm. A claim is that a
number grows from each run to the next, in every seed: seeds of one number are a
pair, for they saw the same batches, from the same weights. Of one that goes on
nothing is known yet.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from bn_jax.report.results import curves, looks, reductions

# Steps are counted to the highest of these that every compared run reaches in
# every seed that has ended; where there is none, that all but the plain one do
# ('never' is more steps than any); else to the first.
LEVELS = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)


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


class Group(NamedTuple):
  """Runs that differ in the norm alone, by what they are to the paper."""

  plain: curves.Run
  batch: curves.Run
  noisy: curves.Run | None

  @property
  def runs(self) -> list[curves.Run]:
    """Those that there are."""
    return [run for run in self if run is not None]


def groups(runs: Sequence[curves.Run]) -> list[Group]:
  """Each run without a norm, with the first of each norm like it.

  Those of its own working directory come first.
  """
  found = []
  for plain in runs:
    if plain.config['norm']['name'] != 'none':
      continue
    alike = {}
    for run in sorted(runs, key=lambda run: run.workdir != plain.workdir):
      if _without_norm(run) == _without_norm(plain):
        alike.setdefault(run.config['norm']['name'], run)
    if 'batch' in alike:
      found.append(Group(plain, alike['batch'], alike.get('noisy')))
  return found


def claims(group: Group) -> list[Claim]:
  """The paper's claims about such runs."""
  return [*_speed(group), *_landscape(group), *_drift(group)]


def claim(
  statement: str,
  runs: Sequence[curves.Run],
  read: Callable[[curves.Seed], float],
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


def _speed(group: Group) -> list[Claim]:
  if any(map(curves.is_regression, group.runs)):
    statement = 'Batch Normalization trains in fewer steps (to an accuracy)'
    why = 'a regression: no accuracy was recorded'
    return [Claim(statement, '', 'not measured', why)]
  level = _level(group)

  def steps(seed):
    return curves.steps_to(seed, level)

  goal = f'{100 * level:.0f} % of training batches'
  made = [
    claim(
      f'Batch Normalization trains in fewer steps (to {goal})',
      (group.batch, group.plain), steps, _steps,
    )
  ]  # fmt: skip
  if group.noisy is not None:
    made.append(
      claim(
        'With noise after it, it still does: with BN, then with noisy BN, then '
        f'without (steps to {goal})',
        (group.batch, group.noisy, group.plain), steps, _steps,
      )
    )  # fmt: skip
  return made


def _landscape(group: Group) -> list[Claim]:
  names = curves.training_measures(group.plain, 'along_gradient')
  if not names:
    return []
  name, pair = names[0], (group.batch, group.plain)
  return [
    claim(
      'Batch Normalization makes the loss vary less along the gradient (median '
      'band width)',
      pair, lambda seed: curves.median_width(seed, name, 'loss'), _short,
    ),
    claim(
      'It makes the gradient more predictive (median upper edge of its change)',
      pair, lambda seed: curves.median_upper(seed, name, 'gradient_change'),
      _short,
    ),
    claim(
      'It lowers the effective beta (median over training)',
      pair, lambda seed: curves.median_upper(seed, name, 'beta'), _short,
    ),
  ]  # fmt: skip


def _drift(group: Group) -> list[Claim]:
  """noisy > plain > BN, layer by layer (Figure 8)."""
  names = curves.training_measures(group.plain, 'activations')
  if not names or group.noisy is None:
    return []
  name = names[0]
  return [
    claim(
      f'{layer}: the {what} of activations drifts least with BN, more without, '
      'most with noisy BN (median change between looks)',
      (group.batch, group.plain, group.noisy),
      lambda seed, layer=layer, value=value: reductions.median_change(
        seed, name, layer, value
      ),
      _short,
    )
    for layer in looks.activation_layers(group.plain, name)
    for value, what in (('mean', 'mean'), ('var', 'variance'))
  ]


def _level(group: Group) -> float:
  normalized = [run for run in group.runs if run is not group.plain]
  for runs in (group.runs, normalized):
    steps = [
      [curves.steps_to(seed, level) for level in LEVELS]
      for run in runs
      for seed in run.seeds
      if curves.has_ended(seed)
    ]
    for level, counted in zip(LEVELS, zip(*steps)):
      if all(map(math.isfinite, counted)):
        return level
  return LEVELS[0]


def _without_norm(run: curves.Run) -> dict:
  """What it was trained with: what was measured later is no difference."""
  measures = {
    key: section
    for key, section in run.config['measures'].items()
    if not curves.is_analysis(key)
  }
  config = {**run.config, 'measures': measures}
  return {key: value for key, value in config.items() if key != 'norm'}


def _steps(value: float) -> str:
  return 'never' if math.isinf(value) else f'{value:.0f}'


def _short(value: float) -> str:
  return f'{value:.3g}'


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
