"""Tells how the Exif of an image's file turns it upright."""

from PIL import Image

MARK = b'Exif\0\0'  # before the Exif in a JPEG
_ORIENTATION = 274  # its tag
# Orientation -> what turns the image upright, and whether sides change places.
TURNS = {
  2: (Image.Transpose.FLIP_LEFT_RIGHT, False),
  3: (Image.Transpose.ROTATE_180, False),
  4: (Image.Transpose.FLIP_TOP_BOTTOM, False),
  5: (Image.Transpose.TRANSPOSE, True),
  6: (Image.Transpose.ROTATE_270, True),
  7: (Image.Transpose.TRANSVERSE, True),
  8: (Image.Transpose.ROTATE_90, True),
}


def orientation_of(image: Image.Image) -> int:
  """Returns the orientation in an opened file's Exif, 1 to 8; 1 for none.

  What stands behind the pixels does not count, and neither does XMP. A TIFF has
  none: Pillow turns it itself.
  """
  if 'exif' not in image.info:
    return 1
  try:
    value = image.getexif().get(_ORIENTATION)
  except Exception:  # a damaged Exif, of which Pillow may raise any error
    return 1
  return value if value in TURNS else 1


def turned(extent: tuple[int, int], orientation: int) -> tuple[int, int]:
  """Returns (width, height) after turning upright, or, of those, before it."""
  has_other_sides = orientation in TURNS and TURNS[orientation][1]
  return extent[::-1] if has_other_sides else extent


def upright_size(image: Image.Image) -> tuple[int, int]:
  """Returns (width, height) of an opened file after turning."""
  return turned(image.size, orientation_of(image))
