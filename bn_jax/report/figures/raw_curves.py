"""All that was recorded along a line, over training, of several seeds."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bn_jax.report.results import curves


class Map(NamedTuple):
  """The raw curves of a run, geometric means over its seeds.

  Attributes:
    step: [T].
    size: [T, E], ascending; nan where the learning rate was 0.
    change: [T, E]; nan where no seed has a number above 0.
  """

  step: np.ndarray
  size: np.ndarray
  change: np.ndarray


def of(run: curves.Run, key: str) -> Map:
  """The map of a run; of seeds that have other step sizes, the first counts."""
  found = {}
  for seed in run.seeds:
    if not curves.recorded(seed, key, 'gradient_change'):
      continue
    series = seed.series[key]
    size_TE = series.values['step_size']
    order_TE = np.argsort(size_TE, axis=1)
    pairs_T2E = np.stack(
      [
        np.take_along_axis(values, order_TE, axis=1)
        for values in (size_TE, series.values['gradient_change'])
      ],
      axis=1,
    )
    for step, pair_2E in zip(series.step, pairs_T2E):
      found.setdefault(int(step), []).append(pair_2E)
  if not found:
    return Map(np.zeros(0, int), np.zeros((0, 1)), np.zeros((0, 1)))
  steps = sorted(found)
  count = found[steps[0]][0].shape[1]
  looks = [
    _geometric([pair for pair in found[step] if pair.shape[1] == count])
    for step in steps
  ]
  kept = [i for i, look in enumerate(looks) if look is not None]
  size_TE, change_TE = np.stack([looks[i] for i in kept], axis=1)
  return Map(np.array(steps)[kept], size_TE, change_TE)


def _geometric(pairs: Sequence[np.ndarray]) -> np.ndarray | None:
  """Geometric mean of pairs [2, E] over what is finite and above 0."""
  if not pairs:
    return None
  with np.errstate(divide='ignore', invalid='ignore'):
    logs = np.log(np.array(pairs))
  good = np.isfinite(logs)
  total = np.where(good, logs, 0).sum(axis=0)
  count = good.sum(axis=0)
  return np.where(count > 0, np.exp(total / np.maximum(count, 1)), np.nan)
