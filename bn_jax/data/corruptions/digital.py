"""Changes brightness, contrast and colour, shape, resolution and encoding."""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image

from bn_jax.data.corruptions import noise


def contrast(x: np.ndarray, factor: float, rngs=()) -> np.ndarray:
  """Takes pixels nearer to the mean of their image and channel."""
  del rngs  # nothing is random
  means = x.mean(axis=(1, 2), keepdims=True)
  return (x - means) * factor + means


def brightness(x: np.ndarray, more: float, rngs=()) -> np.ndarray:
  """Adds to V of HSV, the largest of the colours; hue and saturation stay."""
  del rngs
  value = x.max(axis=-1, keepdims=True)
  new_value = np.clip(value + more, 0, 1)
  # Black has no saturation, and becomes grey.
  return np.where(value > 0, x * new_value / np.where(value > 0, value, 1),
                  new_value)  # fmt: skip


def saturate(x: np.ndarray, constants, rngs=()) -> np.ndarray:
  """Changes S of HSV to factor S + more; hue and value stay.

  A pixel without a colour, whose hue is 0, becomes red.
  """
  del rngs
  factor, more = constants
  value, least = (f(axis=-1, keepdims=True) for f in (x.max, x.min))
  below = value - least
  saturation = below / np.where(value > 0, value, 1)
  share = (value - x) / np.where(below > 0, below, 1)  # 0 of the largest
  share = np.where(below > 0, share, np.array([0, 1, 1]))
  new_saturation = np.clip(saturation * factor + more, 0, 1)
  return value * (1 - new_saturation * share)


def elastic(x: np.ndarray, constants, rngs: noise.Rngs) -> np.ndarray:
  """Moves three points of an image, then each pixel by a smooth random way.

  Both are interpolated linearly. OpenCV rounds places in the first to 1/32 of
  a pixel.

  Args:
    constants: length and smoothness of the ways, and the largest distance by
      which a point is moved along each axis, in sides of an image.
  """
  from scipy import ndimage

  length, smoothness, distance = (x.shape[1] * share for share in constants)
  side = x.shape[1]
  middle, third = side // 2, side // 3
  points = np.array([(1, 1), (1, -1), (-1, -1)]) * third + middle
  grid = np.indices((side, side), dtype=np.float64)
  results = np.empty_like(x)
  for n, rng in enumerate(rngs):
    moved = points + rng.uniform(-distance, distance, points.shape)
    # Rows of (x, y, 1) times this are the places that pixels come from.
    back = np.linalg.solve(np.c_[moved, np.ones(3)], points)
    columns = back[0, 0] * grid[1] + back[1, 0] * grid[0] + back[2, 0]
    rows = back[0, 1] * grid[1] + back[1, 1] * grid[0] + back[2, 1]
    ways = [
      length
      * ndimage.gaussian_filter(
        rng.uniform(-1, 1, (side, side)), smoothness, mode='reflect', truncate=3
      )
      for _ in range(2)
    ]
    for channel in range(x.shape[-1]):
      image = ndimage.map_coordinates(
        x[n, ..., channel], (rows, columns), order=1, mode='mirror'
      )
      places = (grid[0] + ways[1], grid[1] + ways[0])
      results[n, ..., channel] = ndimage.map_coordinates(
        image, places, order=1, mode='reflect'
      )
  return results


def pixelate(x: np.ndarray, share: float, rngs=()) -> np.ndarray:
  """Makes an image smaller and large again, both by means over boxes."""
  del rngs

  def smaller_and_back(image):
    small = (int(image.width * share), int(image.height * share))
    box = Image.Resampling.BOX
    return image.resize(small, box).resize(image.size, box)

  return _with_pillow(x, smaller_and_back)


def jpeg(x: np.ndarray, quality: int, rngs=()) -> np.ndarray:
  """Encodes an image as JPEG, and decodes it, with Pillow."""
  del rngs

  def encoded(image):
    file = io.BytesIO()
    image.save(file, 'JPEG', quality=quality)
    return Image.open(file)

  return _with_pillow(x, encoded)


def _with_pillow(
  x: np.ndarray, change: Callable[[Image.Image], Image.Image]
) -> np.ndarray:
  """Returns x with each image changed as bytes."""
  images = np.rint(x * 255).astype(np.uint8)
  is_grey = x.shape[-1] == 1
  new = [
    np.asarray(change(Image.fromarray(one[..., 0] if is_grey else one)))
    for one in images
  ]
  return np.stack(new).reshape(x.shape) / 255
