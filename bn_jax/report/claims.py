"""What Santurkar et al. (2018) claim, and how these runs answer.

Runs are compared only if they differ in nothing but the norm; seeds of one
number are a pair: they saw the same batches, from the same weights.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from bn_jax.report import curves, drift

Read = Callable[[curves.Seed], float]
# Steps are counted to the highest of these that every compared run reaches in
# every seed; where there is none, that all but the plain one do ('never' is
# more steps than any); else to the first.
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


def claims(runs: Sequence[curves.Run]) -> list[Claim]:
  """The claims about the first runs that can be compared; none, no claims."""
  group = _group(runs)
  if group is None:
    return []
  return [
    *_speed(group),
    *_landscape(group),
    *_drift(group),
  ]


def _speed(group: Group) -> list[Claim]:
  level = _level(group)

  def steps(seed):
    return curves.steps_to(seed, level)

  goal = f'{100 * level:.0f} % of training batches'
  made = [
    _ordered(
      f'Batch Normalization trains in fewer steps (to {goal})',
      (group.batch, group.plain), steps, _steps,
    )
  ]  # fmt: skip
  if group.noisy is not None:
    made.append(
      _ordered(
        'With noise after it, it still does: with BN, then with noisy BN, then '
        f'without (steps to {goal})',
        (group.batch, group.noisy, group.plain), steps, _steps,
      )
    )  # fmt: skip
  return made


def _landscape(group: Group) -> list[Claim]:
  names = curves.measure_named(group.plain, 'along_gradient')
  if not names:
    return []
  name, pair = names[0], (group.batch, group.plain)
  return [
    _ordered(
      'Batch Normalization makes the loss vary less along the gradient (median '
      'band width)',
      pair, lambda seed: curves.median_width(seed, name, 'loss'), _short,
    ),
    _ordered(
      'It makes the gradient more predictive (median upper edge of its change)',
      pair, lambda seed: curves.median_upper(seed, name, 'gradient_change'),
      _short,
    ),
    _ordered(
      'It lowers the effective beta (median over training)',
      pair, lambda seed: curves.median_upper(seed, name, 'beta'), _short,
    ),
  ]  # fmt: skip


def _drift(group: Group) -> list[Claim]:
  """noisy > plain > BN, layer by layer (Figure 8)."""
  names = curves.measure_named(group.plain, 'activations')
  if not names or group.noisy is None:
    return []
  name = names[0]
  return [
    _ordered(
      f'{layer}: the {what} of activations drifts least with BN, more without, '
      'most with noisy BN (median change between looks)',
      (group.batch, group.plain, group.noisy),
      lambda seed, layer=layer, value=value: drift.median_change(
        seed, name, layer, value
      ),
      _short,
    )
    for layer in drift.layers(group.plain, name)
    for value, what in (('mean', 'mean'), ('var', 'variance'))
  ]


def _ordered(
  statement: str,
  runs: Sequence[curves.Run],
  read: Read,
  show: Callable[[float], str],
) -> Claim:
  """The claim that a number grows strictly from each run to the next."""
  values = [{seed.seed: read(seed) for seed in run.seeds} for run in runs]
  shared = sorted(set.intersection(*(set(found) for found in values)))
  rows = [[found[seed] for found in values] for seed in shared]
  rows = [row for row in rows if not _unknown(row)]
  if not rows:
    return Claim(statement, '', 'not measured', 'no seed has all of them')
  order = [all(a < b for a, b in itertools.pairwise(row)) for row in rows]
  verdict = {len(rows): 'holds', 0: 'fails'}.get(sum(order), 'mixed')
  numbers = ' → '.join(
    f'{run.config["norm"]["name"]} {_mean(column, show)}'
    for run, column in zip(runs, zip(*rows))
  )
  if len(rows) == 1:
    return Claim(statement, numbers, verdict, 'one seed: an illustration')
  detail = f'{sum(order)} of {len(rows)} seeds; {_ratios(rows)}'
  return Claim(statement, numbers, verdict, detail.rstrip('; '))


def _mean(values: Sequence[float], show: Callable[[float], str]) -> str:
  never = sum(map(math.isinf, values))
  if 0 < never < len(values):
    return f'never in {never} of {len(values)}'
  return show(float(np.mean(values)))


def _ratios(rows: Sequence[Sequence[float]]) -> str:
  """Each number over the one before it: mean over seeds and its interval."""
  said = []
  columns = list(zip(*rows))
  for before, after in itertools.pairwise(columns):
    pairs = [b / a for a, b in zip(before, after) if a > 0]
    if len(pairs) < len(before) or not np.isfinite(pairs).all():
      return ''
    mean, half = curves.mean_and_interval(pairs)
    said.append(f'{mean:.3g} ± {half:.2g}')
  return f'ratio{"s" if len(said) > 1 else ""} {", ".join(said)}'


def _level(group: Group) -> float:
  normalized = [run for run in (group.batch, group.noisy) if run is not None]
  for runs in ([*normalized, group.plain], normalized):
    for level in LEVELS:
      steps = [curves.steps_to(s, level) for run in runs for s in run.seeds]
      if all(map(math.isfinite, steps)):
        return level
  return LEVELS[0]


def _unknown(row: Sequence[float]) -> bool:
  """Whether nothing can be said: a nan, or none of them ever got there."""
  return any(map(math.isnan, row)) or all(map(math.isinf, row))


def _group(runs: Sequence[curves.Run]) -> Group | None:
  for plain in runs:
    if plain.config['norm']['name'] != 'none':
      continue
    alike = {}
    for run in runs:
      if _without_norm(run) == _without_norm(plain):
        alike.setdefault(run.config['norm']['name'], run)
    if 'batch' in alike:
      return Group(plain, alike['batch'], alike.get('noisy'))
  return None


def _without_norm(run: curves.Run) -> dict:
  return {key: value for key, value in run.config.items() if key != 'norm'}


def _steps(value: float) -> str:
  return 'never' if math.isinf(value) else f'{value:.0f}'


def _short(value: float) -> str:
  return f'{value:.3g}'
