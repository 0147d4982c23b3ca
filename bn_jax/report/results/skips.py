"""Updates that were left out of training, as they were not finite."""

import numpy as np

# It is recorded only while a config says so, which may change on the way.
NAME = 'skipped'


def left_out(values: dict[str, np.ndarray]) -> np.ndarray:
  """Which rows of training, [T], are of an update that was left out.

  Args:
    values: of 'train'. Where a row has none of `skipped`, which counts up to
      its step, it is as before; where none has, nothing was left out.
  """
  if NAME not in values:
    return np.zeros(len(next(iter(values.values()))), bool)
  counted_T = np.nan_to_num(values[NAME], nan=0.0)
  return np.diff(np.maximum.accumulate(counted_T), prepend=0) > 0


def without(
  step_T: np.ndarray, values: dict[str, np.ndarray], name: str
) -> tuple[np.ndarray, np.ndarray]:
  """(steps, one value) of the batches whose update was not left out."""
  kept_T = ~left_out(values)
  return step_T[kept_T], values[name][kept_T]
