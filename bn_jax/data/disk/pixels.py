"""Turns what a record holds into grey levels, and refuses what is damaged.

A record holds the file of an image, or an array. Its numbers become grey levels
as `levels` says, and its channels those that the features of the set state, by
`RULES`. Decoding is left neither to TFDS, whose pixels depend on whether OpenCV
is installed, nor to a file's own idea of what an image is shown as.
"""

import math
from typing import NamedTuple

import numpy as np
import simplejpeg
from PIL import Image

from bn_jax import errors
from bn_jax.data.disk import deep, exif, levels

# What an image is -> what it becomes. `data info` prints them.
RULES = (
  ('grey', '0 is black, the largest number white; three times where colours '
           'are stated'),
  ('colour', 'where grey is stated: 0.299 red + 0.587 green + 0.114 blue'),
  ('palette', 'the colours of its entries'),
  ('CMYK, YCCK', 'red is (255 - C) (255 - K) / 255, and so on; no profile'),
  ('alpha', 'left out: the colour under it counts; kept where 2 or 4 channels '
            'are stated'),
  ('16 bits', 'where uint16 is stated, of a PNG or a grey TIFF; else refused'),
  ('float32', 'where it is stated: the four bytes of a PNG of mode RGBA, as '
              'TFDS writes them'),
  ('several frames', 'the first'),
  ('Exif', 'turns an image of a folder, and a TIFF; not another one of TFDS, '
           'as is usual with ImageNet'),
  ('size', 'another one than stated is refused'),
)  # fmt: skip

_JPEG = b'\xff\xd8'
_SCAN, _END = b'\xff\xda', b'\xff\xd9'  # never occur in coded data
_MODES = {1: 'L', 2: 'LA', 3: 'RGB', 4: 'RGBA'}


class Planes:
  """An image of any channels, each an image of Pillow, of mode 'L' or 'F'.

  It has what `crops` needs of Pillow's images. Alpha has no part in it: Pillow
  would weigh the colours by it when it resizes.
  """

  def __init__(self, planes: list[Image.Image]):
    self.planes = planes

  @property
  def size(self) -> tuple[int, int]:
    """Returns (width, height), as Pillow does."""
    return self.planes[0].size

  @property
  def width(self) -> int:
    """Returns the pixels of a row."""
    return self.size[0]

  @property
  def height(self) -> int:
    """Returns the pixels of a column."""
    return self.size[1]

  def resize(self, *arguments, **keywords) -> 'Planes':
    """Returns the image of another size; arguments are those of Pillow."""
    return Planes([x.resize(*arguments, **keywords) for x in self.planes])

  def transpose(self, method: Image.Transpose) -> 'Planes':
    """Returns the image turned or mirrored, as Pillow does."""
    return Planes([x.transpose(method) for x in self.planes])

  def __array__(self, dtype=None, copy=None) -> np.ndarray:
    """Returns the pixels, [H, W, C]."""
    del copy  # it is always one
    return np.stack([np.asarray(x) for x in self.planes], -1, dtype=dtype)


Picture = Image.Image | Planes


class Opened(NamedTuple):
  """An image of which only the header was read.

  Attributes:
    size: (width, height), upright.
    stated: what its set says of it.
    encoded: the bytes of its file; empty where it is an array.
    image: opened by Pillow, or the whole array; None for a JPEG that libjpeg
      can decode straight into an array.
    orientation: of its Exif, 1 to 8; 1 where it is not turned.
  """

  size: tuple[int, int]
  stated: levels.Stated
  encoded: bytes
  image: Picture | None
  orientation: int = 1


def decoded(
  raw: bytes | np.ndarray,
  stated: levels.Stated = levels.RGB,
  draft: tuple[int, int] | None = None,
) -> Picture:
  """Decodes an image; see `opened` and `loaded` for arguments and errors."""
  return loaded(opened(raw, stated), draft)


def opened(
  raw: bytes | np.ndarray, stated: levels.Stated = levels.RGB
) -> Opened:
  """Reads the header of an image's file, or takes an array as it is.

  Args:
    raw: the bytes of the file, or the array, [H, W] or [H, W, C].
    stated: what the features of its set say.

  Raises:
    ValueError: the data are no image, the header is damaged, or the image has
      another size than stated.
  """
  if isinstance(raw, np.ndarray):
    values = raw[..., None] if raw.ndim == 2 else raw
    image = Opened(
      values.shape[1::-1], stated, b'', of_levels(levels.of(values))
    )
  elif raw:
    image = _opened_file(raw, stated)
    image = _upright(image) if stated.turned else image
  else:  # array_record returns this from a truncated file
    raise ValueError('it holds no image')
  levels.check_size(stated, *image.size)
  return image


def _opened_file(encoded: bytes, stated: levels.Stated) -> Opened:
  if encoded[:2] == _JPEG:
    try:
      height, width, colours, _ = simplejpeg.decode_jpeg_header(encoded)
    except ValueError as error:
      raise _refusal(error) from error
    # libjpeg would decode the zeros that a broken disk leaves after the data.
    if encoded.find(_END, encoded.rfind(_SCAN)) < 0:
      raise ValueError('damaged image: its JPEG data have no end')
    if colours in ('YCbCr', 'Gray', 'RGB'):
      return Opened((width, height), stated, encoded, None)
  try:
    image = deep.opened(encoded)
  except Image.UnidentifiedImageError:
    # Pillow's message has an address in memory.
    raise ValueError(
      f'no image ({len(encoded)} bytes); allowed: {", ".join(deep.FORMATS)}'
    ) from None
  except Exception as error:
    raise _refusal(error) from error
  return Opened(image.size, stated, encoded, image)


def _upright(image: Opened) -> Opened:
  """Returns an image as it is to be turned."""
  picture = image.image
  if picture is None:  # a JPEG; few have an Exif, and Pillow takes its time
    data = image.encoded
    if data.find(exif.MARK, 0, data.find(_SCAN)) < 0:
      return image
    try:
      picture = deep.opened(data)
    except Exception as error:
      raise _refusal(error) from error
  orientation = exif.orientation_of(picture)
  return image._replace(
    size=exif.turned(image.size, orientation), orientation=orientation
  )


def loaded(image: Opened, draft: tuple[int, int] | None = None) -> Picture:
  """Decodes an opened image, with the channels that its set states.

  A JPEG of which libjpeg complains is refused: one that is cut off, or has
  changed bytes. A byte that changes into another valid code passes, with wrong
  pixels; array_record has a checksum for that.

  Args:
    draft: (width, height) that suffice: to save time, a JPEG at least twice as
      large is decoded at some eighths of its size, never below `draft`. None
      decodes at full size.

  Returns:
    An image of Pillow, of mode 'RGB' or 'L', where there are three channels or
    one, of bytes; else `Planes`, of grey levels.

  Raises:
    ValueError: damaged data, with the reason; or another depth than stated.
  """
  if not image.encoded:
    return image.image
  if image.orientation == 1:
    return _loaded(image, draft)
  method, _ = exif.TURNS[image.orientation]
  lying = image._replace(size=exif.turned(image.size, image.orientation))
  if draft is not None:
    draft = exif.turned(draft, image.orientation)
  return _loaded(lying, draft).transpose(method)


def _loaded(image: Opened, draft: tuple[int, int] | None) -> Picture:
  """Decodes a file as it lies there, before it is turned."""
  stated = image.stated
  if image.image is None:
    pixels = Image.fromarray(_from_jpeg(image, draft))
  else:
    pixels = image.image
    is_deep = deep.is_deep(pixels)
    if is_deep:
      deep.check(pixels, stated)
    try:
      if is_deep:
        return of_levels(deep.sixteen(image.encoded, stated.channels))
      if draft is not None:
        pixels.draft(None, draft)
      pixels.load()
    except Exception as error:
      raise _refusal(error) from error
  if stated.dtype == 'float32':
    return of_levels(deep.float32(pixels))
  target = _MODES[stated.channels]
  pixels = pixels if pixels.mode == target else _converted(pixels, target)
  if stated.dtype == 'uint8' and stated.channels in (1, 3):
    return pixels
  return of_levels(as_array(pixels).astype(stated.levels))


def array(image: Opened) -> np.ndarray:
  """Decodes an opened image at full size, [H, W, C]; see `loaded`."""
  stated = image.stated
  is_bytes = (stated.channels, stated.dtype) == (3, 'uint8')
  if image.image is None and is_bytes and image.orientation == 1:
    return _from_jpeg(image)
  return as_array(loaded(image))


def of_levels(values: np.ndarray) -> Picture:
  """Returns grey levels, [H, W, C] uint8 or float32, as an image to resize."""
  channels = values.shape[-1]
  if values.dtype == np.uint8 and channels in (1, 3):
    return Image.fromarray(values[..., 0] if channels == 1 else values)
  return Planes(
    [
      Image.fromarray(np.ascontiguousarray(values[..., channel]))
      for channel in range(channels)
    ]
  )


def as_array(image: Picture) -> np.ndarray:
  """Returns a decoded image as an array, [H, W, C]; grey has one channel."""
  width, height = image.size
  return np.asarray(image).reshape(height, width, -1)


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


def _from_jpeg(
  image: Opened, draft: tuple[int, int] | None = None
) -> np.ndarray:
  least_size = {}
  if draft and all(2 * a <= b for a, b in zip(draft, image.size)):
    least_size = {'min_width': draft[0], 'min_height': draft[1]}
  try:
    return simplejpeg.decode_jpeg(image.encoded, 'RGB', **least_size)
  except ValueError as error:
    raise _refusal(error) from error


def _converted(image: Image.Image, target: str) -> Image.Image:
  if image.mode in ('I', 'F'):
    raise ValueError(
      f'its pixels are of Pillow mode {image.mode!r}; allowed: 8 or 16 bits'
    )
  if image.mode in ('P', 'PA'):
    # By way of RGBA, as Pillow warns of transparent entries otherwise.
    image = image.convert('RGBA')
    image = image if target in ('LA', 'RGBA') else image.convert('RGB')
  elif image.mode not in ('1', 'L', 'LA', 'La', 'RGB', 'RGBA'):
    image = image.convert('RGBA' if image.mode == 'RGBa' else 'RGB')
  return image if image.mode == target else image.convert(target)


def _refusal(error: Exception) -> ValueError:
  """Turns a decoder's error into a ValueError of one line.

  Pillow's many formats raise any error on damaged data. Only a MemoryError says
  nothing about the image, and is raised as it is.
  """
  if isinstance(error, MemoryError):
    raise error
  return ValueError(f'damaged image: {errors.first_line(error)}')
