"""Lays what an entry recorded over steps out: a panel a quantity and block.

A block of parameters has its name before that of the quantity:
'norms/sharpness'. A line is a run.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from bn_jax.report.drawing import record, tables
from bn_jax.report.results import curves, looks

_PANELS = 6  # that are drawn; the CSV has all


def figure(
  entry: looks.Entry,
  panels: Sequence[record.Panel],
  caption: str,
  abreast: tuple[int, int] = (3, 1),
  **words: str,
) -> record.Figure:
  """Returns the figure of panels, each with axes of its own.

  Where the entry has looked once, it has their numbers instead.

  Args:
    words: its name and title.
  """
  once = looks.once(entry)
  drawn, others = panels, ()
  if not once:
    drawn, others = panels[:_PANELS], panels[_PANELS:]
  if others:
    titles = ', '.join(panel.title for panel in others)
    caption += f' The CSV has more: {titles}.'
  made = record.of_entry(
    entry, **words, caption=caption, rows=(tuple(drawn),), shares=False,
    abreast=abreast, undrawn=tuple(others),
  )  # fmt: skip
  return tables.as_numbers(made, entry.runs) if once else made


def panel(
  entry: looks.Entry,
  row: str,
  title: str,
  axis: record.Axis,
  marks_of: Callable[[int, curves.Run], Iterable[record.Mark]],
) -> record.Panel:
  """Returns the panel of a quantity; `marks_of` has those of (index, run)."""
  marks = (m for index, run in entry.indexed for m in marks_of(index, run))
  return record.Panel(
    record.STEPS, axis, tuple(marks), titled(row, title),
    about=row.rpartition('/')[0],
  )  # fmt: skip


def titled(row: str, title: str) -> str:
  """Returns 'Trace, norms' of 'norms/trace'."""
  block = row.rpartition('/')[0]
  return f'{title}, {block}' if block else title


def recorded(entry: looks.Entry, quantities: Iterable[str]) -> list[str]:
  """Returns the rows of quantities, that of all parameters before blocks."""
  rows = sorted(looks.quantities(entry), key=lambda row: '/' in row)
  return [
    row
    for quantity in quantities
    for row in rows
    if row.rpartition('/')[2] == quantity
  ]


def lines(
  entry: looks.Entry, index: int, run: curves.Run, row: str, **keywords
) -> tuple[record.Lines, ...]:
  """Returns the lines of a run's seeds, of the quantity of a row."""
  return record.lines(
    index, row.rpartition('/')[2], run,
    lambda seed: curves.line(seed, entry.name, row), **keywords,
  )  # fmt: skip


def values(entry: looks.Entry, *rows: str) -> np.ndarray:
  """Returns all finite values of rows, [N]: an axis holds them."""
  every = [
    line[1]
    for seed in entry.seeds
    for row in rows
    if (line := curves.line(seed, entry.name, row)) is not None
  ]
  every = np.concatenate(every) if every else np.zeros(0)
  return every[np.isfinite(every)]


def is_positive(values_N: np.ndarray) -> bool:
  """Returns whether there are values, and all above 0.

  Means of logarithms would leave out the others.
  """
  return bool(len(values_N)) and bool(np.min(values_N) > 0)
