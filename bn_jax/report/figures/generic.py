"""Draws a measure that has no figure of its own: what it recorded, by step.

Each quantity has a row. Without layers all runs share its panel: a line a run,
or the band of a quantity that is several numbers a look. With layers each run
has a column: a line a layer, or a map of layers over steps if they are many; of
several numbers the largest.
"""

import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from bn_jax.report.drawing import canvas, record, tables
from bn_jax.report.results import curves, looks, quantities, seeds

_LINES = 7  # layers drawn as lines, a colour each; more are told by a map
_ROWS = 6  # quantities that are drawn: a figure of more is no overview
_WHOLE = 'Whole network'  # what has no layer, beside layers


def figure(
  entry: looks.Entry, only: Mapping[str, str] | None = None
) -> record.Figure | None:
  """Draws all that an entry has recorded; None for nothing.

  Args:
    only: name -> label of the quantities to draw, as far as they are recorded;
      None is all of them.
  """
  every = quantities.of(entry)
  if only is not None:
    every = [
      quantity._replace(label=only[quantity.name])
      for quantity in every
      if quantity.name in only
    ]
  if not every:
    return None
  rows = every[:_ROWS]
  # A map of many layers has shapes at one look too.
  once = looks.once(entry) and not any(map(_is_map, rows))
  more = ', '.join(quantity.name for quantity in every[_ROWS:])
  what = quantities.caption(entry)
  what = what or f'The quantities that the measure {entry.measure} recorded.'
  keys = _keys(entry, every)
  panels = [_row(entry, quantity, keys, once) for quantity in every]
  drawn, left_out = panels[:_ROWS], panels[_ROWS:]
  made = record.of_entry(
    entry,
    # A user's has a ':' in its name, which no file can have everywhere.
    re.sub('[_:.]', '-', entry.measure),
    quantities.title(entry),
    record.caption(
      what,
      *((looks.told(entry),) if once else _how(rows)),
      every[_ROWS:] and f'The CSV has more quantities: {more}.',
      looks.circumstances(entry),
    ),
    rows=tuple(drawn),
    keys=keys,
    undrawn=sum(left_out, ()),
  )
  if not once:
    return made._replace(undrawn=(*made.undrawn, *_of_seeds(entry, every)))
  made = tables.as_numbers(made, entry.runs, lambda panel: panel.y.label)
  head, *numbers = made.numbers
  numbers = [[row[0].removesuffix(f', {_WHOLE}'), *row[1:]] for row in numbers]
  return made._replace(numbers=[head, *numbers])


def _is_map(quantity: quantities.Quantity) -> bool:
  return len(quantity.layers) > _LINES


def _how(rows: Sequence[quantities.Quantity]) -> Iterator[str]:
  """Yields what lines, bands and maps are."""
  if any(row.several and not row.layers for row in rows):
    yield 'Bands reach from the smallest to the largest of the numbers.'
  if any(row.several and row.layers for row in rows):
    yield 'Of several numbers of a layer, the largest.'
  if any(map(_is_map, rows)):
    yield 'Maps: layers in forward order, the first at the bottom.'
  elif any(row.layers for row in rows):
    yield 'A line a layer.'


def _keys(
  entry: looks.Entry, every: Sequence[quantities.Quantity]
) -> tuple[record.Key, ...]:
  """Returns the keys of the runs; of the layers that are lines, if some are."""
  lines = [quantity for quantity in every if not _is_map(quantity)]
  names = dict.fromkeys(layer for q in lines for layer in q.layers)
  if not lines or not any(quantity.layers for quantity in every):
    return record.keys_of(entry.indexed)
  if not all(quantity.layers for quantity in lines):
    names[_WHOLE] = None
  return record.names(list(names))


def _row(entry, quantity, keys, once: bool) -> tuple[record.Panel, ...]:
  """Returns a panel of all runs; or a panel a run, of layers."""
  axis = record.Axis(quantity.label, quantity.name, within=quantity.within)
  are_runs = all(key.run for key in keys)
  if are_runs and not quantity.layers:
    marks = [_band(index, run, entry, quantity) for index, run in entry.indexed]
    return (record.Panel(record.STEPS, axis, sum(marks, ())),)
  if _is_map(quantity):
    panels = _maps(entry, quantity)
  else:
    of_label = {key.label: key.index for key in keys}
    lines = [_lines(entry, run, quantity, of_label, once) for run in entry.runs]
    panels = [record.Panel(record.STEPS, axis, tuple(of)) for of in lines]
  return tuple(
    panel._replace(
      title=run.name,
      run=run.name,
      diverged=() if are_runs else record.divergences(run),
    )
    for run, panel in zip(entry.runs, panels)
  )


def _band(key: int, run, entry, quantity, layer: str = '') -> tuple:
  """Returns the line of a run; or the band of several numbers a look."""
  name = quantity.recorded_as(layer)
  of = {s.seed: quantities.curve(s, entry.name, name) for s in run.seeds}
  if all(np.array_equal(c.low, c.high, equal_nan=True) for c in of.values()):
    of = {seed: (curve.step, curve.high) for seed, curve in of.items()}
  return record.lines(key, quantity.name, run, lambda seed: of[seed.seed])


def _lines(entry, run, quantity, of_label: Mapping, once: bool) -> Iterator:
  """Yields a line a layer, of the largest number; of one look all numbers."""
  for layer in quantity.layers or ('',):
    key = of_label[layer or _WHOLE]
    if once or not layer:
      yield from _band(key, run, entry, quantity, layer)
    else:
      read = _reader(entry, quantity.recorded_as(layer), 'high')
      yield from record.lines(key, quantity.name, run, read)


def _reader(entry: looks.Entry, name: str, end: str):
  """Returns seed -> (steps, 'low' or 'high' end of what was recorded)."""

  def read(seed: curves.Seed):
    curve = quantities.curve(seed, entry.name, name)
    return curve.step, getattr(curve, end)

  return read


def _maps(entry: looks.Entry, quantity) -> list[record.Panel]:
  """Returns means over seeds, a cell a look and layer; runs have one scale."""
  maps = [_map(run, entry.name, quantity) for run in entry.runs]
  values = np.concatenate([value_LT.ravel() for _, value_LT in maps])
  values = values[np.isfinite(values)]
  low, high = (values.min(), values.max()) if len(values) else (0.0, 1.0)
  scale = record.Scale(
    quantity.label, float(low), float(high if high > low else low + 1)
  )
  axis = record.Axis('Layer', 'layer', names=quantity.layers)
  edges_L = np.arange(len(quantity.layers) + 1) + 0.5
  return [
    record.Panel(
      record.STEPS,
      axis,
      (
        record.Cells(
          quantity.name, canvas.cell_edges(step_T), edges_L, value_LT, scale,
          seed='mean', at_x=step_T,
        ),
      ) if len(step_T) else (),
    )
    for step_T, value_LT in maps
  ]  # fmt: skip


def _map(run, entry: str, quantity) -> tuple[np.ndarray, np.ndarray]:
  """Returns (steps [T], values [L, T]); of several numbers the largest."""
  rows = []
  for layer in quantity.layers:
    every = [
      quantities.curve(seed, entry, quantity.recorded_as(layer))
      for seed in run.seeds
    ]
    lines = [(c.step, c.high) for c in every if len(c.step)]
    rows.append(seeds.mean(lines) if lines else None)
  steps = sorted({int(t) for row in rows if row is not None for t in row.x})
  value_LT = np.full((len(rows), len(steps)), np.nan)
  for number, row in enumerate(rows):
    if row is not None:
      value_LT[number, np.searchsorted(steps, row.x)] = row.mean
  return np.array(steps, float), value_LT


def _of_seeds(entry, every: Sequence) -> Iterator[record.Panel]:
  """Yields, for the table, what seeds have of maps, and smallest numbers."""
  for run in entry.runs:
    for quantity in every:
      ends = {'high': quantity.name} if _is_map(quantity) else {}
      if quantity.several and quantity.layers:
        ends['low'] = f'{quantity.name}_smallest'
      for layer in quantity.layers:
        name = quantity.recorded_as(layer)
        marks = [
          mark
          for end, label in ends.items()
          for mark in record.lines(
            None, label, run, _reader(entry, name, end), style='hidden'
          )
        ]
        if marks:
          axis = record.Axis(quantity.label, quantity.name)
          yield record.Panel(
            record.STEPS, axis, tuple(marks), run=run.name, about=layer
          )
