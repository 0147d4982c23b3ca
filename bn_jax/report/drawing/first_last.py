"""The first and the last look of a measure, beside each other."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib import figure as mpl

from bn_jax.report.drawing import canvas
from bn_jax.report.results import conditions, curves, looks


class Row(NamedTuple):
  """One quantity.

  Attributes:
    label: of its axis.
    draw: (axis, run, its index, the place of the look) -> draws its line.
    logarithmic: whether its axis is.
  """

  label: str
  draw: Callable[..., None]
  logarithmic: bool = True


def places(seen: looks.Looks) -> list[int]:
  """[0, -1], or [0] where no seed has looked more than once."""
  counts = [len(looks.steps_of(seed, seen.key)) for seed in seen.seeds]
  return [0, -1] if max(counts) > 1 else [0]


def drawing(
  seen: looks.Looks, rows: Sequence[Row], narrow: bool, label: str
) -> tuple[mpl.Figure, np.ndarray]:
  """A row a quantity, a column a look; one look, side by side if wide.

  Returns:
    The drawing, without its legend, and its [rows, looks] axes.
  """
  columns = places(seen)
  beside = len(columns) == 1 and not narrow
  if beside:
    made, axes = canvas.grid(1, len(rows), narrow, sharex=True)
    axes = axes.T
  else:
    made, axes = canvas.grid(
      len(rows), len(columns), narrow, sharex=True, sharey='row'
    )
  for row, quantity in enumerate(rows):
    for column, place in enumerate(columns):
      axis = axes[row, column]
      for index, run in seen.indexed:
        quantity.draw(axis, run, index, place)
      axis.set_ylabel(quantity.label if column == 0 else '')
      axis.set_xlabel(label if beside or row == len(rows) - 1 else '')
      if row == 0:
        axis.set_title(title(seen, place))
    if quantity.logarithmic:
      canvas.scale_logarithmically(axes[row, 0])
  return made, axes


def title(seen: looks.Looks, place: int) -> str:
  """'First look: step 0', 'Last look: step 100 to 150', 'Step 150'."""
  steps = [
    taken[place]
    for seed in seen.seeds
    if (taken := looks.steps_of(seed, seen.key))
  ]
  span = conditions.span(min(steps), max(steps))
  if len(places(seen)) == 1:
    return f'Step {span}'
  return f'{"First" if place == 0 else "Last"} look: step {span}'


def table(
  seen: looks.Looks,
  columns: Sequence[str],
  rows: Callable[[curves.Seed, int], Iterable[Sequence]],
) -> list[Sequence]:
  """The numbers of every look; `rows` has those of one, by seed and place."""

  def of(seed: curves.Seed) -> Iterator[Sequence]:
    for place, step in enumerate(looks.steps_of(seed, seen.key)):
      yield from ((step, *row) for row in rows(seed, place))

  return canvas.table(seen.runs, columns, of)


def value(seed: curves.Seed, key: str, name: str, place: int):
  """What one look recorded, or None."""
  if not curves.recorded(seed, key, name):
    return None
  return seed.series[key].values[name][place]


def values(seed: curves.Seed, key: str, place: int, *names: str):
  """What one look recorded under each name; None where one is missing."""
  found = [value(seed, key, name, place) for name in names]
  return None if any(number is None for number in found) else found
