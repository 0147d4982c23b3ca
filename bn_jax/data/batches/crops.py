"""Squares cut out of images: at random to train, in the middle or many to test.

Pillow images come in, uint8 arrays [size, size, C] go out. What is cut out is
resized bilinearly with antialiasing, once, from the box it was cut out of.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image

_ATTEMPTS = 10
_BILINEAR = Image.Resampling.BILINEAR
# Where a box is more than twice this larger than its result, whole pixels are
# averaged first, which is faster; from 2 on it can hardly be seen.
_GAP = 2.0
# Short sides of an image that is tested at 224 pixels, Szegedy et al. (2014).
_SCALES = (256, 288, 320, 352)
_SCALES_OF = 224

Box = tuple[float, float, float, float]  # left, top, right, bottom


class Crop(NamedTuple):
  """What is cut out of an image to test a network.

  Attributes:
    take: (image, size) -> [size, size, C], or [count, size, size, C] where
      there are several.
    short: pixels that the image's short side is resized to at most, as a
      multiple of size.
  """

  take: Callable[[Image.Image, int], np.ndarray]
  short: float


def random_box(
  extent: tuple[int, int],
  rng: np.random.Generator,
  area: tuple[float, float] = (0.08, 1.0),
  aspect: tuple[float, float] = (3 / 4, 4 / 3),
) -> Box:
  """A box at random: its share of the area even, its aspect log-uniform.

  A draw that does not fit into the image is repeated; after ten of them it is
  the largest box in the middle with an aspect that is allowed. Szegedy et al.
  (2014), "Going Deeper with Convolutions", arXiv:1409.4842, section 6.

  Args:
    extent: (width, height) of the image, in pixels.
    rng: what draws it.
    area: smallest and largest share of the image's area.
    aspect: smallest and largest width / height.
  """
  width, height = extent
  low, high = math.log(aspect[0]), math.log(aspect[1])
  # All at once: a call costs more than a number.
  draws = rng.random((_ATTEMPTS, 4)).tolist()
  for share, shape, across, down in draws:
    pixels = width * height * (area[0] + share * (area[1] - area[0]))
    ratio = math.exp(low + shape * (high - low))
    w, h = round(math.sqrt(pixels * ratio)), round(math.sqrt(pixels / ratio))
    if 0 < w <= width and 0 < h <= height:
      left, top = int(across * (width - w + 1)), int(down * (height - h + 1))
      return left, top, left + w, top + h
  w = min(width, max(1, round(height * aspect[1])))
  h = min(height, max(1, round(width / aspect[0])))
  return _middle(extent, w, h)


def cut(image: Image.Image, box: Box, size: int) -> np.ndarray:
  """What is in a box, resized: [size, size, C] uint8."""
  if image.size != (size, size) or tuple(box) != (0, 0, size, size):
    image = image.resize((size, size), _BILINEAR, box=box, reducing_gap=_GAP)
  return _array(image)


def random_resized(
  image: Image.Image,
  size: int,
  rng: np.random.Generator,
  area: tuple[float, float] = (0.08, 1.0),
  aspect: tuple[float, float] = (3 / 4, 4 / 3),
) -> np.ndarray:
  """A random part of an image, resized, see `random_box`: [size, size, C]."""
  return cut(image, random_box(image.size, rng, area, aspect), size)


def center(image: Image.Image, size: int, share: float = 0.875) -> np.ndarray:
  """The middle square: [size, size, C].

  The short side is resized to size / share and size x size are cut out, with
  one resampling. An image of that very size is not resampled.
  """
  if image.size == (size, size):
    return _array(image)
  side = min(image.size) * size / max(size, round(size / share))
  return cut(image, _middle(image.size, side, side), size)


def paper_144(image: Image.Image, size: int = 224) -> np.ndarray:
  """The 144 crops of Szegedy et al. (2014), section 7: [144, size, size, C].

  Crop 36 s + 12 q + 2 k + m is of
    scale s: the short side is resized to 256, 288, 320 or 352 pixels, for a
      size of 224, in proportion for others;
    square q: the left, middle or right one of the scaled image, or top, middle
      and bottom of one that is higher than wide;
    place k in it: top left, top right, bottom left, bottom right, middle, of
      `size` pixels, then the whole square, resized;
    mirror m: as it is, and mirrored left to right.
  """
  found = []
  for scale in _SCALES:
    short = round(scale * size / _SCALES_OF)
    scaled = _with_short_side(image, short)
    pixels = _array(scaled)
    for left, top in _squares(scaled.size, short):
      square = pixels[top : top + short, left : left + short]
      far, middle = short - size, (short - size) // 2
      for y, x in ((0, 0), (0, far), (far, 0), (far, far), (middle, middle)):
        found.append(square[y : y + size, x : x + size])
      found.append(cut(scaled, (left, top, left + short, top + short), size))
  return np.stack([view for one in found for view in (one, one[:, ::-1])])


CROPS = {
  1: Crop(center, 1 / 0.875),
  144: Crop(paper_144, _SCALES[-1] / _SCALES_OF),
}


def crops(count: int) -> Crop:
  """The crops of an image by their number, a key of `CROPS`.

  Raises:
    ValueError: no such number.
  """
  if count not in CROPS:
    allowed = ', '.join(map(str, CROPS))
    raise ValueError(f'crops is {count!r}; allowed: {allowed} of an image')
  return CROPS[count]


def _middle(extent: tuple[int, int], width: float, height: float) -> Box:
  left, top = (extent[0] - width) / 2, (extent[1] - height) / 2
  return left, top, left + width, top + height


def _with_short_side(image: Image.Image, short: int) -> Image.Image:
  width, height = image.size
  side = min(width, height)
  extent = round(width * short / side), round(height * short / side)
  if extent == image.size:
    return image
  return image.resize(extent, _BILINEAR, reducing_gap=_GAP)


def _squares(extent: tuple[int, int], side: int) -> list[tuple[int, int]]:
  """(left, top) of the first, middle and last square along the long side."""
  width, height = extent
  room = max(extent) - side
  starts = (0, room // 2, room)
  if width >= height:
    return [(start, 0) for start in starts]
  return [(0, start) for start in starts]


def _array(image: Image.Image) -> np.ndarray:
  """[H, W, C] uint8; an image in grey has one channel."""
  width, height = image.size
  return np.asarray(image).reshape(height, width, -1)
