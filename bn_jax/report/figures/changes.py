"""The figure of drift: Figure 8 of Santurkar et al. (2018)."""

import functools
import itertools
from collections.abc import Sequence

from bn_jax.report.drawing import figures, layered, over_seeds
from bn_jax.report.figures import activations
from bn_jax.report.results import curves, looks, reductions

KIND = 'activations'


def _moments(value, paired=itertools.pairwise):
  """Reads how a moment changes, for a row."""
  return functools.partial(reductions.changes, value=value, paired=paired)


_ROWS = (
  layered.Row('mean', 'Change of mean', _moments('mean')),
  layered.Row('variance', 'Change of variance', _moments('var')),
  layered.Row('distance', 'Distance W1', reductions.distances),
  layered.Row(
    'mean_from_first', 'Mean, from first',
    _moments('mean', reductions.from_first),
  ),
  layered.Row(
    'variance_from_first', 'Variance, from first',
    _moments('var', reductions.from_first),
  ),
)  # fmt: skip


def figure(
  runs: Sequence[curves.Run], key: str | None = None
) -> figures.Figure | None:
  """How moments of activations change between looks, a column a layer."""
  seen = activations.looked(runs, key)
  if seen is None or looks.once(seen):
    return None
  layers = activations.layers(seen)
  return figures.Figure(
    name=f'drift{seen.suffix}',
    title=f'Drift of activations{seen.note}',
    caption='By how much the inputs to a nonlinearity move from one look to '
    'the next: |change of the mean| and |change of the variance|, averaged '
    'over the channels of the layer, and the Wasserstein distance W1 between '
    'the histograms of all channels together; and how far mean and variance '
    'have moved from those of the first look. In the units of the activations '
    f'(variances: squared). {activations.conditions_of(seen)} Logarithmic '
    'axes, shared by the columns. '
    + over_seeds.sentence(seen.runs, logarithmic=True),
    alt='Change of mean and variance of activations, and distance between '
    f'histograms, over training, one column a layer ({", ".join(layers)}). '
    f'Median change of the mean from look to look, {layers[-1]}: '
    + ', '.join(_median(run, seen.key, layers[-1]) for run in seen.runs),
    draw=lambda narrow: layered.drawing(seen, layers, _ROWS, narrow),
    table=layered.table(seen, layers, _ROWS),
  )


def _median(run, key, layer) -> str:
  return f'{run.name} {layered.median(run, key, layer, _ROWS[0])}'
