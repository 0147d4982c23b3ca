"""The figure of weights: their length, and what a step turns them by."""

from collections.abc import Sequence

import numpy as np

from bn_jax.report.drawing import figures, layered, over_seeds
from bn_jax.report.results import curves, looks

KIND = 'weights'
_ROWS = (
  layered.Row('weight_norm', '|w|', layered.read('weight_norm')),
  layered.Row(
    'effective_learning_rate', 'Effective rate',
    layered.read('effective_learning_rate'),
  ),
  layered.Row(
    'angular_update', 'Angle of a step (rad)', layered.read('angular_update')
  ),
  layered.Row(
    'radial_cosine', '|cos(w, ∇L)|', layered.read('radial_cosine', np.abs),
    limits=(0, 1.2),
  ),
)  # fmt: skip


def figure(
  runs: Sequence[curves.Run], key: str | None = None
) -> figures.Figure | None:
  """Weights of the first, the middle and the last layer, a column a layer."""
  seen = looks.of(runs, KIND, key)
  known = [] if seen is None else looks.layers(seen, 'weight_norm')
  if not known:
    return None
  ends = (known[0], known[len(known) // 2], known[-1])
  layers = list(dict.fromkeys(ends))
  return figures.Figure(
    name=f'weights{seen.suffix}',
    title=f'Weights and their steps{seen.note}',
    caption='Of the weights w of a layer: their length |w|; the effective '
    'learning rate, learning rate / |w|²; by what angle a step turns them; '
    'and |<w, ∇L>| / (|w| |∇L|), which is 0 but for rounding where the loss '
    'does not change with |w|, as before a norm. The step is that of the '
    f'optimizer, L the loss without a penalty, of {looks.where(seen)}, '
    f'{looks.when(seen)}, {looks.precisely(seen)}. {_of(layers, known)} '
    'Logarithmic axes, shared by the columns. '
    + over_seeds.sentence(seen.runs, logarithmic=True),
    alt='Length, effective learning rate, angle of a step and radial part of '
    f'the gradient, over training, one column a layer ({", ".join(layers)}). '
    f'Median angle of a step of {layers[-1]}, in radians: '
    + ', '.join(_median(run, seen.key, layers[-1]) for run in seen.runs),
    draw=lambda narrow: layered.drawing(seen, layers, _ROWS, narrow),
    table=layered.table(seen, known, _ROWS),
  )


def _of(layers, known) -> str:
  if len(layers) == len(known):
    return 'All layers that were looked at.'
  return (
    f'The first, the middle and the last of {len(known)} layers looked at; '
    'the CSV has them all.'
  )


def _median(run, key, layer) -> str:
  return f'{run.name} {layered.median(run, key, layer, _ROWS[2])}'
