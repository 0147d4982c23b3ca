"""The figure of drift: Figure 8 of Santurkar et al. (2018)."""

import functools
import itertools
from collections.abc import Sequence

from bn_jax.report.drawing import by_layer, canvas, strokes
from bn_jax.report.figures import activations
from bn_jax.report.results import curves, looks, reductions

KIND = 'activations'


def _moments(value, paired=itertools.pairwise):
  """Reads how a moment changes, for a row."""
  return functools.partial(reductions.changes, value=value, paired=paired)


_ROWS = (
  by_layer.Row('mean', 'Change of mean', _moments('mean')),
  by_layer.Row('variance', 'Change of variance', _moments('var')),
  by_layer.Row('distance', 'Distance W1', reductions.distances),
  by_layer.Row(
    'mean_from_first', 'Mean, from first',
    _moments('mean', reductions.from_first),
  ),
  by_layer.Row(
    'variance_from_first', 'Variance, from first',
    _moments('var', reductions.from_first),
  ),
)  # fmt: skip


def figure(
  runs: Sequence[curves.Run], key: str | None = None
) -> canvas.Figure | None:
  """How moments of activations change between looks, a column a layer."""
  seen = activations.looked(runs, key)
  if seen is None or looks.once(seen):
    return None
  layers = activations.layers(seen)
  return canvas.Figure(
    name=f'drift{seen.suffix}',
    title=f'Drift of activations{seen.note}',
    caption='By how much the inputs to a nonlinearity move from one look to '
    'the next: |change of the mean| and |change of the variance|, averaged '
    'over the channels of the layer, and the Wasserstein distance W1 between '
    'the histograms of all channels together; and how far mean and variance '
    'have moved from those of the first look. In the units of the activations '
    f'(variances: squared). {activations.conditions_of(seen)} Logarithmic '
    'axes, shared by the columns. '
    + strokes.seeds_sentence(seen.runs, logarithmic=True),
    alt='Change of mean and variance of activations, and distance between '
    f'histograms, over training, one column a layer ({", ".join(layers)}). '
    f'Median change of the mean from look to look, {layers[-1]}: '
    + by_layer.medians(seen, layers[-1], _ROWS[0]),
    draw=lambda narrow: by_layer.drawing(seen, layers, _ROWS, narrow),
    table=by_layer.table(seen, layers, _ROWS),
  )
