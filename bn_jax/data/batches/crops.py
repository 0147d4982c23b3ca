"""Cuts squares out of images: at random to train, the middle or 144 to test.

A crop of an image, see `pixels.Picture`, is an array, [size, size, C] uint8 or
float32. Resizing is bilinear with antialiasing; only whole squares of
`paper_144` are resized twice.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image

from bn_jax.data.disk import pixels

# Draws before the fallback, the middle of the image: the number that the usual
# implementations of this crop use (torchvision's RandomResizedCrop among them).
_ATTEMPTS = 10
_BILINEAR = Image.Resampling.BILINEAR
# Pillow's reducing_gap: it first averages whole blocks of pixels, which is
# faster, but keeps at least this many times the result's size. Pillow's manual
# calls 2 very close to fair resampling.
_GAP = 2.0
# Short sides, in pixels, to which Szegedy et al. (2014) resize a test image of
# a network for 224 pixels.
_SCALES = (256, 288, 320, 352)
_SCALES_OF = 224

Box = tuple[float, float, float, float]  # left, top, right, bottom


class Crop(NamedTuple):
  """A way to cut test inputs out of an image.

  Attributes:
    take: (image, size) -> [size, size, C], or [count, size, size, C] for
      several crops.
    short: the largest short side to which `take` resizes the image, as a
      multiple of size; a JPEG need not be decoded at a much larger size.
  """

  take: Callable[[pixels.Picture, int], np.ndarray]
  short: float


def random_box(
  extent: tuple[int, int],
  rng: np.random.Generator,
  area: tuple[float, float] = (0.08, 1.0),
  aspect: tuple[float, float] = (3 / 4, 4 / 3),
) -> Box:
  """Draws a box: its share of the area uniform, its aspect log-uniform.

  A box that does not fit into the image is drawn again; after ten, it is the
  largest one in the middle with an allowed aspect. The default ranges are from
  Szegedy et al. (2014), "Going Deeper with Convolutions", arXiv:1409.4842,
  section 6.

  Args:
    extent: (width, height) of the image, in pixels.
    area: smallest and largest share of the image's area.
    aspect: smallest and largest width / height.
  """
  width, height = extent
  low, high = math.log(aspect[0]), math.log(aspect[1])
  # All draws at once: a call costs more than the numbers.
  draws = rng.random((_ATTEMPTS, 4)).tolist()
  for u_area, u_aspect, u_left, u_top in draws:
    count = width * height * (area[0] + u_area * (area[1] - area[0]))
    ratio = math.exp(low + u_aspect * (high - low))
    w, h = round(math.sqrt(count * ratio)), round(math.sqrt(count / ratio))
    if 0 < w <= width and 0 < h <= height:
      left, top = int(u_left * (width - w + 1)), int(u_top * (height - h + 1))
      return left, top, left + w, top + h
  w = min(width, max(1, round(height * aspect[1])))
  h = min(height, max(1, round(width / aspect[0])))
  return _middle(extent, w, h)


def cut(image: pixels.Picture, box: Box, size: int) -> np.ndarray:
  """Returns a box of an image, resized to [size, size, C]."""
  if image.size != (size, size) or tuple(box) != (0, 0, size, size):
    image = image.resize((size, size), _BILINEAR, box=box, reducing_gap=_GAP)
  return pixels.as_array(image)


def random_resized(
  image: pixels.Picture,
  size: int,
  rng: np.random.Generator,
  area: tuple[float, float] = (0.08, 1.0),
  aspect: tuple[float, float] = (3 / 4, 4 / 3),
) -> np.ndarray:
  """Returns a `random_box` of an image, resized to [size, size, C]."""
  return cut(image, random_box(image.size, rng, area, aspect), size)


def center(
  image: pixels.Picture, size: int, share: float = 0.875
) -> np.ndarray:
  """Returns the middle square of an image, [size, size, C].

  The short side is resized to size / share, and the middle size x size pixels
  are cut out, in one resampling. The default, 224 of 256 pixels, is the usual
  test crop of ImageNet. An image of size x size is returned as it is.
  """
  if image.size == (size, size):
    return pixels.as_array(image)
  side = min(image.size) * size / max(size, round(size / share))
  return cut(image, _middle(image.size, side, side), size)


def paper_144(image: pixels.Picture, size: int = 224) -> np.ndarray:
  """Returns the 144 crops of Szegedy et al. (2014), section 7, of an image.

  They are [144, size, size, C]. Crop 36 s + 12 q + 2 k + m has
    scale s: the short side is resized to 256, 288, 320 or 352 pixels for size
      224, and in proportion for other sizes;
    square q: the left, middle or right square of the scaled image, or its top,
      middle or bottom one if it is higher than wide;
    crop k of that square: top left, top right, bottom left, bottom right and
      middle, each of `size` pixels, then the whole square, resized;
    mirror m: as it is, then mirrored left to right.
  """
  views = []
  for scale in _SCALES:
    short = round(scale * size / _SCALES_OF)
    scaled = _with_short_side(image, short)
    values = pixels.as_array(scaled)
    for left, top in _squares(scaled.size, short):
      square = values[top : top + short, left : left + short]
      end, middle = short - size, (short - size) // 2
      for y, x in ((0, 0), (0, end), (end, 0), (end, end), (middle, middle)):
        views.append(square[y : y + size, x : x + size])
      views.append(cut(scaled, (left, top, left + short, top + short), size))
  return np.stack([x for crop in views for x in (crop, crop[:, ::-1])])


CROPS = {
  1: Crop(center, 1 / 0.875),
  144: Crop(paper_144, _SCALES[-1] / _SCALES_OF),
}


def crops(count: int) -> Crop:
  """Returns the way to cut `count` crops out of an image.

  Raises:
    ValueError: `CROPS` has no such number.
  """
  if count not in CROPS:
    allowed = ', '.join(map(str, CROPS))
    raise ValueError(f'crops is {count!r}; allowed, for each image: {allowed}')
  return CROPS[count]


def _middle(extent: tuple[int, int], width: float, height: float) -> Box:
  left, top = (extent[0] - width) / 2, (extent[1] - height) / 2
  return left, top, left + width, top + height


def _with_short_side(image: pixels.Picture, short: int) -> pixels.Picture:
  width, height = image.size
  side = min(width, height)
  extent = round(width * short / side), round(height * short / side)
  if extent == image.size:
    return image
  return image.resize(extent, _BILINEAR, reducing_gap=_GAP)


def _squares(extent: tuple[int, int], side: int) -> list[tuple[int, int]]:
  """Returns (left, top) of the first, middle and last square in an image."""
  width, height = extent
  end = max(extent) - side
  starts = (0, end // 2, end)
  if width >= height:
    return [(start, 0) for start in starts]
  return [(0, start) for start in starts]
