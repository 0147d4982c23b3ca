"""Tells what the effective beta reads: the curvature, or the smallest step.

Santurkar et al. (2018), Figure 4(c), draws the largest |g(e) - g| / (e |d|).
As e goes to 0 it tends to beta_0 = |H d| / |d|. But where the smallest step has
wiped g out, the largest is 1 / (smallest e), whatever the curvature is.
"""

import functools
from typing import NamedTuple

import numpy as np

from bn_jax.report.results import curves, looks

# How near counts as "reads", relative. Both are choices, which the caption
# states: the narrower, the more runs read neither; the wider, the less it says.
_NEAR_CURVATURE = 0.2
_NEAR_STEP = 0.1
# Where beta_0 is about 1 / (smallest e), as at the edge of stability, a beta
# near either is near both: only a beta_0 this much larger tells them apart.
_APART = 1.5


class Medians(NamedTuple):
  """Medians over training, means over the seeds."""

  beta: float  # the largest |g(e) - g| / (e |d|) over e
  beta_0: float  # |H d| / |d|, from the Hessian H
  step: float  # 1 / (smallest e)


def medians(run: curves.Run, name: str) -> Medians | None:
  """Returns those of the seeds with beta_0; None if one is not finite."""
  seeds = [seed for seed in run.seeds if curves.recorded(seed, name, 'beta_0')]
  changes = {'beta': curves.upper, 'beta_0': np.asarray, 'step_size': _inverse}
  readers = [
    functools.partial(curves.median_of, name=name, value=value, change=change)
    for value, change in changes.items()
  ]
  means = Medians(*(curves.mean_over(seeds, read) for read in readers))
  return means if np.isfinite(means).all() else None


def reading(means: Medians) -> str:
  """Returns what beta reads, by the rule that `limit` states."""
  beta, beta_0, step = means
  if abs(beta - beta_0) <= _NEAR_CURVATURE * beta_0:
    return 'reads the curvature'
  if abs(beta - step) <= _NEAR_STEP * step and beta_0 > _APART * step:
    return 'reads the smallest step'
  return 'reads neither of them'


def limit(entry: looks.Entry, d: str) -> str:
  """Returns what beta reads in each run that recorded beta_0; '' for none.

  `d` is the symbol of the direction: 'd' or 'g'.
  """
  by_run = [(run.name, medians(run, entry.name)) for run in entry.runs]
  readings = '; '.join(
    f'{name}: {means.beta:.4g}, {means.beta_0:.4g} and {means.step:.4g}, '
    f'{reading(means)}'
    for name, means in by_run
    if means
  )
  if not readings:
    return ''
  return (
    f'Dotted: beta_0 = |H·{d}| / |{d}| with the Hessian H of L, to which beta '
    'tends as e goes to 0. The largest beta reads the curvature where it is '
    f'within {100 * _NEAR_CURVATURE:.0f} % of beta_0, and the smallest step '
    f'where it is within {100 * _NEAR_STEP:.0f} % of 1 / (smallest e) and '
    f'beta_0 is more than {_APART:g} times that. Medians over training of the '
    f'largest beta, beta_0 and 1 / (smallest e): {readings}.'
  )


def _inverse(size_TE: np.ndarray) -> np.ndarray:
  """Returns 1 / (smallest e) of the looks with an e above 0."""
  low_T, _ = curves.band(size_TE)
  return 1 / low_T[low_T > 0]
