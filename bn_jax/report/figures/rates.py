"""Draws what each norm reaches at each learning rate."""

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np

from bn_jax.report.drawing import record
from bn_jax.report.figures import rate_search
from bn_jax.report.results import curves, seeds

# Shares of the y axis for the marks of runs that fail: a row for each line, and
# all rows at most, so that two thirds are left for the numbers.
_ROW, _ROWS = 0.07, 0.3
_MARGIN = 1.4  # factor from the outermost rates to the ends of their axis
# Share of a logarithmic axis beyond its outermost values, and the least factor.
_BEYOND, _LEAST = 0.05, 1.1

# What a panel shows, by the name of its quantity.
_RULES = {
  'steps': 'Steps until the mean accuracy of the last '
  f'{curves.WINDOW} training batches reaches a level: the highest of '
  f'{{{", ".join(f"{level:g}" for level in curves.LEVELS)}}} that every '
  'line reaches at some rate, or else the highest that some line reaches.',
  'accuracy': f'Training accuracy: of the last {curves.WINDOW} batches.',
  'loss': f'Training loss: of the last {curves.WINDOW} batches, without the '
  'weight penalty.',
}


def figure(runs: Sequence[curves.Run]) -> record.Figure | None:
  """Draws steps to an accuracy, final accuracy or loss against the rate.

  None where no runs differ in the learning rate and in nothing else.
  """
  lines = rate_search.lines(runs)
  quantities = rate_search.quantities(lines)
  if not quantities:
    return None
  return record.Figure(
    name='rates',
    title='Learning rates',
    caption=record.caption(
      'A line has runs that differ in the learning rate alone, and of these '
      'the seeds that have ended.',
      *(_RULES[quantity.name] for quantity in quantities),
      'Circled: the best rate of a line, among those at which no seed fails. '
      'At the worse end of the axis, where there is no mean: a cross where '
      'every seed fails, a plus where some do. Logarithmic axes but for '
      'accuracy.',
    ),
    rows=(tuple(_panel(lines, quantity) for quantity in quantities),),
    keys=record.names([line.label for line in lines]),
    shares=False,
    abreast=(3, 1),
  )


def _panel(
  lines: Sequence[rate_search.Line], quantity: rate_search.Quantity
) -> record.Panel:
  points_of = [rate_search.points(line, quantity) for line in lines]
  marks = [
    mark
    for index, (line, points) in enumerate(zip(lines, points_of))
    for mark in _marks(index, line, quantity, points)
  ]
  failing = {
    index: failed
    for index, points in enumerate(points_of)
    if (failed := [point for point in points if point.failing])
  }
  strip = min(_ROW * len(failing), _ROWS)
  marks += _failures(failing, quantity, strip)
  rates = sorted({rate for line in lines for rate, _ in line.points})
  ends = rates[0] / _MARGIN, rates[-1] * _MARGIN
  return record.Panel(
    record.Axis(
      'Learning rate', 'learning_rate', True, limits=ends, fixed=True,
      ticks=tuple(rates),
    ),
    _axis(quantity, marks, strip),
    tuple(marks),
    title=quantity.label,
  )  # fmt: skip


def _marks(index: int, line, quantity, points) -> Iterator[record.Mark]:
  """Yields means with their seeds, and a ring at the best.

  A gap where a seed fails: the table alone has what others reach there.
  """
  runs = dict(line.points)
  pieces = itertools.groupby(points, lambda point: bool(point.failing))
  for is_failing, piece in pieces:
    values = {}  # seed -> [(rate, value)]
    for rate in (point.rate for point in piece):
      for seed in filter(curves.has_ended, runs[rate].seeds):
        value = quantity.read(seed)
        if not math.isnan(value):
          values.setdefault(seed.seed, []).append((rate, value))
    every = tuple(
      record.Curve(seed, *map(np.array, zip(*pairs)))
      for seed, pairs in values.items()
    )
    style = 'hidden' if is_failing else 'line'
    yield record.Lines(index, quantity.name, every, style)
  whole = [point for point in points if not point.failing]
  if whole:
    rates, means = zip(*((point.rate, point.mean) for point in whole))
    yield record.Points(index, 'dot', rates, means)
    best = rate_search.best(points, quantity)
    yield record.Points(index, 'ring', (best.rate,), (best.mean,))


def _axis(
  quantity: rate_search.Quantity, marks: Sequence[record.Mark], strip: float
) -> record.Axis:
  """Returns limits that hold all values, and a strip at the worse end.

  `strip` is its share of the axis, for the runs that fail.
  """
  beyond = strip / (1 - strip)
  label = quantity.name.capitalize()  # the title says it whole
  axis = record.Axis(label, quantity.name, fixed=True)
  if quantity.highest:
    return axis._replace(
      limits=(-1.02 * beyond, 1.02), percent=True, within=seeds.SHARE,
      ticks=tuple(np.linspace(0, 1, 6)),
    )  # fmt: skip
  axis = axis._replace(logarithmic=True, within=seeds.SIZE)
  every = [
    curve.y
    for mark in marks
    if isinstance(mark, record.Lines) and mark.style == 'line'
    for curve in mark.curves
  ]
  if not every:  # all of them fail: no number has a place
    return axis._replace(logarithmic=False, limits=(0, 1), ticks=(-1.0,))
  low, high = np.concatenate(every).min(), np.concatenate(every).max()
  margin = max((high / low) ** _BEYOND, _LEAST)
  low, high = low / margin, high * margin
  return axis._replace(
    limits=(float(low), float(high * (high / low) ** beyond))
  )


def _failures(failing: dict, quantity, strip: float) -> Iterator[record.Mark]:
  """Yields marks in the strip, a row a line, with their meaning beside them."""
  for number, (index, points) in enumerate(failing.items()):
    row = (number + 0.5) * strip / len(failing)
    place = row if quantity.highest else 1 - row
    every = [point.rate for point in points if point.failing == point.seeds]
    some = [point.rate for point in points if point.failing < point.seeds]
    for shape, rates in (('cross', every), ('plus', some)):
      if rates:
        yield record.Points(index, shape, rates, place=place)
  if failing:
    middle = strip / 2 if quantity.highest else 1 - strip / 2
    yield record.Words(quantity.failing, 1.01, middle)
