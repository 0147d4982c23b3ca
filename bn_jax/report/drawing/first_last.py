"""Draws the first and the last look of a measure beside each other."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib import figure as mpl

from bn_jax.report.drawing import canvas
from bn_jax.report.results import conditions, curves, looks


class Row(NamedTuple):
  """One quantity.

  Attributes:
    label: of its axis.
    draw: (axis, run, its index, index of the look) -> draws a line.
    logarithmic: whether its axis is.
  """

  label: str
  draw: Callable[..., None]
  logarithmic: bool = True


def ends(entry: looks.Entry) -> list[int]:
  """Returns the indices of first and last look: [0, -1], or [0] of one."""
  counts = [len(looks.steps_of(seed, entry.name)) for seed in entry.seeds]
  return [0, -1] if max(counts) > 1 else [0]


def drawing(
  entry: looks.Entry, rows: Sequence[Row], narrow: bool, label: str
) -> tuple[mpl.Figure, np.ndarray]:
  """Draws a row a quantity, a column a look; if there is one look, one row.

  Returns:
    The drawing, without its legend, and its [rows, looks] axes.
  """
  columns = ends(entry)
  beside = len(columns) == 1 and not narrow
  if beside:
    figure, axes = canvas.grid(1, len(rows), narrow, sharex=True)
    axes = axes.T
  else:
    figure, axes = canvas.grid(
      len(rows), len(columns), narrow, sharex=True, sharey='row'
    )
  for row, quantity in enumerate(rows):
    for column, look in enumerate(columns):
      axis = axes[row, column]
      for index, run in entry.indexed:
        quantity.draw(axis, run, index, look)
      axis.set_ylabel(quantity.label if column == 0 else '')
      axis.set_xlabel(label if beside or row == len(rows) - 1 else '')
      if row == 0:
        axis.set_title(title(entry, look))
    if quantity.logarithmic:
      canvas.scale_logarithmically(axes[row, 0])
  return figure, axes


def title(entry: looks.Entry, look: int) -> str:
  """Returns 'First: step 0', 'Last: step 100 to 150', 'Step 150'."""
  steps = [
    every[look]
    for seed in entry.seeds
    if (every := looks.steps_of(seed, entry.name))
  ]
  span = conditions.span(min(steps), max(steps))
  if len(ends(entry)) == 1:
    return f'Step {span}'
  return f'{"First" if look == 0 else "Last"}: step {span}'


def table(
  entry: looks.Entry,
  columns: Sequence[str],
  rows: Callable[[curves.Seed, int], Iterable[Sequence]],
) -> list[Sequence]:
  """Returns the numbers of every look; `rows` has those of a seed and look."""

  def of(seed: curves.Seed) -> Iterator[Sequence]:
    for look, step in enumerate(looks.steps_of(seed, entry.name)):
      yield from ((step, *row) for row in rows(seed, look))

  return canvas.table(entry.runs, columns, of)


def is_point(entry: looks.Entry, quantity: str) -> bool:
  """Returns whether there is one look, with one number of a quantity."""
  looks_of_seeds = [
    value(seed, entry.name, quantity, 0) for seed in entry.seeds
  ]
  sizes = [
    np.size(numbers) for numbers in looks_of_seeds if numbers is not None
  ]
  return looks.once(entry) and max(sizes, default=0) == 1


def numbers(
  entry: looks.Entry, quantities: Mapping[str, str]
) -> list[Sequence[str]]:
  """Returns what one look has found: a line for each label -> quantity."""

  def of(run: curves.Run, quantity: str) -> str:
    looks_of_seeds = [value(s, entry.name, quantity, 0) for s in run.seeds]
    values = [float(np.ravel(x)[0]) for x in looks_of_seeds if x is not None]
    return curves.in_words(values, '{:.3g}'.format)

  return [
    ['', *(run.name for run in entry.runs)],
    *(
      [label, *(of(run, quantity) for run in entry.runs)]
      for label, quantity in quantities.items()
    ),
  ]


def value(seed: curves.Seed, entry: str, quantity: str, look: int):
  """Returns what one look recorded, or None."""
  if not curves.recorded(seed, entry, quantity):
    return None
  return seed.series[entry].values[quantity][look]


def values(seed: curves.Seed, entry: str, look: int, *quantities: str):
  """Returns what one look recorded of each quantity; None if one is missing."""
  numbers = [value(seed, entry, quantity, look) for quantity in quantities]
  return None if any(number is None for number in numbers) else numbers
