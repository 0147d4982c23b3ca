"""Decodes batches of pixels from the records of a prepared split.

The worker processes of `stream` run this, so all of it can be pickled.
"""

from typing import NamedTuple

import numpy as np

from bn_jax import errors
from bn_jax.data.batches import crops
from bn_jax.data.disk import pixels, store


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
    images: [b, S, S, C] uint8, or [b, V, S, S, C] where an image has V crops;
      0 where there is no example.
    labels: [b] int32; 0 where there is no example.
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
    channels: C, 1 or 3.
    area, aspect: see `crops.random_box`.
  """

  seed: int
  size: int
  channels: int
  area: tuple[float, float]
  aspect: tuple[float, float]

  @property
  def shape(self) -> tuple[int, ...]:
    return self.size, self.size, self.channels

  def __call__(self, encoded: bytes, position: int) -> np.ndarray:
    image = pixels.opened(encoded)
    width, height = image.size
    # A counter-based generator: its key alone determines the draws, and a new
    # one for each image is cheap.
    rng = np.random.Generator(np.random.Philox(key=self.seed << 64 | position))
    box = crops.random_box((width, height), rng, self.area, self.aspect)
    side = min(box[2] - box[0], box[3] - box[1])
    draft = pixels.enough((width, height), side, self.size)
    image = pixels.loaded(image, self.channels, draft)
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
    channels: C, 1 or 3.
  """

  crop: int
  size: int
  channels: int

  @property
  def shape(self) -> tuple[int, ...]:
    crop_shape = self.size, self.size, self.channels
    return crop_shape if self.crop == 1 else (self.crop, *crop_shape)

  def __call__(self, encoded: bytes, position: int) -> np.ndarray:
    del position
    cropping = crops.crops(self.crop)
    image = pixels.opened(encoded)
    if self.crop == 1 and image.size == (self.size, self.size):
      return pixels.array(image, self.channels)
    draft = pixels.enough(
      image.size, min(image.size), cropping.short * self.size
    )
    image = pixels.loaded(image, self.channels, draft)
    return cropping.take(image, self.size)


View = RandomView | TestView


class Records:
  """The records of a split; a worker that unpickles them opens the files anew.

  Raises:
    DataError: no such split, or one without records.
  """

  def __init__(self, prepared: store.Prepared, split: str):
    # Imported late: it takes a second, and only reading needs it.
    from tensorflow_datasets.proto import tf_example_pb2

    self._parse = tf_example_pb2.Example.FromString
    self.prepared = prepared
    self.split = split
    if prepared.splits.get(split) == 0:
      raise errors.DataError(f'{self} in {prepared.folder} holds no records')
    self._source = store.source(prepared, split)

  def __str__(self) -> str:
    return f'{self.prepared.name} {self.split}'

  def __len__(self) -> int:
    return len(self._source)

  def __reduce__(self):
    return Records, (self.prepared, self.split)

  def place_of(self, number: int) -> str:
    return store.place_of(self.prepared, self.split, number)

  def example(
    self, number: int, position: int, view: View
  ) -> tuple[np.ndarray, int]:
    """Returns (pixels of shape view.shape, label) of a record.

    Args:
      number: the place of the record in the split.
      position: of the example in the run, which a random crop depends on.

    Raises:
      ValueError: the record cannot be read or decoded, with the reason.
      DataError: the label is no class of the set.
    """
    image, label = self._read(number)
    if not 0 <= label < self.prepared.num_classes:
      raise errors.DataError(
        f'{self}, {self.place_of(number)}: its label is {label}; allowed: 0 to '
        f'{self.prepared.num_classes - 1}'
      )
    return view(image, position), label

  def _read(self, number: int) -> tuple[bytes, int]:
    """Returns (encoded image, label) of a record."""
    # `self._source[number]` gives the same two, but takes twice the time.
    try:
      data = self._source.data_source[number]
      features = self._parse(data).features.feature
      image = features[self.prepared.image_key].bytes_list.value[0]
      return image, features[self.prepared.label_key].int64_list.value[0]
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
    view: turns an encoded image into pixels.
    size: b, examples of the batch.
    attempts: records to try for an example: a bad one is replaced by the next
      one of the split. If all of them are bad, the example is masked out.
  """
  images = np.zeros((size, *view.shape), np.uint8)
  labels = np.zeros(size, np.int32)
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
