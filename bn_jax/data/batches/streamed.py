"""Feeds steps from a stream, for examples that do not fit in memory.

The split that a step gets is the batch itself, see `stream`.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from bn_jax import checks, placement, types
from bn_jax.data.batches import examples, in_memory, stream
from bn_jax.data.disk import facts, sets

# The usual mean and standard deviation of ImageNet's red, green and blue, in
# grey levels, for every set: its own would need all of its images.
_MEAN = (123.675, 116.28, 103.53)
_STD = (58.395, 57.12, 57.375)


def settings(
  *,
  resolution: int,
  crop_area: Sequence[float],
  crop_aspect: Sequence[float],
  workers: int,
  max_skipped: int,
  fixed_batches: bool = False,
) -> stream.Settings:
  """Returns how images are read; keywords as of `images.make`.

  Raises:
    ValueError: a keyword out of its range.
  """
  for name, bounds, limit in (
    ('crop_area', crop_area, 1.0),
    ('crop_aspect', crop_aspect, float('inf')),
  ):
    allowed = f'(smallest, largest), above 0 {"to 1" if limit == 1 else ""}'
    allowed = allowed.strip()
    checks.sequence(name, bounds, checks.is_number, allowed, length=2)
    if not 0 < bounds[0] <= bounds[1] <= limit or math.isinf(bounds[1]):
      raise checks.Refused(name, bounds, allowed)
  checks.count('workers', workers, least=0)
  checks.count('max_skipped', max_skipped, least=0)
  return stream.Settings(
    size=resolution,
    area=tuple(crop_area),
    aspect=tuple(crop_aspect),
    workers=workers,
    max_skipped=max_skipped,
    fixed_batches=fixed_batches,
  )


def load(
  prepared: sets.Set,
  expected: facts.Facts,
  stream_settings: stream.Settings,
  moments: tuple[np.ndarray, np.ndarray] | None = None,
) -> examples.Dataset:
  """Opens the training and the test split of a set, and reads an image of each.

  What is wrong with all of them is then said before a network is compiled.

  Args:
    moments: (mean, std) that inputs are normalised by; None: ImageNet's.

  Raises:
    DataError: the set is damaged, or of other sizes than `expected`.
  """
  facts.check(prepared, expected)
  splits = 'train', expected.test_split
  for split in splits:
    stream.first(prepared, split, 1, stream_settings)
  return examples.Dataset(
    *(Streamed(prepared, split, stream_settings, moments) for split in splits)
  )


class Streamed:
  """A split that is read while it is used.

  Attributes:
    num_examples: N.
  """

  def __init__(
    self,
    prepared: sets.Set,
    split: str,
    stream_settings: stream.Settings,
    moments: tuple[np.ndarray, np.ndarray] | None = None,
    sharding: jax.sharding.Sharding | None = None,
  ):
    prepared.records(split)  # raises if the split is absent or damaged
    self.num_examples = prepared.splits[split]
    self._prepared, self._split = prepared, split
    self._settings, self._sharding = stream_settings, sharding
    self._moments = moments

  def moments(self) -> tuple[np.ndarray, np.ndarray]:
    if self._moments is not None:
      return self._moments
    channels = self._prepared.shape[-1]
    return tuple(np.float32(values[:channels]) for values in (_MEAN, _STD))

  def placed(self, sharding: jax.sharding.Sharding) -> Self:
    return type(self)(
      self._prepared, self._split, self._settings, self._moments, sharding
    )

  def feed(self, batch_size: int) -> 'StreamFeed':
    return StreamFeed(self, batch_size)

  def first(self, count: int) -> types.Batch:
    images, labels = stream.first(
      self._prepared, self._split, count, self._settings
    )
    return self.batch(images, labels, None)

  def batches(self, batch_size: int) -> Iterator[types.Batch]:
    part = self.part(batch_size)
    with stream.evaluation(
      self._prepared,
      self._split,
      batch_size=batch_size,
      settings=self._settings,
      **part,
    ) as batches:
      for images, labels, mask in batches:
        yield self.batch(images, labels, mask, parts=bool(part))

  def crops(self, batch_size: int, count: int) -> Iterator[types.Batch]:
    with stream.evaluation(
      self._prepared,
      self._split,
      batch_size=batch_size,
      settings=self._settings,
      crop=count,
    ) as batches:
      for images, labels, mask in batches:
        split = self.split(images[:, 0], labels)
        yield in_memory.crops_of(split, images, labels, mask)

  def batch(
    self,
    images: np.ndarray,
    labels: np.ndarray,
    mask: np.ndarray | None,
    *,
    parts: bool = False,
  ) -> types.Batch:
    """Returns images, labels and mask, [B] bool, as a batch; see `split`."""
    split = self.split(images, labels, parts=parts)
    inputs = in_memory.normalised(split, split.images.astype(jnp.float32))
    if mask is not None:
      mask = self._put(mask, parts)
    return types.Batch(inputs, split.labels, mask)

  def split(
    self, images: np.ndarray, labels: np.ndarray, *, parts: bool = False
  ) -> types.Split:
    """Puts a batch on the devices, as a split that holds nothing else.

    Args:
      images: [B, H, W, C], uint8 or float32 grey levels.
      labels: [B] int32, the class of each image.
      parts: whether these are a part, and other processes have the others.
    """
    return types.Split(
      *self._put((images, labels), parts), *self._put(self.moments(), False)
    )

  def _put(self, tree: Any, parts: bool) -> Any:
    if parts:
      return placement.put_parts(tree, self._sharding.mesh)
    return placement.put(tree, self._sharding)

  def part(self, batch_size: int) -> dict[str, int]:
    """Returns `stream`'s keywords of this process's part; {} for all of it."""
    is_local = self._sharding is None or self._sharding.is_fully_addressable
    if is_local or batch_size % jax.process_count():
      return {}
    return {
      'process_index': jax.process_index(),
      'process_count': jax.process_count(),
    }

  def training(self, **keywords) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    return stream.training(
      self._prepared, self._split, settings=self._settings, **keywords
    )


class StreamFeed:
  """A feed that reads the batches of a split ahead of the steps."""

  def __init__(self, streamed: Streamed, batch_size: int):
    self._streamed, self._batch_size = streamed, batch_size
    self._part = streamed.part(batch_size)
    self._batches, self._next = None, None

  def start(self, *, seed: int, first_step: int) -> None:
    self.close()
    self._batches = self._streamed.training(
      batch_size=self._batch_size,
      seed=seed,
      first_step=first_step,
      **self._part,
    )

  def peek(self) -> types.Split:
    if self._next is None:
      self._next = self._streamed.split(
        *next(self._batches), parts=bool(self._part)
      )
    return self._next

  def take(self) -> types.Split:
    split, self._next = self.peek(), None
    return split

  def close(self) -> None:
    if self._batches is not None:
      self._batches.close()
    self._batches, self._next = None, None
