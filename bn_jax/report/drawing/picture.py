"""Draws figures by Matplotlib: for the page without its script, PNG and PDF.

What stands in a panel is drawn by `static`, a mark at a time; panels, labels,
axes, scales and legend are laid out here.
"""

import math

import numpy as np
from matplotlib import cm, ticker
from matplotlib import figure as mpl

from bn_jax.report.drawing import canvas, record, static, strokes

_NAMED = 16  # names at most on an axis: more would overlap
# Runs of a still picture: of more, a panel each would be too many, and points
# and seeds of each would hide all lines. The page's script shows them.
_MOST = 12
_LEAN_BINS = 150  # of the long lines of so many runs, see `strokes.thinned`
_BAR = 0.6  # inches that a scale takes below the panels of a telephone


def drawn(figure: record.Figure, narrow: bool) -> mpl.Figure:
  """Returns the drawing of a figure; to be called within `canvas.style()`."""
  figure = readable(figure)
  rows, columns = len(figure.rows), max(map(len, figure.rows))
  drawing, axes = canvas.panels(
    rows, columns, narrow, figure.shares, figure.abreast[narrow]
  )
  panel_at = {
    (row, column): panel
    for row, panels in enumerate(figure.rows)
    for column, panel in enumerate(panels)
    if panel is not None
  }
  for place, axis in np.ndenumerate(axes):
    axis.set_visible(place in panel_at)
  for place, panel in panel_at.items():
    _label(axes[place], figure.shares, panel_at, place)
    for mark in panel.marks:
      static.DRAW[type(mark)](axes[place], mark, panel)
  for place, panel in panel_at.items():
    _scale(axes[place], panel, narrow)
  for place, panel in panel_at.items():
    ends = [
      (step, index) for step, index, _ in static.diverged(panel, figure.keys)
    ]
    strokes.divergences(axes[place], ends)
  _bars(drawing, panel_at, axes, narrow)
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
      edges = static.means(mark, panel.y)
      if not edges:
        continue
      ends = [edge.mean for edge in edges]
      kept = np.unique(
        np.concatenate([strokes.thinned(end, _LEAN_BINS) for end in ends])
      )
      curve = record.Curve(0, *(y[kept] for y in (edges[0].x, *ends)))
      mark = mark._replace(curves=(curve,), window=1, paired=False)
    marks.append(mark)
  return panel._replace(marks=tuple(marks))


def _told_by_panels(figure: record.Figure) -> bool:
  """Returns whether each panel is of one run, whose name stands above it."""
  return all(key.run for key in figure.keys) and all(
    panel.run for panel in figure.panels
  )


def _label(axis, shares: bool, panel_at, place: tuple[int, int]) -> None:
  """Writes title and labels, unless the panel above, below or left tells."""
  row, column = place
  panel, above, below, left = (
    panel_at.get((row + down, column + across))
    for down, across in ((0, 0), (-1, 0), (1, 0), (0, -1))
  )
  is_titled = above is None or above.title != panel.title
  if is_titled or panel.note:
    canvas.label_top(axis, panel.title * is_titled, panel.note)
  is_told = below is not None and below.x.label == panel.x.label
  inches = axis.get_position().width * axis.figure.get_figwidth()
  label = canvas.wrapped(panel.x.label, 72 * inches).split('\n')
  label = '\n'.join(canvas.fitted(words, 72 * inches) for words in label)
  axis.set_xlabel('' if is_told else label)
  if is_told and shares:
    axis.tick_params(labelbottom=False)
  # Panels of a row that share their axis have one label, at the leftmost.
  alike = shares or (left is not None and left.y.label == panel.y.label)
  is_first = axis.get_subplotspec().is_first_col()
  axis.set_ylabel('' if alike and not is_first else panel.y.label)


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
      scale.set_ticks(
        static.roomy(of), list(map('{:g}'.format, static.roomy(of)))
      )
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


def _limit(axis, which: str, of: record.Axis, count: int) -> None:
  low, high = getattr(axis, f'get_{which}lim')()
  lowest, highest = of.limits
  if not of.fixed:
    lowest, highest = max(low, lowest), min(high, highest)
  if lowest < highest:
    getattr(axis, f'set_{which}lim')(lowest, highest)
  if of.logarithmic and getattr(axis, f'get_{which}scale')() == 'log':
    canvas.label_logarithmically(axis, which, count)


def _bars(drawing, panel_at, axes, narrow: bool) -> None:
  """Draws what colours mean, a bar for each scale."""
  of_scale, rows = {}, {}
  for (row, column), panel in panel_at.items():
    for mark in panel.marks:
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
      cm.ScalarMappable(static.norm(scale), static.colour_map(scale)),
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
