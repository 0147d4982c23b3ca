"""What the effective beta reads: the curvature, or the smallest step.

Santurkar et al. (2018), Figure 4(c), draws the largest |g(e) - g| / (e |d|).
As e goes to 0 that is beta_0 = |H d| / |d|. But where the smallest step has
wiped the gradient out, it is 1 / (smallest e), whatever the curvature is.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from bn_jax.report.results import curves, looks

_NEAR_CURVATURE = 0.2
_NEAR_STEP = 0.1
_APART = 1.5  # by this factor, beta_0 is another number than 1 / (smallest e)


class Medians(NamedTuple):
  """Medians over training, means over the seeds.

  Attributes:
    beta: the largest over e.
    beta_0: of the Hessian.
    step: 1 / (smallest e).
  """

  beta: float
  beta_0: float
  step: float


def medians(run: curves.Run, key: str) -> Medians | None:
  """Of the seeds that have looked at the curvature; None for none."""
  seeds = [s for s in run.seeds if curves.recorded(s, key, 'beta_0')]
  found = Medians(
    _mean(seeds, functools.partial(_upper, key=key)),
    _mean(seeds, functools.partial(curves.median_of, name=key, value='beta_0')),
    _mean(seeds, functools.partial(_smallest, key=key)),
  )
  return found if np.isfinite(found).all() else None


def reading(found: Medians) -> str:
  """What beta reads, by the rule that `limit` states."""
  if abs(found.beta - found.beta_0) <= _NEAR_CURVATURE * found.beta_0:
    return 'reads the curvature'
  wiped = abs(found.beta - found.step) <= _NEAR_STEP * found.step
  if wiped and found.beta_0 > _APART * found.step:
    return 'reads the smallest step'
  return 'reads neither of them'


def limit(seen: looks.Looks) -> str:
  """What beta reads, run by run, where the curvature is known; else ''.

  It ends with a space.
  """
  found = [(run.name, medians(run, seen.key)) for run in seen.runs]
  found = [(name, values) for name, values in found if values]
  if not found:
    return ''
  listed = '; '.join(
    f'{name}: {values.beta:.4g}, {values.beta_0:.4g} and {values.step:.4g}, '
    f'{reading(values)}'
    for name, values in found
  )
  return (
    'Dotted: beta_0 = |H·d| / |d|, to which beta tends as e goes to 0. The '
    'largest beta reads the curvature where it is within '
    f'{100 * _NEAR_CURVATURE:.0f} % of beta_0, and the smallest step where it '
    f'is within {100 * _NEAR_STEP:.0f} % of 1 / (smallest e) and beta_0 is '
    f'more than {_APART:g} times that. Medians over the looks of the largest '
    f'beta, beta_0 and 1 / (smallest e): {listed}. '
  )


def _mean(seeds, read: Callable[[curves.Seed], float]) -> float:
  values = [value for seed in seeds if np.isfinite(value := read(seed))]
  return float(np.mean(values)) if values else np.nan


def _upper(seed: curves.Seed, key: str) -> float:
  return curves.median_upper(seed, key, 'beta')


def _smallest(seed: curves.Seed, key: str) -> float:
  """Median over training of 1 / (smallest e), looks without a step aside."""
  low_T, _ = curves.band(seed.series[key], 'step_size')
  return curves.median(1 / low_T[low_T > 0])
