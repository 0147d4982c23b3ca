"""Reduces series to one number, and tells how far activations move.

A look at activations records moments of each channel and histograms, not the
values themselves: how far these move is read from moments and histograms.
"""

import functools
import inspect
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
# Steps of looks and a number at each, [T] both; None where nothing is recorded.
OfLooks = tuple[Sequence[int], Sequence[float]] | None
# Of Figure 1(b, c) of Ioffe and Szegedy (2015).
PERCENTILES = (0.15, 0.5, 0.85)


def over(
  step_T: np.ndarray, values_T: np.ndarray, reduce: str, after: int = 0
) -> float:
  """Returns a series reduced over its looks at step `after` and later.

  `reduce` is a key of `REDUCTIONS`: 'range' is the largest over the smallest.
  Looks with nan are left out; nan where none is left.
  """
  step_T, values_T = np.asarray(step_T), np.asarray(values_T, float)
  numbers = values_T[(step_T >= after) & ~np.isnan(values_T)]
  if not len(numbers):
    return math.nan
  with np.errstate(divide='ignore', invalid='ignore'):
    return float(REDUCTIONS[reduce](numbers))


def reduced(of_looks: Callable[..., OfLooks]) -> Callable[..., float]:
  """Makes a statistic of (seed, ...) -> its numbers at looks.

  It has two more keywords, `reduce` and `after`, those of `over`.
  """

  @functools.wraps(of_looks)
  def statistic(
    seed: curves.Seed, *, reduce: str, after: int = 0, **keywords
  ) -> float:
    with np.errstate(divide='ignore', invalid='ignore'):
      found = of_looks(seed, **keywords)
    return math.nan if found is None else over(*found, reduce, after)

  own = inspect.signature(of_looks).parameters.values()
  added = inspect.signature(statistic, follow_wrapped=False).parameters
  every = [*own, added['reduce'], added['after']]
  # What has no default stands first: messages name keywords in this order.
  every.sort(key=lambda keyword: keyword.default is not keyword.empty)
  statistic.__signature__ = inspect.Signature(every)
  return statistic


def from_first(items: Sequence) -> Iterable[tuple]:
  """Returns the first item paired with each of the others."""
  return ((items[0], later) for later in items[1:])


def changes(
  seed: curves.Seed,
  name: str,
  layer: str,
  moment: str,
  *,
  paired: Callable[[Sequence], Iterable[tuple]] = itertools.pairwise,
) -> tuple[np.ndarray, np.ndarray]:
  """Returns steps of the later looks, [T], and how far a moment moved, [T].

  Santurkar et al. (2018), Figure 8: |m(t + 1) - m(t)| between successive looks
  (a), or |m(t) - m(0)| (b); the mean over channels of the layer.

  `moment` is 'mean' or 'var'; `paired` gives the looks to compare:
  `itertools.pairwise` for (a), `from_first` for (b).
  """
  return _between(
    looks.activations(seed, name, layer), f'{layer}/{moment}', paired,
    lambda a, b: np.abs(b - a).mean(),
  )  # fmt: skip


def distances(
  seed: curves.Seed, name: str, layer: str
) -> tuple[np.ndarray, np.ndarray]:
  """Returns steps of the later looks, [T], and W1 between all values, [T]."""
  return _between(
    looks.activations(seed, name, layer), f'{layer}/histogram',
    itertools.pairwise, distributions.wasserstein,
  )  # fmt: skip


def percentiles(
  seed: curves.Seed, name: str, layer: str
) -> tuple[np.ndarray, np.ndarray]:
  """Returns steps, [T], and the `PERCENTILES` of each unit, [T, 3, C]."""

  def of_look(look: records.Record) -> np.ndarray:
    levels = np.asarray(look.values['levels'])
    # Levels are recorded in float32.
    nearest = [int(np.argmin(np.abs(levels - p))) for p in PERCENTILES]
    return np.asarray(look.values[f'{layer}/quantiles'])[nearest]

  looks_T = looks.activations(seed, name, layer, 'quantiles')
  return np.array([look.step for look in looks_T]), np.array(
    [of_look(look) for look in looks_T]
  )


def _between(
  looks_T: Sequence[records.Record], value: str, paired, distance: Callable
) -> tuple[np.ndarray, np.ndarray]:
  """Returns steps of the later looks, [T], and each pair's distance, [T]."""
  values = [look.values[value] for look in looks_T]
  return (
    np.array([look.step for look in looks_T[1:]]),
    np.array([distance(a, b) for a, b in paired(values)]),
  )
