"""The figure of learning rates: what each norm reaches at each of them."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib import figure as mpl
from matplotlib import ticker

from bn_jax.report.drawing import canvas, strokes
from bn_jax.report.figures import rate_search
from bn_jax.report.results import curves

# Of an axis, for the marks of those that fail: a row a line, and all rows.
_ROW, _ROWS = 0.07, 0.3
_APART = 0.11  # labels of the x axis, as a share of it


def figure(runs: Sequence[curves.Run]) -> canvas.Figure | None:
  """Steps to an accuracy, final accuracy or loss against the learning rate.

  None where no runs differ in three learning rates and in nothing else.
  """
  lines = rate_search.lines(runs)
  panels = rate_search.quantities(lines)
  if not panels:
    return None
  shown = [run for line in lines for _, run in line.points]
  return canvas.Figure(
    name='rates',
    title='Learning rates',
    caption='Runs that differ in the learning rate alone, a line a norm, by '
    f'their seeds that have ended. {_rules(panels)}Circled: the best rate of '
    'each line, where no seed fails. A cross: every seed fails, and a plus: '
    'some do, so that there is no mean; they stand at the worse end of the '
    'axis. Logarithmic axes and geometric means, but for accuracy. '
    + strokes.seeds_sentence(shown),
    alt='; '.join(_words(lines, quantity) for quantity in panels),
    draw=lambda narrow: _drawn(lines, panels, narrow),
    table=_table(lines, panels),
  )


def _rules(panels: Sequence[rate_search.Quantity]) -> str:
  """What the panels show; it ends with a space."""
  said = {
    'steps': 'Steps until the mean of the last '
    f'{curves.WINDOW} training batches has an accuracy: the highest of '
    f'{{{", ".join(f"{level:g}" for level in curves.LEVELS)}}} that every '
    'line reaches at some rate, or else some line does. ',
    'accuracy': f'Accuracy of the last {curves.WINDOW} training batches. ',
    'loss': f'Loss of the last {curves.WINDOW} training batches, without a '
    'penalty. ',
  }
  return ''.join(said[quantity.name] for quantity in panels)


def _drawn(lines, panels, narrow: bool) -> mpl.Figure:
  columns = 1 if narrow else len(panels)
  drawing, axes = canvas.grid(len(panels) // columns, columns, narrow)
  rates = [rate for line in lines for rate, _ in line.points]
  for axis, quantity in zip(axes.flat, panels):
    found = [rate_search.points(line, quantity) for line in lines]
    for index, points in enumerate(found):
      _draw(axis, points, rate_search.best(points, quantity), index)
    fail = [
      (index, [point for point in points if point.failing])
      for index, points in enumerate(found)
    ]
    fail = [(index, points) for index, points in fail if points]
    strip = min(_ROW * len(fail), _ROWS)
    _scale(axis, quantity, strip)
    _draw_failing(axis, fail, quantity, strip)
    _label_rates(axis, rates)
    axis.set_title(quantity.label)
  strokes.legend(drawing, [(i, line.label) for i, line in enumerate(lines)])
  return drawing


def _draw(axis, points, best, index: int) -> None:
  """Means with their intervals; a gap where a seed fails."""
  if not points:
    return
  rate_R, *mean = np.transpose([point[:4] for point in points])
  drawn = strokes.Mean(rate_R, *mean)
  strokes.line(axis, rate_R, drawn.mean, index)
  of_run = {'color': strokes.colour(index), 'linestyle': 'none'}
  axis.plot(rate_R, drawn.mean, marker='.', **of_run)
  strokes.shade(axis, drawn, index)
  if best is not None:
    axis.plot(
      best.rate, best.mean, marker='o', markersize=11, fillstyle='none',
      markeredgewidth=1.4, clip_on=False, **of_run,
    )  # fmt: skip


def _scale(axis, quantity: rate_search.Quantity, strip: float) -> None:
  """All values, and room for a strip of those that fail, a share of the axis.

  It lies at the worse end.
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
  axis, fail, quantity: rate_search.Quantity, strip: float
) -> None:
  """Marks in the strip, a row a line, and what they mean beside it."""
  if not fail:
    return
  for place, (index, points) in enumerate(fail):
    row = (place + 0.5) * strip / len(fail)
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
  """A logarithmic axis of learning rates, labelled where there is room."""
  low, high = min(rates) / 1.4, max(rates) * 1.4
  kept = []
  for rate in sorted(set(rates)):
    if not kept or rate >= kept[-1] * (high / low) ** _APART:
      kept.append(rate)
  axis.set_xscale('log')
  axis.set_xlim(low, high)
  axis.set_xticks(kept, [f'{rate:g}' for rate in kept])
  axis.xaxis.set_minor_locator(ticker.NullLocator())
  axis.set_xlabel('Learning rate')


def _words(lines, quantity: rate_search.Quantity) -> str:
  """'Steps to 90 % of ... by learning rate, best of batch at 0.1 (40)'."""
  said = []
  for line in lines:
    best = rate_search.best(rate_search.points(line, quantity), quantity)
    if best is not None:
      shown = f'{best.mean:.4g}'
      said.append(f'{line.label} at {best.rate:g} ({shown})')
  listed = ', '.join(said) or 'none'
  return f'{quantity.label} by learning rate, best of {listed}'


def _table(lines, panels):
  """A row a seed; inf is failing, and empty is unknown."""
  columns = ('norm', 'learning_rate', 'run', 'seed', 'status')
  rows = [(*columns, *(quantity.name for quantity in panels))]
  for line in lines:
    for rate, run in line.points:
      for seed in run.seeds:
        said = f'{rate:g}', run.name, seed.seed, seed.manifest['status']
        values = [
          quantity.read(seed) if curves.has_ended(seed) else math.nan
          for quantity in panels
        ]
        shown = ['' if math.isnan(v) else f'{v:.6g}' for v in values]
        rows.append((line.label, *said, *shown))
  return rows
