"""Shows images through snow, fog, and drops of water or mud on the lens."""

import numpy as np

from bn_jax.data.corruptions import blurs, noise
from bn_jax.data.disk import levels

_WATER = (175 / 255, 238 / 255, 238 / 255)  # pale turquoise
_MUD = (63 / 255, 42 / 255, 20 / 255)
_FAR = 20  # pixels from an edge, at which depth in a drop ends
# Depth in a drop becomes light and shade, as if light came from above left.
_RELIEF = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])
# Of Canny's edges, in sums of differences of bytes.
_WEAK, _STRONG = 50, 150


def snow(x: np.ndarray, constants, rngs: noise.Rngs) -> np.ndarray:
  """Whitens the image, and adds flakes that fall, `blurs.along` a direction.

  Args:
    constants: mean and deviation of the layer of flakes, its zoom, the
      threshold of a flake, radius and sigma of its blur, share of the image.
  """
  mean, scale, factor, threshold, radius, sigma, share = constants
  shape = (*x.shape[1:3], 1)
  layer = noise.drawn(rngs, lambda rng: rng.normal(mean, scale, shape))
  layer = blurs.zoomed(layer, factor)
  layer[layer < threshold] = 0
  layer = np.floor(np.clip(layer, 0, 1) * 255) / 255
  angles = noise.drawn(rngs, lambda rng: rng.uniform(-135, -45))
  layer = blurs.along(layer, radius, sigma, angles)
  white = np.maximum(x, _grey(x) * 1.5 + 0.5)
  x = share * x + (1 - share) * white
  return x + layer + np.rot90(layer, 2, axes=(1, 2))


def fog(x: np.ndarray, constants, rngs: noise.Rngs) -> np.ndarray:
  """Adds a height map of `plasma`; the brightest pixel stays as bright.

  Args:
    constants: how dense the fog is, and by how much its waves get smaller from
      one length to half of it.
  """
  density, decay = constants
  largest = x.max(axis=(1, 2, 3), keepdims=True)
  side = x.shape[1]
  heights = plasma(rngs, side, decay)[:, :side, :side, None]
  return (x + density * heights) * largest / (largest + density)


def plasma(rngs: noise.Rngs, side: int, decay: float) -> np.ndarray:
  """Returns random heights from 0 to 1, on a torus: diamonds and squares.

  Args:
    side: pixels, which become the next power of two.
  """
  side = 1 << (side - 1).bit_length()
  random = noise.drawn(rngs, lambda rng: rng.uniform(-1, 1, side * side))
  heights = np.zeros((len(rngs), side, side))
  begin = 0

  def rough(total, size):
    nonlocal begin
    count = total[0].size
    wave = random[:, begin : begin + count].reshape(total.shape)
    begin += count
    return total / 4 + size**2 * wave

  def beside(values, shift, axis):
    return values + np.roll(values, shift, axis)

  step, size = side, 100.0
  while step >= 2:
    half = step // 2
    corners = heights[:, ::step, ::step]
    heights[:, half::step, half::step] = rough(
      beside(beside(corners, -1, 1), -1, 2), size
    )
    middles = heights[:, half::step, half::step]
    corners = heights[:, ::step, ::step]
    heights[:, ::step, half::step] = rough(
      beside(middles, 1, 1) + beside(corners, -1, 2), size
    )
    heights[:, half::step, ::step] = rough(
      beside(middles, 1, 2) + beside(corners, -1, 1), size
    )
    step, size = half, size / decay
  heights -= heights.min(axis=(1, 2), keepdims=True)
  return heights / heights.max(axis=(1, 2), keepdims=True)


def spatter(x: np.ndarray, constants, rngs: noise.Rngs) -> np.ndarray:
  """Adds drops of water, with light and shade, or covers with mud.

  OpenCV's edges, histograms and filters are written with NumPy and SciPy here.
  Distances to edges are exact; OpenCV's are those of a 5 x 5 mask, up to 2 %
  off. On grey images the colours are their brightness.

  Args:
    constants: mean and deviation of the layer of liquid, sigma of its blur,
      the threshold of a drop, strength of water or sigma of mud, is it mud.
  """
  mean, scale, blur, threshold, strength, is_mud = constants
  shape = x.shape[1:3]
  liquid = noise.drawn(rngs, lambda rng: rng.normal(mean, scale, shape))
  liquid = blurs.gaussian(liquid, blur)
  liquid[liquid < threshold] = 0
  if is_mud:
    cover = blurs.gaussian((liquid > threshold).astype(np.float64), strength)
    cover[cover < 0.8] = 0
    cover = cover[..., None]
    return x * (1 - cover) + cover * _coloured(_MUD, x)
  light = _light(np.floor(np.clip(liquid * 255, 0, 255)))
  largest = light.max(axis=(1, 2), keepdims=True)
  light = strength * light / np.where(largest > 0, largest, 1)
  return x + light[..., None] * _coloured(_WATER, x)


def _light(liquid: np.ndarray) -> np.ndarray:
  """Returns how bright drops of water are, from bytes, [N, H, W]."""
  from scipy import ndimage

  # So far apart that the nearest edge is one of the same image.
  apart = (1e6, 1, 1)
  depth = ndimage.distance_transform_edt(~edges(liquid), sampling=apart)
  depth = np.floor(_box(np.minimum(depth, _FAR)))
  depth = np.stack([_equalised(one) for one in depth])
  relief = ndimage.correlate(depth, _RELIEF[None], mode='mirror')
  return liquid * np.rint(_box(np.clip(relief, 0, 255)))


def edges(images: np.ndarray) -> np.ndarray:
  """Returns where edges are, bool: Canny (1986), as OpenCV computes it.

  A pixel is on an edge where its gradient, in the norm L1, is the largest along
  its direction, and above 150, or above 50 and joined to such a one.

  Args:
    images: [N, H, W], bytes.
  """
  from scipy import ndimage

  smooth = np.array([1, 2, 1])
  down = ndimage.correlate1d(
    ndimage.correlate1d(images, [-1, 0, 1], 1, mode='nearest'),
    smooth, 2, mode='nearest',
  )  # fmt: skip
  right = ndimage.correlate1d(
    ndimage.correlate1d(images, [-1, 0, 1], 2, mode='nearest'),
    smooth, 1, mode='nearest',
  )  # fmt: skip
  size = np.abs(down) + np.abs(right)
  padded = np.pad(size, ((0, 0), (1, 1), (1, 1)))
  height, width = size.shape[1:]

  def at(row, column):
    rows = slice(1 + row, 1 + row + height)
    return padded[:, rows, 1 + column : 1 + column + width]

  slope = np.tan(np.pi / 8)
  is_flat = np.abs(down) < slope * np.abs(right)
  is_steep = np.abs(down) > np.abs(right) / slope
  is_rising = (down < 0) != (right < 0)
  is_peak = np.select(
    [is_flat, is_steep, is_rising],
    [
      (size > at(0, -1)) & (size >= at(0, 1)),
      (size > at(-1, 0)) & (size >= at(1, 0)),
      (size > at(-1, 1)) & (size > at(1, -1)),
    ],
    (size > at(-1, -1)) & (size > at(1, 1)),
  )
  is_weak = is_peak & (size > _WEAK)
  within = np.zeros((3, 3, 3))
  within[1] = 1  # neighbours of the same image
  numbers, count = ndimage.label(is_weak, within)
  is_joined = np.zeros(count + 1, bool)
  is_joined[numbers[is_weak & (size > _STRONG)]] = True
  is_joined[0] = False
  return is_joined[numbers]


def _box(images: np.ndarray) -> np.ndarray:
  """Returns means over 3 x 3 pixels, with mirrored edges."""
  from scipy import ndimage

  return ndimage.uniform_filter(images, (0, 3, 3), mode='mirror')


def _equalised(image: np.ndarray) -> np.ndarray:
  """Returns bytes that are spread over all levels, by their ranks."""
  counts = np.bincount(image.astype(int).ravel(), minlength=256)
  (lowest, *_), total = np.flatnonzero(counts), image.size
  if counts[lowest] == total:
    return image
  ranks = np.cumsum(counts) - counts[lowest]
  # In float32, so that halves are rounded as OpenCV does.
  scale = np.float32(255) / np.float32(total - counts[lowest])
  table = np.rint(ranks.astype(np.float32) * scale)
  return table[image.astype(int)]


def _grey(x: np.ndarray) -> np.ndarray:
  """Returns the brightness of pixels, [N, H, W, 1]."""
  return x if x.shape[-1] == 1 else x @ np.array(levels.LUMA)[:, None]


def _coloured(colour, x: np.ndarray) -> np.ndarray:
  """Returns a colour for images like x: as it is, or as bright."""
  return np.array(colour) if x.shape[-1] == 3 else np.dot(colour, levels.LUMA)
