"""The figure of the loss after one step, against its learning rate."""

from collections.abc import Sequence

import numpy as np
from matplotlib import figure as mpl

from bn_jax.report.drawing import ends, figures, over_seeds, strokes
from bn_jax.report.results import curves, looks

KIND = 'one_step_loss'


def figure(
  runs: Sequence[curves.Run], key: str | None = None
) -> figures.Figure | None:
  """Loss after one step along the gradient, a line a run."""
  seen = looks.of(runs, KIND, key)
  if seen is None or not any(
    curves.recorded(seed, seen.key, 'loss') for seed in seen.seeds
  ):
    return None
  nats = not any(curves.is_regression(run) for run in seen.runs)
  label = 'Loss after a step' + (' (nats)' if nats else '')

  def draw(narrow: bool) -> mpl.Figure:
    rows = [ends.Row(label, _draw(seen.key))]
    drawing, axes = ends.drawing(seen, rows, narrow, 'Learning rate')
    figures.scale_logarithmically(axes[0, 0], 'x', figures.ticks_below(narrow))
    return ends.legend(drawing, seen)

  return figures.Figure(
    name=f'one-step{seen.suffix}',
    title=f'Loss after one step{seen.note}',
    caption='The objective at θ − r·g against the learning rate r, with g its '
    'gradient at θ; dotted: at θ itself, above which a step makes it worse. '
    'Where a line ends, the loss was no finite number any more (Bjorck et al., '
    '2018: without Batch Normalization that is at a smaller rate). At the '
    'first look (step 0 is the initialization) and at the last, of '
    f'{looks.where(seen)}, {looks.precisely(seen)}. Logarithmic axes. '
    + over_seeds.sentence(seen.runs, logarithmic=True),
    alt='Loss after one step against its learning rate, one line a run. At the '
    'first look it is the smallest: '
    + '; '.join(_words(run, seen.key) for run in seen.runs),
    draw=draw,
    table=_table(seen),
  )


def _draw(key: str):
  def draw(axis, run, index, place) -> None:
    found = [_look(seed, key, place) for seed in run.seeds]
    found = [look for look in found if look is not None]
    over_seeds.draw_against(axis, [look[:2] for look in found], index)
    levels = [look[2] for look in found if look[2] > 0 and np.isfinite(look[2])]
    if levels:
      rates = found[0][0]
      level = float(np.exp(np.mean(np.log(levels))))
      ends_of = (rates.min(), rates.max())
      strokes.thin(axis, ends_of, (level, level), index)

  return draw


def _look(seed, key, place):
  """(rates [E], losses [E], the loss before), or None."""
  names = ('learning_rate', 'loss', 'loss_0')
  found = [ends.values(seed, key, name, place) for name in names]
  return None if any(value is None for value in found) else found


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
  rows = [('run', 'seed', 'step', 'learning_rate', 'loss', 'loss_before')]
  for run in seen.runs:
    for seed in run.seeds:
      for place, step in enumerate(looks.steps_of(seed, seen.key)):
        look = _look(seed, seen.key, place)
        if look is None:
          continue
        for point in zip(*look[:2]):
          shown = [f'{value:.6g}' for value in (*point, look[2])]
          rows.append((run.name, seed.seed, step, *shown))
  return rows
