"""Adds noise: thermal, of photons, of dead pixels, and in proportion.

A corruption takes images, [N, H, W, C] in [0, 1], its strength's constants and
a random generator for each image.
"""

from collections.abc import Callable, Sequence

import numpy as np

Rngs = Sequence[np.random.Generator]


def drawn(rngs: Rngs, draw: Callable[[np.random.Generator], object]):
  """Returns what is drawn for each image, [N, ...]."""
  return np.stack([draw(rng) for rng in rngs])


def gaussian(x: np.ndarray, scale: float, rngs: Rngs) -> np.ndarray:
  """Adds Gaussian noise of this standard deviation."""
  return x + scale * drawn(rngs, lambda rng: rng.normal(size=x.shape[1:]))


def shot(x: np.ndarray, photons: float, rngs: Rngs) -> np.ndarray:
  """Replaces a pixel by a Poisson count over `photons`, those of white."""
  counts = [rng.poisson(one * photons) for rng, one in zip(rngs, x)]
  return np.stack(counts) / photons


def impulse(x: np.ndarray, share: float, rngs: Rngs) -> np.ndarray:
  """Makes this share of the numbers 0 or 1, each with probability 1/2."""
  is_hit = drawn(rngs, lambda rng: rng.random(x.shape[1:])) < share
  is_white = drawn(rngs, lambda rng: rng.random(x.shape[1:])) < 0.5
  return np.where(is_hit, is_white, x)


def speckle(x: np.ndarray, scale: float, rngs: Rngs) -> np.ndarray:
  """Adds Gaussian noise in proportion to the pixel."""
  return x + x * scale * drawn(rngs, lambda rng: rng.normal(size=x.shape[1:]))
