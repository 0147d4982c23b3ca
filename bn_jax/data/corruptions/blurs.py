"""Blurs images: out of focus, through glass, moved or zoomed while exposed."""

import numpy as np

from bn_jax.data.corruptions import noise

_GRID = 8  # the kernel of a lens reaches so many pixels each way
_TAPS = 3  # of the Gaussian that smooths the edge of its disk


def gaussian(x: np.ndarray, sigma: float, rngs=()) -> np.ndarray:
  """Convolves with a Gaussian that reaches 4 sigma; edges go on as they are."""
  from scipy import ndimage

  del rngs  # nothing is random
  sigmas = (0, sigma, sigma, 0)[: x.ndim]
  return ndimage.gaussian_filter(x, sigmas, mode='nearest', truncate=4.0)


def defocus(x: np.ndarray, constants, rngs=()) -> np.ndarray:
  """Convolves with a disk, `lens`; edges are mirrored."""
  from scipy import ndimage

  del rngs
  kernel = lens(*constants)[None, :, :, None]
  return ndimage.correlate(x, kernel, mode='mirror')


def lens(radius: float, sigma: float) -> np.ndarray:
  """Returns a disk whose edge 3 x 3 Gaussian weights have smoothed."""
  from scipy import ndimage

  line = np.arange(-_GRID, _GRID + 1)
  disk = (line**2 + line[:, None] ** 2 <= radius**2).astype(np.float64)
  taps = np.exp(-((np.arange(_TAPS) - _TAPS // 2) ** 2) / (2 * sigma**2))
  taps /= taps.sum()
  disk = ndimage.correlate(disk / disk.sum(), np.outer(taps, taps))
  near = slice(_GRID - 3, _GRID + 4)  # all that is not zero, up to radius 2
  return disk[near, near]


def glass(x: np.ndarray, constants, rngs: noise.Rngs) -> np.ndarray:
  """Blurs, moves pixels to places near by, and blurs again.

  As in the script that made CIFAR-10-C, a pixel is overwritten by its
  neighbour and not exchanged with it: the right side of its exchange is a view
  of what its left side has changed. Images are bytes in between.

  Args:
    constants: sigma of the blur, distance of neighbours, number of passes.
  """
  sigma, distance, passes = constants
  x = np.floor(gaussian(x, sigma) * 255)
  height, width = x.shape[1:3]
  rows = range(height - distance, distance, -1)
  columns = range(width - distance, distance, -1)
  shape = (passes, len(rows), len(columns), 2)
  moves = noise.drawn(
    rngs, lambda rng: rng.integers(-distance, distance, size=shape)
  )
  images = np.arange(len(x))
  for k in range(passes):
    for i, row in enumerate(rows):
      for j, column in enumerate(columns):
        to_right, down = moves[:, k, i, j].T
        x[:, row, column] = x[images, row + down, column + to_right]
  return gaussian(x / 255, sigma)


def motion(x: np.ndarray, constants, rngs: noise.Rngs) -> np.ndarray:
  """Blurs `along` a direction from -45 to 45 degrees, drawn for each image."""
  angles = noise.drawn(rngs, lambda rng: rng.uniform(-45, 45))
  return along(x, *constants, angles)


def along(
  x: np.ndarray, radius: int, sigma: float, angles: np.ndarray
) -> np.ndarray:
  """Returns the weighted mean of pixels along a ray, as ImageMagick's blur.

  Pixel i of 2 radius + 1 has the weight exp(-i^2 / (2 sigma^2)); it is the
  nearest to the ray, and the edges of an image go on as they are. The result is
  rounded to bytes, as the blurred file is.

  Args:
    x: [N, H, W, C].
    angles: [N], in degrees, downwards from the right.
  """
  taps = np.arange(2 * radius + 1)
  weights = np.exp(-(taps**2) / (2 * sigma**2))
  weights /= weights.sum()
  weights = weights[weights > 1e-6]  # far below a byte
  height, width = x.shape[1:3]
  reach = len(weights)
  padded = np.pad(
    x, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode='edge'
  )
  blurred = np.zeros_like(x)
  for n, angle in enumerate(np.deg2rad(angles)):
    downs = np.ceil(taps * np.sin(angle) - 0.5).astype(int) + reach
    rights = np.ceil(taps * np.cos(angle) - 0.5).astype(int) + reach
    for weight, down, right in zip(weights, downs, rights):
      view = padded[n, down : down + height, right : right + width]
      blurred[n] += weight * view
  return np.rint(blurred * 255) / 255


def zoom(x: np.ndarray, last: float, rngs=()) -> np.ndarray:
  """Returns the mean of the image and its middle, zoomed by 1, 1.01, ..."""
  del rngs
  factors = np.arange(1, last, 0.01)
  total = x.copy()
  for factor in factors:
    total += zoomed(x, factor)
  return total / (len(factors) + 1)


def zoomed(x: np.ndarray, factor: float) -> np.ndarray:
  """Returns the middle of squares, [N, H, H, C], at the size of the whole.

  It is interpolated linearly, from the first of its pixels to the last.
  """
  side = x.shape[1]
  kept = int(np.ceil(side / factor))
  count = round(kept * factor)
  trim = (count - side) // 2
  places = np.linspace(0, kept - 1, count)[trim : trim + side]
  places += (side - kept) // 2
  low = np.minimum(places.astype(int), side - 2)
  share = places - low
  for axis in (1, 2):
    weight = share.reshape(-1, *(1,) * (3 - axis))
    below, above = (np.take(x, low + k, axis) for k in (0, 1))
    x = below + weight * (above - below)
  return x
