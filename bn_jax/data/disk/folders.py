"""Reads a folder of images as a set: its files are the records.

What sets of TFDS state in their features is found out by a look at the headers
of the files: of all of them, or of some where they are many (`_LOOKED_AT`).
"""

import concurrent.futures
import functools
import hashlib
import json
import os
import pathlib
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from bn_jax import errors
from bn_jax.data.disk import deep, exif, levels, listing, sets, store

# Files whose headers are read, evenly spread: 10,000 take 1 s from memory.
_LOOKED_AT = 10_000
# Bytes, or about, of those that are read for the digest; 10,000 files take
# 0.4 s from memory.
_READ = 2**28
_THREADS = 16  # a header waits for the disk, or for a server
_GREY = ('1', 'L', 'LA', 'La')
RULES = (
  *listing.RULES,
  ('equal size', f'the headers of up to {_LOOKED_AT:,} files tell whether all '
                 'have one; where not, resolution is needed'),
  ('channels', 'one where all of these are grey, else three; alpha is left '
               'out; 16 bits where one of them has as many'),
)  # fmt: skip


class Folder(NamedTuple):
  """A folder of images, see `sets.Set`.

  Attributes:
    listed: the files and their labels.
    stated: what their headers say.
    contents: CRC-32 of the files that `_contents` reads.
  """

  listed: listing.Listing
  stated: levels.Stated
  contents: tuple[int, ...]

  @property
  def name(self) -> str:
    return self.listed.root.name or 'folder'

  @property
  def folder(self) -> pathlib.Path:
    return self.listed.root

  @property
  def shape(self) -> tuple[int | None, int | None, int]:
    return self.stated.shape

  @property
  def classifies(self) -> bool:
    return bool(self.listed.class_names)

  @property
  def class_names(self) -> tuple[str, ...]:
    return self.listed.class_names

  @property
  def num_classes(self) -> int:
    labels = self.listed.labels['train']
    return len(self.class_names) if self.classifies else labels.shape[1]

  @property
  def splits(self) -> dict[str, int]:
    return {split: len(files) for split, files in self.listed.files.items()}

  def records(self, split: str) -> '_Files':
    if split not in self.listed.files:
      message = errors.unknown('split', split, self.splits)
      raise errors.DataError(f'{self.name}: {message}')
    return _Files(
      str(self.folder), self.listed.files[split], self.listed.labels[split]
    )

  def known_labels(self, split: str) -> np.ndarray:
    return self.listed.labels[split]

  def place_of(self, split: str, number: int) -> str:
    return self.listed.files[split][number]

  def size_on_disk(self, split: str) -> int:
    return int(self.listed.sizes[split].sum())

  def made_of(self, split: str) -> str:
    times = [
      os.stat(self.folder / file).st_mtime_ns
      for file in self.listed.files[split]
    ]
    facts = [store.CACHE_VERSION, *self.stated, self.digest()]
    return json.dumps(
      [*facts, hashlib.sha256(repr(times).encode()).hexdigest()]
    )

  def cache_file(
    self, split: str, resolution: int | None
  ) -> pathlib.Path | None:
    """Returns a file below BN_JAX_CACHE_DIR, never one in the folder."""
    base = os.environ.get('BN_JAX_CACHE_DIR')
    if not base:
      return None
    place = hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:12]
    file = f'{split}-{resolution or "full"}.npz'
    return pathlib.Path(base).expanduser() / f'folder-{place}' / file

  def digest(self) -> str:
    """Returns the sha256 of names, sizes and labels of all files.

    Of some or all, see `_contents`, their content counts too: what is not
    compressed changes without a change of size.
    """
    content = hashlib.sha256(repr(self.class_names).encode())
    for split, files in self.listed.files.items():
      content.update(b'\0\0'.join(map(os.fsencode, (split, *files))))
      content.update(self.listed.sizes[split].astype('<i8').tobytes())
      content.update(self.listed.labels[split].tobytes())
    content.update(repr(self.contents).encode())
    return content.hexdigest()


class _Files:
  """The files of a split, see `sets.Records`."""

  def __init__(self, root: str, files: Sequence[str], labels: np.ndarray):
    self._root, self._files, self._labels = root, files, labels

  def __len__(self) -> int:
    return len(self._files)

  def read(self, numbers: Sequence[int]) -> list[sets.Example]:
    return [
      (_content(self._root, self._files[number]), self._labels[number])
      for number in numbers
    ]


def opened(path: pathlib.Path) -> Folder:
  """Lists a folder and reads the headers of its files.

  Raises:
    DataError: see `listing.of`; or a file that is no image.
  """
  listed = listing.of(path)
  for split, files in listed.files.items():
    if not files:
      raise errors.DataError(f'folder:{path}: {split} has no images')
  return Folder(listed, _stated(listed), _contents(listed))


def _spread(listed: listing.Listing, most: int) -> list[str]:
  """Returns up to so many files, evenly spread."""
  paths = [path for files in listed.files.values() for path in files]
  step = max(1, len(paths) / most)
  return [paths[int(i * step)] for i in range(min(len(paths), most))]


def _contents(listed: listing.Listing) -> tuple[int, ...]:
  """Returns the CRC-32 of all files, or of some where they take too long."""
  sizes = np.concatenate(list(listed.sizes.values()))
  most = _READ // max(1, int(sizes.mean()))
  files = _spread(listed, max(1, min(most, _LOOKED_AT)))
  look = lambda file: zlib.crc32(_content(listed.root, file))
  try:
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as threads:
      return tuple(threads.map(look, files))
  except OSError as error:
    raise errors.DataError(
      f'cannot read folder:{listed.root}: {error}'
    ) from error


def _content(root: str | os.PathLike, file: str) -> bytes:
  # The bare calls of the system: Python's file objects take as long again.
  number = os.open(os.path.join(root, file), os.O_RDONLY)
  try:
    size = os.fstat(number).st_size
    content = os.read(number, size)
    while len(content) < size and (rest := os.read(number, size)):
      content += rest
  finally:
    os.close(number)
  return content


def _stated(listed: listing.Listing) -> levels.Stated:
  look = functools.partial(_looked_at, listed.root)
  with concurrent.futures.ThreadPoolExecutor(_THREADS) as threads:
    looks = set(threads.map(look, _spread(listed, _LOOKED_AT)))
  extents = {extent for extent, _, _ in looks}
  height, width = extents.pop() if len(extents) == 1 else (None, None)
  is_grey = all(grey for _, grey, _ in looks)
  dtype = 'uint16' if any(wide for _, _, wide in looks) else 'uint8'
  return levels.Stated((height, width, 1 if is_grey else 3), dtype, turned=True)


def _looked_at(
  root: pathlib.Path, file: str
) -> tuple[tuple[int, int], bool, bool]:
  """Returns ((height, width), whether it is grey, of 16 bits) of an image.

  Raises:
    DataError: it is none.
  """
  try:
    with Image.open(root / file, formats=deep.FORMATS) as image:
      width, height = exif.upright_size(image)
      is_deep = deep.is_deep(image)
      is_grey = image.mode in _GREY or image.mode.startswith('I;16')
      return (height, width), is_grey, is_deep
  except Exception as error:  # Pillow's formats raise any error
    if isinstance(error, MemoryError):
      raise
    reason = (
      f'allowed: {", ".join(deep.FORMATS)}'
      if isinstance(error, Image.UnidentifiedImageError)
      else errors.first_line(error)
    )
    raise errors.DataError(f'{root / file} is no image: {reason}') from error
