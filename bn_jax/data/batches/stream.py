"""Reads large sets of images in batches while the network trains.

A batch is a pure function of (seed, step): the numbers of threads, worker
processes and hosts do not change it, nor does a restart. Grain reads, decodes
and crops ahead of the training.
"""

import math
from typing import NamedTuple

import grain
import numpy as np

from bn_jax import errors
from bn_jax.data.batches import ahead, crops, encoded, order
from bn_jax.data.disk import sets

_STEPS = 2**40  # grain wants a length; no run has as many steps


class Settings(NamedTuple):
  """How images are read.

  Attributes:
    size: S, pixels of a side of a crop.
    area, aspect: of a training crop, see `crops.random_box`.
    workers: processes that decode; 0 decodes in threads of this one. More than
      0 need /dev/shm, and a `__main__` guard in the program.
    max_skipped: bad records that a run may leave out; more are an error. Each
      record counts once, in each training process that reads it.
    fixed_batches: whether every epoch has the batches of the first.
  """

  size: int
  area: tuple[float, float] = (0.08, 1.0)
  aspect: tuple[float, float] = (3 / 4, 4 / 3)
  workers: int = 0
  max_skipped: int = 0
  fixed_batches: bool = False


def training(
  prepared: sets.Set,
  split: str,
  *,
  batch_size: int,
  seed: int,
  settings: Settings,
  first_step: int = 0,
  process_index: int = 0,
  process_count: int = 1,
) -> ahead.Stream:
  """Returns an endless stream of random crops of a split.

  Batch t has the examples that `order` says. Process p of P yields part p of
  each batch: the parts in order are the batch. (seed, position in the run)
  determines a crop. A bad record is replaced by the next good one of the split.

  Args:
    batch_size: B, over all processes.
    seed: of the order and the crops, 0 to 2^64 - 1.
    first_step: t of the first batch.
    process_index: p, 0 to P - 1.
    process_count: P, which divides B.

  Returns:
    A stream of (images [B/P, S, S, C] uint8 or float32, labels [B/P] int32).

  Raises:
    ValueError: an argument out of its range.
    DataError: the split is absent, damaged or smaller than a batch; while the
      stream runs, see `ahead.Stream`, or no record can be read.
  """
  part = _part(batch_size, process_index, process_count)
  if not 0 <= seed < 2**64:
    raise ValueError(f'seed is {seed}; allowed: 0 to 2^64 - 1')
  records = encoded.Records(prepared, split)
  if len(records) < batch_size:
    raise errors.DataError(
      f'{records} holds {len(records)} examples, fewer than one batch of '
      f'{batch_size}; give a smaller batch_size'
    )
  view = encoded.RandomView(
    seed, settings.size, prepared.stated, settings.area, settings.aspect
  )
  attempts = min(settings.max_skipped + 1, len(records))
  by_step = _Training(records, view, part, attempts, settings.fixed_batches)
  batches = grain.MapDataset.source(by_step)[first_step:]

  def convert(batch):
    if not batch.mask.all():
      raise errors.DataError(f'{records} holds no record that can be read')
    return batch.images, batch.labels

  return ahead.Stream(
    batches,
    records,
    convert,
    batch_bytes=part.size * _bytes(view),
    workers=settings.workers,
    max_skipped=settings.max_skipped,
  )


def evaluation(
  prepared: sets.Set,
  split: str,
  *,
  batch_size: int,
  settings: Settings,
  process_index: int = 0,
  process_count: int = 1,
  crop: int = 1,
) -> ahead.Stream:
  """Returns a stream of all examples once, in order; pads the last batch.

  Process p of P yields part p of each batch, and as many batches as the others.
  A bad record is masked out. Arguments without a word are as for `training`.

  Args:
    crop: V, number of crops of an image, a key of `crops.CROPS`.

  Returns:
    A stream of (images [B/P, S, S, C] uint8 or float32, or [B/P, V, S, S, C]
    for several crops; labels [B/P] int32; mask [B/P] bool).

  Raises:
    ValueError: an argument out of its range.
    DataError: the split is absent or damaged; or see `ahead.Stream`.
  """
  part = _part(batch_size, process_index, process_count)
  crops.crops(crop)  # raises for a number that is not allowed
  records = encoded.Records(prepared, split)
  view = encoded.TestView(crop, settings.size, prepared.stated)
  batches = grain.MapDataset.source(_Evaluation(records, view, part))
  return ahead.Stream(
    batches,
    records,
    lambda batch: batch[:3],
    batch_bytes=part.size * _bytes(view),
    workers=settings.workers,
    max_skipped=settings.max_skipped,
  )


def first(
  prepared: sets.Set, split: str, count: int, settings: Settings
) -> tuple[np.ndarray, np.ndarray]:
  """Reads middle crops of the first `count` examples that can be read.

  Returns:
    (images [count, S, S, C] uint8 or float32, labels [count] int32).

  Raises:
    DataError: the split holds fewer, or more bad records than may be skipped.
  """
  images, labels = [], []
  with evaluation(
    prepared,
    split,
    batch_size=min(count, 64),  # so that little more than `count` is decoded
    settings=settings._replace(workers=0),
  ) as batches:
    for batch_images, batch_labels, mask in batches:
      images.extend(batch_images[mask])
      labels.extend(batch_labels[mask])
      if len(labels) >= count:
        return np.stack(images[:count]), np.stack(labels[:count])
  raise errors.DataError(
    f'{prepared.name} {split} holds {len(labels)} examples that can be read; '
    f'asked for: the first {count}'
  )


def _bytes(view: encoded.View) -> int:
  return math.prod(view.shape) * view.stated.levels.itemsize


class _Part(NamedTuple):
  """Part `index` of the `count` parts of a batch, of `size` examples each."""

  size: int
  index: int
  count: int

  def positions(self, step: int) -> np.ndarray:
    """Returns the positions of its examples in the run, [size]."""
    return (step * self.count + self.index) * self.size + np.arange(self.size)


class _Training:
  """The training batches of a run, indexed by step: `encoded.Batch`es."""

  def __init__(self, records, view, part, attempts, fixed_batches=False):
    self._records = records
    self._view = view
    self._part = part
    self._attempts = attempts
    kind = order.Fixed if fixed_batches else order.Drawn
    self._order = kind(len(records), part.size, part.count, seed=view.seed)

  def __len__(self) -> int:
    return _STEPS

  def __getitem__(self, step: int) -> encoded.Batch:
    part = self._part
    return encoded.batch(
      self._records,
      self._order.examples(step, part.index),
      part.positions(step),
      self._view,
      size=part.size,
      attempts=self._attempts,
    )


class _Evaluation:
  """The batches of a split in order, indexed by number: `encoded.Batch`es."""

  def __init__(self, records, view, part):
    self._records = records
    self._view = view
    self._part = part

  def __len__(self) -> int:
    return math.ceil(len(self._records) / (self._part.size * self._part.count))

  def __getitem__(self, step: int) -> encoded.Batch:
    positions = self._part.positions(step)
    numbers = positions[positions < len(self._records)]
    return encoded.batch(
      self._records, numbers, numbers, self._view, size=self._part.size
    )


def _part(batch_size: int, index: int, count: int) -> _Part:
  if batch_size < 1 or batch_size % count:
    raise ValueError(
      f'batch_size is {batch_size}; allowed: a multiple of the {count} '
      'processes'
    )
  if not 0 <= index < count:
    raise ValueError(f'process_index is {index}; allowed: 0 to {count - 1}')
  return _Part(batch_size // count, index, count)
