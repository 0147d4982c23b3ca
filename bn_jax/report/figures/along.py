"""The figure of a landscape against the step size, at the ends of training."""

import functools
from collections.abc import Sequence

import numpy as np
from matplotlib import figure as mpl

from bn_jax.report.drawing import canvas, first_last, strokes
from bn_jax.report.figures import landscape
from bn_jax.report.results import beta, curves, looks

KIND = 'along_gradient'
_CURVES = (
  ('loss', 'Loss'),
  ('gradient_change', 'Gradient change'),
  ('beta', 'Beta'),
)


def figure(
  runs: Sequence[curves.Run], key: str | None = None
) -> canvas.Figure | None:
  """Loss, gradient change and beta against the step size, a line a run.

  Of what was measured afterwards, at few steps; of training there are the
  bands of `landscape` and the map of `distance`.
  """
  seen = looks.of(runs, KIND, key)
  if seen is None or not curves.is_analysis(seen.key):
    return None

  def draw(narrow: bool) -> mpl.Figure:
    rows = [
      first_last.Row(label, functools.partial(_draw, key=seen.key, value=value))
      for value, label in _CURVES
    ]
    drawing, axes = first_last.drawing(seen, rows, narrow, 'Step size e')
    for axis, place in zip(axes[-1], first_last.places(seen)):
      _draw_wiped(axis, seen, place)
    canvas.scale_logarithmically(axes[0, 0], 'x', canvas.ticks_below(narrow))
    strokes.legend_of(drawing, seen.indexed)
    return drawing

  return canvas.Figure(
    name=f'along{seen.suffix}',
    title=f'Loss {landscape.direction(seen)}, by step size{seen.note}',
    caption=f'{landscape.definition(seen)} Loss: the objective; dotted, at θ '
    'itself. Gradient change: |∇L(θ − e·d) − g|. Beta: |∇L(θ − e·d) − g| / '
    '(e·|d|); grey: 1 / e, on which it lies where the step has wiped g out. '
    f'{beta.limit(seen)}A line ends where a number is not finite. Logarithmic '
    'axes. ' + strokes.seeds_sentence(seen.runs, logarithmic=True),
    alt='Loss, gradient change and beta against the step size, one line a run. '
    + '; '.join(_words(run, seen.key) for run in seen.runs),
    draw=draw,
    table=_table(seen),
  )


def _draw(axis, run, index, place, *, key, value) -> None:
  found = [
    first_last.values(seed, key, place, 'step_size', value)
    for seed in run.seeds
  ]
  found = [pair for pair in found if pair]
  strokes.draw_mean_against(axis, found, index)
  at_0 = {'loss': 'loss_0', 'beta': 'beta_0'}
  if value in at_0 and found:
    levels = [
      first_last.value(seed, key, at_0[value], place) for seed in run.seeds
    ]
    levels = [level for level in levels if level is not None and level > 0]
    strokes.level(axis, found[0][0], levels, index)


def _draw_wiped(axis, seen, place) -> None:
  """The line 1 / e."""
  found = [
    sizes
    for seed in seen.seeds
    if (sizes := first_last.value(seed, seen.key, 'step_size', place))
    is not None
  ]
  sizes = np.unique(np.concatenate(found)) if found else np.zeros(0)
  sizes = sizes[sizes > 0]
  strokes.grey(axis, sizes, 1 / sizes)


def _words(run, key) -> str:
  for seed in run.seeds:
    found = first_last.values(seed, key, -1, 'step_size', 'gradient_change')
    if found:
      break
  else:
    return f'{run.name} was not looked at'
  sizes, change = found
  low, high = np.argmin(sizes), np.argmax(sizes)
  return (
    f'gradient of {run.name} at the last look changes by {change[low]:.3g} at '
    f'{sizes[low]:.3g} and by {change[high]:.3g} at {sizes[high]:.3g}'
  )


def _table(seen):
  names = ('step_size', *(value for value, _ in _CURVES))

  def rows(seed, place):
    found = first_last.values(seed, seen.key, place, *names) or ()
    return map(canvas.digits, zip(*found))

  return first_last.table(seen, names, rows)
