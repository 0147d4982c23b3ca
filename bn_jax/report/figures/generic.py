"""Draws a measure that has no figure of its own: what it recorded, by step.

Each quantity has a row. Without layers all runs share its panel: means over
seeds, and the band of a quantity that is several numbers a look. With layers
each run has a column: a line a layer, or a map of layers over steps if they are
many; of several numbers the largest.
"""

import re
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import cm, colors, ticker
from matplotlib import figure as mpl

from bn_jax.report.drawing import canvas, strokes
from bn_jax.report.results import curves, looks, quantities

_LINES = 7  # layers drawn as lines, a colour each; more are told by a map
_ROWS = 6  # quantities that are drawn: a figure of more is no overview
_MAP = 'viridis'


def figure(
  runs: Sequence[curves.Run],
  measure: str,
  name: str,
  only: Mapping[str, str] | None = None,
) -> canvas.Figure | None:
  """Draws all that an entry of a measure has recorded; None for nothing.

  Args:
    only: name -> label of the quantities to draw, as far as they are recorded;
      None is all of them.
  """
  entry = looks.of(runs, measure, name)
  every = [] if entry is None else quantities.of(entry)
  if only is not None:
    every = [
      quantity._replace(label=only[quantity.name])
      for quantity in every
      if quantity.name in only
    ]
  if not every:
    return None
  rows = every[:_ROWS]
  # A map of many layers has shapes at one look too.
  once = looks.once(entry) and all(len(row.layers) <= _LINES for row in rows)
  title = quantities.title(entry)
  what = quantities.caption(entry)
  what = what or f'The quantities that the measure {measure} recorded.'
  return canvas.Figure(
    # A user's has a ':' in its name, which no file can have everywhere.
    name=f'{re.sub("[_:.]", "-", measure)}{entry.suffix}',
    title=f'{title}{entry.note}',
    caption=f'{what} '
    f'{looks.told(entry) if once else _how(rows)}'
    f'{_left_out(every)}{looks.circumstances(entry)}',
    alt=f'{title} over steps: {", ".join(row.label for row in rows)}. At the '
    'last measurement: '
    + '; '.join(_words(run, entry, rows[0]) for run in entry.runs),
    draw=None if once else lambda narrow: _drawn(entry, rows, narrow),
    table=_table(entry, every),
    numbers=_numbers(entry, rows) if once else (),
  )


def _numbers(
  entry: looks.Entry, rows: Sequence[quantities.Quantity]
) -> list[Sequence[str]]:
  """Returns what one look has found: a line a quantity and layer."""

  def of(run: curves.Run, name: str) -> str:
    ends = [curve[1:] for curve in _curves(run, entry.name, name)]
    texts = [
      curves.in_words([end[-1] for end in ends_of], '{:.3g}'.format)
      for ends_of in zip(*ends)
    ]
    return ' to '.join(dict.fromkeys(texts)) or 'not measured'

  return [
    ['', *(run.name for run in entry.runs)],
    *(
      [
        ', '.join(filter(None, (quantity.label, layer))),
        *(of(run, quantity.recorded_as(layer)) for run in entry.runs),
      ]
      for quantity in rows
      for layer in quantity.layers or ('',)
    ),
  ]


def _how(rows: Sequence[quantities.Quantity]) -> str:
  """Returns what lines, bands and maps are; each sentence ends with a space."""
  sentences = ''
  if any(row.several and not row.layers for row in rows):
    sentences += 'Bands reach from the smallest to the largest of the numbers. '
  if any(row.several and row.layers for row in rows):
    sentences += 'Of several numbers of a layer, the largest. '
  if any(len(row.layers) > _LINES for row in rows):
    sentences += 'Maps: layers in forward order, the first at the bottom. '
  elif any(row.layers for row in rows):
    sentences += 'A line a layer. '
  return sentences


def _left_out(every: Sequence[quantities.Quantity]) -> str:
  if len(every) <= _ROWS:
    return ''
  names = ', '.join(quantity.name for quantity in every[_ROWS:])
  return f'The CSV has more quantities: {names}. '


def _drawn(entry, rows, narrow: bool) -> mpl.Figure:
  layered = any(row.layers for row in rows)
  # One column for all runs, or a column a run.
  columns = [(pair,) for pair in entry.indexed] if layered else [entry.indexed]
  drawing, axes = canvas.panels(len(rows), len(columns), narrow)
  for row, quantity in enumerate(rows):
    if len(quantity.layers) > _LINES:
      runs = [run for ((_, run),) in columns]
      _draw_maps(drawing, axes[row], runs, entry.name, quantity)
    else:
      for axis, indexed in zip(axes[row], columns):
        canvas.label_left(axis, quantity.label)
        _draw_lines(axis, indexed, entry.name, quantity)
    for axis, indexed in zip(axes[row], columns):
      canvas.label_steps(axis, row == len(rows) - 1)
      strokes.divergences(axis, indexed)
  for axis, indexed in zip(axes[0], columns if layered else ()):
    canvas.label_top(axis, indexed[0][1].name)
  _legend(drawing, entry, rows, layered)
  return drawing


def _legend(drawing, entry, rows, layered: bool) -> None:
  """Draws a legend of the runs; or of the layers, where these are the lines."""
  if not layered:
    strokes.legend_of(drawing, entry.indexed)
    return
  lines = [row.layers for row in rows if 0 < len(row.layers) <= _LINES]
  if lines:
    strokes.legend(drawing, list(enumerate(max(lines, key=len))))


def _draw_lines(axis, indexed, entry: str, quantity) -> None:
  """Draws a line a layer of one run; or a line, or a band, of each run."""
  if not quantity.layers:
    for index, run in indexed:
      of_seeds = _curves(run, entry, quantity.name)
      _draw_band(axis, of_seeds, index, quantity.within)
    return
  ((_, run),) = indexed
  for number, layer in enumerate(quantity.layers):
    curves_of_seeds = _curves(run, entry, quantity.recorded_as(layer))
    lines = [(c.step, c.high) for c in curves_of_seeds]
    strokes.draw_mean(axis, lines, number, within=quantity.within)


def _curves(run, entry: str, name: str) -> list[quantities.Curve]:
  curves_of_seeds = [quantities.curve(seed, entry, name) for seed in run.seeds]
  return [curve for curve in curves_of_seeds if len(curve.step)]


def _draw_band(
  axis,
  curves_of_seeds: Sequence[quantities.Curve],
  index: int,
  within: strokes.Range,
) -> None:
  """Draws the mean over seeds of a line; of a band, the means of its edges."""
  if not curves_of_seeds:
    return
  if all(
    np.array_equal(c.low, c.high, equal_nan=True) for c in curves_of_seeds
  ):
    lines = [(c.step, c.high) for c in curves_of_seeds]
    strokes.draw_mean(axis, lines, index, within=within)
    return
  low, high = (
    strokes.mean([(c.step, getattr(c, end)) for c in curves_of_seeds])
    for end in ('low', 'high')
  )
  strokes.band(axis, low.step, low.mean, high.mean, index, alpha=0.3)
  for edge in (low, high):
    strokes.line(axis, edge.step, edge.mean, index, linewidth=0.8)


def _draw_maps(drawing, axes, runs, entry: str, quantity) -> None:
  """Draws means over seeds, a cell a look and layer; one scale for all runs."""
  maps = [_map(run, entry, quantity) for run in runs]
  values = np.concatenate([value_LT.ravel() for _, value_LT in maps])
  values = values[np.isfinite(values)]
  low, high = (values.min(), values.max()) if len(values) else (0.0, 1.0)
  norm = colors.Normalize(low, high if high > low else low + 1)
  edges_L = np.arange(len(quantity.layers) + 1) + 0.5
  for axis, (step_T, value_LT) in zip(axes, maps):
    if len(step_T):
      axis.pcolormesh(
        canvas.cell_edges(step_T), edges_L, value_LT, norm=norm, cmap=_MAP,
        rasterized=True,
      )  # fmt: skip
    axis.set_ylim(edges_L[0], edges_L[-1])
    axis.yaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    axis.grid(visible=False)
    canvas.label_left(axis, 'Layer')
  bar = drawing.colorbar(
    cm.ScalarMappable(norm, _MAP), ax=list(axes), label=quantity.label
  )
  bar.outline.set_visible(False)


def _map(run, entry: str, quantity) -> tuple[np.ndarray, np.ndarray]:
  """Returns (steps [T], values [L, T]); of several numbers the largest."""
  rows = []
  for layer in quantity.layers:
    curves_of_seeds = _curves(run, entry, quantity.recorded_as(layer))
    lines = [(c.step, c.high) for c in curves_of_seeds]
    rows.append(strokes.mean(lines) if lines else None)
  steps = sorted({int(t) for row in rows if row is not None for t in row.step})
  value_LT = np.full((len(rows), len(steps)), np.nan)
  for number, row in enumerate(rows):
    if row is not None:
      value_LT[number, np.searchsorted(steps, row.step)] = row.mean
  return np.array(steps, float), value_LT


def _words(run, entry, quantity) -> str:
  mean = curves.mean_over(
    run.seeds, lambda seed: quantities.last(seed, entry.name, quantity)
  )
  return f'{run.name} {mean:.3g}' if np.isfinite(mean) else f'{run.name} none'


def _table(entry, every) -> list[Sequence]:
  """Returns smallest and largest number of each look, layer and quantity."""

  def rows(seed):
    for quantity in every:
      for layer in quantity.layers or ('',):
        name = quantity.recorded_as(layer)
        for step, *ends in zip(*quantities.curve(seed, entry.name, name)):
          yield step, layer, quantity.name, *canvas.digits(ends)

  columns = ('layer', 'quantity', 'smallest', 'largest')
  return canvas.table(entry.runs, columns, rows)
