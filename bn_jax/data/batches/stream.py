"""Large sets of images, read in batches while the network trains.

Each batch is a pure function of (seed, step): threads, worker processes, hosts
and restarts change nothing. Reading, decoding and cropping run ahead of the
training, by grain.
"""

import math
from typing import NamedTuple

import grain
import numpy as np

from bn_jax import errors
from bn_jax.data.batches import ahead, crops, encoded, order
from bn_jax.data.disk import store

_STEPS = 2**40  # more than any run makes


class Settings(NamedTuple):
  """How images are read.

  Attributes:
    size: S, pixels of a side of what is cut out of them.
    area: smallest and largest share of an image that a training crop takes.
    aspect: its smallest and largest width / height.
    workers: processes that decode; 0 decodes in threads of this one. More than
      0 needs a `__main__` guard in the program, and /dev/shm.
    max_skipped: bad records that a run may leave out before it is an error; one
      is counted once, and by each process for itself.
    fixed_batches: whether every epoch has the batches of the first.
  """

  size: int
  area: tuple[float, float] = (0.08, 1.0)
  aspect: tuple[float, float] = (3 / 4, 4 / 3)
  workers: int = 0
  max_skipped: int = 0
  fixed_batches: bool = False


def training(
  prepared: store.Prepared,
  split: str,
  *,
  batch_size: int,
  seed: int,
  settings: Settings,
  first_step: int = 0,
  process_index: int = 0,
  process_count: int = 1,
) -> ahead.Stream:
  """Random crops of a split that is shuffled anew each epoch, without end.

  Batch t takes positions t B to (t + 1) B - 1 of the concatenated epochs,
  without remainder (fixed batches: see `order`); process p of P yields part p
  of each, so that the parts in order are the batch. The crop of a position is
  drawn by (seed, position). A bad record is replaced by the next good one of
  the split.

  Args:
    prepared: the dataset.
    split: its name.
    batch_size: B, over all processes.
    seed: of the order and the crops, 0 or more.
    settings: see `Settings`.
    first_step: t of the first batch.
    process_index: p.
    process_count: P, which divides B.

  Returns:
    Of (images [B/P, S, S, C] uint8, labels [B/P] int32).

  Raises:
    ValueError: an argument out of its range.
    DataError: a split that is absent, damaged or smaller than a batch.
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
    seed, settings.size, _channels(prepared), settings.area, settings.aspect
  )
  attempts = min(settings.max_skipped + 1, len(records))
  made = _Training(records, view, part, attempts, settings.fixed_batches)
  batches = grain.MapDataset.source(made)[first_step:]

  def given(batch):
    if not batch.mask.all():
      raise errors.DataError(f'{records} holds no record that can be read')
    return batch.images, batch.labels

  return ahead.Stream(
    batches,
    records,
    given,
    batch_bytes=part.size * math.prod(view.shape),
    workers=settings.workers,
    max_skipped=settings.max_skipped,
  )


def evaluation(
  prepared: store.Prepared,
  split: str,
  *,
  batch_size: int,
  settings: Settings,
  process_index: int = 0,
  process_count: int = 1,
  crop: int = 1,
) -> ahead.Stream:
  """A split in order, every example once; the last batch is padded.

  Process p of P yields part p of each batch, and as many batches as the others.
  A bad record is masked out.

  Args:
    crop: crops of an image, a key of `crops.CROPS`.
    **others: as for `training`.

  Returns:
    Of (images [B/P, S, S, C] uint8, or [B/P, crop, S, S, C] where there are
    several, labels [B/P] int32, mask [B/P] bool).

  Raises:
    ValueError, DataError: as for `training`.
  """
  part = _part(batch_size, process_index, process_count)
  crops.crops(crop)
  records = encoded.Records(prepared, split)
  view = encoded.TestView(crop, settings.size, _channels(prepared))
  batches = grain.MapDataset.source(_Evaluation(records, view, part))
  return ahead.Stream(
    batches,
    records,
    lambda batch: batch[:3],
    batch_bytes=part.size * math.prod(view.shape),
    workers=settings.workers,
    max_skipped=settings.max_skipped,
  )


def first(
  prepared: store.Prepared, split: str, count: int, settings: Settings
) -> tuple[np.ndarray, np.ndarray]:
  """Middle crops of the first so many examples that can be read.

  Returns:
    (images [count, S, S, C] uint8, labels [count] int32).

  Raises:
    DataError: the split holds fewer.
  """
  images, labels = [], []
  with evaluation(
    prepared,
    split,
    batch_size=min(count, 64),
    settings=settings._replace(workers=0),
  ) as batches:
    for found, classes, mask in batches:
      images.extend(found[mask])
      labels.extend(classes[mask])
      if len(labels) >= count:
        return np.stack(images[:count]), np.array(labels[:count], np.int32)
  raise errors.DataError(
    f'{prepared.name} {split} holds {len(labels)} examples that can be read; '
    f'asked for: the first {count}'
  )


class _Part(NamedTuple):
  """The part of each batch that this process reads: number `index` of `count`,
  of `size` examples.
  """

  size: int
  index: int
  count: int

  def positions(self, step: int) -> np.ndarray:
    """Of its examples in the run."""
    return (step * self.count + self.index) * self.size + np.arange(self.size)


class _Training:
  """Batch t of a run, by t."""

  def __init__(self, records, view, part, attempts, fixed_batches=False):
    self._records = records
    self._view = view
    self._part = part
    self._attempts = attempts
    arranged = order.Fixed if fixed_batches else order.Drawn
    self._order = arranged(len(records), part.size, part.count, seed=view.seed)

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
  """Batch t of a split in order, by t."""

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


def _channels(prepared: store.Prepared) -> int:
  return 1 if prepared.shape[-1] == 1 else 3
