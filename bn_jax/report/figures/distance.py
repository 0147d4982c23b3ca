"""Draws gradient change by step size, as Figure 11 of Santurkar et al. (2018).

All that a look recorded along its line, over training, means over the seeds.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib import cm, collections, colormaps, colors
from matplotlib import figure as mpl

from bn_jax.report.drawing import canvas, strokes
from bn_jax.report.results import curves, looks

MEASURE = 'along_gradient'
_LINES = 50  # of a panel: as many as in the paper
_CHANGE = colormaps['viridis']
# Without its light end: a yellow line on white cannot be seen.
_STEP = colors.LinearSegmentedColormap.from_list(
  'step', colormaps['plasma'](np.linspace(0, 0.85, 64))
)


class Map(NamedTuple):
  """The curves of a run, one a look, as geometric means over its seeds.

  Attributes:
    step: [T].
    size: [T, E], ascending; nan where the learning rate was 0.
    change: [T, E]; nan where no seed has a number above 0.
  """

  step: np.ndarray
  size: np.ndarray
  change: np.ndarray


def figure(
  runs: Sequence[curves.Run], name: str | None = None
) -> canvas.Figure | None:
  """Draws gradient change by training step and step size, a column a run.

  None where no run has looked twice.
  """
  entry = looks.of(runs, MEASURE, name)
  of_runs = () if entry is None else entry.runs
  maps = [raw_curves(run, entry.name) for run in of_runs]
  if not any(len(run_map.step) > 1 for run_map in maps):
    return None
  return canvas.Figure(
    name=f'distance{entry.suffix}',
    title=f'Gradient change by step size{entry.note}',
    caption='The gradient change of the figure before, at each point of its '
    'line. Above: as a colour, by training step and step size e; white where '
    'it is not above 0. Below: against the step size, a line a training step '
    f'(at most {_LINES}, evenly spaced), as in Figure 11 of Santurkar et al. '
    '(2018): the steeper, the less g predicts. All scales but that of training '
    'steps are logarithmic, and the same in all columns.',
    alt='Gradient change as a map over step and step size, and as lines '
    'against the step size, one column a run. Medians over training: '
    + '; '.join(map(_words, entry.runs, maps)),
    draw=lambda narrow: _drawn(entry, maps, narrow),
    table=_table(entry),
  )


def raw_curves(run: curves.Run, name: str) -> Map:
  """Returns the map of a run.

  Seeds with another number of step sizes than the first are left out.
  """
  pairs_at = {}
  for seed in run.seeds:
    if not curves.recorded(seed, name, 'gradient_change'):
      continue
    series = seed.series[name]
    size_TE = series.values['step_size']
    order_TE = np.argsort(size_TE, axis=1)
    pairs_T2E = np.stack(
      [
        np.take_along_axis(values, order_TE, axis=1)
        for values in (size_TE, series.values['gradient_change'])
      ],
      axis=1,
    )
    for step, pair_2E in zip(series.step, pairs_T2E):
      pairs_at.setdefault(int(step), []).append(pair_2E)
  if not pairs_at:
    return Map(np.zeros(0, int), np.zeros((0, 1)), np.zeros((0, 1)))
  steps = sorted(pairs_at)
  count = pairs_at[steps[0]][0].shape[1]
  means = [
    _geometric([pair for pair in pairs_at[step] if pair.shape[1] == count])
    for step in steps
  ]
  rows = [i for i, mean in enumerate(means) if mean is not None]
  size_TE, change_TE = np.stack([means[i] for i in rows], axis=1)
  return Map(np.array(steps)[rows], size_TE, change_TE)


def _geometric(pairs: Sequence[np.ndarray]) -> np.ndarray | None:
  """Returns the geometric mean of pairs [2, E] over numbers above 0."""
  if not pairs:
    return None
  with np.errstate(divide='ignore', invalid='ignore'):
    logs = np.log(np.array(pairs))
  finite = np.isfinite(logs)
  total = np.where(finite, logs, 0).sum(axis=0)
  count = finite.sum(axis=0)
  return np.where(count > 0, np.exp(total / np.maximum(count, 1)), np.nan)


def _drawn(entry, maps, narrow) -> mpl.Figure:
  drawing, axes = canvas.panels(2, len(maps), narrow, shared=False)
  change = colors.LogNorm(*_range([run_map.change for run_map in maps]))
  step = colors.Normalize(*_ends([run_map.step for run_map in maps]))
  for column, (run_map, indexed) in enumerate(zip(maps, entry.indexed)):
    above, below = axes[:, column]
    canvas.label_top(above, indexed[1].name)
    _draw_map(above, run_map, change)
    strokes.divergences(above, [indexed])
    _draw_lines(below, run_map, step)
    above.set_xlabel('Training step')
    canvas.label_left(above, 'Step size e')
    below.set_xlabel('Step size e')
    canvas.label_left(below, 'Gradient change')
  _scale(axes, maps, canvas.ticks_below(narrow))
  for norm, colormap, side, label in (
    (change, _CHANGE, 'top', 'Gradient change'),
    (step, _STEP, 'bottom', 'Training step'),
  ):
    bar = drawing.colorbar(
      cm.ScalarMappable(norm, colormap),
      ax=list(axes.flat), location=side, label=label, aspect=40, shrink=0.7,
    )  # fmt: skip
    bar.outline.set_visible(False)
    if norm is change:
      canvas.label_logarithmically(bar.ax, 'x', 3 if narrow else 5)
  return drawing


def _draw_map(axis, run_map: Map, norm) -> None:
  """Draws a cell a look and step size, looks of equal sizes in one mesh."""
  step, size, change = run_map
  edges = _step_edges(run_map)
  finite_T = np.all(np.isfinite(size), axis=1)
  first = 0
  for t in range(1, len(step) + 1):
    if t < len(step) and np.array_equal(size[t], size[first]):
      continue
    if finite_T[first]:
      axis.pcolormesh(
        edges[first : t + 1],
        _cells(size[first]),
        change[first:t].T,
        norm=norm, cmap=_CHANGE, rasterized=True,
      )  # fmt: skip
    first = t
  axis.grid(visible=False)


def _draw_lines(axis, run_map: Map, norm) -> None:
  step, size, change = run_map
  rows = np.unique(
    np.linspace(0, len(step) - 1, min(len(step), _LINES)).round()
  ).astype(int)
  lines = collections.LineCollection(
    [np.stack([size[t], change[t]], axis=1) for t in rows],
    array=step[rows],
    norm=norm, cmap=_STEP, linewidths=0.9,
  )  # fmt: skip
  axis.add_collection(lines)
  axis.autoscale_view()


def _scale(axes, maps, count: int) -> None:
  """Sets the same limits and ticks in all columns."""
  steps = [_step_edges(run_map) for run_map in maps if len(run_map.step)]
  cells = [_cells(size_E) for run_map in maps for size_E in run_map.size]
  sizes = _wider(_range([run_map.size for run_map in maps]))
  changes = _wider(_range([run_map.change for run_map in maps]))
  for above, below in axes.T:
    above.set_xlim(*_ends(steps))
    above.set_ylim(*_range(cells))
    below.set_xlim(*sizes)
    below.set_ylim(*changes)
    canvas.label_logarithmically(above, 'y')
    canvas.label_logarithmically(below, 'x', count)
    canvas.label_logarithmically(below, 'y')


def _step_edges(run_map: Map) -> np.ndarray:
  """Returns the edges of the cells of a map, in training steps, [T + 1]."""
  return canvas.cell_edges(run_map.step.astype(float))


def _cells(size_E: np.ndarray) -> np.ndarray:
  """Returns the edges of the cells of a look, in step sizes, [E + 1]."""
  return np.exp(canvas.cell_edges(np.log(size_E)))


def _wider(ends: tuple[float, float]) -> tuple[float, float]:
  """Returns a range that leaves room around the ends of lines."""
  return ends[0] / 1.2, ends[1] * 1.2


def _range(parts: Sequence[np.ndarray]) -> tuple[float, float]:
  """Returns the smallest and the largest finite number, made to differ."""
  values = np.concatenate([part[np.isfinite(part)] for part in parts])
  if not len(values):
    return 0.1, 1.0
  low, high = float(values.min()), float(values.max())
  return (low, high) if low < high else (low / 2, 2 * high)


def _ends(parts: Sequence[np.ndarray]) -> tuple[float, float]:
  values = np.concatenate(list(parts))
  return float(values.min()), float(values.max())


def _words(run, run_map: Map) -> str:
  finite_TE = np.isfinite(run_map.size) & np.isfinite(run_map.change)
  rows = finite_TE.all(axis=1)
  if not rows.any():
    return f'{run.name} has none'
  change = np.median(run_map.change[rows], axis=0)
  size = np.median(run_map.size[rows], axis=0)
  return (
    f'{run.name} from {change[0]:.3g} at {size[0]:.3g} to {change[-1]:.3g} at '
    f'{size[-1]:.3g}'
  )


def _table(entry):
  """Returns all that was recorded.

  The distance e |d| follows from beta = change / (e |d|).
  """

  def rows(seed: curves.Seed) -> Iterator[Sequence]:
    if not curves.recorded(seed, entry.name, 'gradient_change'):
      return
    series = seed.series[entry.name]
    size_TE, change_TE, beta_TE = (
      series.values[name] for name in ('step_size', 'gradient_change', 'beta')
    )
    with np.errstate(divide='ignore', invalid='ignore'):
      distance_TE = change_TE / beta_TE
    for step, *points in zip(series.step, size_TE, distance_TE, change_TE):
      yield from ((step, *canvas.digits(point)) for point in zip(*points))

  columns = ('step_size', 'distance', 'gradient_change')
  return canvas.table(entry.runs, columns, rows)
