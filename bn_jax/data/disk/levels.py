"""Tells how the numbers of pixels become grey levels, 0 (black) to 255 (white).

All that reads images, in memory or in a stream, from files or arrays, goes
through `of`, so that every part of the package counts brightness alike.
"""

from typing import NamedTuple

import numpy as np

WHITE = 255  # the grey level
LUMA = (0.299, 0.587, 0.114)  # Rec. 601: how bright red, green and blue are
# dtype of pixels -> the value that is white; None: no value is, and they stand
# for themselves. Booleans and bytes stay bytes; all others become float32.
WHITES = {
  'bool': 1,
  'uint8': 255,
  'uint16': 65_535,
  **dict.fromkeys(('float16', 'bfloat16', 'float32', 'float64'), 1),
  **dict.fromkeys(
    ('int8', 'int16', 'int32', 'int64', 'uint32', 'uint64'), None
  ),
}
_BYTES = ('bool', 'uint8')
_LARGEST = 2**24  # float32 holds all integers up to here
# The last axis of an array holds its channels. At most so many on the first one
# of an array that is larger along the others, and they were put there.
_CHANNELS = 4


class Stated(NamedTuple):
  """What the features of a set say of each of its images.

  Attributes:
    shape: (height, width, channels), with None where images differ.
    dtype: of a pixel, a key of `WHITES`.
    turned: whether an image is turned as its Exif says.
  """

  shape: tuple[int | None, int | None, int]
  dtype: str = 'uint8'
  turned: bool = False

  @property
  def channels(self) -> int:
    """Returns the number of channels."""
    return self.shape[2]

  @property
  def levels(self) -> np.dtype:
    """Returns the dtype of the grey levels."""
    return kept(self.dtype)


def kept(dtype: str) -> np.dtype:
  """Returns the dtype of the grey levels of pixels: uint8 or float32."""
  return np.dtype('uint8' if dtype in _BYTES else 'float32')


RGB = Stated((None, None, 3))


def check(stated: Stated) -> None:
  """Raises ValueError for images that cannot be read, with the reason."""
  shape, dtype = stated.shape, stated.dtype
  if dtype not in WHITES:
    raise ValueError(
      f'its pixels are {dtype}; allowed: {", ".join(sorted(WHITES))}'
    )
  if len(shape) != 3 or not shape[-1]:
    raise ValueError(
      f'its images have the shape {shape}; allowed: [height, width, channels]'
    )
  height, width, channels = (side or np.inf for side in shape)
  if height <= _CHANNELS < min(width, channels):
    raise ValueError(
      f'its images have the shape {shape}; allowed: [height, width, channels], '
      'with the channels last'
    )


def check_size(stated: Stated, width: int, height: int) -> None:
  """Raises ValueError for an image of another size than its set's features."""
  extent = stated.shape[:2]
  if any(side not in (None, n) for side, n in zip(extent, (height, width))):
    sides = ' x '.join('any' if side is None else str(side) for side in extent)
    hint = '; give resolution' if stated.turned else ''
    raise ValueError(
      f'its image has {height} x {width} pixels (height x width); '
      f'{whose(stated)} say {sides}{hint}'
    )


def whose(stated: Stated) -> str:
  """Returns what has told what is stated, for messages."""
  # Many files of a folder are not looked at before.
  return 'other files' if stated.turned else 'the features of the set'


def of(values: np.ndarray) -> np.ndarray:
  """Returns the grey levels of pixels, uint8 or float32, of the same shape.

  Values beyond black and white stay beyond 0 and 255.

  Raises:
    ValueError: a number that is not finite, or an integer that float32 does
      not hold.
  """
  dtype = values.dtype.name
  white = WHITES[dtype]
  if dtype == 'uint8':
    return values
  if dtype == 'bool':
    return values * np.uint8(WHITE)
  if white is None:
    if values.size and max(-int(values.min()), int(values.max())) > _LARGEST:
      raise ValueError(
        f'its pixels are {values.min()} to {values.max()}; allowed: '
        f'-{_LARGEST} to {_LARGEST}, which float32 holds exactly'
      )
    return values.astype(np.float32)
  with np.errstate(over='ignore'):
    wide = values.astype(np.float64)  # so that float32 and 16 bits round once
    wide = wide * WHITE if white == 1 else wide / (white / WHITE)
    levels = wide.astype(np.float32)
  if not np.isfinite(levels).all():
    wrong = values[~np.isfinite(levels)][0]
    raise ValueError(f'a pixel is {float(wrong):g}; allowed: finite float32')
  return levels


def check_brightness(levels: np.ndarray, what: str) -> None:
  """Raises ValueError for grey levels beyond black and white.

  Args:
    what: what needs them to lie between, such as 'binarize'.
  """
  if levels.dtype == np.uint8 or not levels.size:
    return
  low, high = (float(x) / WHITE for x in (levels.min(), levels.max()))
  if low < 0 or high > 1:
    raise ValueError(
      f'its pixels are {low:g} to {high:g}; allowed for {what}: 0 (black) to 1 '
      '(white)'
    )


def described(stated: Stated) -> str:
  """Returns how the pixels of a set are read, in words."""
  white = WHITES[stated.dtype]
  if white is None:
    return f'{stated.dtype}, without a white: taken as they are'
  scaled = {1: ', x read as 255 x', 255: '', 65_535: ', x read as x / 257'}
  return f'{stated.dtype}, 0 is black and {white:,} white{scaled[white]}'


def picture(levels: np.ndarray) -> np.ndarray:
  """Returns an image to look at, [H, W, 1 or 3] uint8.

  The first three channels are red, green and blue, or the first is grey. Levels
  beyond black and white are stretched between the least and the largest.
  """
  levels = levels[..., : 3 if levels.shape[-1] > 2 else 1]
  if levels.dtype == np.uint8:
    return levels
  low, high = levels.min(initial=0), levels.max(initial=WHITE)
  return np.rint((levels - low) * (WHITE / (high - low))).astype(np.uint8)
