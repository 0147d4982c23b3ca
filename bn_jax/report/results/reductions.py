"""Series reduced to one number, and how far activations move between looks.

Of activations a look keeps moments of each channel and a histogram, not the
values: what moves is read from these.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from bn_jax import distributions
from bn_jax.report.results import curves, looks
from bn_jax.storage import records

REDUCTIONS = {
  'median': np.median,
  'mean': np.mean,
  'max': np.max,
  'min': np.min,
  'first': lambda values: values[0],
  'range': lambda values: values.max() / values.min(),
}
# Ioffe and Szegedy (2015), Figure 1(b, c).
PERCENTILES = (0.15, 0.5, 0.85)


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


def from_first(seen: Sequence) -> Iterable[tuple]:
  """The first of what was seen, with each of the others."""
  return ((seen[0], later) for later in seen[1:])


def changes(
  seed: curves.Seed,
  key: str,
  layer: str,
  value: str,
  *,
  paired: Callable[[Sequence], Iterable[tuple]] = itertools.pairwise,
) -> tuple[np.ndarray, np.ndarray]:
  """Steps of the later looks, [T], and by how much a moment has changed, [T].

  Santurkar et al. (2018), Figure 8: |m(t + 1) - m(t)| between successive looks
  (a), or |m(t) - m(0)| (b); the mean over channels of the layer.

  Args:
    seed: whose.
    key: of the measure.
    layer: its name.
    value: 'mean' or 'var'.
    paired: looks in order -> those to compare: `itertools.pairwise` for (a),
      `from_first` for (b).
  """
  return _between(
    looks.activations(seed, key, layer), f'{layer}/{value}', paired,
    lambda a, b: np.abs(b - a).mean(),
  )  # fmt: skip


def distances(
  seed: curves.Seed, key: str, layer: str
) -> tuple[np.ndarray, np.ndarray]:
  """Steps of the later looks, [T], and W1 between their pooled histograms."""
  return _between(
    looks.activations(seed, key, layer), f'{layer}/histogram',
    itertools.pairwise, distributions.wasserstein,
  )  # fmt: skip


def percentiles(
  seed: curves.Seed, key: str, layer: str
) -> tuple[np.ndarray, np.ndarray]:
  """Steps, [T], and the `PERCENTILES` of each unit of a layer, [T, 3, C]."""

  def of_look(look: records.Record) -> np.ndarray:
    levels = np.asarray(look.values['levels'])
    places = [int(np.argmin(np.abs(levels - one))) for one in PERCENTILES]
    return np.asarray(look.values[f'{layer}/quantiles'])[places]

  seen = looks.activations(seed, key, layer, 'quantiles')
  return np.array([look.step for look in seen]), np.array(
    [of_look(look) for look in seen]
  )


def _between(
  seen: Sequence[records.Record],
  value: str,
  paired: Callable[[Sequence], Iterable[tuple]],
  distance: Callable,
) -> tuple[np.ndarray, np.ndarray]:
  """Steps of the later looks, [T], and how far apart pairs of values are."""
  values = [look.values[value] for look in seen]
  return (
    np.array([look.step for look in seen[1:]]),
    np.array([distance(a, b) for a, b in paired(values)]),
  )
