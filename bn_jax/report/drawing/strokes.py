"""Draws runs, the same in all figures: lines, bands, legend, divergences.

Several seeds are one curve: their mean, with its 95 % interval.

A run has a colour, and is told apart without it: by its dash, and from the
fifth on by markers along the line, for there are four dashes. The ninth has the
first colour again, with the next dash: no two of 32 look the same.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib import figure as mpl
from matplotlib import lines as mpl_lines

from bn_jax.report.drawing import canvas
from bn_jax.report.results import conditions, curves

# Okabe and Ito's colours, told apart by the colour-blind.
_COLOURS = (
  '#0072B2', '#D55E00', '#009E73', '#CC79A7',
  '#E69F00', '#56B4E9', '#7F7F7F', '#000000',
)  # fmt: skip
_DASHES = ('-', (0, (5, 1.5)), (0, (1.5, 1)), (0, (5, 1, 1, 1)))
_MARKERS = ('o', 's', '^', 'D', 'v', 'P', 'X', '*')
_GREY = {'color': '#7F7F7F', 'linewidth': 0.8, 'zorder': 1}
_MARKED_POINTS = 6  # of a line: enough to follow it, too few to hide it
_BINS = 500  # of a long line: no fewer than the pixels of an axis
# Of a legend, in points: the sample of a line with its margins, both edges, and
# the longest name that is not broken into lines.
_HANDLE, _EDGES, _WIDEST = 50, 30, 180
# Ranges that a quantity cannot leave, for `mean`: an interval of few seeds may.
SHARE = (0.0, 1.0)
COSINE = (-1.0, 1.0)
SIZE = (0.0, np.inf)
_INTERVAL = {'alpha': 0.2, 'linewidth': 0}  # shades of two runs may overlap

Range = tuple[float, float]
# (index, run), by which it is coloured.
Indexed = Iterable[tuple[int, curves.Run]]


class Mean(NamedTuple):
  """A curve over steps, the mean of several seeds.

  Attributes:
    step: [T].
    mean: [T]; nan where no seed has a finite value.
    low, high: [T], the ends of its 95 % interval; nan for one seed.
  """

  step: np.ndarray
  mean: np.ndarray
  low: np.ndarray
  high: np.ndarray


def colour(index: int) -> str:
  """Returns the colour of the run with this index."""
  return _COLOURS[index % len(_COLOURS)]


def line(axis, step_T, value_T, index: int, **style) -> None:
  """Draws a line, with a marker on each point that stands alone."""
  keywords = {**_style_of(index), **style}
  value_T = np.asarray(value_T, float)
  finite_T = np.isfinite(value_T)
  marked_T = _alone(finite_T)
  if keywords.pop('marker'):
    finite = np.flatnonzero(finite_T)
    marked_T[finite[:: max(1, len(finite) // _MARKED_POINTS)]] = True
  points = _thinned(value_T)
  axis.plot(np.asarray(step_T)[points], value_T[points], **keywords)
  if marked_T.any():
    keywords |= {'linestyle': 'none', 'marker': _MARKERS[index % len(_MARKERS)]}
    axis.plot(np.asarray(step_T)[marked_T], value_T[marked_T], **keywords)


def band(axis, step_T, low_T, high_T, index: int, **style) -> None:
  """Fills between two lines, with a bar where a point stands alone."""
  keywords = {'color': colour(index), **style}
  points = np.union1d(_thinned(low_T), _thinned(high_T))
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


def level(axis, x, levels: Sequence[float], index: int) -> None:
  """Draws a thin line along x at the geometric mean of levels, if any."""
  if len(levels):
    height = float(np.exp(np.mean(np.log(levels))))
    thin(axis, (np.min(x), np.max(x)), (height, height), index)


def grey(axis, x, y) -> None:
  """Draws a thin grey line, behind the lines of runs."""
  axis.plot(x, y, **_GREY)


def across(axis, value: float) -> None:
  """Draws a dashed grey line at a value of y."""
  axis.axhline(value, linestyle=(0, (4, 3)), **_GREY)


def draw_mean(
  axis,
  lines: Sequence,
  index: int,
  logarithmic: bool = False,
  within: Range | None = None,
) -> None:
  """Draws the mean over seeds, with its 95 % interval if there are several."""
  if lines:
    _draw(axis, mean(lines, logarithmic, within), index)


def draw_mean_against(axis, lines: Sequence, index: int) -> None:
  """Draws geometric means over seeds against another x than the step.

  Lines are (x, y), [E] each; those of another length than the first are left
  out. Point i of one seed belongs to point i of the others, whose x may differ.
  """
  # Sizes may be given in any order, and are 0 where the learning rate was.
  lines = [(np.asarray(x, float), np.asarray(y, float)) for x, y in lines]
  lines = [(x[order], y[order]) for x, y in lines for order in [np.argsort(x)]]
  lines = [(x, y) for x, y in lines if len(x) == len(lines[0][0])]
  if not lines:
    return
  indices = range(len(lines[0][0]))
  x = mean([(indices, x) for x, _ in lines], logarithmic=True)
  y = mean([(indices, y) for _, y in lines], logarithmic=True)
  # A point without a finite x is left out, and its neighbour may stand alone.
  mean_E = np.where(np.isfinite(x.mean), y.mean, np.nan)
  _draw(axis, y._replace(step=x.mean, mean=mean_E), index)


def shade(axis, curve: Mean, index: int) -> None:
  """Shades the 95 % interval of a mean, if it has one."""
  if np.isfinite(curve.low).any():
    band(axis, curve.step, curve.low, curve.high, index, **_INTERVAL)


def mean(
  lines: Sequence, logarithmic: bool = False, within: Range | None = None
) -> Mean:
  """Returns the mean over seeds, at every step that one of them has.

  It is over the finite values at the step: a seed that has diverged takes no
  part from then on.

  Args:
    lines: (steps, values) of each seed, at least one.
    logarithmic: the geometric mean instead, and the interval of the
      logarithms, for logarithmic axes; only positive values take part.
    within: what the quantity cannot leave; the interval ends there.
  """
  values_at = {}
  for steps, values in lines:
    if logarithmic:
      values = np.log(np.where(np.asarray(values) > 0, values, np.nan))
    for step, value in zip(steps, values):
      values_at.setdefault(int(step), []).append(value)
  pairs = [
    curves.mean_and_interval(finite)
    if (finite := [value for value in values_at[step] if np.isfinite(value)])
    else (np.nan, np.nan)
    for step in sorted(values_at)
  ]
  mean_T, half_T = np.array(pairs).reshape(-1, 2).T
  ends = mean_T, mean_T - half_T, mean_T + half_T
  ends = map(np.exp, ends) if logarithmic else ends
  if within is not None:
    mean_T, *interval = ends
    ends = mean_T, *(np.clip(end, *within) for end in interval)
  return Mean(np.array(sorted(values_at)), *ends)


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


def legend_of(drawing: mpl.Figure, indexed: Indexed) -> None:
  """Draws the `legend` of runs, by their names."""
  legend(drawing, [(index, run.name) for index, run in indexed])


def divergences(axis, indexed: Indexed) -> None:
  """Marks the steps where seeds diverged, with one label for close ones.

  To be called when all else is drawn.
  """
  ends = sorted(
    {
      (seed.manifest['step'], index)
      for index, run in indexed
      for seed in run.seeds
      if seed.manifest['status'] == 'diverged'
    }
  )
  for step, index in ends:
    axis.axvline(step, color=colour(index), linestyle=':')
  low, high = axis.get_xlim()
  for steps in _close(sorted({step for step, _ in ends}), axis):
    span = conditions.span(steps[0], steps[-1])
    has_room = steps[0] - low > 0.1 * (high - low)
    axis.annotate(
      f'diverged at {span}', (steps[0] if has_room else steps[-1], 0.5),
      xycoords=('data', 'axes fraction'), rotation=90, va='center',
      ha='right' if has_room else 'left', fontsize=8,
    )  # fmt: skip


def _draw(axis, curve: Mean, index: int) -> None:
  line(axis, curve.step, curve.mean, index)
  shade(axis, curve, index)


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
  marker = index % len(_MARKERS)
  return {
    'color': colour(index),
    'linestyle': _DASHES[(index + index // len(_COLOURS)) % len(_DASHES)],
    'marker': _MARKERS[marker] if marker >= len(_DASHES) else None,
  }


def _thinned(value_T: np.ndarray) -> np.ndarray:
  """Returns the indices of the points to draw of a line: of a short one, all.

  Of a long one the lowest and the highest value of each of `_BINS` equal parts,
  both ends, and both sides of where values begin or cease to be finite: on a
  screen it is the same line.
  """
  count = len(value_T)
  if count <= 2 * _BINS:
    return np.arange(count)
  finite_T = np.isfinite(value_T)
  breaks = np.flatnonzero(finite_T[1:] != finite_T[:-1])
  parts = [[0, count - 1], breaks, breaks + 1]
  for part in np.array_split(np.flatnonzero(finite_T), _BINS):
    if len(part):
      values = value_T[part]
      parts.append([part[values.argmin()], part[values.argmax()]])
  return np.unique(np.concatenate(parts)).astype(int)


def _alone(finite_T: np.ndarray) -> np.ndarray:
  """Returns where a point has a value and neither of its neighbours, [T]."""
  around_T = np.pad(finite_T, 1)
  return finite_T & ~around_T[:-2] & ~around_T[2:]
