"""Draws the norm of weights, and by what angle an update turns them."""

import numpy as np

from bn_jax.report.drawing import by_layer, record
from bn_jax.report.results import looks, optimizers, seeds

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


def figure(entry: looks.Entry) -> record.Figure | None:
  """Draws the first, the middle and the last layer, a column each."""
  every = looks.layers(entry, 'weight_norm')
  if not every:
    return None
  ends = (every[0], every[len(every) // 2], every[-1])
  layers = list(dict.fromkeys(ends))
  once = looks.once(entry)
  further = [layer for layer in every if layer not in layers]
  others = by_layer.panels(entry, further, _ROWS)
  axes = 'Logarithmic vertical axes, the same in all columns.'
  which = 'All layers that were measured.'
  if further:
    which = (
      f'The first, the middle and the last of {len(every)} layers measured; '
      'the CSV has them all.'
    )
  made = record.of_entry(
    entry,
    'weights',
    'Weights and their updates',
    record.caption(
      'Of the weights w of a layer: their norm |w|; the effective learning '
      'rate, learning rate / |w|²; the angle by which the update of the '
      'optimizer turns them; and |<w, ∇L>| / (|w| |∇L|), which is 0 but for '
      'rounding where the loss L, without the weight penalty, does not change '
      'with |w|, as before a norm.',
      optimizers.of_rates(entry.runs),
      which,
      looks.told(entry) if once else axes,
      looks.circumstances(entry),
    ),
    rows=by_layer.panels(entry, layers, _ROWS),
    undrawn=sum(others, ()),
  )
  return by_layer.as_numbers(made, entry) if once else made
