"""Draws marks by Matplotlib, a function a kind, on one Matplotlib axis."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib import collections, colormaps, colors, patches

from bn_jax.report.drawing import record, strokes
from bn_jax.report.results import curves, seeds

_FAN_LIGHTEST = 0.85  # of a map's colours: a yellow line on white is not seen
_RIDGE = 1.6  # height in distances between two: neighbours overlap
_CELL = 0.33  # inches of a cell with a number of two digits
_BRIGHT = 0.6  # of a map's colours: letters on brighter ones are black
_TICK = 0.11  # share of an axis that a tick with its label needs
_GREY = 6  # index of the colour of what is of no key
_LEVELS = 16  # of a surface, between its ends
_HATCH = '////'
_MEANS, _KEPT = {}, 400  # of marks: of the panels of one figure


def diverged(panel: record.Panel, keys: Sequence[record.Key]) -> list:
  """Returns (step, index, run) of the divergences of what is in a panel."""
  if panel.x.name != record.STEPS.name:
    return []
  present = {getattr(mark, 'key', None) for mark in panel.marks}
  return sorted(
    {(step, _GREY, panel.run) for step in panel.diverged}
    | {
      (step, key.index, key.label)
      for key in keys
      for step in key.diverged
      if (key.label == panel.run if panel.run else key.index in present)
    }
  )


def roomy(of: record.Axis) -> list[float]:
  """Returns the ticks of an axis with limits that are not too close."""
  place = math.log if of.logarithmic else float
  low, high = map(place, of.limits)
  ticks = []
  for tick in of.ticks:
    at = place(tick)
    if low <= at <= high and (
      not ticks or at - place(ticks[-1]) >= _TICK * (high - low)
    ):
      ticks.append(tick)
  return ticks


def means(mark: record.Lines | record.Bars, y: record.Axis) -> list[seeds.Mean]:
  """Returns the mean over the seeds of lines; of bands, of both edges.

  Those of the last marks are kept: pictures, table and script need them each.
  """
  key = id(mark), y.logarithmic, y.within
  if key not in _MEANS or _MEANS[key][0] is not mark:
    while len(_MEANS) >= _KEPT:
      del _MEANS[next(iter(_MEANS))]
    _MEANS[key] = mark, _means(mark, y)
  return _MEANS[key][1]


def forget() -> None:
  """Forgets the means of marks, when nothing needs them any more."""
  _MEANS.clear()


def _means(mark: record.Lines | record.Bars, y: record.Axis):
  take = seeds.paired if getattr(mark, 'paired', False) else seeds.mean
  ends = ['y'] if mark.curves[0].high is None else ['y', 'high']
  results = [
    take(
      [(c.x, smoothed(getattr(c, end), mark)) for c in mark.curves],
      y.logarithmic,
      y.within,
    )
    for end in ends
  ]
  return [result for result in results if result is not None]


def smoothed(y_T: np.ndarray, mark: record.Lines | record.Bars) -> np.ndarray:
  """Returns the trailing means of a line over the window of its mark."""
  window = getattr(mark, 'window', 1)
  return curves.trailing_mean(y_T, window) if window > 1 else np.asarray(y_T)


def _lines(axis, mark: record.Lines, panel: record.Panel) -> None:
  if mark.style == 'hidden':
    return
  edges = means(mark, panel.y)
  if mark.key is None:
    for edge in edges:
      strokes.grey(axis, edge.x, edge.mean)
  elif len(edges) == 2:
    strokes.band(
      axis, edges[0].x, edges[0].mean, edges[1].mean, mark.key,
      # A line in the same colour lies on a further one.
      alpha=0.25 if mark.style == 'further' else 0.5, linewidth=0.4,
    )  # fmt: skip
    for edge in edges:
      _around(axis, mark, edge, ())
  elif edges and mark.style == 'line':
    if mark.window > 1:
      _points_behind(axis, mark)
    strokes.line(axis, edges[0].x, edges[0].mean, mark.key)
    _around(axis, mark, edges[0], mark.curves)
  elif edges:
    draw = strokes.thin if mark.style == 'thin' else strokes.further
    draw(axis, edges[0].x, edges[0].mean, mark.key)


def _around(axis, mark, edge: seeds.Mean, of_seeds) -> None:
  """Draws the interval of a mean, or, of few seeds, each of them."""
  if seeds.shows_interval(len(mark.curves)):
    strokes.shade(axis, edge, mark.key)
  elif len(of_seeds) > 1:
    for curve in of_seeds:
      strokes.seed(axis, curve.x, smoothed(curve.y, mark), mark.key)


def _points_behind(axis, mark: record.Lines) -> None:
  """Draws each point of each seed, behind the mean of the last of them."""
  for curve in mark.curves:
    # Faint behind their mean, and fainter with more seeds; else well visible.
    has_mean = len(curve.x) >= mark.window
    alpha = 0.25 / len(mark.curves) if has_mean else 0.6
    strokes.line(
      axis, curve.x, curve.y, mark.key, alpha=alpha, linestyle='-',
      marker=None, linewidth=0.6,
    )  # fmt: skip


def _interval_bars(axis, mark: record.Bars, panel: record.Panel) -> None:
  low, high = means(mark, panel.y)
  strokes.bars(axis, low.x, low.mean, high.mean, mark.key)


def _rule(axis, mark: record.Rule, panel: record.Panel) -> None:
  if mark.key is None:
    strokes.across(axis, mark.at)
    return
  low, high = axis.get_xlim() if not axis.lines else (
    min(np.nanmin(line.get_xdata()) for line in axis.lines),
    max(np.nanmax(line.get_xdata()) for line in axis.lines),
  )  # fmt: skip
  strokes.thin(axis, (low, high), (mark.at, mark.at), mark.key)


_SHAPES = {
  'hollow': {
    'marker': 'o', 'markersize': 6, 'markerfacecolor': 'white', 'zorder': 4,
  },
  'ring': {
    'marker': 'o', 'markersize': 11, 'fillstyle': 'none',
    'markeredgewidth': 1.4, 'clip_on': False,
  },
  'cross': {'marker': 'x', 'markersize': 7},
  'plus': {'marker': '+', 'markersize': 7},
  'dot': {'marker': 'o', 'markersize': 4},
}  # fmt: skip


def _points(axis, mark: record.Points, panel: record.Panel) -> None:
  keywords = {'color': strokes.colour(mark.key), 'linestyle': 'none'}
  y = mark.y
  if y is None:
    y = np.full(len(mark.x), mark.place)
    keywords['transform'] = axis.get_xaxis_transform()
  axis.plot(mark.x, y, **keywords, **_SHAPES[mark.shape])


def _reference(axis, mark: record.Reference, panel: record.Panel) -> None:
  strokes.reference(axis, mark.x, mark.low, mark.high, mark.key)


def norm(scale: record.Scale) -> colors.Normalize:
  """Returns what a scale makes of numbers, from 0 to 1."""
  of = colors.LogNorm if scale.logarithmic else colors.Normalize
  return of(scale.low, scale.high)


def colour_map(scale: record.Scale) -> colors.Colormap:
  """Returns the colours of a scale; those of lines without the lightest."""
  if scale.colours != 'plasma':
    return colormaps[scale.colours]
  shades = colormaps['plasma'](np.linspace(0, _FAN_LIGHTEST, 64))
  return colors.LinearSegmentedColormap.from_list('step', shades)


def _cells(axis, mark: record.Cells, panel: record.Panel) -> None:
  axis.pcolormesh(
    mark.x, mark.y, np.ma.masked_invalid(mark.values), norm=norm(mark.scale),
    cmap=colour_map(mark.scale), rasterized=True,
  )  # fmt: skip
  axis.grid(visible=False)
  inches = axis.get_position().width * axis.figure.get_figwidth()
  if not mark.written or mark.values.shape[1] * _CELL > inches:
    return
  for (row, column), value in np.ndenumerate(mark.values):
    if np.isfinite(value):
      axis.text(
        (mark.x[column] + mark.x[column + 1]) / 2,
        (mark.y[row] + mark.y[row + 1]) / 2,
        f'{value:.2f}', ha='center', va='center', fontsize=8,
        color='black' if norm(mark.scale)(value) > _BRIGHT else 'white',
      )  # fmt: skip


def _fan(axis, mark: record.Fan, panel: record.Panel) -> None:
  lines = collections.LineCollection(
    [np.stack(pair, axis=1) for pair in zip(mark.x, mark.y)],
    array=mark.value, norm=norm(mark.scale), cmap=colour_map(mark.scale),
    linewidths=0.9,
  )  # fmt: skip
  axis.add_collection(lines)
  axis.autoscale_view()


def _ridges(axis, mark: record.Ridges, panel: record.Panel) -> None:
  middles = (mark.edges[1:] + mark.edges[:-1]) / 2
  colour = strokes.colour(mark.key)
  for row, look in reversed(list(enumerate(mark.drawn))):
    # Each to its own maximum: one of a single bin would dwarf the others.
    scale = _RIDGE / max(np.max(mark.heights[look]), 1e-12)
    axis.fill_between(
      middles, row, row + scale * mark.heights[look],
      facecolor=(colour, 0.35), edgecolor=colour, linewidth=0.6,
    )  # fmt: skip
  ticks = list(range(0, len(mark.drawn), max(1, len(mark.drawn) // 4)))
  axis.set_yticks(ticks, [str(mark.steps[mark.drawn[tick]]) for tick in ticks])
  axis.grid(axis='y', visible=False)
  axis.set_xlim(mark.edges[0], mark.edges[-1])


def _contours(axis, mark: record.Contours, panel: record.Panel) -> None:
  axis.set_xlim(mark.x.min(), mark.x.max())
  axis.set_ylim(mark.y.min(), mark.y.max())
  axis.grid(visible=False)
  values = np.ma.masked_invalid(mark.values.T)
  if values.mask.any():
    axis.add_patch(
      patches.Rectangle(
        (0, 0), 1, 1, transform=axis.transAxes, zorder=0, linewidth=0,
        facecolor='white', edgecolor='#7F7F7F', hatch=_HATCH,
      )
    )  # fmt: skip
  shades = {'norm': norm(mark.scale), 'cmap': colour_map(mark.scale)}
  if not values.mask.all():
    levels = levels_of(mark.scale)
    axis.contourf(mark.x, mark.y, values, levels, extend='both', **shades)
    axis.contour(
      mark.x, mark.y, values, levels, colors='black', linewidths=0.4, alpha=0.5
    )
  if mark.way is not None:
    _way(axis, mark, shades)
  elif mark.x.min() <= 0 <= mark.x.max() and mark.y.min() <= 0 <= mark.y.max():
    axis.plot(0, 0, marker='+', color='white', markersize=9)


def levels_of(scale: record.Scale) -> np.ndarray:
  """Returns the levels at which a surface has contours."""
  space = np.geomspace if scale.logarithmic else np.linspace
  return space(scale.low, scale.high, _LEVELS + 2)


def _way(axis, mark: record.Contours, shades) -> None:
  """Draws checkpoints, in the colours of their own losses, and the last."""
  x_T, y_T = mark.way.T
  axis.plot(x_T, y_T, color='white', linewidth=1.0, zorder=3)
  finite_T = np.isfinite(mark.way_values)
  axis.scatter(
    x_T[finite_T], y_T[finite_T], c=mark.way_values[finite_T], s=22,
    edgecolors='white', linewidths=0.8, zorder=4, **shades,
  )  # fmt: skip
  axis.scatter(
    x_T[~finite_T], y_T[~finite_T], s=22, color='white', marker='x', zorder=4
  )
  axis.scatter(
    x_T[-1:], y_T[-1:], s=70, facecolors='none', edgecolors='white',
    linewidths=1.2, zorder=5,
  )  # fmt: skip


def _hatched(axis, mark: record.Hatched, panel: record.Panel) -> None:
  for low, high in mark.spans:
    axis.axvspan(
      low, high, facecolor='none', edgecolor='#BBBBBB', hatch=_HATCH,
      linewidth=0,
    )  # fmt: skip


def _words(axis, mark: record.Words, panel: record.Panel) -> None:
  axis.annotate(
    mark.text, (mark.x, mark.y), xycoords='axes fraction', va='center',
    fontsize=8,
  )  # fmt: skip


DRAW = {
  record.Lines: _lines,
  record.Bars: _interval_bars,
  record.Rule: _rule,
  record.Points: _points,
  record.Reference: _reference,
  record.Cells: _cells,
  record.Fan: _fan,
  record.Ridges: _ridges,
  record.Contours: _contours,
  record.Hatched: _hatched,
  record.Words: _words,
}
