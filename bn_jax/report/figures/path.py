"""Draws the loss on the line to another network, a panel a run."""

from collections.abc import Sequence

import numpy as np
from matplotlib import figure as mpl
from matplotlib import ticker

from bn_jax.report.drawing import canvas, first_last, strokes
from bn_jax.report.results import curves, looks

MEASURE = 'path'
# Each a colour and dash of its own; in the order in which they are drawn.
OVER = {
  'batch': 'statistics of the batch',
  'reset': 'statistics reset at each point',
  'interpolated': 'running, interpolated',
}
_RANGES = {'loss': strokes.SIZE, 'accuracy': strokes.SHARE}
_BARRIERS = ('barrier', 'barrier_of_mean')
_TOP = 0.97  # of an axis: where points are marked that are not finite
# A loss that varies by more is drawn on a logarithmic axis.
_WIDE = 50.0


def figure(
  runs: Sequence[curves.Run], name: str | None = None
) -> canvas.Figure | None:
  """Draws loss and accuracy on the line, a curve each kind of statistics."""
  entry = looks.of(runs, MEASURE, name)
  over = [] if entry is None else recorded(entry)
  if not over:
    return None
  quantities = [
    quantity
    for quantity in ('loss', 'accuracy')
    if any(_lines(run, entry, f'{over[0]}/{quantity}') for run in entry.runs)
  ]
  return canvas.Figure(
    name=f'path{entry.suffix}',
    title=f'The line to another network{entry.note}',
    caption=f'The network at (1 − t)·a + t·b, where a is the one of '
    f'{_step(entry)} and b {_other(entry)}. {_how(entry, over)}'
    f'{looks.circumstances(entry)}',
    alt='Loss on the line from a network to another one, a panel a run. Its '
    'barriers, at most above the chord: '
    + '; '.join(_words(run, entry, over) for run in entry.runs),
    draw=lambda narrow: _drawn(entry, over, quantities, narrow),
    table=_table(entry, over),
  )


def recorded(entry: looks.Entry) -> list[str]:
  """Returns the kinds of statistics that some seed has recorded, of OVER."""
  return [
    name
    for name in OVER
    if any(
      curves.recorded(seed, entry.name, f'{name}/loss') for seed in entry.seeds
    )
  ]


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


def _step(entry: looks.Entry) -> str:
  """Returns 'step 200', the last that was looked at."""
  return first_last.title(entry, -1).partition(': ')[2] or (
    first_last.title(entry, -1).lower()
  )


def _other(entry: looks.Entry) -> str:
  """Returns what the other end is, as the entry has it."""
  to = entry.condition('to')
  if to == '0':
    return 'that of before training'
  return f'that of step {to}' if to.isdecimal() else f'that of {to}'


def _how(entry: looks.Entry, over: Sequence[str]) -> str:
  """Returns what lines and marks are; it ends with a space."""
  sentences = 'Data loss without penalty; grey: the chord between its ends. '
  if max(len(run.seeds) for run in entry.runs) > 1:
    sentences += 'Means over seeds with their 95 % intervals. '
  if len(over) > 1:
    sentences += (
      'With Batch Normalization it is another function for each kind of '
      'statistics: those of the examples; those of the population, estimated '
      'anew at each point from the same examples (Jordan et al., 2022); the '
      'running averages of both ends, mixed like the weights, which are '
      'neither network’s in between. '
    )
  if _lost(entry, over):
    sentences += 'Crosses at the top: not finite. '
  return sentences


def _drawn(entry, over, quantities, narrow: bool) -> mpl.Figure:
  drawing, axes = canvas.panels(len(quantities), len(entry.runs), narrow)
  nats = not any(curves.is_regression(run) for run in entry.runs)
  labels = {'loss': 'Loss' + ' (nats)' * nats, 'accuracy': 'Accuracy'}
  for row, quantity in enumerate(quantities):
    for axis, run in zip(axes[row], entry.runs):
      canvas.label_left(axis, labels[quantity])
      lowest = row == len(quantities) - 1
      axis.set_xlabel('t, the share of b' if lowest else '')
      axis.tick_params(labelbottom=lowest)
      for statistics in _drawn_of(run, entry, over):
        _draw(axis, run, entry, statistics, quantity)
    if quantity == 'accuracy':
      axes[row, 0].yaxis.set_major_formatter(
        ticker.PercentFormatter(1, symbol=' %')
      )
    if quantity == 'loss' and _is_wide(entry, over):
      canvas.scale_logarithmically(axes[row, 0])
  for axis, run in zip(axes[0], entry.runs):
    is_one = len(over) > len(_drawn_of(run, entry, over))
    canvas.label_top(axis, run.name, 'one function' if is_one else '')
  indices = [(list(OVER).index(name), OVER[name]) for name in over]
  strokes.legend(drawing, indices)
  return drawing


def _drawn_of(run, entry, over: Sequence[str]) -> Sequence[str]:
  """Returns the statistics whose lines are drawn: one where all are alike."""
  is_one = all(is_one_function(seed, entry.name, over) for seed in run.seeds)
  return over[:1] if is_one else over


def _draw(axis, run, entry, statistics: str, quantity: str) -> None:
  lines = _lines(run, entry, f'{statistics}/{quantity}')
  if not lines:
    return
  index, t = list(OVER).index(statistics), lines[0][0]
  alike = [y for x, y in lines if np.array_equal(x, t)]
  of_seeds = [(range(len(t)), y) for y in alike]
  mean = strokes.mean(of_seeds, within=_RANGES[quantity])
  strokes.line(axis, t, mean.mean, index)
  strokes.shade(axis, mean._replace(step=t), index)
  if quantity == 'loss':
    # At every point: on a logarithmic axis a chord is no straight line.
    first, last = mean.mean[[0, -1]]
    strokes.grey(axis, t, (1 - t) * first + t * last)
  lost = ~np.isfinite(alike).all(axis=0)
  if lost.any():
    axis.plot(
      t[lost], np.full(lost.sum(), _TOP), 'x', color=strokes.colour(index),
      transform=axis.get_xaxis_transform(),
    )  # fmt: skip


def _lines(run, entry, quantity: str) -> list[tuple[np.ndarray, np.ndarray]]:
  """Returns (t, values) of the last look of each seed that has one."""
  looks_of_seeds = [
    first_last.values(seed, entry.name, -1, 't', quantity) for seed in run.seeds
  ]
  return [tuple(map(np.asarray, one)) for one in looks_of_seeds if one]


def _losses(entry, over) -> np.ndarray:
  """Returns all losses that are drawn, in one vector."""
  return np.concatenate([
    loss
    for run in entry.runs
    for statistics in over
    for _, loss in _lines(run, entry, f'{statistics}/loss')
  ])  # fmt: skip


def _lost(entry, over) -> bool:
  return not np.isfinite(_losses(entry, over)).all()


def _is_wide(entry, over) -> bool:
  losses = _losses(entry, over)
  losses = losses[np.isfinite(losses) & (losses > 0)]
  return len(losses) > 0 and losses.max() > _WIDE * losses.min()


def _words(run, entry, over) -> str:
  """Returns 'batchnorm 0.54 (batch), 1.2 (interpolated)'."""
  texts = []
  for statistics in _drawn_of(run, entry, over):
    barriers = [
      curves.last(seed, entry.name, f'{statistics}/barrier')
      for seed in run.seeds
    ]
    said = curves.in_words(barriers, '{:.3g}'.format)
    texts.append(f'{said} ({statistics})')
  return f'{run.name} {", ".join(texts)}'


def _table(entry, over) -> list[Sequence]:
  """Returns the numbers of every look, with its barriers in each row."""
  columns = ('loss', 'accuracy', *_BARRIERS)

  def rows(seed, look):
    for statistics in over:
      t, *values = (
        first_last.value(seed, entry.name, quantity, look)
        for quantity in ('t', *(f'{statistics}/{name}' for name in columns))
      )
      if values[0] is None:
        continue
      # A regression has no accuracy; barriers are one number a look.
      whole = [np.nan if x is None else x for x in values]
      for row in zip(t, *(np.broadcast_to(x, len(t)) for x in whole)):
        yield statistics, *canvas.digits(row)

  return first_last.table(entry, ('statistics', 't', *columns), rows)
