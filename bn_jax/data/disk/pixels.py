"""Decodes images, and refuses damaged ones.

Every image becomes 8-bit RGB or grey:

* grey is repeated into red, green and blue; colour becomes grey by the luma of
  Rec. 601, 0.299 R + 0.587 G + 0.114 B;
* of 16 bits the upper 8 are kept;
* CMYK and YCCK, which Adobe stores inverted, become R = C K / 255 (and G and B
  likewise) of the inverted values, without a colour profile;
* an alpha channel or transparent palette entry is ignored: the colour under it
  counts;
* of several frames the first is taken; an Exif orientation is not applied, as
  is usual with ImageNet.
"""

import io
import math
from typing import NamedTuple

import numpy as np
import simplejpeg
from PIL import Image

from bn_jax import errors

_JPEG = b'\xff\xd8'
_SCAN, _END = b'\xff\xda', b'\xff\xd9'  # never occur in coded data
_TARGETS = {1: 'L', 3: 'RGB'}


class Opened(NamedTuple):
  """An image of which only the header was read.

  Attributes:
    size: (width, height).
    jpeg: the encoded bytes, if libjpeg can decode them straight into an array.
    image: opened by Pillow, if not.
  """

  size: tuple[int, int]
  jpeg: bytes | None
  image: Image.Image | None


def decoded(
  encoded: bytes, channels: int = 3, draft: tuple[int, int] | None = None
) -> Image.Image:
  """Decodes an image; see `loaded` for arguments and errors."""
  return loaded(opened(encoded), channels, draft)


def opened(encoded: bytes) -> Opened:
  """Reads the header of an encoded image.

  Raises:
    ValueError: the data are no image, or the header is damaged.
  """
  if encoded[:2] == _JPEG:
    try:
      height, width, colours, _ = simplejpeg.decode_jpeg_header(encoded)
    except ValueError as error:
      raise _refusal(error) from error
    # libjpeg would decode the zeros that a broken disk leaves after the data.
    if encoded.find(_END, encoded.rfind(_SCAN)) < 0:
      raise ValueError('damaged image: its JPEG data have no end')
    if colours in ('YCbCr', 'Gray', 'RGB'):
      return Opened((width, height), encoded, None)
  try:
    image = Image.open(io.BytesIO(encoded))
  except Image.UnidentifiedImageError:
    # Pillow's message has an address in memory.
    raise ValueError(f'no image ({len(encoded)} bytes)') from None
  except Exception as error:
    raise _refusal(error) from error
  return Opened(image.size, None, image)


def loaded(
  image: Opened,
  channels: int = 3,
  draft: tuple[int, int] | None = None,
) -> Image.Image:
  """Decodes an opened image, in mode 'RGB' or 'L'.

  A JPEG of which libjpeg complains is refused: one that is cut off, or has
  changed bytes. A byte that changes into another valid code passes, with wrong
  pixels; array_record has a checksum for that.

  Args:
    channels: 3 (RGB) or 1 (grey).
    draft: (width, height) that suffice: to save time, a JPEG at least twice as
      large is decoded at some eighths of its size, never below `draft`. None
      decodes at full size.

  Raises:
    ValueError: damaged data, with the reason; or other channels.
  """
  _check(channels)
  if image.jpeg is not None:
    pixels = Image.fromarray(_from_jpeg(image, draft))
  else:
    pixels = image.image
    try:
      if draft is not None:
        pixels.draft(None, draft)
      pixels.load()
    except Exception as error:
      raise _refusal(error) from error
  target = _TARGETS[channels]
  return pixels if pixels.mode == target else _converted(pixels, target)


def array(image: Opened, channels: int = 3) -> np.ndarray:
  """Decodes an opened image at full size, [H, W, C] uint8; see `loaded`."""
  _check(channels)
  if image.jpeg is not None and channels == 3:
    return _from_jpeg(image)
  width, height = image.size
  return np.asarray(loaded(image, channels)).reshape(height, width, channels)


def _from_jpeg(
  image: Opened, draft: tuple[int, int] | None = None
) -> np.ndarray:
  least_size = {}
  if draft and all(2 * a <= b for a, b in zip(draft, image.size)):
    least_size = {'min_width': draft[0], 'min_height': draft[1]}
  try:
    return simplejpeg.decode_jpeg(image.jpeg, 'RGB', **least_size)
  except ValueError as error:
    raise _refusal(error) from error


def _check(channels: int) -> None:
  if channels not in _TARGETS:
    raise ValueError(f'channels is {channels}; allowed: 1 (grey) or 3 (RGB)')


def enough(
  extent: tuple[int, int], side: float, needed: float, gap: float = 2.0
) -> tuple[int, int] | None:
  """Returns the draft size of an image that is resized from `side` to `needed`.

  The draft's side is at least `gap` times `needed`. With a gap of 2 the final
  resizing, which is of better quality, still halves the image at least; with
  less the difference can be seen.

  Args:
    extent: (width, height) of the image.
    side: pixels of the part that is resized.
    needed: pixels that it is resized to.
    gap: least ratio of the draft's side to `needed`.

  Returns:
    (width, height) for `loaded`; None if the image is not large enough.
  """
  share = gap * needed / side
  if share > 0.5:  # `loaded` decodes in full what is not twice as large
    return None
  width, height = extent
  return math.ceil(width * share), math.ceil(height * share)


def _converted(image: Image.Image, target: str) -> Image.Image:
  if image.mode in ('I', 'F'):
    raise ValueError(
      f'its pixels are of Pillow mode {image.mode!r}; allowed: 8 or 16 bits'
    )
  if image.mode.startswith('I;16'):
    values = np.asarray(image)
    image = Image.fromarray((values >> 8).astype(np.uint8))
  elif image.mode in ('P', 'PA'):
    # By way of RGBA, as Pillow warns of transparent entries otherwise.
    image = image.convert('RGBA').convert('RGB')
  elif image.mode not in ('1', 'L', 'LA', 'La', 'RGB'):
    image = image.convert('RGB')
  return image if image.mode == target else image.convert(target)


def _refusal(error: Exception) -> ValueError:
  """Turns a decoder's error into a ValueError of one line.

  Pillow's many formats raise any error on damaged data. Only a MemoryError says
  nothing about the image, and is raised as it is.
  """
  if isinstance(error, MemoryError):
    raise error
  return ValueError(f'damaged image: {errors.first_line(error)}')
