"""Statistics of the landscape and of what layers recorded, a number a seed.

Band and edge are over step sizes at each look: the loss, the change of the
gradient, the effective beta at each point along the gradient (Santurkar et
al., 2018, section 3.1).
"""

import math
from collections.abc import Sequence

import numpy as np

from bn_jax.report.results import curves, reductions

_NEAR = 1e-3  # relative: step sizes are recorded in float32


def band_width(
  seed: curves.Seed, *, measure: str, value: str, reduce: str, after: int = 0
) -> float:
  """max_e v - min_e v at each look, reduced over looks."""
  if not curves.recorded(seed, measure, value):
    return math.nan
  series = seed.series[measure]
  low_T, high_T = curves.band(series, value)
  return reductions.over(series.step, high_T - low_T, reduce, after)


def upper_edge(
  seed: curves.Seed, *, measure: str, value: str, reduce: str, after: int = 0
) -> float:
  """max_e v at each look, reduced over looks."""
  if not curves.recorded(seed, measure, value):
    return math.nan
  series = seed.series[measure]
  high_T = curves.band(series, value)[1]
  return reductions.over(series.step, high_T, reduce, after)


def beta_of_rate(
  seed: curves.Seed, *, measure: str, reduce: str, after: int = 0
) -> float:
  """max_e beta at each look, reduced over looks, times (learning rate) / 2.

  1 is the edge of stability: beta = 2 / (learning rate).
  """
  beta = upper_edge(
    seed, measure=measure, value='beta', reduce=reduce, after=after
  )
  return beta * _rate(seed) / 2


def curvature_of_rate(
  seed: curves.Seed, *, measure: str, reduce: str, after: int = 0
) -> float:
  """g'Hg / |g|^2 reduced over looks, times (learning rate) / 2.

  1 is the edge of stability (Cohen et al., 2021, arXiv:2103.00065).
  """
  if not curves.recorded(seed, measure, 'curvature'):
    return math.nan
  series = seed.series[measure]
  curvature_T = series.values['curvature']
  found = reductions.over(series.step, curvature_T, reduce, after)
  return found * _rate(seed) / 2


def at_factor(
  seed: curves.Seed,
  *,
  measure: str,
  value: str,
  factor: float,
  reduce: str,
  after: int = 0,
) -> float:
  """v at the step size factor * (learning rate), reduced over looks."""
  if not curves.recorded(seed, measure, value):
    return math.nan
  series = seed.series[measure]
  value_T = _at(seed, series, value, factor)
  return reductions.over(series.step, value_T, reduce, after)


def growth(
  seed: curves.Seed,
  *,
  measure: str,
  value: str,
  factors: Sequence[float],
  reduce: str,
  after: int = 0,
) -> float:
  """v(b) / v(a) at each look, reduced over looks.

  Args:
    seed: whose.
    measure: its key.
    value: recorded at each step size.
    factors: (a, b), in learning rates.
    reduce: a key of `reductions.REDUCTIONS`.
    after: the first step that counts.
  """
  if not curves.recorded(seed, measure, value):
    return math.nan
  series = seed.series[measure]
  first_T, second_T = (_at(seed, series, value, factor) for factor in factors)
  with np.errstate(divide='ignore', invalid='ignore'):
    ratio_T = second_T / first_T
  return reductions.over(series.step, ratio_T, reduce, after)


def of_measure(
  seed: curves.Seed, *, measure: str, value: str, reduce: str, after: int = 0
) -> float:
  """What a measure recorded, a number a look, reduced over looks."""
  if not curves.recorded(seed, measure, value):
    return math.nan
  series = seed.series[measure]
  return reductions.over(series.step, series.values[value], reduce, after)


def of_layer(
  seed: curves.Seed,
  *,
  measure: str,
  value: str,
  layer: str,
  reduce: str,
  after: int = 0,
) -> float:
  """What a measure recorded of a layer, reduced over looks."""
  name = f'{layer}/{value}'
  if not curves.recorded(seed, measure, name):
    return math.nan
  series = seed.series[measure]
  return reductions.over(series.step, series.values[name], reduce, after)


def _rate(seed: curves.Seed) -> float:
  return seed.manifest['config']['schedule']['learning_rate']


def _at(
  seed: curves.Seed, series: curves.Series, value: str, factor: float
) -> np.ndarray:
  """[T], the value at a step size; nan where that was not taken."""
  sizes_TE, values_TE = series.values['step_size'], series.values[value]
  wanted = factor * _rate(seed)
  there_TE = np.abs(sizes_TE - wanted) <= _NEAR * wanted
  # A sum over the one place: what stands elsewhere may be infinite.
  value_T = np.where(there_TE, values_TE, 0).sum(axis=1)
  return np.where(there_TE.sum(axis=1) == 1, value_T, np.nan)
