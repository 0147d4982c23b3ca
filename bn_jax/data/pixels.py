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

import numpy as np
from PIL import Image

_END = b'\xff\xd9'  # of a JPEG; its coded data hold no such pair
_TARGETS = {1: 'L', 3: 'RGB'}


def decoded(
  encoded: bytes, channels: int = 3, draft: tuple[int, int] | None = None
) -> Image.Image:
  """The pixels of an encoded image, see `opened` and `loaded`."""
  return loaded(opened(encoded), channels, draft)


def opened(encoded: bytes) -> Image.Image:
  """An image of which only the header was read: its size is known.

  Raises:
    ValueError: the header is of no image, or damaged.
  """
  stream = io.BytesIO(encoded)
  try:
    image = Image.open(stream)
  except Image.UnidentifiedImageError:
    # Its own message holds an address in memory.
    raise ValueError(f'no image ({len(encoded)} bytes)') from None
  except Exception as error:
    raise _refusal(error) from error
  # Pillow has read up to the coded data. Of zeros, as a disk leaves them behind
  # what was written, libjpeg makes pixels as of anything.
  if image.format == 'JPEG' and encoded.find(_END, stream.tell()) < 0:
    raise ValueError('damaged image: its JPEG data have no end')
  return image


def loaded(
  image: Image.Image,
  channels: int = 3,
  draft: tuple[int, int] | None = None,
) -> Image.Image:
  """The pixels of an image that was opened, in mode 'RGB' or 'L'.

  A JPEG that is cut off anywhere is refused. What cannot be told from a whole
  one is a JPEG with changed bytes inside its coded data (libjpeg makes some
  pixels of them and only warns, which Pillow does not pass on); array_record
  has a checksum for that.

  Args:
    image: from `opened`.
    channels: 3 or 1.
    draft: (width, height) that are enough; a larger JPEG is decoded at 1/2, 1/4
      or 1/8 of its size, not below these, which takes less time. None: at its
      own size.

  Raises:
    ValueError: damaged data, with the reason; or channels that are not allowed.
  """
  if channels not in _TARGETS:
    raise ValueError(f'channels is {channels}; allowed: 1 (grey) or 3 (RGB)')
  try:
    if draft is not None:
      image.draft(None, draft)
    image.load()
  except Exception as error:
    raise _refusal(error) from error
  target = _TARGETS[channels]
  return image if image.mode == target else _converted(image, target)


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
  first = str(error).strip().split('\n')[0] or type(error).__name__
  return ValueError(f'damaged image: {first}')
