"""The figure of the loss after one step, against its learning rate."""

import functools
from collections.abc import Sequence

import numpy as np
from matplotlib import figure as mpl

from bn_jax.report.drawing import canvas, first_last, strokes
from bn_jax.report.results import curves, looks

KIND = 'one_step_loss'


def figure(
  runs: Sequence[curves.Run], key: str | None = None
) -> canvas.Figure | None:
  """Loss after one step along the gradient, a line a run."""
  seen = looks.of(runs, KIND, key)
  if seen is None or not any(
    curves.recorded(seed, seen.key, 'loss') for seed in seen.seeds
  ):
    return None
  nats = not any(curves.is_regression(run) for run in seen.runs)
  label = 'Loss after a step' + (' (nats)' if nats else '')

  def draw(narrow: bool) -> mpl.Figure:
    rows = [first_last.Row(label, functools.partial(_draw, key=seen.key))]
    drawing, axes = first_last.drawing(seen, rows, narrow, 'Learning rate')
    canvas.scale_logarithmically(axes[0, 0], 'x', canvas.ticks_below(narrow))
    strokes.legend_of(drawing, seen.indexed)
    return drawing

  return canvas.Figure(
    name=f'one-step{seen.suffix}',
    title=f'Loss after one step{seen.note}',
    caption='The objective at θ − r·g against the learning rate r, with g its '
    'gradient at θ; dotted: at θ itself, above which a step makes it worse. '
    'Where a line ends, the loss was no finite number any more (Bjorck et al., '
    '2018: without Batch Normalization that is at a smaller rate). At the '
    'first look (step 0 is the initialization) and at the last, of '
    f'{looks.where(seen)}, {looks.precisely(seen)}. Logarithmic axes. '
    + strokes.seeds_sentence(seen.runs, logarithmic=True),
    alt='Loss after one step against its learning rate, one line a run. At the '
    'first look it is the smallest: '
    + '; '.join(_words(run, seen.key) for run in seen.runs),
    draw=draw,
    table=_table(seen),
  )


def _draw(axis, run, index, place, *, key) -> None:
  found = [look for seed in run.seeds if (look := _look(seed, key, place))]
  strokes.draw_mean_against(axis, [look[:2] for look in found], index)
  levels = [look[2] for look in found if look[2] > 0 and np.isfinite(look[2])]
  if found:
    strokes.level(axis, found[0][0], levels, index)


def _look(seed, key, place):
  """(rates [E], losses [E], the loss before), or None."""
  names = ('learning_rate', 'loss', 'loss_0')
  return first_last.values(seed, key, place, *names)


def _words(run, key) -> str:
  found = [look for seed in run.seeds if (look := _look(seed, key, 0))]
  if not found or not np.isfinite(found[0][1]).any():
    return f'{run.name} never finite'
  rates, losses, before = found[0]
  best = int(np.nanargmin(np.where(np.isfinite(losses), losses, np.nan)))
  return (
    f'{run.name} at {rates[best]:.3g}, where it falls from {before:.3g} to '
    f'{losses[best]:.3g}'
  )


def _table(seen):
  def rows(seed, place):
    if look := _look(seed, seen.key, place):
      rates, losses, before = look
      for rate, loss in zip(rates, losses):
        yield canvas.digits((rate, loss, before))

  columns = ('learning_rate', 'loss', 'loss_before')
  return first_last.table(seen, columns, rows)
