"""Corrupts images as CIFAR-10-C does, with five strengths each.

Hendrycks and Dietterich (2019), "Benchmarking Neural Network Robustness to
Common Corruptions and Perturbations", arXiv:1903.12261. Definitions and
constants are those of the authors' script for 32 x 32 pixels,
ImageNet-C/create_c/make_cifar_c.py of github.com/hendrycks/robustness, but for
frost, which needs photographs. Where that calls OpenCV, scikit-image or
ImageMagick, NumPy, SciPy and Pillow compute the same here, and a docstring says
what differs. On images of other sizes lengths in pixels stay as they are; those
of `elastic_transform` go with the side of an image.

As there, a result is cut to [0, 1] and rounded down to bytes.
"""

import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from bn_jax import checks
from bn_jax.data.corruptions import blurs, digital, noise, weather

STRENGTHS = (1, 2, 3, 4, 5)
_AT_ONCE = 500  # images in float64 at a time: 12 MB of 32 x 32 in colour


class Corruption(NamedTuple):
  """A corruption, with the constants of its five strengths.

  Attributes:
    function: (images in [0, 1], constants, generators) -> images.
    constants: of strength 1 to 5.
    of_grey: whether grey images can have it.
  """

  function: Callable[..., np.ndarray]
  constants: tuple[Any, ...]
  of_grey: bool = True


# The first 14 are of the benchmark, the last four its authors' for validation.
CORRUPTIONS = {
  'gaussian_noise': Corruption(noise.gaussian, (0.04, 0.06, 0.08, 0.09, 0.10)),
  'shot_noise': Corruption(noise.shot, (500, 250, 100, 75, 50)),
  'impulse_noise': Corruption(noise.impulse, (0.01, 0.02, 0.03, 0.05, 0.07)),
  'defocus_blur': Corruption(
    blurs.defocus, ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1))
  ),
  'glass_blur': Corruption(
    blurs.glass,
    ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
  ),
  'motion_blur': Corruption(
    blurs.motion, ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5))
  ),
  'zoom_blur': Corruption(blurs.zoom, (1.06, 1.11, 1.16, 1.21, 1.26)),
  'snow': Corruption(
    weather.snow,
    (
      (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
      (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
      (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
      (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
      (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    ),
  ),
  'fog': Corruption(
    weather.fog, ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75))
  ),
  'brightness': Corruption(digital.brightness, (0.05, 0.1, 0.15, 0.2, 0.3)),
  'contrast': Corruption(digital.contrast, (0.75, 0.5, 0.4, 0.3, 0.15)),
  'elastic_transform': Corruption(
    digital.elastic,
    (
      (0, 0, 0.08),
      (0.05, 0.2, 0.07),
      (0.08, 0.06, 0.06),
      (0.1, 0.04, 0.05),
      (0.1, 0.03, 0.03),
    ),
  ),
  'pixelate': Corruption(digital.pixelate, (0.95, 0.9, 0.85, 0.75, 0.65)),
  'jpeg_compression': Corruption(digital.jpeg, (80, 65, 58, 50, 40)),
  'speckle_noise': Corruption(noise.speckle, (0.06, 0.1, 0.12, 0.16, 0.2)),
  'gaussian_blur': Corruption(blurs.gaussian, (0.4, 0.6, 0.7, 0.8, 1)),
  'spatter': Corruption(
    weather.spatter,
    (
      (0.62, 0.1, 0.7, 0.7, 0.5, False),
      (0.65, 0.1, 0.8, 0.7, 0.5, False),
      (0.65, 0.3, 1, 0.69, 0.5, False),
      (0.65, 0.1, 0.7, 0.69, 0.6, True),
      (0.65, 0.1, 0.5, 0.68, 0.6, True),
    ),
  ),
  'saturate': Corruption(
    digital.saturate,
    ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)),
    of_grey=False,
  ),
}


def corrupted(
  images: np.ndarray, name: str, strength: int, *, first: int = 0, seed: int = 0
) -> np.ndarray:
  """Returns corrupted images, of the same shape and dtype.

  Args:
    images: [N, H, H, 1 or 3] uint8, 0 is black.
    name: a key of `CORRUPTIONS`.
    strength: 1 to 5.
    first: number of the first image in its set. Image i has the same random
      numbers whatever others are corrupted with it.
    seed: of these numbers.

  Raises:
    ValueError: an unknown name or strength; images that cannot have it.
  """
  checks.one_of('name', name, tuple(CORRUPTIONS))
  checks.one_of('strength', strength, STRENGTHS)
  check(name, images.shape[1:], images.dtype.name)
  corruption = CORRUPTIONS[name]
  constants = corruption.constants[strength - 1]
  # A name has numbers of its own, and so has a strength.
  code = zlib.crc32(f'{name}:{strength}'.encode())
  results = np.empty_like(images)
  for begin in range(0, len(images), _AT_ONCE):
    x = images[begin : begin + _AT_ONCE] / 255.0
    rngs = [
      np.random.Generator(np.random.Philox(key=[code, (seed << 32) + i]))
      for i in range(first + begin, first + begin + len(x))
    ]
    x = np.clip(corruption.function(x, constants, rngs), 0, 1)
    results[begin : begin + len(x)] = x * 255  # rounds down
  return results


def check(name: str, shape: tuple[int, ...], dtype: str) -> None:
  """Raises ValueError for images that cannot have a corruption.

  Args:
    shape: of one image, (height, width, channels).
    dtype: of its pixels.
  """
  if len(shape) != 3:
    raise ValueError(f'{name}: inputs are vectors; allowed: images')
  height, width, channels = shape
  if height != width or channels not in (1, 3):
    raise ValueError(
      f'{name}: images are {height} x {width} with {channels} channels; '
      'allowed: squares, grey or in colour'
    )
  if dtype != 'uint8':
    raise ValueError(
      f'{name}: the pixels of images are {dtype}; allowed: uint8'
    )
  if channels == 1 and not CORRUPTIONS[name].of_grey:
    raise ValueError(f'{name}: images are grey; allowed: images in colour')
