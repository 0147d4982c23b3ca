"""Draws gradient change by step size, as Figure 11 of Santurkar et al. (2018).

All that a look recorded along its line, over training, means over the seeds.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from bn_jax.report.drawing import canvas, record
from bn_jax.report.results import curves, looks

MEASURE = 'along_gradient'
_LINES = 50  # of a panel: as many as in the paper


class Map(NamedTuple):
  """The curves of a run, one a look, as geometric means over its seeds."""

  step: np.ndarray  # [T]
  size: np.ndarray  # [T, E], ascending; nan where the learning rate was 0
  change: np.ndarray  # [T, E]; nan where no seed has a number above 0


def figure(entry: looks.Entry) -> record.Figure | None:
  """Draws gradient change by training step and step size, a column a run.

  None where no run has looked twice.
  """
  maps = [raw_curves(run, entry.name) for run in entry.runs]
  if not any(len(run_map.step) > 1 for run_map in maps):
    return None
  axes = _axes(maps)
  panels = [
    _panels(indexed, run_map, axes, entry.name)
    for indexed, run_map in zip(entry.indexed, maps)
  ]
  return record.of_entry(
    entry,
    'distance',
    'Gradient change by step size',
    'The gradient change of the figure before, at each point of its '
    'line. Above: as a colour, by training step and step size e; white where '
    'it is not above 0. Below: against the step size, a line a training step '
    f'(at most {_LINES}, evenly spaced), as in Figure 11 of Santurkar et al. '
    '(2018): the steeper, the less g predicts. All scales but that of training '
    'steps are logarithmic, and the same in all columns.',
    rows=tuple(zip(*panels)),
    shares=False,
  )


def raw_curves(run: curves.Run, name: str) -> Map:
  """Returns the map of a run.

  Seeds with another number of step sizes than the first are left out.
  """
  pairs_at = {}
  for seed in run.seeds:
    for step, *pair in _of_looks(seed, name, 'gradient_change'):
      pair_2E = np.array(pair)[:, np.argsort(pair[0])]
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
  values = np.array(pairs)
  logs = np.log(np.where(values > 0, values, np.nan))
  means, _ = curves.means_and_intervals(logs.reshape(len(pairs), -1))
  return np.exp(means).reshape(values.shape[1:])


class _Axes(NamedTuple):
  """Axes and scales, the same in all columns."""

  steps: record.Axis
  cells: record.Axis
  sizes: record.Axis
  changes: record.Axis
  change: record.Scale
  step: record.Scale


def _axes(maps: Sequence[Map]) -> _Axes:
  steps = [_step_edges(run_map) for run_map in maps if len(run_map.step)]
  cells = [_cells(size_E) for run_map in maps for size_E in run_map.size]
  changes = _range([run_map.change for run_map in maps])
  sizes = _range([run_map.size for run_map in maps])
  looks_of_maps = _range([run_map.step for run_map in maps])
  size = record.Axis('Step size e', 'step_size', True, fixed=True)
  return _Axes(
    record.STEPS._replace(limits=_range(steps), fixed=True),
    size._replace(limits=_range(cells)),
    size._replace(limits=_wider(sizes)),
    record.Axis(
      'Gradient change', 'gradient_change', True, limits=_wider(changes),
      fixed=True,
    ),
    record.Scale('Gradient change', *changes, True),
    record.Scale('Training step', *looks_of_maps, colours='plasma'),
  )  # fmt: skip


def _panels(indexed, run_map: Map, axes: _Axes, name: str):
  """Returns the map and the lines of a run."""
  index, run = indexed
  seed = run.seeds[0].seed if len(run.seeds) == 1 else 'mean'
  rows = looks.evenly(len(run_map.step), _LINES)
  fan = record.Fan(
    'gradient_change', run_map.size[rows], run_map.change[rows],
    run_map.step[rows], axes.step,
  )  # fmt: skip
  return (
    record.Panel(
      axes.steps, axes.cells, tuple(_meshes(run_map, axes.change, seed)),
      title=run.name, run=run.name,
    ),
    record.Panel(
      axes.sizes, axes.changes,
      (fan, *_recorded(index, run, name)),
      title=run.name, run=run.name,
    ),
  )  # fmt: skip


def _meshes(run_map: Map, scale: record.Scale, seed) -> Iterator[record.Cells]:
  """Yields a cell a look and step size, looks of equal sizes together."""
  step, size, change = run_map
  edges = _step_edges(run_map)
  finite_T = np.all(np.isfinite(size), axis=1)
  first = 0
  for t in range(1, len(step) + 1):
    if t < len(step) and np.array_equal(size[t], size[first]):
      continue
    if finite_T[first]:
      yield record.Cells(
        'gradient_change', edges[first : t + 1], _cells(size[first]),
        change[first:t].T, scale, seed=seed, at_x=step[first:t],
        at_y=size[first],
      )  # fmt: skip
    first = t


def _recorded(index: int, run: curves.Run, name: str) -> Iterator[record.Lines]:
  """Yields what each seed has, for the table: of one it has the map.

  The distance e |d| follows from beta = change / (e |d|).
  """
  for quantity in ('distance', 'gradient_change')[: min(2, len(run.seeds))]:
    every = tuple(
      record.Curve(seed.seed, size_E, value_E, step=int(step))
      for seed in run.seeds
      for step, size_E, value_E in _of_looks(seed, name, quantity)
    )
    if every:
      yield record.Lines(index, quantity, every, 'hidden')


def _of_looks(seed: curves.Seed, name: str, quantity: str) -> Iterator[tuple]:
  """Yields (step, sizes [E], values [E]) of each look."""
  if not curves.recorded(seed, name, 'gradient_change'):
    return
  series = seed.series[name]
  value_TE = series.values['gradient_change']
  if quantity == 'distance':
    with np.errstate(divide='ignore', invalid='ignore'):
      value_TE = value_TE / series.values['beta']
  yield from zip(series.step, series.values['step_size'], value_TE)


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
