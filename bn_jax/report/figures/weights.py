"""The figure of weights: their length, and what a step turns them by.

A file of its own, as each measure that has a figure.
"""

from collections.abc import Sequence

import numpy as np

from bn_jax.report.drawing import by_layer, canvas, strokes
from bn_jax.report.results import curves, looks

KIND = 'weights'
_ROWS = (
  by_layer.Row('weight_norm', '|w|', by_layer.read('weight_norm')),
  by_layer.Row(
    'effective_learning_rate', 'Effective rate',
    by_layer.read('effective_learning_rate'),
  ),
  by_layer.Row(
    'angular_update', 'Angle of a step (rad)', by_layer.read('angular_update')
  ),
  by_layer.Row(
    'radial_cosine', '|cos(w, ∇L)|', by_layer.read('radial_cosine', np.abs),
    limits=(0, 1.2),
  ),
)  # fmt: skip


def figure(
  runs: Sequence[curves.Run], key: str | None = None
) -> canvas.Figure | None:
  """Weights of the first, the middle and the last layer, a column a layer."""
  seen = looks.of(runs, KIND, key)
  known = [] if seen is None else looks.layers(seen, 'weight_norm')
  if not known:
    return None
  ends = (known[0], known[len(known) // 2], known[-1])
  layers = list(dict.fromkeys(ends))
  return canvas.Figure(
    name=f'weights{seen.suffix}',
    title=f'Weights and their steps{seen.note}',
    caption='Of the weights w of a layer: their length |w|; the effective '
    'learning rate, learning rate / |w|²; by what angle a step turns them; '
    'and |<w, ∇L>| / (|w| |∇L|), which is 0 but for rounding where the loss '
    'does not change with |w|, as before a norm. The step is that of the '
    f'optimizer, L the loss without a penalty, of {looks.where(seen)}, '
    f'{looks.when(seen)}, {looks.precisely(seen)}. {_of(layers, known)} '
    'Logarithmic axes, shared by the columns. '
    + strokes.seeds_sentence(seen.runs, logarithmic=True),
    alt='Length, effective learning rate, angle of a step and radial part of '
    f'the gradient, over training, one column a layer ({", ".join(layers)}). '
    f'Median angle of a step of {layers[-1]}, in radians: '
    + by_layer.medians(seen, layers[-1], _ROWS[2]),
    draw=lambda narrow: by_layer.drawing(seen, layers, _ROWS, narrow),
    table=by_layer.table(seen, known, _ROWS),
  )


def _of(layers, known) -> str:
  if len(layers) == len(known):
    return 'All layers that were looked at.'
  return (
    f'The first, the middle and the last of {len(known)} layers looked at; '
    'the CSV has them all.'
  )
