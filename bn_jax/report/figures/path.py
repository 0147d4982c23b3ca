"""Draws the loss on the line to another network, a panel a run."""

import functools
from collections.abc import Iterator, Sequence

import numpy as np

from bn_jax.report.drawing import first_last, record
from bn_jax.report.results import curves, looks, seeds

MEASURE = 'path'
# Each a colour and dash of its own; in the order in which they are drawn.
OVER = {
  'batch': 'statistics of the batch',
  'reset': 'statistics reset at each point',
  'interpolated': 'running, interpolated',
}
_last = lambda seed: [-1]
_SHARE = record.Axis('t, the share of b', 't')
_BARRIERS = ('barrier', 'barrier_of_mean')
# A loss that varies by more is drawn on a logarithmic axis.
_WIDE = 50.0
_OF_NORMS = (
  'With Batch Normalization it is another function for each kind of '
  'statistics: those of the examples; those of the population, estimated anew '
  'at each point from the same examples (Jordan et al., 2022); the running '
  'averages of both ends, mixed like the weights, which are neither network’s '
  'in between.'
)


def figure(entry: looks.Entry) -> record.Figure | None:
  """Draws loss and accuracy on the line, a curve each kind of statistics."""
  over = recorded(entry)
  if not over:
    return None
  axes = [
    axis
    for axis in _axes(entry, over)
    if any(_curves(run, entry, f'{over[0]}/{axis.name}') for run in entry.runs)
  ]
  last = first_last.title(entry, -1).rpartition(': ')[2].lower()
  to = entry.condition('to')
  other = f'step {to}' if to.isdecimal() else to
  other = 'before training' if to == '0' else other

  def rows(of: first_last.Of) -> tuple[tuple[record.Panel, ...], ...]:
    return tuple(
      tuple(_panel(run, entry, over, axis, of) for run in entry.runs)
      for axis in axes
    )

  def before(seed: curves.Seed) -> Sequence[int]:
    return range(len(looks.steps_of(seed, entry.name)) - 1)

  return record.of_entry(
    entry,
    'path',
    'The line to another network',
    record.caption(
      f'The network at (1 − t)·a + t·b, where a is the one of {last} and b '
      f'that of {other}. Data loss without penalty; grey: the chord between '
      'its ends.',
      len(over) > 1 and _OF_NORMS,
      not np.isfinite(_losses(entry, over)).all()
      and 'Crosses at the top: not finite.',
      looks.circumstances(entry),
    ),
    rows=rows(_last),
    keys=tuple(
      record.Key(list(OVER).index(name), OVER[name], run=False) for name in over
    ),
    undrawn=(
      *(record.hidden(panel) for row in rows(before) for panel in row),
      *(_barriers(run, entry, over) for run in entry.runs),
    ),
    frames=first_last.frames(
      entry,
      lambda step: rows(lambda seed: first_last.at(seed, entry.name, step)),
      shown=1,
    ),
  )


def recorded(entry: looks.Entry) -> list[str]:
  """Returns the kinds of statistics that some seed has recorded, of OVER."""
  return [name for name in OVER if looks.recorded(entry, f'{name}/loss')]


def is_one_function(seed: curves.Seed, name: str, over: Sequence[str]) -> bool:
  """Returns whether a network has the same losses with any statistics."""
  losses = [
    first_last.value(seed, name, f'{statistics}/loss', -1)
    for statistics in over
  ]
  return len(over) > 1 and all(
    loss is not None and np.array_equal(loss, losses[0], equal_nan=True)
    for loss in losses
  )


def _axes(entry, over) -> tuple[record.Axis, record.Axis]:
  losses = _losses(entry, over)
  losses = losses[np.isfinite(losses) & (losses > 0)]
  is_log = len(losses) > 0 and bool(losses.max() > _WIDE * losses.min())
  return (
    record.Axis(looks.loss(entry), 'loss', is_log, seeds.SIZE),
    record.Axis('Accuracy', 'accuracy', within=seeds.SHARE, percent=True),
  )


def _panel(run, entry, over, axis: record.Axis, of) -> record.Panel:
  # One line where all kinds of statistics give the same function.
  is_one = all(is_one_function(seed, entry.name, over) for seed in run.seeds)
  shown = over[:1] if is_one else over
  is_noted = len(over) > len(shown) and axis.name == 'loss'
  return record.Panel(
    _SHARE,
    axis,
    tuple(
      mark
      for statistics in over
      for mark in _marks(
        run, entry, statistics, axis, of, is_hidden=statistics not in shown
      )
    ),
    title=run.name,
    note='one function' if is_noted else '',
    run=run.name,
  )


def _marks(run, entry, statistics, axis, of, is_hidden) -> Iterator:
  every = _curves(run, entry, f'{statistics}/{axis.name}', of)
  if not every:
    return
  key = list(OVER).index(statistics)
  style = 'hidden' if is_hidden else 'line'
  yield record.Lines(key, axis.name, every, style)
  if is_hidden:
    return
  if axis.name == 'loss':
    chords = tuple(curve._replace(y=_chord(curve)) for curve in every)
    yield record.Lines(None, f'{statistics}_chord', chords)
  lost = [curve.x[~np.isfinite(curve.y)] for curve in every]
  if len(lost := np.unique(np.concatenate(lost))):
    yield record.Points(key, 'cross', lost)


def _chord(curve: record.Curve) -> np.ndarray:
  """Returns the chord between the ends of a curve, at each of its points.

  At every point: on a logarithmic axis it is no straight line.
  """
  ends = curve.y[[0, -1]]
  first, last = np.where(np.isfinite(ends), ends, np.nan)
  return (1 - curve.x) * first + curve.x * last


def _barriers(run, entry, over) -> record.Panel:
  """Returns the barriers of every look, for the table."""
  marks = [
    mark
    for statistics in over
    for name in _BARRIERS
    for mark in record.lines(
      list(OVER).index(statistics),
      name,
      run,
      functools.partial(
        curves.values, name=entry.name, value=f'{statistics}/{name}'
      ),
      style='hidden',
    )
  ]
  axis = record.Axis('Barrier', 'barrier')
  return record.Panel(record.STEPS, axis, tuple(marks), run=run.name)


def _curves(run, entry, quantity: str, of=_last) -> tuple[record.Curve, ...]:
  """Returns a quantity over t, of these looks of each seed."""
  return tuple(
    record.Curve(seed, np.asarray(t), np.asarray(y, float), step=step)
    for seed, step, (t, y) in first_last.of_looks(
      run, entry.name, of, 't', quantity
    )
  )


def _losses(entry, over) -> np.ndarray:
  """Returns all losses that are drawn, in one vector."""
  return np.concatenate([
    curve.y
    for run in entry.runs
    for statistics in over
    for curve in _curves(run, entry, f'{statistics}/loss')
  ])  # fmt: skip
