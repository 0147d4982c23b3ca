"""Encoded images made pixels, strictly: what is damaged is an error.

Every image becomes 8-bit RGB or grey, in one declared way:

* grey is repeated into red, green and blue; colour becomes grey by the luma of
  Rec. 601, 0.299 R + 0.587 G + 0.114 B;
* of 16 bits the upper 8 are kept;
* CMYK and YCCK, inverted as Adobe stores them, become R = C K / 255 of the
  inverted values, without a colour profile;
* an alpha channel, or a palette's transparent entry, is left out: the colours
  under it count as they are;
* of several frames the first is taken; an Exif orientation is not applied, as
  nothing applies it to ImageNet.
"""

import io
import math
from typing import NamedTuple

import numpy as np
import simplejpeg
from PIL import Image

from bn_jax import errors

_JPEG = b'\xff\xd8'
_SCAN, _END = b'\xff\xda', b'\xff\xd9'  # coded data hold no such pairs
_TARGETS = {1: 'L', 3: 'RGB'}


class Opened(NamedTuple):
  """An image of which only the header was read.

  Attributes:
    size: (width, height).
    jpeg: its data, where libjpeg decodes them straight into an array.
    image: otherwise, what Pillow has opened.
  """

  size: tuple[int, int]
  jpeg: bytes | None
  image: Image.Image | None


def decoded(
  encoded: bytes, channels: int = 3, draft: tuple[int, int] | None = None
) -> Image.Image:
  """The pixels of an encoded image, see `opened` and `loaded`."""
  return loaded(opened(encoded), channels, draft)


def opened(encoded: bytes) -> Opened:
  """The header of an encoded image.

  Raises:
    ValueError: the header is of no image, or damaged.
  """
  if encoded[:2] == _JPEG:
    try:
      height, width, colours, _ = simplejpeg.decode_jpeg_header(encoded)
    except ValueError as error:
      raise _refusal(error) from error
    # Of zeros, as a disk leaves them behind what was written, libjpeg makes
    # pixels as of anything.
    if encoded.find(_END, encoded.rfind(_SCAN)) < 0:
      raise ValueError('damaged image: its JPEG data have no end')
    if colours in ('YCbCr', 'Gray', 'RGB'):
      return Opened((width, height), encoded, None)
  try:
    image = Image.open(io.BytesIO(encoded))
  except Image.UnidentifiedImageError:
    # Its own message holds an address in memory.
    raise ValueError(f'no image ({len(encoded)} bytes)') from None
  except Exception as error:
    raise _refusal(error) from error
  return Opened(image.size, None, image)


def loaded(
  image: Opened,
  channels: int = 3,
  draft: tuple[int, int] | None = None,
) -> Image.Image:
  """The pixels of an image that was opened, in mode 'RGB' or 'L'.

  A JPEG of which libjpeg has anything to complain is refused, such as one that
  is cut off or has changed bytes. A change that leaves valid codes makes other
  pixels and cannot be told; array_record has a checksum for that.

  Args:
    image: from `opened`.
    channels: 3 or 1.
    draft: (width, height) that are enough; a JPEG of twice that or more is
      decoded at some eighths of its size, not below these, which takes less
      time. None: at its own size.

  Raises:
    ValueError: damaged data, with the reason; or channels that are not allowed.
  """
  _check(channels)
  if image.jpeg is not None:
    found = Image.fromarray(_from_jpeg(image, draft))
  else:
    found = image.image
    try:
      if draft is not None:
        found.draft(None, draft)
      found.load()
    except Exception as error:
      raise _refusal(error) from error
  target = _TARGETS[channels]
  return found if found.mode == target else _converted(found, target)


def array(image: Opened, channels: int = 3) -> np.ndarray:
  """The pixels of an image that was opened, at its own size: [H, W, C] uint8.

  Raises:
    ValueError: as `loaded`.
  """
  _check(channels)
  if image.jpeg is not None and channels == 3:
    return _from_jpeg(image)
  width, height = image.size
  return np.asarray(loaded(image, channels)).reshape(height, width, channels)


def _from_jpeg(
  image: Opened, draft: tuple[int, int] | None = None
) -> np.ndarray:
  least = {}
  if draft and all(2 * a <= b for a, b in zip(draft, image.size)):
    least = {'min_width': draft[0], 'min_height': draft[1]}
  try:
    return simplejpeg.decode_jpeg(image.jpeg, 'RGB', **least)
  except ValueError as error:
    raise _refusal(error) from error


def _check(channels: int) -> None:
  if channels not in _TARGETS:
    raise ValueError(f'channels is {channels}; allowed: 1 (grey) or 3 (RGB)')


def enough(
  extent: tuple[int, int], side: float, needed: float, gap: float = 2.0
) -> tuple[int, int] | None:
  """The draft of an image of which `side` pixels are to become `needed`.

  At least `gap` times as many pixels as needed are left, so that what reduces
  them further does the most of it; below 2 it can be seen.

  Args:
    extent: (width, height) of the image.
    side: the length, of the image, that is to be reduced.
    needed: what it is reduced to.
    gap: how much larger than `needed` the side stays.

  Returns:
    (width, height) for `loaded`; None where the image is not too large.
  """
  share = gap * needed / side
  if share > 0.5:
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
    # Straight to RGB, Pillow warns of transparent entries.
    image = image.convert('RGBA').convert('RGB')
  elif image.mode not in ('1', 'L', 'LA', 'La', 'RGB'):
    image = image.convert('RGB')
  return image if image.mode == target else image.convert(target)


def _refusal(error: Exception) -> ValueError:
  """One line that says what is wrong with an image.

  Pillow raises anything of damaged data, by way of its many formats; only that
  there was no memory says nothing of the image.
  """
  if isinstance(error, MemoryError):
    raise error
  return ValueError(f'damaged image: {errors.first_line(error)}')
