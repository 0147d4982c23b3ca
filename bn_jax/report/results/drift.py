"""How much activations move, read from the moments of looks at them."""

import itertools
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from bn_jax import distributions
from bn_jax.report.results import curves
from bn_jax.storage import records


def layers(run: curves.Run, name: str) -> list[str]:
  """The layers that a measure of activations looked at, in forward order."""
  for seed in run.seeds:
    for record in seed.arrays.get(name, ()):
      keys = [key for key in record.values if key.endswith('/mean')]
      return [key.removesuffix('/mean') for key in keys]
  return []


def looks(seed: curves.Seed, name: str, layer: str) -> list[records.Record]:
  """What a measure has seen of a layer, in the order of steps."""
  found = seed.arrays.get(name, ())
  return [look for look in found if f'{layer}/mean' in look.values]


def from_first(seen: Sequence) -> Iterable[tuple]:
  """The first of what was seen, with each of the others."""
  return ((seen[0], later) for later in seen[1:])


def changes(
  seed: curves.Seed,
  name: str,
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
    name: of the measure.
    layer: its name.
    value: 'mean' or 'var'.
    paired: looks in order -> those to compare: `itertools.pairwise` for (a),
      `from_first` for (b).
  """
  seen = looks(seed, name, layer)
  moments = [look.values[f'{layer}/{value}'] for look in seen]
  steps = np.array([look.step for look in seen[1:]])
  moved = [np.abs(b - a).mean() for a, b in paired(moments)]
  return steps, np.array(moved)


def distances(
  seed: curves.Seed, name: str, layer: str
) -> tuple[np.ndarray, np.ndarray]:
  """Steps of the later looks, [T], and W1 between their pooled histograms."""
  seen = looks(seed, name, layer)
  counts = [look.values[f'{layer}/histogram'] for look in seen]
  steps = np.array([look.step for look in seen[1:]])
  moved = [
    distributions.wasserstein(a, b) for a, b in itertools.pairwise(counts)
  ]
  return steps, np.array(moved)


def median_change(
  seed: curves.Seed, name: str, layer: str, value: str
) -> float:
  """Median over training of `changes`; nan where there are none."""
  _, moved = changes(seed, name, layer, value)
  return float(np.median(moved)) if len(moved) else float('nan')
