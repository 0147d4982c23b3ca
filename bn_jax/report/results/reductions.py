"""One number of a series over training."""

import math

import numpy as np

REDUCTIONS = {
  'median': np.median,
  'mean': np.mean,
  'max': np.max,
  'min': np.min,
  'first': lambda values: values[0],
  'range': lambda values: values.max() / values.min(),
}


def over(
  step_T: np.ndarray, values_T: np.ndarray, reduce: str, after: int = 0
) -> float:
  """A series reduced over its looks at step `after` and later.

  What is nan is left out; nan of nothing.

  Args:
    step_T: of the looks.
    values_T: what they saw.
    reduce: a key of `REDUCTIONS`; 'range' is the largest over the smallest.
    after: the first step that counts.
  """
  step_T, values_T = np.asarray(step_T), np.asarray(values_T, float)
  kept = values_T[(step_T >= after) & ~np.isnan(values_T)]
  if not len(kept):
    return math.nan
  with np.errstate(divide='ignore', invalid='ignore'):
    return float(REDUCTIONS[reduce](kept))
