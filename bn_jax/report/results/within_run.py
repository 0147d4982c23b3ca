"""Computes statistics that compare what one run and seed recorded with itself.

With the edge of stability of its own optimizer, one layer with the next, one
eigenvalue with another, one entry with another entry. `name`, `value`, `reduce`
and `after` are as in `statistics`.
"""

import math

import numpy as np

from bn_jax.report.results import curves, optimizers, reductions


def of_edge(
  seed: curves.Seed, *, name: str, value: str, reduce: str, after: int = 0
) -> float:
  """Returns a curvature, reduced, over that at which training turns unstable.

  1 is the edge of stability: of gradient descent a curvature of 2 / (learning
  rate), with momentum a larger one, see `optimizers.edge`; nan where it is not
  defined.
  """
  edge = optimizers.edge(seed.manifest['config'])
  rate = optimizers.rate(seed.manifest['config'])
  if edge is None or rate is None or not curves.recorded(seed, name, value):
    return math.nan
  series = seed.series[name]
  curvature = reductions.over(series.step, series.values[value], reduce, after)
  return curvature * rate / edge


def layer_growth(
  seed: curves.Seed,
  *,
  name: str,
  value: str,
  toward: str,
  reduce: str,
  without_first: int = 0,
  without_last: int = 0,
  after: int = 0,
) -> float:
  """Returns by which factor a quantity grows from a layer to the next, reduced.

  exp of the slope of a line by least squares through the logarithms of the
  layers' values against their number, in forward order, or, toward the 'input',
  in the order of the backward pass.

  Args:
    without_first, without_last: how many layers are left out of the fit, where
      the first and the last ones differ from those between.

  Returns:
    nan with fewer than two layers; a look with a value that is not above 0 and
    finite does not count.
  """
  series = seed.series.get(name)
  names = [] if series is None else layers(series, value)
  names = names[without_first : len(names) - without_last]
  if len(names) < 2:
    return math.nan
  values_TL = np.stack([series.values[key] for key in names], axis=1)
  usable_T = (np.isfinite(values_TL) & (values_TL > 0)).all(axis=1)
  logs_TL = np.log(np.where(usable_T[:, None], values_TL, 1.0))
  number_L = np.arange(len(names)) - (len(names) - 1) / 2
  slope_T = logs_TL @ number_L / (number_L @ number_L)
  growth_T = np.exp(-slope_T if toward == 'input' else slope_T)
  growth_T = np.where(usable_T, growth_T, np.nan)
  return reductions.over(series.step, growth_T, reduce, after)


def layers(series: curves.Series, value: str) -> list[str]:
  """Returns the names LAYER/value of a quantity, in the order recorded."""
  return [key for key in series.values if key.rpartition('/')[2] == value]


def place_ratio(
  seed: curves.Seed,
  *,
  name: str,
  value: str,
  first: int,
  last: int,
  reduce: str,
  after: int = 0,
) -> float:
  """Returns one number of a look over another one of it, reduced.

  Of eigenvalues, the largest first, first=1 and last=10 give lambda_1 /
  lambda_10 (Ghorbani et al., 2019, arXiv:1901.10159, section 3.2).
  """
  if not curves.recorded(seed, name, value):
    return math.nan
  series = seed.series[name]
  values_TK = series.values[value]
  if values_TK.ndim != 2 or values_TK.shape[1] < max(first, last):
    return math.nan
  with np.errstate(divide='ignore', invalid='ignore'):
    ratio_T = values_TK[:, first - 1] / values_TK[:, last - 1]
  return reductions.over(series.step, ratio_T, reduce, after)


def over_entry(
  seed: curves.Seed,
  *,
  name: str,
  other: str,
  value: str,
  reduce: str,
  after: int = 0,
) -> float:
  """Returns what `name` recorded over what `other` did at that step, reduced.

  Steps at which one of the two did not look are left out.
  """
  if not all(curves.recorded(seed, entry, value) for entry in (name, other)):
    return math.nan
  series, below = seed.series[name], seed.series[other]
  step_T, above, under = np.intersect1d(
    series.step, below.step, return_indices=True
  )
  with np.errstate(divide='ignore', invalid='ignore'):
    ratio_T = series.values[value][above] / below.values[value][under]
  return reductions.over(step_T, ratio_T, reduce, after)
