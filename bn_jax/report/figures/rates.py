"""Draws what each norm reaches at each learning rate."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib import figure as mpl
from matplotlib import ticker

from bn_jax.report.drawing import canvas, strokes
from bn_jax.report.figures import rate_search
from bn_jax.report.results import curves

# Shares of the y axis for the marks of runs that fail: a row for each line, and
# all rows at most, so that two thirds are left for the numbers.
_ROW, _ROWS = 0.07, 0.3
# Share of the x axis that a label needs: one nearer to the last is left out.
_LABEL = 0.11
_MARGIN = 1.4  # factor from the outermost rates to the ends of their axis


def figure(runs: Sequence[curves.Run]) -> canvas.Figure | None:
  """Draws steps to an accuracy, final accuracy or loss against the rate.

  None where no runs differ in the learning rate and in nothing else.
  """
  lines = rate_search.lines(runs)
  panels = rate_search.quantities(lines)
  if not panels:
    return None
  return canvas.Figure(
    name='rates',
    title='Learning rates',
    caption='A line has runs that differ in the learning rate alone, and of '
    f'these the seeds that have ended. {_rules(panels)}Circled: the best rate '
    'of a line, among those at which no seed fails. At the worse end of the '
    'axis, where there is no mean: a cross where every seed fails, a plus '
    'where some do. Logarithmic axes but for accuracy.',
    alt='; '.join(_words(lines, quantity) for quantity in panels),
    draw=lambda narrow: _drawn(lines, panels, narrow),
    table=_table(lines, panels),
  )


def _rules(panels: Sequence[rate_search.Quantity]) -> str:
  """Returns what the panels show; it ends with a space."""
  rules = {
    'steps': 'Steps until the mean accuracy of the last '
    f'{curves.WINDOW} training batches reaches a level: the highest of '
    f'{{{", ".join(f"{level:g}" for level in curves.LEVELS)}}} that every '
    'line reaches at some rate, or else the highest that some line reaches. ',
    'accuracy': f'Training accuracy: of the last {curves.WINDOW} batches. ',
    'loss': f'Training loss: of the last {curves.WINDOW} batches, without the '
    'weight penalty. ',
  }
  return ''.join(rules[quantity.name] for quantity in panels)


def _drawn(lines, panels, narrow: bool) -> mpl.Figure:
  columns = 1 if narrow else len(panels)
  drawing, axes = canvas.grid(len(panels) // columns, columns, narrow)
  rates = [rate for line in lines for rate, _ in line.points]
  for axis, quantity in zip(axes.flat, panels):
    points_of_lines = [rate_search.points(line, quantity) for line in lines]
    for index, points in enumerate(points_of_lines):
      _draw(axis, points, rate_search.best(points, quantity), index)
    failures = [
      (index, [point for point in points if point.failing])
      for index, points in enumerate(points_of_lines)
    ]
    failures = [(index, points) for index, points in failures if points]
    strip = min(_ROW * len(failures), _ROWS)
    _scale(axis, quantity, strip)
    _draw_failing(axis, failures, quantity, strip)
    _label_rates(axis, rates)
    axis.set_title(quantity.label)
  strokes.legend(drawing, [(i, line.label) for i, line in enumerate(lines)])
  return drawing


def _draw(axis, points, best, index: int) -> None:
  """Draws means with their intervals; a gap where a seed fails."""
  if not points:
    return
  rate_R, *mean = np.transpose([point[:4] for point in points])
  curve = strokes.Mean(rate_R, *mean)
  strokes.line(axis, rate_R, curve.mean, index)
  of_run = {'color': strokes.colour(index), 'linestyle': 'none'}
  axis.plot(rate_R, curve.mean, marker='.', **of_run)
  strokes.shade(axis, curve, index)
  if best is not None:
    axis.plot(
      best.rate, best.mean, marker='o', markersize=11, fillstyle='none',
      markeredgewidth=1.4, clip_on=False, **of_run,
    )  # fmt: skip


def _scale(axis, quantity: rate_search.Quantity, strip: float) -> None:
  """Sets limits that hold all values, and a strip at the worse end of the axis.

  `strip` is its share of the axis, for the runs that fail.
  """
  beyond = strip / (1 - strip)
  if quantity.highest:
    axis.set_ylim(-1.02 * beyond, 1.02)
    axis.set_yticks(np.linspace(0, 1, 6))
    axis.yaxis.set_major_formatter(ticker.PercentFormatter(1, symbol=' %'))
    return
  canvas.scale_logarithmically(axis)
  if axis.get_yscale() == 'linear':  # all of them fail
    axis.set_yticks([])
    return
  low, high = axis.get_ylim()
  axis.set_ylim(low, high * (high / low) ** beyond)
  canvas.label_logarithmically(axis, 'y')


def _draw_failing(
  axis, failures, quantity: rate_search.Quantity, strip: float
) -> None:
  """Draws marks in the strip, a row a line, with their meaning beside them."""
  if not failures:
    return
  for number, (index, points) in enumerate(failures):
    row = (number + 0.5) * strip / len(failures)
    for point in points:
      axis.plot(
        point.rate, row if quantity.highest else 1 - row,
        marker='x' if point.failing == point.seeds else '+', markersize=7,
        color=strokes.colour(index), transform=axis.get_xaxis_transform(),
      )  # fmt: skip
  middle = strip / 2 if quantity.highest else 1 - strip / 2
  axis.annotate(
    quantity.failing, (1.01, middle),
    xycoords='axes fraction', va='center', fontsize=8,
  )  # fmt: skip


def _label_rates(axis, rates: Sequence[float]) -> None:
  """Makes an axis of learning rates, labelled where there is room."""
  low, high = min(rates) / _MARGIN, max(rates) * _MARGIN
  labelled = []
  for rate in sorted(set(rates)):
    if not labelled or rate >= labelled[-1] * (high / low) ** _LABEL:
      labelled.append(rate)
  axis.set_xscale('log')
  axis.set_xlim(low, high)
  axis.set_xticks(labelled, [f'{rate:g}' for rate in labelled])
  axis.xaxis.set_minor_locator(ticker.NullLocator())
  axis.set_xlabel('Learning rate')


def _words(lines, quantity: rate_search.Quantity) -> str:
  """Returns 'Steps to 90 % ... by learning rate, best of batch at 0.1 (40)'."""
  best_of_lines = []
  for line in lines:
    best = rate_search.best(rate_search.points(line, quantity), quantity)
    if best is not None:
      mean = f'{best.mean:.4g}'
      best_of_lines.append(f'{line.label} at {best.rate:g} ({mean})')
  texts = ', '.join(best_of_lines) or 'none'
  return f'{quantity.label} by learning rate, best of {texts}'


def _table(lines, panels):
  """Returns a header, and a row a seed: inf if it fails, empty if unknown."""
  columns = ('norm', 'learning_rate', 'run', 'seed', 'status')
  rows = [(*columns, *(quantity.name for quantity in panels))]
  for line in lines:
    for rate, run in line.points:
      for seed in run.seeds:
        cells = f'{rate:g}', run.name, seed.seed, seed.manifest['status']
        values = [
          quantity.read(seed) if curves.has_ended(seed) else math.nan
          for quantity in panels
        ]
        numbers = ['' if math.isnan(v) else f'{v:.6g}' for v in values]
        rows.append((line.label, *cells, *numbers))
  return rows
