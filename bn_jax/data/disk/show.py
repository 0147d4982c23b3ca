"""Shows a dataset: the labels of a split, and a picture of some images.

`glance` reads both; `draw` draws a row of images for each of some classes.
"""

import functools
import math
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from bn_jax import errors
from bn_jax.data.disk import levels, sets, store

# The labels of a split within both limits are counted, which takes about 1 s
# (70,000 labels/s). They lie among the images, so that all bytes are read.
_COUNTED = 100_000  # examples
_COUNTED_BYTES = 256 * 2**20
# Bytes read of a larger split to find images: some seconds from a slow disk.
_SAMPLED_BYTES = 512 * 2**20
_CHUNK = 64  # records read at a time: larger chunks make a coarser sample

# Of the sheet, in pixels: larger ones would show more of an image, and fewer
# classes on a screen.
_HEIGHT = 96  # of a large image; a small one may be higher, see `_scaled`
_WIDEST = 2 * _HEIGHT  # a wider image is made less high than the others
_NAME_WIDEST = 240  # a longer name is cut off
_GAP, _MARGIN = 6, 20
_TITLE_SIZE, _NAME_SIZE, _NOTE_SIZE = 22, 17, 14
_PAPER, _INK, _PALE = (255, 255, 255), (24, 24, 24), (110, 110, 110)
_SIGNATURE = b'\x89PNG\r\n\x1a\n'


class Glance(NamedTuple):
  """The labels and some images of a split.

  Attributes:
    split: 'train', or the first split if there is no 'train'.
    images: class -> images of it, the first that were read, of PIL.
    counts: examples of each class; None if the split is large.
    looked_at: number of labels that were read.
  """

  split: str
  images: dict[int, list[Any]]
  counts: np.ndarray | None
  looked_at: int


class Row(NamedTuple):
  """A row of the sheet: the images of a class.

  Attributes:
    name: of the class.
    note: a line below the name; may be empty.
    images: of PIL, of any size and mode.
  """

  name: str
  note: str
  images: list[Any]


def glance(prepared: sets.Set, *, classes: int, each: int) -> Glance:
  """Reads `each` images of each of the first `classes` classes of a set.

  Where there are targets, all images count as of class 0.

  Raises:
    DataError: the set has no split, or is damaged.
  """
  if not prepared.splits:
    raise errors.DataError(f'{prepared.name} in {prepared.folder} has no split')
  split = 'train' if 'train' in prepared.splits else next(iter(prepared.splits))
  known = prepared.known_labels(split)
  if known is not None:
    return _of_known(prepared, split, known, classes, each)
  records = prepared.records(split)
  positions_of = {
    label: [] for label in range(min(classes, prepared.num_classes))
  }
  counts = np.zeros(prepared.num_classes, int)
  looked_at = 0
  whole = _is_small(prepared, split)
  with store.blaming(f'{prepared.name} {split}', prepared.folder):
    for chunk in _chunks(prepared, split, whole):
      labels = np.array([label for _, label in records.read(list(chunk))], int)
      looked_at += len(chunk)
      if labels.max(initial=0) >= prepared.num_classes:
        raise errors.DataError(
          f'{prepared.name} {split} has the label {labels.max()}; allowed: 0 '
          f'to {prepared.num_classes - 1}'
        )
      # A test split may hide its labels: -1.
      np.add.at(counts, labels[labels >= 0], 1)
      for position, label in zip(chunk, labels):
        if label in positions_of and len(positions_of[label]) < each:
          positions_of[label].append(position)
      if not whole and all(len(x) == each for x in positions_of.values()):
        break
  images = {
    label: [
      _decoded(prepared, split, records.read([p])[0], p) for p in positions
    ]
    for label, positions in positions_of.items()
  }
  return Glance(split, images, counts if whole else None, looked_at)


def _of_known(prepared, split, known, classes, each) -> Glance:
  """Returns the glance at a split whose labels are known without reading."""
  counts = None
  labels = np.zeros(len(known), int)
  if prepared.classifies:
    labels, counts = known, np.bincount(known, minlength=prepared.num_classes)
  positions_of = {
    label: np.flatnonzero(labels == label)[:each].tolist()
    for label in range(min(classes, labels.max(initial=0) + 1))
  }
  images = {}
  for label, positions in positions_of.items():
    with store.blaming(f'{prepared.name} {split}', prepared.folder):
      examples = prepared.records(split).read(positions)
    images[label] = [
      _decoded(prepared, split, *pair) for pair in zip(examples, positions)
    ]
  return Glance(split, images, counts, len(known))


def draw(title: str, rows: list[Row], note: str = '') -> Any:
  """Draws rows of images, the first on top, on a sheet: an RGB image of PIL.

  Small images are enlarged by a whole factor, pixel by pixel; large ones are
  reduced to a common height.

  Args:
    title: the line above all rows.
    note: the line below all rows; may be empty.
  """
  from PIL import Image, ImageDraw

  rows = [
    Row(
      _shortened(row.name),
      row.note,
      [_scaled(image) for image in row.images],
    )
    for row in rows
  ]
  images = [image for row in rows for image in row.images]
  cell = (
    max((image.width for image in images), default=_HEIGHT),
    max((image.height for image in images), default=_HEIGHT),
  )
  top = _MARGIN + 2 * _TITLE_SIZE
  left = _MARGIN + _widest(rows) + 2 * _GAP
  columns = max((len(row.images) for row in rows), default=0)
  right = max(
    left + columns * (cell[0] + _GAP) - _GAP,
    _MARGIN + _text_width(title, _TITLE_SIZE),
    _MARGIN + _text_width(note, _NOTE_SIZE),
  )
  bottom = top + len(rows) * (cell[1] + _GAP) - _GAP
  note_height = _GAP + 2 * _NOTE_SIZE if note else 0
  size = (right + _MARGIN, bottom + note_height + _MARGIN)
  sheet = Image.new('RGB', size, _PAPER)
  pen = ImageDraw.Draw(sheet)
  pen.text((_MARGIN, _MARGIN), title, _INK, _font(_TITLE_SIZE), anchor='lt')
  note_at = (_MARGIN, bottom + _GAP + _NOTE_SIZE)
  pen.text(note_at, note, _PALE, _font(_NOTE_SIZE), anchor='lt')
  for number, row in enumerate(rows):
    y = top + number * (cell[1] + _GAP)
    _draw_name(pen, row, y + cell[1] // 2)
    _paste(sheet, row.images, (left, y), cell)
  return sheet


def check_place(path: pathlib.Path) -> None:
  """Raises ConfigError or StorageError if a path is no place for a PNG."""
  if path.suffix.lower() != '.png':
    raise errors.ConfigError(f'--out is {path}; give a name that ends in .png')
  if path.is_dir():
    raise errors.ConfigError(f'{path} is a folder; give a file with --out=')
  if path.is_file():
    try:
      with path.open('rb') as file:
        signature = file.read(len(_SIGNATURE))
    except OSError as error:
      raise errors.StorageError(f'cannot read {path}: {error}') from error
    if signature != _SIGNATURE:
      raise errors.ConfigError(
        f'{path} is there and is no PNG; give another name with --out='
      )


def _is_small(prepared: sets.Set, split: str) -> bool:
  count = prepared.splits[split]
  return count <= _COUNTED and prepared.size_on_disk(split) <= _COUNTED_BYTES


def _chunks(prepared, split, whole) -> Iterator[range]:
  """Yields chunks of positions: of all records, or of a random sample.

  The first records are no sample of a set that is sorted by class.
  """
  count = prepared.splits[split]
  chunks = [
    range(start, min(start + _CHUNK, count))
    for start in range(0, count, _CHUNK)
  ]
  if not whole:
    share = min(1.0, _SAMPLED_BYTES / max(1, prepared.size_on_disk(split)))
    order = np.random.default_rng(0).permutation(len(chunks))
    chunks = [chunks[i] for i in order[: max(1, round(share * len(chunks)))]]
  yield from chunks


def _decoded(prepared, split, record, position) -> Any:
  """Returns an image of PIL, of the pixels that a network would get."""
  from bn_jax.data.disk import pixels

  try:
    image = pixels.array(pixels.opened(record[0], prepared.stated))
  except ValueError as error:
    raise errors.DataError(
      f'cannot read the image of {prepared.place_of(split, position)} '
      f'in {prepared.folder}: {error}'
    ) from error
  return pixels.of_levels(levels.picture(image))


def _draw_name(pen: Any, row: Row, middle: int) -> None:
  """Draws the name of a row, and the note below it, around y = middle."""
  up, down = (_NOTE_SIZE // 2 + 2, _NAME_SIZE // 2 + 4) if row.note else (0, 0)
  name_at, note_at = (_MARGIN, middle - up), (_MARGIN, middle + down)
  pen.text(name_at, row.name, _INK, _font(_NAME_SIZE), anchor='lm')
  pen.text(note_at, row.note, _PALE, _font(_NOTE_SIZE), anchor='lm')


def _paste(sheet: Any, images: list[Any], corner: tuple, cell: tuple) -> None:
  """Puts images side by side, each in the middle of a cell (width, height)."""
  for column, image in enumerate(images):
    x = corner[0] + column * (cell[0] + _GAP) + (cell[0] - image.width) // 2
    sheet.paste(image, (x, corner[1] + (cell[1] - image.height) // 2))


def _widest(rows: list[Row]) -> int:
  """Returns the width in pixels of the widest name or note."""
  names = [_text_width(row.name, _NAME_SIZE) for row in rows]
  notes = [_text_width(row.note, _NOTE_SIZE) for row in rows]
  return max(names + notes, default=0)


def _text_width(text: str, size: int) -> int:
  return math.ceil(_font(size).getlength(text))


def _scaled(image: Any) -> Any:
  from PIL import Image

  image = image.convert('RGB')
  if image.height < _HEIGHT and image.width < _WIDEST:
    # The smallest whole factor that reaches _HEIGHT, if the width allows it.
    factor = -(-_HEIGHT // image.height)
    factor = max(1, min(factor, _WIDEST // image.width))
    size = (factor * image.width, factor * image.height)
    return image.resize(size, Image.Resampling.NEAREST)
  scale = min(_HEIGHT / image.height, _WIDEST / image.width)
  size = tuple(max(1, round(scale * side)) for side in image.size)
  return image.resize(size, Image.Resampling.LANCZOS)


@functools.cache
def _font(size: int) -> Any:
  from PIL import ImageFont

  return ImageFont.load_default(size)


def _shortened(name: str) -> str:
  font = _font(_NAME_SIZE)
  if font.getlength(name) <= _NAME_WIDEST:
    return name
  while name and font.getlength(f'{name}...') > _NAME_WIDEST:
    name = name[:-1]
  return f'{name}...'
