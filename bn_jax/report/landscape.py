"""The figure of the landscape: Figure 4 of Santurkar et al. (2018)."""

from collections.abc import Sequence

import numpy as np
from matplotlib import figure as mpl

from bn_jax.report import curves, figures

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

  def draw(narrow: bool) -> mpl.Figure:
    drawing, axes = figures.panels(len(_ROWS), len(named), narrow)
    for column, (index, run, name) in enumerate(named):
      axes[0, column].set_title(run.name)
      for row, (value, label) in enumerate(_ROWS):
        axis = axes[row, column]
        _draw_landscape(axis, run, index, name, value)
        axis.set_ylabel(label if column == 0 else '')
        figures.label_steps(axis, row == len(_ROWS) - 1)
    for row in range(len(_ROWS)):
      figures.scale_logarithmically(axes[row, 0])
    return drawing

  return figures.Figure(
    name='landscape',
    title='Loss landscape along the gradient',
    caption=_landscape_caption(named, runs),
    alt='Loss band, gradient-change band and effective beta over steps, one '
    'column a run: '
    + '; '.join(_landscape_words(run, n) for _, run, n in named),
    draw=draw,
    table=_landscape_table(named),
  )


def _draw_landscape(axis, run, index, name, value) -> None:
  colour = figures.look(index)['color']
  for seed in run.seeds:
    series = seed.series.get(name)
    if series is None:
      continue
    low_T, high_T = map(_drawable, curves.band(series, value))
    if value == 'beta':
      axis.plot(series.step, high_T, color=colour, linewidth=1.2)
      smallest_T = curves.band(series, 'step_size')[0]
      wiped_T = 1 / np.where(smallest_T > 0, smallest_T, np.nan)
      axis.plot(series.step, wiped_T, color='#7F7F7F', linewidth=0.8, zorder=1)
      continue
    axis.fill_between(
      series.step,
      low_T,
      high_T,
      color=colour,
      alpha=max(0.6 / len(run.seeds), 0.15),
      linewidth=0.4,
    )
  figures.mark_divergence(axis, run, index)


def _drawable(values_T: np.ndarray) -> np.ndarray:
  """What a logarithmic axis can show; the rest is left out."""
  shown = np.isfinite(values_T) & (values_T > 0)
  return np.where(shown, values_T, np.nan)


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


def _landscape_caption(named, runs) -> str:
  _, run, name = named[0]
  section = run.config['measures'][name]
  factors = ', '.join(f'{factor:g}' for factor in section['step_factors'])
  precision = run.seeds[0].manifest['precision']['measures']
  return (
    'Along the gradient g of the current batch of '
    f'{figures.batch_size(runs)}, at θ − e·g with e = {{{factors}}} × the '
    'learning rate, every '
    f'{section["every_steps"]} steps. Loss: smallest to largest value of the '
    'objective over e. Gradient change: smallest to largest '
    '|∇L(θ − e·g) − g|. Effective beta: the largest |∇L(θ − e·g) − g| / '
    '(e·|g|); near the grey line, 1 / (smallest e), the smallest step has '
    'wiped g out already, and beta reads that step and not the curvature. The '
    'same batch at every point, '
    f'{section["statistics"]} statistics, all parameters together, float32 '
    f'with products in {precision!r} precision. Logarithmic axes, shared by '
    'the columns. ' + figures.seeds_sentence(runs)
  )


def _landscape_words(run, name) -> str:
  widths = [curves.median_width(seed, name, 'loss') for seed in run.seeds]
  return f'{run.name} has a loss band of median width {np.mean(widths):.3g}'
