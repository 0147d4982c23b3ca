"""Lays out the first and the last look of a measure beside each other."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from bn_jax.report.drawing import record, tables
from bn_jax.report.results import conditions, curves, looks

# seed -> the indices of its looks that are shown.
Of = Callable[[curves.Seed], Sequence[int]]


class Row(NamedTuple):
  """One quantity."""

  axis: record.Axis  # its axis
  # (index of a run, the run, its looks) -> the marks of these looks.
  marks: Callable[[int, curves.Run, Of], Iterable[record.Mark]]
  # (looks) -> marks that are of no run.
  common: Callable[[Of], Iterable[record.Mark]] = lambda of: ()


def ends(entry: looks.Entry) -> list[int]:
  """Returns the indices of first and last look: [0, -1], or [0] of one."""
  counts = [len(looks.steps_of(seed, entry.name)) for seed in entry.seeds]
  return [0, -1] if max(counts) > 1 else [0]


def panels(
  entry: looks.Entry, rows: Sequence[Row], x: record.Axis
) -> dict[str, Any]:
  """Returns the panels of a figure, as keywords of `record.Figure`.

  A row a quantity, a column the first and the last look; of one look all
  quantities side by side. The looks between stand in the table and in frames.
  """

  def panel(row: Row, of: Of, text: str) -> record.Panel:
    marks = [m for i, run in entry.indexed for m in row.marks(i, run, of)]
    return record.Panel(x, row.axis, (*row.common(of), *marks), text)

  def column(look: int) -> tuple[record.Panel, ...]:
    text = title(entry, look)
    return tuple(panel(row, lambda seed: [look], text) for row in rows)

  def frame(step: int) -> tuple[tuple[record.Panel], ...]:
    of = lambda seed: at(seed, entry.name, step)
    return tuple((panel(row, of, f'Step {step}'),) for row in rows)

  if len(ends(entry)) == 1:
    first, *others = column(0)
    others = (other._replace(title='') for other in others)
    return {'rows': ((first, *others),), 'shares': False, 'abreast': (4, 1)}
  between = lambda seed: range(1, len(looks.steps_of(seed, entry.name)) - 1)
  return {
    'rows': tuple(zip(column(0), column(-1))),
    'undrawn': tuple(record.hidden(panel(row, between, '')) for row in rows),
    'frames': frames(entry, frame),
  }


def numbered(
  figure: record.Figure, entry: looks.Entry, x: record.Axis
) -> record.Figure:
  """Returns a figure; of one look with one point its numbers instead."""
  if not is_point(entry, x.name):
    return figure
  return tables.as_numbers(figure, entry.runs, lambda panel: panel.y.label)


def frames(entry: looks.Entry, frame: Callable, shown: int = 2) -> tuple:
  """Returns (step, frame(step)) for a slider.

  () where a picture has all looks, for it has shown that many.
  """
  steps = looks.steps(entry)
  if len(steps) <= shown:
    return ()
  places = looks.evenly(len(steps), record.FRAMES)
  return tuple((steps[place], frame(steps[place])) for place in places)


def at(seed: curves.Seed, entry: str, step: int) -> list[int]:
  """Returns the index of the look of a seed at a step, if it has one."""
  return [i for i, t in enumerate(looks.steps_of(seed, entry)) if t == step]


def lines(
  key: int,
  run: curves.Run,
  entry: str,
  of: Of,
  names: tuple[str, str],
  at_0: str = '',
) -> Iterator[record.Lines]:
  """Yields the curves of names[1] against names[0], of these looks.

  And thin, from end to end, what `at_0` has recorded, if it is above 0.
  """
  every, levels = [], []
  for seed, step, (x, y) in of_looks(run, entry, of, *names):
    # Sizes may be given in any order.
    x, y = np.array([x, y], float)[:, np.argsort(x)]
    every.append(record.Curve(seed, x, y, step=step))
  for seed, step, (x, level) in of_looks(run, entry, of, names[0], at_0):
    if 0 < level < np.inf:
      x = np.array([min(x), max(x)], float)
      levels.append(record.Curve(seed, x, np.full(2, float(level)), step=step))
  if every:
    yield record.Lines(key, names[1], tuple(every), paired=True)
  if levels:
    yield record.Lines(key, at_0, tuple(levels), 'thin', paired=True)


def of_looks(
  run: curves.Run, entry: str, of: Of, *quantities: str
) -> Iterator[tuple[int, int, list]]:
  """Yields (seed, step, numbers) of these looks that have all quantities."""
  for seed in run.seeds:
    steps = looks.steps_of(seed, entry)
    for look in of(seed) if steps else ():
      numbers = values(seed, entry, look, *quantities)
      if numbers is not None:
        yield seed.seed, steps[look], numbers


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


def is_point(entry: looks.Entry, quantity: str) -> bool:
  """Returns whether there is one look, with one number of a quantity."""
  found = [value(seed, entry.name, quantity, 0) for seed in entry.seeds]
  sizes = [np.size(numbers) for numbers in found if numbers is not None]
  return looks.once(entry) and max(sizes, default=0) == 1


def value(seed: curves.Seed, entry: str, quantity: str, look: int):
  """Returns what one look recorded, or None."""
  found = curves.values(seed, entry, quantity)
  return found and found[1][look]


def values(seed: curves.Seed, entry: str, look: int, *quantities: str):
  """Returns what one look recorded of each quantity; None if one is missing."""
  numbers = [value(seed, entry, quantity, look) for quantity in quantities]
  return None if any(number is None for number in numbers) else numbers
