"""How much activations move between looks, read from their recorded moments."""

import itertools

import numpy as np

from bn_jax import distributions, records
from bn_jax.report import curves


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


def changes(
  seed: curves.Seed, name: str, layer: str, value: str
) -> tuple[np.ndarray, np.ndarray]:
  """Steps of the later looks, [T], and by how much a moment has changed, [T].

  Santurkar et al. (2018), Figure 8: |m(t + 1) - m(t)| between successive looks,
  the mean over channels of the layer.

  Args:
    seed: whose.
    name: of the measure.
    layer: its name.
    value: 'mean' or 'var'.
  """
  seen = looks(seed, name, layer)
  moments = [look.values[f'{layer}/{value}'] for look in seen]
  steps = np.array([look.step for look in seen[1:]])
  moved = [np.abs(b - a).mean() for a, b in itertools.pairwise(moments)]
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
