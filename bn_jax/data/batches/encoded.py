"""Decodes batches of pixels from the records of a prepared split.

The worker processes of `stream` run this, so all of it can be pickled.
"""

from typing import NamedTuple

import numpy as np

from bn_jax import errors
from bn_jax.data.batches import crops
from bn_jax.data.disk import levels, pixels, sets


class Bad(NamedTuple):
  """A record that cannot be used.

  Attributes:
    number: its place in the split, from 0 on.
    reason: why it cannot be used, in one line.
  """

  number: int
  reason: str


class Batch(NamedTuple):
  """Examples as they leave a worker.

  Attributes:
    images: [b, S, S, C], or [b, V, S, S, C] where an image has V crops, in
      grey levels, uint8 or float32; 0 where there is no example.
    labels: [b] int32, or targets, [b, K] float32; 0 where there is no example.
    mask: [b] bool, False where there is no example.
    bad: the records that were left out, each once.
  """

  images: np.ndarray
  labels: np.ndarray
  mask: np.ndarray
  bad: tuple[Bad, ...]


class RandomView(NamedTuple):
  """A random crop of an image, which (seed, position in the run) determines.

  Attributes:
    seed: of the run, below 2^64.
    size: S, pixels of a side.
    stated: what the set says of an image, its C channels too.
    area, aspect: see `crops.random_box`.
  """

  seed: int
  size: int
  stated: levels.Stated
  area: tuple[float, float]
  aspect: tuple[float, float]

  @property
  def shape(self) -> tuple[int, ...]:
    return self.size, self.size, self.stated.channels

  def __call__(self, raw: bytes | np.ndarray, position: int) -> np.ndarray:
    image = pixels.opened(raw, self.stated)
    width, height = image.size
    # A counter-based generator: its key alone determines the draws, and a new
    # one for each image is cheap.
    rng = np.random.Generator(np.random.Philox(key=self.seed << 64 | position))
    box = crops.random_box((width, height), rng, self.area, self.aspect)
    side = min(box[2] - box[0], box[3] - box[1])
    draft = pixels.enough((width, height), side, self.size)
    image = pixels.loaded(image, draft)
    if draft is not None:
      scale_x, scale_y = image.width / width, image.height / height
      box = (
        box[0] * scale_x, box[1] * scale_y, box[2] * scale_x, box[3] * scale_y
      )  # fmt: skip
    return crops.cut(image, box, self.size)


class TestView(NamedTuple):
  """The crops of an image that a network is tested on.

  Attributes:
    crop: V, their number, a key of `crops.CROPS`.
    size: S, pixels of a side.
    stated: what the set says of an image, its C channels too.
  """

  crop: int
  size: int
  stated: levels.Stated

  @property
  def shape(self) -> tuple[int, ...]:
    crop_shape = self.size, self.size, self.stated.channels
    return crop_shape if self.crop == 1 else (self.crop, *crop_shape)

  def __call__(self, raw: bytes | np.ndarray, position: int) -> np.ndarray:
    del position
    cropping = crops.crops(self.crop)
    image = pixels.opened(raw, self.stated)
    if self.crop == 1 and image.size == (self.size, self.size):
      return pixels.array(image)
    draft = pixels.enough(
      image.size, min(image.size), cropping.short * self.size
    )
    image = pixels.loaded(image, draft)
    return cropping.take(image, self.size)


View = RandomView | TestView


class Records:
  """The records of a split; a worker that unpickles them opens the files anew.

  Raises:
    DataError: no such split, or one without records.
  """

  def __init__(self, prepared: sets.Set, split: str):
    self.prepared = prepared
    self.split = split
    if prepared.splits.get(split) == 0:
      raise errors.DataError(f'{self} in {prepared.folder} holds no records')
    self._records = prepared.records(split)

  def __str__(self) -> str:
    return f'{self.prepared.name} {self.split}'

  def __len__(self) -> int:
    return len(self._records)

  def __reduce__(self):
    return Records, (self.prepared, self.split)

  def no_labels(self, count: int) -> np.ndarray:
    """Returns zeros, as many labels [count], or targets [count, K]."""
    if self.prepared.classifies:
      return np.zeros(count, np.int32)
    return np.zeros((count, self.prepared.num_classes), np.float32)

  def place_of(self, number: int) -> str:
    return self.prepared.place_of(self.split, number)

  def example(
    self, number: int, position: int, view: View
  ) -> tuple[np.ndarray, int | np.ndarray]:
    """Returns (pixels of shape view.shape, label or target) of a record.

    Args:
      number: the place of the record in the split.
      position: of the example in the run, which a random crop depends on.

    Raises:
      ValueError: the record cannot be read or decoded, or is not what the
        features of the set say, with the reason.
      DataError: the label is no class of the set.
    """
    image, label = self._read(number)
    is_label = self.prepared.classifies
    if is_label and not 0 <= label < self.prepared.num_classes:
      raise errors.DataError(
        f'{self}, {self.place_of(number)}: its label is {label}; allowed: 0 to '
        f'{self.prepared.num_classes - 1}'
      )
    array = view(image, position)
    # They are normalised as ImageNet, in grey levels from 0 to 255.
    levels.check_brightness(array, 'a stream')
    return array, label

  def _read(self, number: int) -> sets.Example:
    """Returns (image's file or array, label) of a record."""
    try:
      return self._records.read([number])[0]
    except MemoryError:
      raise
    except Exception as error:  # array_record and protobuf may raise any
      reason = errors.first_line(error)
      raise ValueError(f'damaged record: {reason}') from error


def batch(
  records: Records,
  numbers: np.ndarray,
  positions: np.ndarray,
  view: View,
  *,
  size: int,
  attempts: int = 1,
) -> Batch:
  """Returns the batch of these records.

  Args:
    numbers: of the records, at most `size`; the rest is masked out.
    positions: of the examples in the run, as many as `numbers`.
    view: turns an image into an array.
    size: b, examples of the batch.
    attempts: records to try for an example: a bad one is replaced by the next
      one of the split. If all of them are bad, the example is masked out.
  """
  images = np.zeros((size, *view.shape), view.stated.levels)
  labels = records.no_labels(size)
  mask = np.zeros(size, bool)
  bad = []
  for i, (first_number, position) in enumerate(zip(numbers, positions)):
    for attempt in range(attempts):
      number = int(first_number + attempt) % len(records)
      try:
        images[i], labels[i] = records.example(number, int(position), view)
      except ValueError as error:
        bad.append(Bad(number, str(error)))
      else:
        mask[i] = True
        break
  return Batch(images, labels, mask, tuple(dict.fromkeys(bad)))
