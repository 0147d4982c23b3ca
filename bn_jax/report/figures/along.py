"""Draws a landscape against the step size, at the first and last checkpoint."""

import functools
from collections.abc import Sequence

import numpy as np
from matplotlib import figure as mpl

from bn_jax.report.drawing import canvas, first_last, strokes
from bn_jax.report.figures import landscape
from bn_jax.report.results import beta, curves, looks

MEASURE = 'along_gradient'
_CURVES = (
  ('loss', 'Loss'),
  ('gradient_change', 'Gradient change'),
  ('beta', 'Beta'),
)
_LABELS = {label: quantity for quantity, label in _CURVES}
_AXES = 'A line ends where a number is not finite. Logarithmic axes.'


def figure(
  runs: Sequence[curves.Run], name: str | None = None
) -> canvas.Figure | None:
  """Draws loss, gradient change and beta against the step size, a line a run.

  Of analyses and of what has looked once: training has the bands of `landscape`
  and the map of `distance`.
  """
  entry = looks.of(runs, MEASURE, name)
  if entry is None:
    return None
  if not (curves.is_analysis(entry.name) or looks.once(entry)):
    return None

  d = landscape.symbol(entry)
  is_point = first_last.is_point(entry, 'step_size')

  def draw(narrow: bool) -> mpl.Figure:
    rows = [
      first_last.Row(
        label, functools.partial(_draw, name=entry.name, quantity=quantity)
      )
      for quantity, label in _CURVES
    ]
    drawing, axes = first_last.drawing(entry, rows, narrow, 'Step size e')
    for axis, look in zip(axes[-1], first_last.ends(entry)):
      _draw_wiped(axis, entry, look)
    canvas.scale_logarithmically(axes[0, 0], 'x', canvas.ticks_below(narrow))
    strokes.legend_of(drawing, entry.indexed)
    return drawing

  return canvas.Figure(
    name=f'along{entry.suffix}',
    title=f'Loss {landscape.direction(entry)}, by step size{entry.note}',
    caption=f'{landscape.definition(entry)} Loss: L; dotted, at θ itself. '
    f'Gradient change: |∇L(θ − e·{d}) − g|. Beta: |∇L(θ − e·{d}) − g| / '
    f'(e·|{d}|); grey: 1 / e, on which it lies where the step has wiped g out. '
    f'{beta.limit(entry, d)}'
    f'{looks.told(entry) if is_point else _AXES}',
    alt='Loss, gradient change and beta against the step size, one line a run. '
    + '; '.join(_words(run, entry.name) for run in entry.runs),
    draw=None if is_point else draw,
    table=_table(entry),
    numbers=first_last.numbers(entry, _LABELS) if is_point else (),
  )


def _draw(axis, run, index, look, *, name, quantity) -> None:
  curves_of_seeds = [
    pair
    for seed in run.seeds
    if (pair := first_last.values(seed, name, look, 'step_size', quantity))
  ]
  strokes.draw_mean_against(axis, curves_of_seeds, index)
  at_0 = {'loss': 'loss_0', 'beta': 'beta_0'}
  if quantity in at_0 and curves_of_seeds:
    levels = [
      first_last.value(seed, name, at_0[quantity], look) for seed in run.seeds
    ]
    levels = [level for level in levels if level is not None and level > 0]
    strokes.level(axis, curves_of_seeds[0][0], levels, index)


def _draw_wiped(axis, entry, look) -> None:
  """Draws 1 / e, which beta is where the step has wiped the gradient out."""
  sizes_of_seeds = [
    first_last.value(seed, entry.name, 'step_size', look)
    for seed in entry.seeds
  ]
  sizes_of_seeds = [sizes for sizes in sizes_of_seeds if sizes is not None]
  sizes = np.unique(np.concatenate(sizes_of_seeds or [np.zeros(0)]))
  sizes = sizes[sizes > 0]
  strokes.grey(axis, sizes, 1 / sizes)


def _words(run, name) -> str:
  quantities = 'step_size', 'gradient_change'
  of_seeds = [first_last.values(s, name, -1, *quantities) for s in run.seeds]
  pair = next(filter(None, of_seeds), None)
  if pair is None:
    return f'{run.name} was not measured'
  sizes, change = pair
  low, high = np.argmin(sizes), np.argmax(sizes)
  return (
    f'gradient of {run.name} at the last measurement changes by '
    f'{change[low]:.3g} at {sizes[low]:.3g} and by {change[high]:.3g} at '
    f'{sizes[high]:.3g}'
  )


def _table(entry):
  names = ('step_size', *(quantity for quantity, _ in _CURVES))

  def rows(seed, look):
    columns = first_last.values(seed, entry.name, look, *names) or ()
    return map(canvas.digits, zip(*columns))

  return first_last.table(entry, names, rows)
