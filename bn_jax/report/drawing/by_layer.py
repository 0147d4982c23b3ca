"""Lays numbers over steps out: a row a quantity, a column a layer."""

import types
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from bn_jax.report.drawing import overlay, record, tables
from bn_jax.report.results import curves, looks, seeds

Lines = tuple[np.ndarray, np.ndarray] | None  # steps and values, [T] each
# (layer, name of a row) -> the curves of the paper behind ours.
MatchesOf = Mapping[tuple[str, str], Sequence[overlay.Match]]


class Row(NamedTuple):
  """One quantity."""

  name: str  # of its column in the table
  label: str  # of its axis
  # (seed, name of the entry, layer) -> (steps, values), [T] each.
  read: Callable[[curves.Seed, str, str], Lines]
  logarithmic: bool = True  # whether its axis is
  # A value at which a dashed line is drawn across, or None.
  mark: float | None = None
  # Beyond which its axis never reaches.
  limits: tuple[float, float] | None = None
  # What the quantity cannot leave; its interval ends there.
  within: seeds.Range | None = None

  @property
  def axis(self) -> record.Axis:
    """Returns its axis."""
    return record.Axis(
      self.label, self.name, self.logarithmic, self.within, self.limits
    )


def panels(
  entry: looks.Entry,
  layers: Sequence[str],
  rows: Sequence[Row],
  matches_of: MatchesOf = types.MappingProxyType({}),
) -> tuple[tuple[record.Panel, ...], ...]:
  """Returns a row a quantity, a column a layer, a line a run over steps.

  With the paper's curves in the panels that have some.
  """
  return tuple(
    tuple(
      record.Panel(
        record.STEPS,
        row.axis,
        (
          *_lines(entry, layer, row),
          *(() if row.mark is None else (record.Rule(row.mark),)),
          *overlay.references(
            {(layer, row.name): (), **matches_of}[layer, row.name], row.name
          ),
        ),
        title=layer,
        about=layer,
      )
      for layer in layers
    )
    for row in rows
  )


def as_numbers(figure: record.Figure, entry: looks.Entry) -> record.Figure:
  """Returns what one look has found: a line a quantity and layer."""
  return tables.as_numbers(
    figure, entry.runs, lambda panel: f'{panel.y.label}, {panel.about}'
  )


def read(quantity: str, change: Callable = np.asarray) -> Callable:
  """Returns a reader of change(LAYER/quantity) for a `Row`."""
  return lambda seed, entry, layer: curves.values(
    seed, entry, f'{layer}/{quantity}', change
  )


def _lines(entry, layer: str, row: Row) -> list[record.Lines]:
  return [
    mark
    for index, run in entry.indexed
    for mark in record.lines(
      index, row.name, run, lambda seed: row.read(seed, entry.name, layer)
    )
  ]
