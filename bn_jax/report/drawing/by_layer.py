"""Figures of numbers over steps: a row a quantity, a column a layer."""

import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib import figure as mpl

from bn_jax.report.drawing import canvas, overlay, strokes
from bn_jax.report.results import curves, looks

Lines = tuple[np.ndarray, np.ndarray]  # steps and values, [T] each
# (layer, name of a row) -> what lies behind.
Papers = Mapping[tuple[str, str], Sequence[overlay.Match]]


class Row(NamedTuple):
  """One quantity.

  Attributes:
    name: of its column in the table.
    label: of its axis.
    read: (seed, key of the measure, layer) -> (steps, values); none is [0].
    logarithmic: whether its axis is.
    mark: where a line is drawn across, or None.
    limits: beyond which there is nothing to see: an interval may go there.
  """

  name: str
  label: str
  read: Callable[[curves.Seed, str, str], Lines]
  logarithmic: bool = True
  mark: float | None = None
  limits: tuple[float, float] = (-np.inf, np.inf)


def drawing(
  seen: looks.Looks,
  layers: Sequence[str],
  rows: Sequence[Row],
  narrow: bool,
  papers: Papers = types.MappingProxyType({}),
) -> mpl.Figure:
  """Lines of runs over steps, means over their seeds.

  Args:
    seen: the runs.
    layers: a column each.
    rows: of panels.
    narrow: for telephones.
    papers: curves of the paper, of those panels that have some.
  """
  made, axes = canvas.panels(len(rows), len(layers), narrow)
  for column, layer in enumerate(layers):
    canvas.label_top(axes[0, column], layer)
    for row, quantity in enumerate(rows):
      _draw(axes[row, column], seen, layer, quantity)
      if (layer, quantity.name) in papers:
        overlay.draw(axes[row, column], papers[layer, quantity.name])
      canvas.label_left(axes[row, column], quantity.label)
      canvas.label_steps(axes[row, column], row == len(rows) - 1)
  for row, quantity in enumerate(rows):
    if quantity.logarithmic:
      canvas.scale_logarithmically(axes[row, 0])
    low, high = axes[row, 0].get_ylim()
    least, most = quantity.limits
    if max(low, least) < min(high, most):
      axes[row, 0].set_ylim(max(low, least), min(high, most))
    for axis in axes[row]:
      strokes.divergences(axis, seen.indexed)
  overlay.legend(made, [match for found in papers.values() for match in found])
  strokes.legend_of(made, seen.indexed)
  return made


def table(
  seen: looks.Looks, layers: Sequence[str], rows: Sequence[Row]
) -> list[Sequence]:
  """The numbers: a line a run, seed, step and layer."""

  def of(seed: curves.Seed) -> Iterator[Sequence]:
    for layer in layers:
      found = [row.read(seed, seen.key, layer) for row in rows]
      for step, *numbers in zip(found[0][0], *(line for _, line in found)):
        yield step, layer, *canvas.digits(numbers)

  return canvas.table(seen.runs, ('layer', *(row.name for row in rows)), of)


def read(quantity: str, change: Callable = np.asarray) -> Callable:
  """Reads LAYER/quantity of a seed, for a `Row`; `change` is applied to it."""

  def of(seed: curves.Seed, key: str, layer: str) -> Lines:
    name = f'{layer}/{quantity}'
    if not curves.recorded(seed, key, name):
      return np.zeros(0, int), np.zeros(0)
    series = seed.series[key]
    return series.step, change(series.values[name])

  return of


def medians(seen: looks.Looks, layer: str, row: Row) -> str:
  """'NAME 0.98, ...', medians over training of a quantity, means over seeds."""

  def of(run: curves.Run) -> str:
    found = [
      curves.median(row.read(seed, seen.key, layer)[1]) for seed in run.seeds
    ]
    found = [median for median in found if np.isfinite(median)]
    return f'{np.mean(found):.3g}' if found else 'not measured'

  return ', '.join(f'{run.name} {of(run)}' for run in seen.runs)


def _draw(axis, seen, layer, row) -> None:
  for index, run in seen.indexed:
    found = [row.read(seed, seen.key, layer) for seed in run.seeds]
    found = [line for line in found if len(line[0])]
    strokes.draw_mean(axis, found, index, logarithmic=row.logarithmic)
  if row.mark is not None:
    strokes.across(axis, row.mark)
