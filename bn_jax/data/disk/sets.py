"""Defines what is read of a set on disk, wherever its examples come from.

Sets of tensorflow-datasets (`store`), folders of images (`folders`) and arrays
(`arrays`) are read by the same code: examples by their number in a split.
"""

import pathlib
import zlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from bn_jax.data.disk import levels

# (The file of an image, or an array; its label, or a target [K].)
Example = tuple[bytes | np.ndarray, int | np.ndarray]
TEST_SPLITS = ('test', 'validation')  # the first of them that a set has counts


class Records(Protocol):
  """The examples of a split, which are opened but not read."""

  def __len__(self) -> int:
    """Returns how many there are."""

  def read(self, numbers: Sequence[int]) -> list[Example]:
    """Reads the examples with these numbers; it may raise any error."""


class Set(Protocol):
  """A set that lies on disk.

  Attributes:
    name: as messages call it.
    folder: in which it lies.
    stated: what is known of each image; None where inputs are vectors.
    shape: of an input, see `facts.Facts`.
    classifies: whether examples have labels; else targets, vectors of numbers.
    class_names: by label; () where there are targets.
    num_classes: their number, or the size of a target.
    splits: name -> number of examples.
  """

  name: str
  folder: pathlib.Path
  stated: levels.Stated | None
  shape: tuple[int | None, ...]
  classifies: bool
  class_names: tuple[str, ...]
  num_classes: int
  splits: Mapping[str, int]

  def records(self, split: str) -> Records:
    """Opens a split; raises DataError where it is absent or damaged."""

  def known_labels(self, split: str) -> np.ndarray | None:
    """Returns labels [N] or targets [N, K]; None: they lie among the images."""

  def place_of(self, split: str, number: int) -> str:
    """Returns where an example lies, for messages: 'record 3 of FILE'."""

  def size_on_disk(self, split: str) -> int:
    """Returns the bytes that a split takes."""

  def made_of(self, split: str) -> str:
    """Returns what decoded arrays of a split are made of, as JSON."""

  def digest(self) -> str:
    """Returns what tells this set from another one of its name."""

  def cache_file(
    self, split: str, resolution: int | None
  ) -> pathlib.Path | None:
    """Returns where decoded arrays are kept; None: nowhere."""


class Parted(NamedTuple):
  """A set whose splits are parts of the splits of another one.

  Attributes:
    base: the other set.
    parts: split -> (split of the base, numbers of its examples, ascending).
  """

  base: Set
  parts: Mapping[str, tuple[str, np.ndarray]]

  name = property(lambda self: self.base.name)
  folder = property(lambda self: self.base.folder)
  stated = property(lambda self: self.base.stated)
  shape = property(lambda self: self.base.shape)
  classifies = property(lambda self: self.base.classifies)
  class_names = property(lambda self: self.base.class_names)
  num_classes = property(lambda self: self.base.num_classes)

  @property
  def splits(self) -> dict[str, int]:
    return {split: len(numbers) for split, (_, numbers) in self.parts.items()}

  def records(self, split: str) -> Records:
    whole, numbers = self.parts[split]
    return _Part(self.base.records(whole), numbers)

  def known_labels(self, split: str) -> np.ndarray | None:
    whole, numbers = self.parts[split]
    labels = self.base.known_labels(whole)
    return None if labels is None else labels[numbers]

  def place_of(self, split: str, number: int) -> str:
    whole, numbers = self.parts[split]
    return self.base.place_of(whole, int(numbers[number]))

  def size_on_disk(self, split: str) -> int:
    whole, numbers = self.parts[split]
    share = len(numbers) / max(1, self.base.splits[whole])
    return round(share * self.base.size_on_disk(whole))

  def digest(self) -> str:
    return self.base.digest()

  def made_of(self, split: str) -> str:
    return self.base.made_of(self.parts[split][0])

  def cache_file(
    self, split: str, resolution: int | None
  ) -> pathlib.Path | None:
    """Returns a file of these very parts, beside that of the whole split."""
    whole, numbers = self.parts[split]
    path = self.base.cache_file(whole, resolution)
    if path is None:
      return None
    part = zlib.crc32(numbers.astype('<i8').tobytes())
    return path.with_name(f'{path.stem}-{split}-{part:08x}.npz')


class _Part:
  """Some of the records of a split."""

  def __init__(self, records: Records, numbers: np.ndarray):
    self._records, self._numbers = records, numbers

  def __len__(self) -> int:
    return len(self._numbers)

  def read(self, numbers: Sequence[int]) -> list[Example]:
    return self._records.read([int(self._numbers[n]) for n in numbers])


def split_to_test_on(
  dataset: Set, names: Sequence[str] = TEST_SPLITS
) -> str | None:
  """Returns the first of these splits that a set has; None without any."""
  return next((name for name in names if name in dataset.splits), None)
