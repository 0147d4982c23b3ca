"""The figure of a measure that has none of its own: what it recorded, by step.

A row a quantity. Without layers all runs share a panel: the mean over seeds,
and, of a quantity that is several numbers a look, the band that they fill. With
layers a column a run: a line a layer, or a map of layers over steps where there
are more than lines can tell apart; of several numbers the largest.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib import cm, colors, ticker
from matplotlib import figure as mpl

from bn_jax.report.drawing import canvas, strokes
from bn_jax.report.results import curves, looks, quantities

_LINES = 7  # layers that have a colour each; of more, colours would repeat
_ROWS = 6  # quantities that are drawn: a figure of more is no overview
_MAP = 'viridis'


def figure(
  runs: Sequence[curves.Run], kind: str, key: str
) -> canvas.Figure | None:
  """Draws all that a measure has recorded under a key; None for nothing."""
  seen = looks.of(runs, kind, key)
  known = [] if seen is None else quantities.of(seen)
  if not known:
    return None
  drawn = known[:_ROWS]
  title = quantities.title(seen)
  return canvas.Figure(
    name=f'{kind.replace("_", "-")}{seen.suffix}',
    title=f'{title}{seen.note}',
    caption=f'What the measure {kind} recorded {looks.when(seen)}, of '
    f'{looks.where(seen)}, {looks.precisely(seen)}. {_how(drawn)}'
    f'{_left_out(known)} ' + strokes.seeds_sentence(seen.runs),
    alt=f'{title} over steps: {", ".join(one.label for one in drawn)}. At the '
    'last look: ' + '; '.join(_words(run, seen, drawn[0]) for run in seen.runs),
    draw=lambda narrow: _drawn(seen, drawn, narrow),
    table=_table(seen, known),
  )


def _how(drawn: Sequence[quantities.Quantity]) -> str:
  """What lines, bands and maps are."""
  said = []
  if any(one.several and not one.layers for one in drawn):
    said.append('Bands reach from the smallest to the largest of the numbers.')
  if any(one.several and one.layers for one in drawn):
    said.append('Of several numbers of a layer, the largest.')
  if any(len(one.layers) > _LINES for one in drawn):
    said.append('Maps: the layers in forward order, the first at the bottom.')
  elif any(one.layers for one in drawn):
    said.append('A line a layer.')
  return ' '.join(said)


def _left_out(known: Sequence[quantities.Quantity]) -> str:
  if len(known) <= _ROWS:
    return ''
  names = ', '.join(one.name for one in known[_ROWS:])
  return f' The CSV has more quantities: {names}.'


def _drawn(seen, drawn, narrow: bool) -> mpl.Figure:
  layered = any(one.layers for one in drawn)
  # One column of all runs, or one of each.
  columns = [(pair,) for pair in seen.indexed] if layered else [seen.indexed]
  drawing, axes = canvas.panels(len(drawn), len(columns), narrow)
  for row, quantity in enumerate(drawn):
    if len(quantity.layers) > _LINES:
      runs = [run for ((_, run),) in columns]
      _draw_maps(drawing, axes[row], runs, seen.key, quantity)
    else:
      for axis, shown in zip(axes[row], columns):
        canvas.label_left(axis, quantity.label)
        _draw_lines(axis, shown, seen.key, quantity)
    for axis, shown in zip(axes[row], columns):
      canvas.label_steps(axis, row == len(drawn) - 1)
      strokes.divergences(axis, shown)
  for axis, shown in zip(axes[0], columns if layered else ()):
    canvas.label_top(axis, shown[0][1].name)
  _legend(drawing, seen, drawn, layered)
  return drawing


def _legend(drawing, seen, drawn, layered: bool) -> None:
  """The runs; or the layers, where these are the lines."""
  if not layered:
    strokes.legend_of(drawing, seen.indexed)
    return
  lines = [one.layers for one in drawn if 0 < len(one.layers) <= _LINES]
  if lines:
    strokes.legend(drawing, list(enumerate(max(lines, key=len))))


def _draw_lines(axis, shown, key: str, quantity) -> None:
  """A line a layer of one run; or a line, or a band, of each run."""
  if not quantity.layers:
    for index, run in shown:
      _draw_band(axis, _curves(run, key, quantity.name), index)
    return
  ((_, run),) = shown
  for place, layer in enumerate(quantity.layers):
    found = _curves(run, key, quantity.recorded_as(layer))
    strokes.draw_mean(axis, [(c.step, c.high) for c in found], place)


def _curves(run, key: str, name: str) -> list[quantities.Curve]:
  found = [quantities.curve(seed, key, name) for seed in run.seeds]
  return [one for one in found if len(one.step)]


def _draw_band(axis, found: Sequence[quantities.Curve], index: int) -> None:
  """The mean over seeds of a line; of a band, that of its two edges."""
  if not found:
    return
  if all(np.array_equal(c.low, c.high, equal_nan=True) for c in found):
    strokes.draw_mean(axis, [(c.step, c.high) for c in found], index)
    return
  low, high = (
    strokes.mean([(c.step, getattr(c, end)) for c in found])
    for end in ('low', 'high')
  )
  strokes.band(axis, low.step, low.mean, high.mean, index, alpha=0.3)
  for edge in (low, high):
    strokes.line(axis, edge.step, edge.mean, index, linewidth=0.8)


def _draw_maps(drawing, axes, runs, key: str, quantity) -> None:
  """A cell a look and layer, the mean over seeds; one scale for all runs."""
  maps = [_map(run, key, quantity) for run in runs]
  values = np.concatenate([value_LT.ravel() for _, value_LT in maps])
  values = values[np.isfinite(values)]
  low, high = (values.min(), values.max()) if len(values) else (0.0, 1.0)
  norm = colors.Normalize(low, high if high > low else low + 1)
  edges_L = np.arange(len(quantity.layers) + 1) + 0.5
  for axis, (step_T, value_LT) in zip(axes, maps):
    if len(step_T):
      axis.pcolormesh(
        _edges(step_T), edges_L, value_LT, norm=norm, cmap=_MAP,
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


def _map(run, key: str, quantity) -> tuple[np.ndarray, np.ndarray]:
  """(steps [T], values [L, T]); of several numbers the largest."""
  rows = []
  for layer in quantity.layers:
    found = _curves(run, key, quantity.recorded_as(layer))
    lines = [(c.step, c.high) for c in found]
    rows.append(strokes.mean(lines) if lines else None)
  steps = sorted({int(t) for row in rows if row is not None for t in row.step})
  value_LT = np.full((len(rows), len(steps)), np.nan)
  for place, row in enumerate(rows):
    if row is not None:
      value_LT[place, np.searchsorted(steps, row.step)] = row.mean
  return np.array(steps, float), value_LT


def _edges(step_T: np.ndarray) -> np.ndarray:
  """Where the cells around so many steps begin and end."""
  if len(step_T) < 2:
    return np.concatenate([step_T - 0.5, step_T + 0.5])
  between = (step_T[1:] + step_T[:-1]) / 2
  first, last = 2 * step_T[0] - between[0], 2 * step_T[-1] - between[-1]
  return np.concatenate([[first], between, [last]])


def _words(run, seen, quantity) -> str:
  values = [quantities.last(seed, seen.key, quantity) for seed in run.seeds]
  values = [value for value in values if np.isfinite(value)]
  return f'{run.name} {np.mean(values):.3g}' if values else f'{run.name} none'


def _table(seen, known) -> list[Sequence]:
  """All numbers: smallest and largest of each look, layer and quantity."""

  def rows(seed):
    for quantity in known:
      for layer in quantity.layers or ('',):
        name = quantity.recorded_as(layer)
        for step, *ends in zip(*quantities.curve(seed, seen.key, name)):
          yield step, layer, quantity.name, *canvas.digits(ends)

  columns = ('layer', 'quantity', 'smallest', 'largest')
  return canvas.table(seen.runs, columns, rows)
