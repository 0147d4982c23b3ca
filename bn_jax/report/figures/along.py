"""The figure of a landscape against the step size, at the ends of training."""

import functools
from collections.abc import Sequence

import numpy as np
from matplotlib import figure as mpl

from bn_jax.report.drawing import ends, figures, over_seeds, strokes
from bn_jax.report.figures import line
from bn_jax.report.results import beta, curves, looks

KIND = 'along_gradient'
_CURVES = (
  ('loss', 'Loss'),
  ('gradient_change', 'Gradient change'),
  ('beta', 'Beta'),
)


def figure(
  runs: Sequence[curves.Run], key: str | None = None
) -> figures.Figure | None:
  """Loss, gradient change and beta against the step size, a line a run.

  Of what was measured afterwards, at few steps; of training there are the
  bands of `landscape` and the map of `distance`.
  """
  seen = looks.of(runs, KIND, key)
  if seen is None or not curves.is_analysis(seen.key):
    return None

  def draw(narrow: bool) -> mpl.Figure:
    rows = [
      ends.Row(label, functools.partial(_draw, key=seen.key, value=value))
      for value, label in _CURVES
    ]
    drawing, axes = ends.drawing(seen, rows, narrow, 'Step size e')
    for axis, place in zip(axes[-1], ends.places(seen)):
      _draw_wiped(axis, seen, place)
    figures.scale_logarithmically(axes[0, 0], 'x', figures.ticks_below(narrow))
    return ends.legend(drawing, seen)

  return figures.Figure(
    name=f'along{seen.suffix}',
    title=f'Loss {line.along(seen)}, by step size{seen.note}',
    caption=f'{line.definition(seen)} Loss: the objective; dotted, at θ itself.'
    ' Gradient change: |∇L(θ − e·d) − g|. Beta: |∇L(θ − e·d) − g| / (e·|d|); '
    'grey: 1 / e, on which it lies where the step has wiped g out. '
    f'{beta.limit(seen)}A line ends where a number is not finite. Logarithmic '
    'axes. ' + over_seeds.sentence(seen.runs, logarithmic=True),
    alt='Loss, gradient change and beta against the step size, one line a run. '
    + '; '.join(_words(run, seen.key) for run in seen.runs),
    draw=draw,
    table=_table(seen),
  )


def _draw(axis, run, index, place, *, key, value) -> None:
  found = [_at(seed, key, place, 'step_size', value) for seed in run.seeds]
  over_seeds.draw_against(axis, [pair for pair in found if pair], index)
  at_0 = {'loss': 'loss_0', 'beta': 'beta_0'}
  if value not in at_0 or not any(found):
    return
  levels = [ends.values(seed, key, at_0[value], place) for seed in run.seeds]
  levels = [level for level in levels if level is not None and level > 0]
  if levels:
    sizes = next(pair for pair in found if pair)[0]
    reach = sizes.min(), sizes.max()
    level = float(np.exp(np.mean(np.log(levels))))
    strokes.thin(axis, reach, (level, level), index)


def _draw_wiped(axis, seen, place) -> None:
  """The line 1 / e."""
  found = [
    sizes
    for seed in seen.seeds
    if (sizes := ends.values(seed, seen.key, 'step_size', place)) is not None
  ]
  sizes = np.unique(np.concatenate(found)) if found else np.zeros(0)
  sizes = sizes[sizes > 0]
  axis.plot(sizes, 1 / sizes, color='#7F7F7F', linewidth=0.8, zorder=1)


def _at(seed, key, place, *names):
  """The values of one look, or None where one is missing."""
  found = [ends.values(seed, key, name, place) for name in names]
  return None if any(value is None for value in found) else found


def _words(run, key) -> str:
  place = -1
  found = [
    _at(s, key, place, 'step_size', 'gradient_change') for s in run.seeds
  ]
  found = [pair for pair in found if pair]
  if not found:
    return f'{run.name} was not looked at'
  sizes, change = found[0]
  low, high = np.argmin(sizes), np.argmax(sizes)
  return (
    f'gradient of {run.name} at the last look changes by {change[low]:.3g} at '
    f'{sizes[low]:.3g} and by {change[high]:.3g} at {sizes[high]:.3g}'
  )


def _table(seen):
  names = ('step_size', *(value for value, _ in _CURVES))
  rows = [('run', 'seed', 'step', *names)]
  for run in seen.runs:
    for seed in run.seeds:
      for place, step in enumerate(looks.steps_of(seed, seen.key)):
        found = _at(seed, seen.key, place, *names)
        for point in zip(*(found or ())):
          shown = [f'{number:.6g}' for number in point]
          rows.append((run.name, seed.seed, step, *shown))
  return rows
