"""Draws the Batch Sharpness over training, against 2 / (learning rate)."""

from collections.abc import Sequence

import numpy as np
from matplotlib import figure as mpl

from bn_jax.report.drawing import canvas, strokes
from bn_jax.report.figures import sharpness
from bn_jax.report.results import curves, looks, optimizers

MEASURE = 'batch_sharpness'
_LABELS = {
  'batch_sharpness': "Mean of g'Hg / |g|²",
  'ratio_of_means': "Mean g'Hg / mean |g|²",
}
# Of `optimizers.edge`: with momentum it is more, and the line no theorem's.
_PLAIN = 2.0


def figure(
  runs: Sequence[curves.Run], name: str | None = None
) -> canvas.Figure | None:
  """Draws both reductions over mini-batches; of plain SGD also 2 / rate."""
  entry = looks.of(runs, MEASURE, name)
  if entry is None or not any(
    _lines(run, entry, MEASURE) for run in entry.runs
  ):
    return None
  once = looks.once(entry)
  ends = '; '.join(_words(run, entry) for run in entry.runs)
  return canvas.Figure(
    name=f'batch-sharpness{entry.suffix}',
    title=f'Batch Sharpness{entry.note}',
    caption="The curvature g'Hg / |g|² of mini-batches along their own "
    'gradients: the mean of the ratios (Andreyev and Beneventano, 2024), and '
    f'the ratio of the means. {_lines_told(entry)}'
    f'{looks.told(entry) if once else ""}{looks.circumstances(entry)}',
    alt=f'Batch Sharpness over training. At the last measurement: {ends}',
    draw=None if once else lambda narrow: _drawn(entry, narrow),
    table=_table(entry),
    numbers=_numbers(entry) if once else (),
  )


def _limits(run, entry: looks.Entry):
  """Returns (steps, 2 / learning rate) where training is plain SGD, or None."""
  if optimizers.edge(run.config) != _PLAIN:
    return None
  return sharpness.edge_of_run(run, entry.name)


def _lines_told(entry: looks.Entry) -> str:
  """Returns what the thin lines are; it ends with a space."""
  without = [run.name for run in entry.runs if _limits(run, entry) is None]
  told = 'Thin: 2 / (learning rate), where the mean of ratios settles under '
  told = f'{told}plain SGD. ' if len(without) < len(entry.runs) else ''
  if without:
    told += (
      f'No such line for {", ".join(without)}: not plain SGD, or not the '
      'function that it descends. '
    )
  return told


def _drawn(entry: looks.Entry, narrow: bool) -> mpl.Figure:
  columns = 1 if narrow else len(_LABELS)
  drawing, axes = canvas.grid(len(_LABELS) // columns, columns, narrow)
  for axis, (row, label) in zip(axes.flat, _LABELS.items()):
    axis.set_title(label)
    axis.set_xlabel('Training step')
    every = [
      value
      for run in entry.runs
      for _, y in _lines(run, entry, row)
      for value in y
    ]
    # Means of logarithms leave out what is not above 0.
    is_log = bool(every) and np.nanmin(every) > 0
    for index, run in entry.indexed:
      strokes.draw_mean(axis, _lines(run, entry, row), index, is_log)
      if limits := _limits(run, entry):
        strokes.thin(axis, *limits, index)
    if is_log:
      canvas.scale_logarithmically(axis)
    strokes.divergences(axis, entry.indexed)
  strokes.legend_of(drawing, entry.indexed)
  return drawing


def _lines(run, entry: looks.Entry, row: str) -> list:
  """Returns (steps, values) of each seed that has them."""
  series = (seed.series.get(entry.name) for seed in run.seeds)
  return [
    (one.step, np.asarray(one.values[row], float))
    for one in series
    if one is not None and row in one.values
  ]


def _words(run, entry: looks.Entry) -> str:
  mean = curves.mean_over(
    run.seeds, lambda seed: curves.last(seed, entry.name, MEASURE)
  )
  return f'{run.name} {mean:.3g}' if np.isfinite(mean) else f'{run.name} none'


def _table(entry: looks.Entry) -> list[Sequence]:
  names = (*_LABELS, 'standard_error')

  def lines(seed):
    series = seed.series.get(entry.name)
    for i, step in enumerate(() if series is None else series.step):
      values = [float(series.values[name][i]) for name in names]
      yield (step, *canvas.digits(values))

  return canvas.table(entry.runs, names, lines)


def _numbers(entry: looks.Entry) -> list[Sequence[str]]:
  """Returns what one look has found: a line a reduction."""

  def of(run, row):
    values = [y[-1] for _, y in _lines(run, entry, row)]
    return curves.in_words(values, '{:.4g}'.format) or 'not measured'

  return [
    ['', *(run.name for run in entry.runs)],
    *(
      [label, *(of(run, row) for run in entry.runs)]
      for row, label in _LABELS.items()
    ),
  ]
