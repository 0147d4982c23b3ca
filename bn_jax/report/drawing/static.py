"""Draws figures by Matplotlib: for the page without its script, PNG and PDF.

A function a kind of mark; all of them draw on one Matplotlib axis.
"""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib import cm, collections, colormaps, colors, patches, ticker
from matplotlib import figure as mpl

from bn_jax.report.drawing import canvas, record, strokes
from bn_jax.report.results import curves, seeds

_FAN_LIGHTEST = 0.85  # of a map's colours: a yellow line on white is not seen
_RIDGE = 1.6  # height in distances between two: neighbours overlap
_CELL = 0.33  # inches of a cell with a number of two digits
_BRIGHT = 0.6  # of a map's colours: letters on brighter ones are black
_TICK = 0.11  # share of an axis that a tick with its label needs
_GREY = 6  # index of the colour of what is of no key
_NAMED = 16  # names at most on an axis: more would overlap
_LEVELS = 16  # of a surface, between its ends
_HATCH = '////'
# Runs of a still picture: of more, a panel each would be too many, and points
# and seeds of each would hide all lines. The page's script shows them.
_MOST = 12
_MEANS, _KEPT = {}, 400  # of marks: of the panels of one figure
_LEAN_BINS = 150  # of the long lines of so many runs, see `strokes.thinned`
_BAR = 0.6  # inches that a scale takes below the panels of a telephone


def drawn(figure: record.Figure, narrow: bool) -> mpl.Figure:
  """Returns the drawing of a figure; to be called within `canvas.style()`."""
  figure = readable(figure)
  rows, columns = len(figure.rows), max(map(len, figure.rows))
  drawing, axes = canvas.panels(
    rows, columns, narrow, figure.shares, figure.abreast[narrow]
  )
  pairs = []  # of panels with their axes
  for row, panels in enumerate(figure.rows):
    for column in range(columns):
      panel = panels[column] if column < len(panels) else None
      if panel is None:
        axes[row, column].set_visible(False)
        continue
      pairs.append((panel, axes[row, column]))
      _label(axes[row, column], figure, row, column)
      for mark in panel.marks:
        _DRAW[type(mark)](axes[row, column], mark, panel)
  for panel, axis in pairs:
    _scale(axis, panel, narrow)
  for panel, axis in pairs:
    ends = [(step, index) for step, index, _ in diverged(panel, figure.keys)]
    strokes.divergences(axis, ends)
  _bars(drawing, figure, axes, narrow)
  if figure.reference:
    strokes.reference_legend(drawing, figure.reference)
  if figure.keys and not _told_by_panels(figure):
    strokes.legend(drawing, [(key.index, key.label) for key in figure.keys])
  return drawing


def left_out(figure: record.Figure) -> str:
  """Returns what a caption says of runs that a still picture leaves out."""
  if len(figure.keys) <= _MOST:
    return ''
  if _told_by_panels(figure):
    return (
      f' Without the script of the page: the first {_MOST} of '
      f'{len(figure.keys)} runs.'
    )
  return ' Without the script of the page: means alone.'


def readable(figure: record.Figure) -> record.Figure:
  """Returns what a still picture can show of a figure of many runs.

  The first of them where each has panels of its own, else means without points
  and seeds.
  """
  if len(figure.keys) <= _MOST:
    return figure
  if _told_by_panels(figure):
    shown = {key.label for key in figure.keys[:_MOST]}
    rows = (
      tuple(p for p in row if p and p.run in shown) for row in figure.rows
    )
    return figure._replace(rows=tuple(filter(None, rows)))
  return figure._replace(
    rows=tuple(
      tuple(panel and _lean(panel) for panel in row) for row in figure.rows
    )
  )


def _lean(panel: record.Panel) -> record.Panel:
  """Returns a panel with the mean of each line in the place of its seeds."""
  marks = []
  for mark in panel.marks:
    if isinstance(mark, record.Lines) and mark.style != 'hidden':
      edges = means(mark, panel.y)
      if not edges:
        continue
      ends = [edge.mean for edge in edges]
      shown = np.unique(
        np.concatenate([strokes.thinned(end, _LEAN_BINS) for end in ends])
      )
      curve = record.Curve(0, *(y[shown] for y in (edges[0].x, *ends)))
      mark = mark._replace(curves=(curve,), window=1, paired=False)
    marks.append(mark)
  return panel._replace(marks=tuple(marks))


def _told_by_panels(figure: record.Figure) -> bool:
  """Returns whether each panel is of one run, whose name stands above it."""
  return all(key.run for key in figure.keys) and all(
    panel.run for panel in figure.panels
  )


def _label(axis, figure: record.Figure, row: int, column: int) -> None:
  panel = figure.rows[row][column]
  above = figure.rows[row - 1] if row else ()
  same = column < len(above) and above[column] is not None
  if not (same and above[column].title == panel.title) or panel.note:
    title = '' if same and above[column].title == panel.title else panel.title
    canvas.label_top(axis, title, panel.note)
  below = figure.rows[row + 1] if row + 1 < len(figure.rows) else ()
  lowest = column >= len(below) or below[column] is None
  is_told = not lowest and below[column].x.label == panel.x.label
  inches = axis.get_position().width * axis.figure.get_figwidth()
  label = canvas.wrapped(panel.x.label, 72 * inches).split('\n')
  label = '\n'.join(canvas.fitted(words, 72 * inches) for words in label)
  axis.set_xlabel('' if is_told else label)
  if is_told and figure.shares:
    axis.tick_params(labelbottom=False)
  if figure.shares:
    canvas.label_left(axis, panel.y.label)
  else:
    first = column == 0 or figure.rows[row][column - 1] is None
    alike = not first and figure.rows[row][column - 1].y.label == panel.y.label
    axis.set_ylabel(
      ''
      if alike and not axis.get_subplotspec().is_first_col()
      else panel.y.label
    )


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


def _scale(axis, panel: record.Panel, narrow: bool) -> None:
  """Makes axes logarithmic, and sets their ends and ticks."""
  for which, of in (('x', panel.x), ('y', panel.y)):
    count = canvas.ticks_below(narrow) if which == 'x' else 9
    if of.logarithmic:
      canvas.scale_logarithmically(axis, which, count)
    scale = axis.xaxis if which == 'x' else axis.yaxis
    if of.limits is not None:
      _limit(axis, which, of, count)
    if of.ticks:
      scale.set_ticks(roomy(of), list(map('{:g}'.format, roomy(of))))
      scale.set_minor_locator(ticker.NullLocator())
    if of.percent:
      scale.set_major_formatter(ticker.PercentFormatter(1, symbol=' %'))
    if of.names:
      if len(of.names) <= _NAMED:
        scale.set_ticks(range(1, len(of.names) + 1), of.names)
      else:
        scale.set_major_locator(ticker.MaxNLocator(integer=True))
      if which == 'x':
        axis.tick_params('x', rotation=90)


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


def _limit(axis, which: str, of: record.Axis, count: int) -> None:
  low, high = getattr(axis, f'get_{which}lim')()
  lowest, highest = of.limits
  if not of.fixed:
    lowest, highest = max(low, lowest), min(high, highest)
  if lowest < highest:
    getattr(axis, f'set_{which}lim')(lowest, highest)
  if of.logarithmic and getattr(axis, f'get_{which}scale')() == 'log':
    canvas.label_logarithmically(axis, which, count)


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
    return
  if len(edges) == 2:
    strokes.band(
      axis, edges[0].x, edges[0].mean, edges[1].mean, mark.key,
      # A line in the same colour lies on a further one.
      alpha=0.25 if mark.style == 'further' else 0.5, linewidth=0.4,
    )  # fmt: skip
    for edge in edges:
      _around(axis, mark, edge, ())
    return
  for edge in edges:
    if mark.window > 1 and mark.style == 'line':
      _points_behind(axis, mark)
    if mark.style == 'thin':
      strokes.thin(axis, edge.x, edge.mean, mark.key)
    elif mark.style == 'further':
      strokes.line(
        axis, edge.x, edge.mean, mark.key, linewidth=0.7, alpha=0.8,
        marker=None,
      )  # fmt: skip
    else:
      strokes.line(axis, edge.x, edge.mean, mark.key)
      _around(axis, mark, edge, mark.curves)


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


_DRAW = {
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


def _bars(drawing, figure: record.Figure, axes, narrow: bool) -> None:
  """Draws what colours mean, a bar for each scale."""
  of_scale, rows = {}, {}
  for row, panels in enumerate(figure.rows):
    for column, panel in enumerate(panels):
      for mark in panel.marks if panel is not None else ():
        if hasattr(mark, 'scale'):
          of_scale.setdefault(mark.scale, []).append(axes[row, column])
          rows.setdefault(row, set()).add(mark.scale)
  # A row a scale has its bar beside it.
  several = any(len(scales) > 1 for scales in rows.values())
  for place, (scale, of) in enumerate(of_scale.items()):
    side = ('top', 'bottom')[place % 2] if several else 'right'
    if side == 'right' and narrow and len(of_scale) == 1:
      # Beside panels it would take a third of a telephone.
      side = 'bottom'
      drawing.set_figheight(drawing.get_figheight() + _BAR)
    beside = [axis for axis in axes.flat if axis.get_visible()]
    bar = drawing.colorbar(
      cm.ScalarMappable(norm(scale), colour_map(scale)),
      ax=beside if several else list(dict.fromkeys(of)),
      location=side, label=scale.label,
      **({'aspect': 40, 'shrink': 0.7} if several else {}),
    )  # fmt: skip
    bar.outline.set_visible(False)
    if scale.logarithmic:
      which = 'y' if side == 'right' else 'x'
      span = math.log10(scale.high / scale.low)
      canvas.label_logarithmically(bar.ax, which, 3 if narrow else 5)
      if span <= 0:
        bar.set_ticks([])
