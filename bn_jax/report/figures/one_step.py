"""Draws the loss after one step against its learning rate."""

import functools
from collections.abc import Sequence

import numpy as np
from matplotlib import figure as mpl

from bn_jax.report.drawing import canvas, first_last, strokes
from bn_jax.report.results import curves, looks

MEASURE = 'one_step_loss'


def figure(
  runs: Sequence[curves.Run], name: str | None = None
) -> canvas.Figure | None:
  """Draws the loss after one step along the gradient, a line a run."""
  entry = looks.of(runs, MEASURE, name)
  if entry is None or not any(
    curves.recorded(seed, entry.name, 'loss') for seed in entry.seeds
  ):
    return None
  is_point = first_last.is_point(entry, 'learning_rate')
  nats = not any(curves.is_regression(run) for run in entry.runs)
  label = 'Loss after a step' + (' (nats)' if nats else '')

  def draw(narrow: bool) -> mpl.Figure:
    rows = [first_last.Row(label, functools.partial(_draw, name=entry.name))]
    drawing, axes = first_last.drawing(entry, rows, narrow, 'Learning rate')
    canvas.scale_logarithmically(axes[0, 0], 'x', canvas.ticks_below(narrow))
    strokes.legend_of(drawing, entry.indexed)
    return drawing

  return canvas.Figure(
    name=f'one-step{entry.suffix}',
    title=f'Loss after one step{entry.note}',
    caption='The training loss with its weight penalty at θ − r·g against the '
    'learning rate r, with θ all parameters and g the gradient at θ; dotted: '
    'at θ itself, above which a step makes the loss worse. Where a line ends, '
    'the loss is not finite any more (Bjorck et al., 2018: without Batch '
    'Normalization that is at a smaller rate). '
    f'{looks.told(entry) if is_point else _panels(entry)}'
    f'{looks.circumstances(entry)}',
    alt='Loss after one step against its learning rate, one line a run. At the '
    'first measurement it is the smallest: '
    + '; '.join(_words(run, entry.name) for run in entry.runs),
    draw=None if is_point else draw,
    table=_table(entry),
    numbers=first_last.numbers(entry, {label: 'loss'}) if is_point else (),
  )


def _panels(entry: looks.Entry) -> str:
  if looks.once(entry):
    return 'Logarithmic axes. '
  return (
    'Panels: the first measurement (step 0 is the initialization) and the '
    'last. Logarithmic axes. '
  )


def _draw(axis, run, index, look, *, name) -> None:
  looks_of_seeds = [_losses(seed, name, look) for seed in run.seeds]
  looks_of_seeds = list(filter(None, looks_of_seeds))
  if not looks_of_seeds:
    return
  pairs = [(rates, losses) for rates, losses, _ in looks_of_seeds]
  strokes.draw_mean_against(axis, pairs, index)
  levels = [loss for *_, loss in looks_of_seeds if 0 < loss < np.inf]
  strokes.level(axis, looks_of_seeds[0][0], levels, index)


def _losses(seed, name, look):
  """Returns (rates [E], losses [E], the loss before) of a look, or None."""
  quantities = ('learning_rate', 'loss', 'loss_0')
  return first_last.values(seed, name, look, *quantities)


def _words(run, name) -> str:
  of_seeds = [_losses(seed, name, 0) for seed in run.seeds]
  first = next(filter(None, of_seeds), None)
  if first is None or not np.isfinite(first[1]).any():
    return f'{run.name} never finite'
  rates, losses, before = first
  best = int(np.nanargmin(np.where(np.isfinite(losses), losses, np.nan)))
  return (
    f'{run.name} at {rates[best]:.3g}, where it falls from {before:.3g} to '
    f'{losses[best]:.3g}'
  )


def _table(entry):
  def rows(seed, look):
    if losses_of_look := _losses(seed, entry.name, look):
      rates, losses, before = losses_of_look
      for rate, loss in zip(rates, losses):
        yield canvas.digits((rate, loss, before))

  columns = ('learning_rate', 'loss', 'loss_before')
  return first_last.table(entry, columns, rows)
