"""Prepares batches ahead of training, by grain, in threads or processes."""

import contextlib
import gc
import logging
import multiprocessing
import os
import shutil
import signal
import threading
import weakref
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from typing import Any, Self

import grain
import numpy as np
from absl import flags

from bn_jax import errors
from bn_jax.data.batches import encoded

_log = logging.getLogger('bn_jax')

_THREADS = 16  # more of them would only wait for Python's lock
# Largest number of bytes of the batches ahead in a process: 55 batches of 128
# images of 224 pixels, more than 16 threads prepare.
_BYTES = 2**30
_SHARED = '/dev/shm'
# Batches of a worker in shared memory: the one in preparation, one in each of
# grain's two queues, and the one in use.
_SHARED_EACH = 4


class Stream(Iterator):
  """Batches that are prepared ahead; `close` it, or use it in a `with`.

  Args:
    batches: indexed by number; with workers, they are pickled.
    records: of the batches, for messages.
    convert: a batch -> what the stream yields.
    batch_bytes: bytes of the images of a batch.
    workers: processes that prepare batches; 0 uses threads of this one.
    max_skipped: number of bad records that may be left out.

  Raises:
    ConfigError: /dev/shm has no room for the workers' batches.
    DataError: while it runs: more than `max_skipped` bad records, or a worker
      process that has ended.
  """

  def __init__(
    self,
    batches: 'grain.MapDataset[encoded.Batch]',
    records: encoded.Records,
    convert: Callable[[encoded.Batch], Any],
    *,
    batch_bytes: int,
    workers: int,
    max_skipped: int,
  ):
    self._records = records
    self._max_skipped = max_skipped
    self._convert = convert
    self._skipped = set()
    self._ended = False
    self._started = False
    self._workers = min(workers, len(batches))
    self._iterators = [iter(_ahead(batches, batch_bytes, self._workers))]
    # A finalizer also runs at the end of the program, where grain would
    # complain of an open iterator.
    self._stop = weakref.finalize(self, _stop, self._iterators, self._workers)

  def __next__(self) -> Any:
    if self._ended:
      raise StopIteration
    if not self._stop.alive:
      raise ValueError('this stream of batches is closed; make a new one')
    try:
      batch = self._next()
      self._account(batch.bad)
      return self._convert(batch)
    except StopIteration:
      self._ended = True
      self.close()
      raise
    except BaseException as error:
      self.close()
      if self._workers and isinstance(error, RuntimeError):
        raise errors.DataError(
          f'{self._records}: a worker process has ended ({error}); if memory '
          'was short, give fewer workers or smaller batches'
        ) from error
      raise

  def _next(self) -> encoded.Batch:
    if not self._workers:
      return next(self._iterators[0])
    with contextlib.nullcontext() if self._started else _signals_held():
      batch = next(self._iterators[0])
    self._started = True
    # Copied out of shared memory: there is little of it, and Python complains
    # of what is left there when the program ends.
    arrays = (np.array(array) for array in batch[:3])
    return encoded.Batch(*arrays, batch.bad)

  def _account(self, bad: tuple[encoded.Bad, ...]) -> None:
    """Warns of each bad record once; too many of them are an error."""
    for number, reason in bad:
      if number in self._skipped:
        continue
      message = f'{self._records}, {self._records.place_of(number)}: {reason}'
      if len(self._skipped) == self._max_skipped:
        raise errors.DataError(
          f'{message}; max_skipped is {self._max_skipped}: repair it, or allow '
          'more to be left out'
        )
      self._skipped.add(number)
      _log.warning('%s; it is left out', message)

  def close(self) -> None:
    """Stops threads and worker processes."""
    self._stop()

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *unused) -> None:
    self.close()


def _stop(iterators: list['grain.DatasetIterator'], workers: int) -> None:
  iterators.pop().close()
  if workers:
    # Reference cycles of the iterator hold batches in shared memory.
    gc.collect()


def _ahead(
  batches: 'grain.MapDataset[encoded.Batch]', batch_bytes: int, workers: int
) -> 'grain.IterDataset[encoded.Batch]':
  """Returns the batches in order, each of them prepared by one thread."""
  cores = os.cpu_count() or 1
  threads = max(1, min(_THREADS, cores // max(1, workers)))
  # One batch more than threads, so that no thread waits for the training.
  buffer_size = max(2, min(threads + 1, _BYTES // batch_bytes))
  options = grain.ReadOptions(
    num_threads=min(threads, buffer_size), prefetch_buffer_size=buffer_size
  )
  dataset = batches.to_iter_dataset(options)
  if not workers:
    return dataset
  _check_shared(workers, batch_bytes)
  if not flags.FLAGS.is_parsed():  # grain reads flags, even of other programs
    flags.FLAGS.mark_as_parsed()
  return dataset.mp_prefetch(
    grain.MultiprocessingOptions(num_workers=workers), _as_worker
  )


def _check_shared(workers: int, batch_bytes: int) -> None:
  """Raises ConfigError if shared memory is too small for the batches.

  A worker that writes more than the free bytes would end without a message.
  """
  needed = workers * _SHARED_EACH * batch_bytes
  if not os.path.isdir(_SHARED):
    return
  free = shutil.disk_usage(_SHARED).free
  if needed > free:
    raise errors.ConfigError(
      f'workers is {workers}: their batches take {needed >> 20} MiB of '
      f'{_SHARED}, which has {free >> 20} MiB left; give workers=0, fewer '
      'workers, or smaller batches'
    )


def _as_worker(index: int, count: int) -> None:
  """Prepares a worker process to end with the training, and not before."""
  del index, count
  # Ctrl-C and the signals of batch systems reach workers too; the training
  # decides when to stop.
  for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
  # Nothing else ends a worker whose training was killed.
  threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
  multiprocessing.parent_process().join()
  os._exit(1)


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
  """Blocks signals, so that processes started within never receive them.

  This process receives them afterwards.
  """
  # Started later, with the first worker, the tracker would unblock the signals.
  resource_tracker.ensure_running()
  old_mask = signal.pthread_sigmask(
    signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM)
  )
  try:
    yield
  finally:
    signal.pthread_sigmask(signal.SIG_SETMASK, old_mask)
