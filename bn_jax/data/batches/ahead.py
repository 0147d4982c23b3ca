"""Batches made ahead of the training, by grain: in threads or processes."""

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

_THREADS = 16  # more of them only wait for Python's lock
_BYTES = 2**30  # of batches that are made ahead in a process, at most
_SHARED = '/dev/shm'
# Of a worker's batches in shared memory: one that it makes, one in each of two
# queues, one in use.
_SHARED_EACH = 4


class Stream(Iterator):
  """Batches that are made ahead; `close` it, or use it in a `with`.

  Args:
    batches: by their number; they can be pickled.
    records: of which they are made, for messages.
    given: what is yielded of a batch.
    batch_bytes: of one of them.
    workers: processes that make them; 0 is threads of this one.
    max_skipped: bad records that may be left out.

  Raises:
    ConfigError: workers for which there is no room in /dev/shm.
    DataError: while it runs, one bad record more than may be left out.
  """

  def __init__(
    self,
    batches: 'grain.MapDataset[encoded.Batch]',
    records: encoded.Records,
    given: Callable[[encoded.Batch], Any],
    *,
    batch_bytes: int,
    workers: int,
    max_skipped: int,
  ):
    self._records = records
    self._max_skipped = max_skipped
    self._given = given
    self._skipped = set()
    self._ended = False
    self._started = False
    self._workers = min(workers, len(batches))
    self._iterators = [iter(_made(batches, batch_bytes, self._workers))]
    # At the end of the program too: it would complain of what is still open.
    self._stop = weakref.finalize(
      self, _stopped, self._iterators, self._workers
    )

  def __next__(self) -> Any:
    if self._ended:
      raise StopIteration
    if not self._stop.alive:
      raise ValueError('this stream of batches is closed')
    try:
      batch = self._next()
      self._account(batch.bad)
      return self._given(batch)
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
    # Out of shared memory: there is little of it, and what still lies in it
    # when the program ends is complained of.
    arrays = (np.array(array) for array in batch[:3])
    return encoded.Batch(*arrays, batch.bad)

  def _account(self, bad: tuple[encoded.Bad, ...]) -> None:
    """Warns of each bad record once; too many of them are an error."""
    for number, reason in bad:
      if number in self._skipped:
        continue
      said = f'{self._records}, {self._records.place_of(number)}: {reason}'
      if len(self._skipped) == self._max_skipped:
        raise errors.DataError(
          f'{said}; max_skipped is {self._max_skipped}: repair it, or allow '
          'more to be left out'
        )
      self._skipped.add(number)
      _log.warning('%s; it is left out', said)

  def close(self) -> None:
    """Stops threads and worker processes."""
    self._stop()

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *unused) -> None:
    self.close()


def _stopped(iterators: list['grain.DatasetIterator'], workers: int) -> None:
  iterators.pop().close()
  if workers:
    # What it held of batches lies in shared memory, and in cycles.
    gc.collect()


def _made(
  batches: 'grain.MapDataset[encoded.Batch]', batch_bytes: int, workers: int
) -> 'grain.IterDataset[encoded.Batch]':
  """The batches in order, each made by one thread."""
  cores = os.cpu_count() or 1
  threads = max(1, min(_THREADS, cores // max(1, workers)))
  # One more than there are threads, so that none waits for what is taken.
  room = max(2, min(threads + 1, _BYTES // batch_bytes))
  options = grain.ReadOptions(
    num_threads=min(threads, room), prefetch_buffer_size=room
  )
  made = batches.to_iter_dataset(options)
  if not workers:
    return made
  _check_shared(workers, batch_bytes)
  if not flags.FLAGS.is_parsed():  # in a program that is no absl app
    flags.FLAGS.mark_as_parsed()
  return made.mp_prefetch(
    grain.MultiprocessingOptions(num_workers=workers), _as_worker
  )


def _check_shared(workers: int, batch_bytes: int) -> None:
  """Writing more than there is room for would end a worker without a word."""
  needed = workers * _SHARED_EACH * batch_bytes
  if not os.path.isdir(_SHARED):
    return
  free = shutil.disk_usage(_SHARED).free
  if needed > free:
    raise errors.ConfigError(
      f'workers is {workers}: their batches take {needed >> 20} MiB of '
      f'{_SHARED}, which has {free >> 20} MiB left; give workers=0, fewer of '
      'them, or smaller batches'
    )


def _as_worker(index: int, count: int) -> None:
  """What a worker process does first."""
  del index, count
  # Ctrl-C and the signals of batch systems reach it too; the training decides.
  for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
  # Nothing else would end it where the training was killed.
  threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
  multiprocessing.parent_process().join()
  os._exit(1)


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
  """Processes that are started meanwhile hear of no signal, from their start.

  The signals themselves come afterwards.
  """
  # Starting its own process it would let them through again.
  resource_tracker.ensure_running()
  before = signal.pthread_sigmask(
    signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM)
  )
  try:
    yield
  finally:
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
