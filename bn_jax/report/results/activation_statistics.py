"""Statistics of activations, a number a seed; nan where there are no looks."""

import math

import numpy as np

from bn_jax.report.results import curves, drift, reductions
from bn_jax.storage import records

_LEVELS = (0.15, 0.5, 0.85)  # Ioffe and Szegedy (2015), Figure 1


def moment_change(
  seed: curves.Seed,
  *,
  measure: str,
  layer: str,
  reduce: str,
  moment: str = 'mean',
) -> float:
  """|m(t + 1) - m(t)| between looks, mean over channels, reduced over looks.

  Santurkar et al. (2018), Figure 8(a).

  Args:
    seed: whose.
    measure: its key.
    layer: its name.
    reduce: a key of `reductions.REDUCTIONS`.
    moment: 'mean' or 'var', of each channel.
  """
  return reductions.over(*drift.changes(seed, measure, layer, moment), reduce)


def activation_std(
  seed: curves.Seed, *, measure: str, layer: str, reduce: str, after: int = 0
) -> float:
  """sqrt(var), mean over channels, at each look, reduced over looks."""
  seen = drift.looks(seed, measure, layer)
  std_T = [np.sqrt(look.values[f'{layer}/var']).mean() for look in seen]
  return reductions.over([look.step for look in seen], std_T, reduce, after)


def unit_movement(
  seed: curves.Seed,
  *,
  measure: str,
  layer: str,
  of: str,
  relative: bool = False,
) -> float:
  """How much percentiles of units move over training, mean over units.

  The standard deviation over looks of each unit's 50th percentile, or of its
  85th minus its 15th (Ioffe and Szegedy, 2015, Figure 1(b, c)), in the units of
  the activations. Units whose percentiles are not finite are left out.

  Args:
    seed: whose.
    measure: its key.
    layer: its name.
    of: 'median' or 'width'.
    relative: whether it is divided by the unit's mean width over looks; units
      of no width are then left out.
  """
  seen = [
    look
    for look in drift.looks(seed, measure, layer)
    if f'{layer}/quantiles' in look.values
  ]
  if len(seen) < 2:
    return math.nan
  low_TC, middle_TC, high_TC = np.stack(
    [_percentiles(look, layer) for look in seen], axis=1
  )
  width_TC = high_TC - low_TC
  moved_C = {'median': middle_TC, 'width': width_TC}[of].std(axis=0)
  if relative:
    with np.errstate(divide='ignore', invalid='ignore'):
      moved_C = moved_C / width_TC.mean(axis=0)
  moved_C = moved_C[np.isfinite(moved_C)]
  return float(moved_C.mean()) if len(moved_C) else math.nan


def shape_distance(
  seed: curves.Seed, *, measure: str, layer: str, reduce: str
) -> float:
  """W1 between pooled histograms of successive looks, of the earlier's std.

  The variance of all channels together is mean_c(var) + var_c(mean): each has
  as many values. Reduced over looks.
  """
  steps, moved = drift.distances(seed, measure, layer)
  seen = drift.looks(seed, measure, layer)[:-1]
  std = [_pooled_std(look, layer) for look in seen]
  with np.errstate(divide='ignore', invalid='ignore'):
    return reductions.over(steps, moved / np.array(std), reduce)


def _percentiles(look: records.Record, layer: str) -> np.ndarray:
  """[3, C], the 15th, 50th and 85th of each unit."""
  levels = np.asarray(look.values['levels'])
  places = [int(np.argmin(np.abs(levels - level))) for level in _LEVELS]
  return np.asarray(look.values[f'{layer}/quantiles'])[places]


def _pooled_std(look: records.Record, layer: str) -> float:
  mean_C, var_C = (look.values[f'{layer}/{name}'] for name in ('mean', 'var'))
  return float(np.sqrt(np.mean(var_C) + np.var(mean_C)))
