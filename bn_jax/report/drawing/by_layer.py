"""Draws numbers over steps: a row a quantity, a column a layer."""

import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib import figure as mpl

from bn_jax.report.drawing import canvas, overlay, strokes
from bn_jax.report.results import curves, looks

Lines = tuple[np.ndarray, np.ndarray]  # steps and values, [T] each
# (layer, name of a row) -> the curves of the paper behind ours.
MatchesOf = Mapping[tuple[str, str], Sequence[overlay.Match]]


class Row(NamedTuple):
  """One quantity.

  Attributes:
    name: of its column in the table.
    label: of its axis.
    read: (seed, name of the entry, layer) -> (steps, values), [T] each.
    logarithmic: whether its axis is.
    mark: a value at which a dashed line is drawn across, or None.
    limits: beyond which its axis never reaches, though intervals may.
  """

  name: str
  label: str
  read: Callable[[curves.Seed, str, str], Lines]
  logarithmic: bool = True
  mark: float | None = None
  limits: tuple[float, float] = (-np.inf, np.inf)


def drawing(
  entry: looks.Entry,
  layers: Sequence[str],
  rows: Sequence[Row],
  narrow: bool,
  matches_of: MatchesOf = types.MappingProxyType({}),
) -> mpl.Figure:
  """Draws lines of runs over steps, means over their seeds.

  A column a layer, with the paper's curves in the panels that have some.
  """
  figure, axes = canvas.panels(len(rows), len(layers), narrow)
  for column, layer in enumerate(layers):
    canvas.label_top(axes[0, column], layer)
    for row, quantity in enumerate(rows):
      _draw(axes[row, column], entry, layer, quantity)
      if (layer, quantity.name) in matches_of:
        overlay.draw(axes[row, column], matches_of[layer, quantity.name])
      canvas.label_left(axes[row, column], quantity.label)
      canvas.label_steps(axes[row, column], row == len(rows) - 1)
  for row, quantity in enumerate(rows):
    if quantity.logarithmic:
      canvas.scale_logarithmically(axes[row, 0])
    low, high = axes[row, 0].get_ylim()
    lowest, highest = quantity.limits
    if max(low, lowest) < min(high, highest):
      axes[row, 0].set_ylim(max(low, lowest), min(high, highest))
    for axis in axes[row]:
      strokes.divergences(axis, entry.indexed)
  overlay.legend(
    figure, [match for matches in matches_of.values() for match in matches]
  )
  strokes.legend_of(figure, entry.indexed)
  return figure


def table(
  entry: looks.Entry, layers: Sequence[str], rows: Sequence[Row]
) -> list[Sequence]:
  """Returns the numbers: a line a run, seed, step and layer."""

  def of(seed: curves.Seed) -> Iterator[Sequence]:
    for layer in layers:
      lines = [row.read(seed, entry.name, layer) for row in rows]
      steps = lines[0][0]
      values = [
        line if len(line) else np.full(len(steps), np.nan) for _, line in lines
      ]
      for step, *numbers in zip(steps, *values):
        yield step, layer, *canvas.digits(numbers)

  return canvas.table(entry.runs, ('layer', *(row.name for row in rows)), of)


def numbers(
  entry: looks.Entry, layers: Sequence[str], rows: Sequence[Row]
) -> list[Sequence[str]]:
  """Returns what one look has found: a line a quantity and layer."""

  def of(run: curves.Run, row: Row, layer: str) -> str:
    values = [row.read(seed, entry.name, layer)[1] for seed in run.seeds]
    return curves.in_words([v[-1] for v in values if len(v)], '{:.3g}'.format)

  return [
    ['', *(run.name for run in entry.runs)],
    *(
      [f'{row.label}, {layer}', *(of(run, row, layer) for run in entry.runs)]
      for row in rows
      for layer in layers
    ),
  ]


def read(quantity: str, change: Callable = np.asarray) -> Callable:
  """Returns a reader of change(LAYER/quantity) for a `Row`."""

  def of(seed: curves.Seed, entry: str, layer: str) -> Lines:
    value = f'{layer}/{quantity}'
    if not curves.recorded(seed, entry, value):
      return np.zeros(0, int), np.zeros(0)
    series = seed.series[entry]
    return series.step, change(series.values[value])

  return of


def medians(entry: looks.Entry, layer: str, row: Row) -> str:
  """Returns 'NAME 0.98, ...': medians over training, means over seeds."""

  def of(run: curves.Run) -> str:
    mean = curves.mean_over(
      run.seeds,
      lambda seed: curves.median(row.read(seed, entry.name, layer)[1]),
    )
    return f'{mean:.3g}' if np.isfinite(mean) else 'not measured'

  return ', '.join(f'{run.name} {of(run)}' for run in entry.runs)


def _draw(axis, entry, layer, row) -> None:
  for index, run in entry.indexed:
    lines = [row.read(seed, entry.name, layer) for seed in run.seeds]
    lines = [line for line in lines if len(line[0])]
    strokes.draw_mean(axis, lines, index, logarithmic=row.logarithmic)
  if row.mark is not None:
    strokes.across(axis, row.mark)
