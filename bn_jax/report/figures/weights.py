"""Draws the norm of weights, and by what angle an update turns them."""

from collections.abc import Sequence

import numpy as np

from bn_jax.report.drawing import by_layer, record
from bn_jax.report.results import curves, looks, optimizers, seeds

MEASURE = 'weights'
_ROWS = (
  by_layer.Row('weight_norm', 'Weight norm |w|', by_layer.read('weight_norm')),
  by_layer.Row(
    'effective_learning_rate', 'Effective learning rate',
    by_layer.read('effective_learning_rate'),
  ),
  by_layer.Row(
    'angular_update', 'Angle of update (rad)', by_layer.read('angular_update')
  ),
  by_layer.Row(
    'radial_cosine', '|cos(w, ∇L)|', by_layer.read('radial_cosine', np.abs),
    limits=(0, 1.2), within=seeds.SHARE,
  ),
)  # fmt: skip


def figure(
  runs: Sequence[curves.Run], name: str | None = None
) -> record.Figure | None:
  """Draws the first, the middle and the last layer, a column each."""
  entry = looks.of(runs, MEASURE, name)
  every = [] if entry is None else looks.layers(entry, 'weight_norm')
  if not every:
    return None
  ends = (every[0], every[len(every) // 2], every[-1])
  layers = list(dict.fromkeys(ends))
  once = looks.once(entry)
  panels = by_layer.panels(entry, layers, _ROWS)
  further = [layer for layer in every if layer not in layers]
  others = by_layer.panels(entry, further, _ROWS)
  axes = 'Logarithmic vertical axes, the same in all columns. '
  return record.Figure(
    name=f'weights{entry.suffix}',
    title=f'Weights and their updates{entry.note}',
    caption='Of the weights w of a layer: their norm |w|; the effective '
    'learning rate, learning rate / |w|²; the angle by which the update of the '
    'optimizer turns them; and |<w, ∇L>| / (|w| |∇L|), which is 0 but for '
    'rounding where the loss L, without the weight penalty, does not change '
    f'with |w|, as before a norm. {optimizers.of_rates(entry.runs)}'
    f'{_of(layers, every)} '
    f'{looks.told(entry) if once else axes}{looks.circumstances(entry)}',
    rows=() if once else panels,
    keys=record.keys_of(entry.indexed),
    undrawn=sum((*(panels if once else ()), *others), ()),
    numbers=by_layer.numbers(entry, layers, _ROWS) if once else (),
  )


def _of(layers, every) -> str:
  if len(layers) == len(every):
    return 'All layers that were measured.'
  return (
    f'The first, the middle and the last of {len(every)} layers measured; the '
    'CSV has them all.'
  )
