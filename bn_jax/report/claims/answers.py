"""What Santurkar et al. (2018) claim, and how these runs answer.

Runs are compared only if they differ in nothing but the norm.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from bn_jax.report.claims import order
from bn_jax.report.results import curves, looks, reductions

# Steps are counted to the highest of these that every compared run reaches in
# every seed that has ended; where there is none, that all but the plain one do
# ('never' is more steps than any); else to the first.
LEVELS = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)


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
    for run in sorted(runs, key=lambda run: _place(run) != _place(plain)):
      if _without_norm(run) == _without_norm(plain):
        alike.setdefault(run.config['norm']['name'], run)
    if 'batch' in alike:
      found.append(Group(plain, alike['batch'], alike.get('noisy')))
  return found


def claims(group: Group) -> list[order.Claim]:
  """The paper's claims about such runs."""
  return [*_speed(group), *_landscape(group), *_drift(group)]


def _speed(group: Group) -> list[order.Claim]:
  if any(map(curves.is_regression, group.runs)):
    statement = 'Batch Normalization trains in fewer steps (to an accuracy)'
    why = 'a regression: no accuracy was recorded'
    return [order.Claim(statement, '', 'not measured', why)]
  level = _level(group)

  def steps(seed):
    return curves.steps_to(seed, level)

  goal = f'{100 * level:.0f} % of training batches'
  made = [
    order.claim(
      f'Batch Normalization trains in fewer steps (to {goal})',
      (group.batch, group.plain), steps, _steps,
    )
  ]  # fmt: skip
  if group.noisy is not None:
    made.append(
      order.claim(
        'With noise after it, it still does: with BN, then with noisy BN, then '
        f'without (steps to {goal})',
        (group.batch, group.noisy, group.plain), steps, _steps,
      )
    )  # fmt: skip
  return made


def _landscape(group: Group) -> list[order.Claim]:
  names = _in_training(group.plain, 'along_gradient')
  if not names:
    return []
  name, pair = names[0], (group.batch, group.plain)
  return [
    order.claim(
      'Batch Normalization makes the loss vary less along the gradient (median '
      'band width)',
      pair, lambda seed: curves.median_width(seed, name, 'loss'), _short,
    ),
    order.claim(
      'It makes the gradient more predictive (median upper edge of its change)',
      pair, lambda seed: curves.median_upper(seed, name, 'gradient_change'),
      _short,
    ),
    order.claim(
      'It lowers the effective beta (median over training)',
      pair, lambda seed: curves.median_upper(seed, name, 'beta'), _short,
    ),
  ]  # fmt: skip


def _drift(group: Group) -> list[order.Claim]:
  """noisy > plain > BN, layer by layer (Figure 8)."""
  names = _in_training(group.plain, 'activations')
  if not names or group.noisy is None:
    return []
  name = names[0]
  return [
    order.claim(
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


def _place(run: curves.Run) -> str:
  """Its working directory, where there are several."""
  return run.name.rpartition('/')[0]


def _in_training(run: curves.Run, kind: str) -> list[str]:
  """The keys of its measures of a kind, without what was measured later."""
  return [
    key
    for key in curves.measure_named(run, kind)
    if not curves.is_analysis(key)
  ]


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
