"""Draws runs, the same in all figures: lines, bands, legend, divergences.

Several seeds are one curve: their mean, with its 95 % interval.

A run has a colour, and is told apart without it: by its dash, and from the
fifth on by markers along the line, for there are four dashes. The ninth has the
first colour again, with the next dash, the 33rd also the next marker: no two of
256 look the same.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib import collections, colors
from matplotlib import figure as mpl
from matplotlib import lines as mpl_lines

from bn_jax.report.drawing import canvas
from bn_jax.report.results import conditions, seeds

# Okabe and Ito's colours, told apart by the colour-blind.
_COLOURS = (
  '#0072B2', '#D55E00', '#009E73', '#CC79A7',
  '#E69F00', '#56B4E9', '#7F7F7F', '#000000',
)  # fmt: skip
_DASHES = ('-', (0, (5, 1.5)), (0, (1.5, 1)), (0, (5, 1, 1, 1)))
_MARKERS = ('o', 's', '^', 'D', 'v', 'P', 'X', '*')
# Markers, and those of points that stand alone, as paths of an SVG.
_SHAPES = {
  'o': 'M-3 0a3 3 0 1 0 6 0a3 3 0 1 0-6 0',
  's': 'M-3-3H3V3H-3Z',
  '^': 'M0-4L4 3H-4Z',
  'D': 'M0-4L4 0L0 4L-4 0Z',
  'v': 'M0 4L4-3H-4Z',
  'P': 'M-1-4H1V-1H4V1H1V4H-1V1H-4V-1H-1Z',
  'X': 'M-4-2L-2-4L0-2L2-4L4-2L2 0L4 2L2 4L0 2L-2 4L-4 2L-2 0Z',
  '*': 'M0-5L1-2H5L2 1L3 4L0 2L-3 4L-2 1L-5-2H-1Z',
  'ring': 'M-6 0a6 6 0 1 0 12 0a6 6 0 1 0-12 0',
  'cross': 'M-4-4L4 4M-4 4L4-4',
  'plus': 'M-4 0H4M0-4V4',
}
_ROUND = len(_COLOURS) * len(_DASHES)  # of looks; the next has other markers
_GREY = {'color': '#7F7F7F', 'linewidth': 0.8, 'zorder': 1}
_MARKED_POINTS = 6  # of a line: enough to follow it, too few to hide it
_BINS = 500  # of a long line: no fewer than the pixels of an axis
# Of a legend, in points: the sample of a line with its margins, both edges, and
# the longest name that is not broken into lines.
_HANDLE, _EDGES, _WIDEST = 50, 30, 180
_INTERVAL = {'alpha': 0.2, 'linewidth': 0}  # shades of two runs may overlap
# Of a run's colour and grey: more grey recedes further, but is told apart less.
_SHARES = (0.55, 0.45)
_REFERENCE = {'linestyle': (0, (2.5, 1.2)), 'linewidth': 0.9}
_BESIDE = 60  # points of a legend beside its text: the sample, and margins


def colour(index: int) -> str:
  """Returns the colour of the run with this index."""
  return _COLOURS[index % len(_COLOURS)]


def look(index: int) -> dict:
  """Returns colour, dash and marker of a run, in words of SVG."""
  style = _style_of(index)
  return {
    'colour': style['color'],
    'dash': _svg_dash(style['linestyle']),
    'marker': style['marker'] or '',
  }


def _svg_dash(dash: str | tuple) -> list[float]:
  return [] if dash == '-' else list(dash[1])


def looks() -> dict:
  """Returns of what looks are made, in words of SVG, for the page's script."""
  return {
    'colours': _COLOURS,
    'dashes': list(map(_svg_dash, _DASHES)),
    'shapes': _SHAPES,
  }


def line(axis, step_T, value_T, index: int, **style) -> None:
  """Draws a line, with a marker on each point that stands alone."""
  keywords = {**_style_of(index), **style}
  value_T = np.asarray(value_T, float)
  finite_T = np.isfinite(value_T)
  marked_T = _alone(finite_T)
  marker = keywords.pop('marker')
  if marker:
    finite = np.flatnonzero(finite_T)
    marked_T[finite[:: max(1, len(finite) // _MARKED_POINTS)]] = True
  points = thinned(value_T)
  axis.plot(np.asarray(step_T)[points], value_T[points], **keywords)
  if marked_T.any():
    marker = marker or _MARKERS[index % len(_MARKERS)]
    keywords |= {'linestyle': 'none', 'marker': marker}
    axis.plot(np.asarray(step_T)[marked_T], value_T[marked_T], **keywords)


def band(axis, step_T, low_T, high_T, index: int, **style) -> None:
  """Fills between two lines, with a bar where a point stands alone."""
  keywords = {'color': colour(index), **style}
  points = np.union1d(thinned(low_T), thinned(high_T))
  axis.fill_between(step_T[points], low_T[points], high_T[points], **keywords)
  alone_T = _alone(np.isfinite(low_T) & np.isfinite(high_T))
  for step, *ends in np.transpose([step_T, low_T, high_T])[alone_T]:
    axis.plot([step, step], ends, **{**keywords, 'linewidth': 4, 'marker': '_'})


def bars(axis, step_T, low_T, high_T, index: int) -> None:
  """Draws a thin bar with caps from a low to a high end at each step."""
  middle_T = (np.asarray(low_T) + high_T) / 2
  axis.errorbar(
    step_T, middle_T, yerr=(high_T - middle_T), fmt='none',
    ecolor=colour(index), elinewidth=0.9, capsize=3,
  )  # fmt: skip


def thin(axis, x, y, index: int) -> None:
  """Draws a thin dotted line, to be compared with the thick one of a run."""
  dotted = {'linestyle': (0, (1, 2)), 'linewidth': 1.0, 'marker': None}
  line(axis, x, y, index, **dotted)


def further(axis, x, y, index: int) -> None:
  """Draws a thin solid line, of what is less than the thick one of a run."""
  line(axis, x, y, index, linewidth=0.7, alpha=0.8, marker=None)


def grey(axis, x, y) -> None:
  """Draws a thin grey line, behind the lines of runs."""
  axis.plot(x, y, **_GREY)


def across(axis, value: float) -> None:
  """Draws a dashed grey line at a value of y."""
  axis.axhline(value, linestyle=(0, (4, 3)), **_GREY)


def seed(axis, x, y, index: int) -> None:
  """Draws one of few seeds, thin behind their mean."""
  line(axis, x, y, index, linestyle='-', marker=None, linewidth=0.7, alpha=0.45)


def shade(axis, curve: seeds.Mean, index: int) -> None:
  """Shades the 95 % interval of a mean, if it has one.

  The axis ends where lines do: an interval alone never stretches it.
  """
  points = np.union1d(thinned(curve.low), thinned(curve.high))
  ends = (part[points] for part in (curve.x, curve.low, curve.high))
  shape = collections.FillBetweenPolyCollection(
    'x', *ends, color=colour(index), **_INTERVAL
  )
  axis.add_collection(shape, autolim=False)


def reference(axis, x, low, high, index: int) -> None:
  """Draws a line or band below ours, in a run's colour mixed with grey.

  The edges of a band lie above ours, which would hide them.
  """
  of_run, grey = map(colors.to_rgb, (colour(index), _GREY['color']))
  tint = np.average([of_run, grey], axis=0, weights=_SHARES)
  style = {'color': tuple(tint), **_REFERENCE}
  if np.array_equal(low, high):
    axis.plot(x, low, zorder=1.8, **style)
    return
  axis.fill_between(
    x, low, high, color=style['color'], alpha=0.2, linewidth=0, zorder=0.8
  )
  for edge in (low, high):
    axis.plot(x, edge, zorder=2.5, **style)


def reference_legend(drawing: mpl.Figure, text: str) -> None:
  """Says once, above all axes, what such lines are; the drawing grows."""
  box = drawing.legend(
    [mpl_lines.Line2D([], [], color=_GREY['color'], **_REFERENCE)],
    [canvas.wrapped(text, 72 * drawing.get_figwidth() - _BESIDE)],
    loc='outside upper center',
  )
  canvas.grow(drawing, box)


def legend(drawing: mpl.Figure, runs: Sequence[tuple[int, str]]) -> None:
  """Draws one legend of (index, name) for all axes, below them.

  As many columns as the names leave room for; the drawing grows by its height.
  """
  width = 72 * drawing.get_figwidth() - _EDGES
  widest = min(max(canvas.width(name) for _, name in runs), _WIDEST)
  columns = max(1, min(len(runs), int(width / (widest + _HANDLE))))
  columns = -(-len(runs) // -(-len(runs) // columns))  # none nearly empty
  box = drawing.legend(
    [mpl_lines.Line2D([], [], **_style_of(index)) for index, _ in runs],
    [canvas.fitted(name, width / columns - _HANDLE) for _, name in runs],
    loc='outside lower center',
    ncols=columns,
  )
  canvas.grow(drawing, box)


def divergences(axis, ends: Sequence[tuple[int, int]]) -> None:
  """Marks (step, index) where seeds diverged, with one label for close ones.

  To be called when all else is drawn.
  """
  for step, index in ends:
    axis.axvline(step, color=colour(index), linestyle=':')
  low, high = axis.get_xlim()
  for steps in _close(sorted({step for step, _ in ends}), axis):
    span = conditions.span(steps[0], steps[-1])
    span = span if len(steps) > 2 else conditions.listed(map(str, steps))
    has_room = steps[0] - low > 0.1 * (high - low)
    axis.annotate(
      f'diverged at {span}', (steps[0] if has_room else steps[-1], 0.5),
      xycoords=('data', 'axes fraction'), rotation=90, va='center',
      ha='right' if has_room else 'left', fontsize=8,
    )  # fmt: skip


def _close(steps: Sequence[int], axis) -> list[list[int]]:
  """Groups steps whose labels would lie on each other."""
  low, high = axis.get_xlim()
  inches = axis.get_position().width * axis.figure.get_figwidth()
  label = 12 / (72 * inches) * (high - low)  # the height of its letters
  groups = []
  for step in steps:
    if groups and step - groups[-1][-1] < label:
      groups[-1].append(step)
    else:
      groups.append([step])
  return groups


def _style_of(index: int) -> dict:
  """Returns colour, dash and marker of a run, as Matplotlib's keywords."""
  marker = (index + index // _ROUND) % len(_MARKERS)
  return {
    'color': colour(index),
    'linestyle': _DASHES[(index + index // len(_COLOURS)) % len(_DASHES)],
    'marker': _MARKERS[marker]
    if index >= _ROUND or marker >= len(_DASHES)
    else None,
  }


def thinned(value_T: np.ndarray, bins: int = _BINS) -> np.ndarray:
  """Returns the indices of the points to draw of a line: of a short one, all.

  Of a long one the lowest and the highest value of each of `bins` equal parts,
  both ends, and both sides of where values begin or cease to be finite: on a
  screen it is the same line.
  """
  count = len(value_T)
  if count <= 2 * bins:
    return np.arange(count)
  finite_T = np.isfinite(value_T)
  breaks = np.flatnonzero(finite_T[1:] != finite_T[:-1])
  parts = [[0, count - 1], breaks, breaks + 1]
  for part in np.array_split(np.flatnonzero(finite_T), bins):
    if len(part):
      values = value_T[part]
      parts.append([part[values.argmin()], part[values.argmax()]])
  return np.unique(np.concatenate(parts)).astype(int)


def _alone(finite_T: np.ndarray) -> np.ndarray:
  """Returns where a point has a value and neither of its neighbours, [T]."""
  around_T = np.pad(finite_T, 1)
  return finite_T & ~around_T[:-2] & ~around_T[2:]
