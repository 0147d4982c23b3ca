"""The figure of the landscape: Figure 4 of Santurkar et al. (2018)."""

from collections.abc import Sequence

import numpy as np
from matplotlib import figure as mpl

from bn_jax.report import conditions, curves, figures, over_seeds, strokes

_ROWS = (
  ('loss', 'Loss'),
  ('gradient_change', 'Gradient change'),
  ('beta', 'Effective beta'),
)


def figure(runs: Sequence[curves.Run]) -> figures.Figure | None:
  """Figure 4 of Santurkar et al. (2018), one column a run."""
  named = [
    (index, run, names[0])
    for index, run in enumerate(runs)
    if (names := curves.measure_named(run, 'along_gradient'))
  ]
  if not named:
    return None
  in_nats = not any(curves.is_regression(run) for _, run, _ in named)

  def draw(narrow: bool) -> mpl.Figure:
    drawing, axes = figures.panels(len(_ROWS), len(named), narrow)
    for column, (index, run, name) in enumerate(named):
      figures.label_top(axes[0, column], run.name)
      for row, (value, label) in enumerate(_ROWS):
        axis = axes[row, column]
        _draw_landscape(axis, run, index, name, value)
        unit = ' (nats)' if value == 'loss' and in_nats else ''
        figures.label_left(axis, label + unit)
        figures.label_steps(axis, row == len(_ROWS) - 1)
    for row in range(len(_ROWS)):
      figures.scale_logarithmically(axes[row, 0])
      for axis, (index, run, _) in zip(axes[row], named):
        strokes.divergences(axis, [(index, run)])
    return drawing

  return figures.Figure(
    name='landscape',
    title='Loss landscape along the gradient',
    caption=_landscape_caption([run for _, run, _ in named]),
    alt='Loss band, gradient-change band and effective beta over steps, one '
    'column a run: '
    + '; '.join(_landscape_words(run, n) for _, run, n in named),
    draw=draw,
    table=_landscape_table(named),
  )


def _draw_landscape(axis, run, index, name, value) -> None:
  series = [s.series[name] for s in run.seeds if name in s.series]
  if not series:
    return
  if value == 'beta':
    over_seeds.draw(axis, _edges(series, 'beta', 1), index, logarithmic=True)
    wiped = [
      (steps, 1 / np.where(smallest_T > 0, smallest_T, np.nan))
      for steps, smallest_T in _edges(series, 'step_size', 0)
    ]
    grey = over_seeds.mean(wiped, logarithmic=True)
    axis.plot(grey.step, grey.mean, color='#7F7F7F', linewidth=0.8, zorder=1)
  else:
    _draw_band(axis, series, index, value)


def _draw_band(axis, series, index, value) -> None:
  """From the mean lower edge to the mean upper one; an interval around each."""
  low, high = (
    over_seeds.mean(_edges(series, value, end), logarithmic=True)
    for end in (0, 1)
  )
  strokes.band(
    axis, low.step, low.mean, high.mean, index, alpha=0.6, linewidth=0.4
  )
  for edge in (low, high):
    over_seeds.shade(axis, edge, index)


def _edges(series, value, end):
  """(steps, lower (0) or upper (1) edge of a value's band), one a seed."""
  return [(one.step, curves.band(one, value)[end]) for one in series]


def _landscape_table(named):
  bands = ('loss', 'gradient_change', 'beta', 'step_size')
  columns = [f'{value}_{end}' for value in bands for end in ('min', 'max')]
  rows = [('run', 'seed', 'step', *columns)]
  for _, run, name in named:
    for seed in run.seeds:
      series = seed.series.get(name)
      if series is None:
        continue
      edges = [edge for value in bands for edge in curves.band(series, value)]
      for t, step in enumerate(series.step):
        numbers = [f'{edge[t]:.6g}' for edge in edges]
        rows.append((run.name, seed.seed, step, *numbers))
  return rows


def _landscape_caption(runs) -> str:
  batch = conditions.said(runs, conditions.batch_size)
  factors, every, statistics, precision = (
    conditions.said(runs, conditions.of('along_gradient', key))
    for key in ('step_factors', 'every_steps', 'statistics', 'precision')
  )
  return (
    f'Along the gradient g of the current batch of {batch} examples, at '
    f'θ − e·g with e = {factors} × the learning rate, every {every} steps. '
    'Loss: smallest to largest value of the objective over e. Gradient change: '
    'smallest to largest |∇L(θ − e·g) − g|. Effective beta: the largest '
    '|∇L(θ − e·g) − g| / (e·|g|); near the grey line, 1 / (smallest e), the '
    'smallest step has wiped g out already, and beta reads that step and not '
    f'the curvature. The same batch at every point, {statistics} statistics, '
    f'all parameters together, float32 with products in {precision} precision. '
    'Logarithmic axes, shared by the columns. '
    + over_seeds.sentence(runs, logarithmic=True)
  )


def _landscape_words(run, name) -> str:
  widths = [curves.median_width(seed, name, 'loss') for seed in run.seeds]
  widths = [width for width in widths if np.isfinite(width)]
  if not widths:
    return f'{run.name} has no loss band'
  return f'{run.name} has a loss band of median width {np.mean(widths):.3g}'
