"""Reads the files of images of more than 8 bits a channel.

Pillow opens them, and of most gives the upper 8 bits alone, without a word.
"""

import io
from typing import Any

import numpy as np
from PIL import Image

from bn_jax.data.disk import levels

# Pillow knows more formats; of some it cannot be told here how many bits they
# had, and one runs a program.
FORMATS = ('BMP', 'GIF', 'JPEG', 'PNG', 'PPM', 'TIFF', 'WEBP')
# How Pillow unpacks a grey TIFF of 16 bits; one of 12 bits it gives as such.
_GREY_TIFF = ('I;16', 'I;16B', 'I;16L', 'I;16N', 'I;16R')
_PHOTOMETRIC = 262  # the tag of a TIFF that is 0 where the number 0 is white


def opened(encoded: bytes) -> Image.Image:
  """Reads the header of a file, by Pillow, which may raise any error."""
  return Image.open(io.BytesIO(encoded), formats=FORMATS)


def is_deep(image: Image.Image) -> bool:
  """Returns whether the file of an image has more than 8 bits a channel.

  Pillow's mode tells it of grey alone: other images lose the lower eight.
  """
  if image.mode.startswith('I;16'):
    return True
  for tile in image.tile:
    arguments = _arguments(tile)
    if image.format in ('PNG', 'PPM', 'TIFF') and ';16' in str(arguments[0]):
      return True
    # The last one of a netpbm format is the number that is white there.
    if image.format == 'PPM' and isinstance(arguments[-1], int):
      return arguments[-1] > levels.WHITE
  return False


def check(image: Image.Image, stated: levels.Stated) -> None:
  """Raises ValueError for a deep file that cannot be read as stated."""
  if stated.dtype != 'uint16':
    raise ValueError(
      f'its file has more than 8 bits a channel, and {levels.whose(stated)} '
      f'say {stated.dtype}; allowed: uint16'
    )
  if image.format != 'PNG' and not _is_grey_tiff(image):
    raise ValueError(
      f'its file is a {image.format} of more than 8 bits a channel; allowed: a '
      'PNG, or a TIFF that is grey and of 16 bits'
    )


def _is_grey_tiff(image: Image.Image) -> bool:
  return image.format == 'TIFF' and all(
    image.mode.startswith('I;16') and _arguments(tile)[0] in _GREY_TIFF
    for tile in image.tile
  )


def _arguments(tile: Any) -> tuple[Any, ...]:
  """Returns how Pillow unpacks a part of an image; the raw mode is first."""
  return tile.args if isinstance(tile.args, tuple) else (tile.args,)


def sixteen(encoded: bytes, channels: int) -> np.ndarray:
  """Returns the grey levels of a deep file, [H, W, channels] float32.

  The file has passed `check`. Pillow unpacks colours of 16 bits into the byte
  that comes first, or, if told that the bytes lie the other way round, into the
  one that comes second. Grey with alpha has the four bytes of an RGBA pixel.
  """
  image = opened(encoded)
  if image.mode.startswith('I;16'):
    is_inverted = image.format == 'TIFF' and not image.tag_v2[_PHOTOMETRIC]
    values = np.asarray(image)[..., None].astype(np.uint16)
    values = ~values if is_inverted else values
  elif image.tile[0].args == 'LA;16B':
    values = _unpacked(image, 'RGBA').view('>u2').astype(np.uint16)
  else:
    order = image.tile[0].args
    upper = _unpacked(image, order).astype(np.uint16)
    lower = _unpacked(opened(encoded), order.replace('16B', '16L'))
    values = upper << 8 | lower
  return _with_channels(levels.of(values), channels)


def _unpacked(image: Image.Image, rawmode: str) -> np.ndarray:
  """Returns the pixels of an opened PNG as if they lay as `rawmode` says."""
  image.tile = [tile._replace(args=rawmode) for tile in image.tile]
  return np.asarray(image)


def _with_channels(values: np.ndarray, channels: int) -> np.ndarray:
  """Returns grey levels, [H, W, C], with other channels.

  The second of two channels, and the fourth of four, is alpha.
  """
  count = values.shape[-1]
  alpha = values[..., -1:] if count in (2, 4) else None
  colours = values[..., : 3 if count > 2 else 1]
  if channels > 2 and count < 3:
    colours = np.repeat(colours, 3, -1)
  elif channels < 3 and count > 2:
    # As Pillow's.
    luma = sum(share * colours[..., i] for i, share in enumerate(levels.LUMA))
    colours = luma[..., None]
  if channels in (1, 3):
    return colours
  if alpha is None:
    alpha = np.full_like(colours[..., :1], levels.WHITE)
  return np.concatenate([colours, alpha], -1)


def float32(image: Image.Image) -> np.ndarray:
  """Returns the grey levels of what TFDS made a PNG of, [H, W, 1] float32."""
  if image.mode != 'RGBA' or image.format != 'PNG':
    kind = image.format or 'JPEG'  # which libjpeg has decoded
    raise ValueError(
      f'its file is a {kind} of mode {image.mode}; allowed for '
      'float32: the four bytes of a PNG of mode RGBA, as TFDS writes them'
    )
  return levels.of(np.ascontiguousarray(image).view('<f4'))
