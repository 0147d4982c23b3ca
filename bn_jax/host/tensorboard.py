"""Writes records as TensorBoard events, through tensorboardX (no TensorFlow).

Training's own thread writes them. tensorboardX's SummaryWriter has a thread for
it, which dies silently on a full disk; closing then waits for it for ever.
"""

import contextlib
import os
import pathlib
import time

import numpy as np
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto import event_pb2

from bn_jax import errors
from bn_jax.storage import files
from bn_jax.storage.records import Record

# A flush waits for the disk, and a page that shows the events is some seconds
# behind anyway.
_SECONDS_BETWEEN_FLUSHES = 10


class Events:
  """A folder of events; of a list of numbers the least and largest are kept."""

  def __init__(self, directory: pathlib.Path, *, first_step: int):
    """Opens a directory; events from `first_step` on replace older ones.

    Raises:
      StorageError: it cannot be written.
    """
    self._directory = directory
    self._failed = False
    self._flushed = time.monotonic()
    # tensorboardX names files by the second; a run may be resumed within it.
    suffix = f'.{first_step}.{os.getpid()}'
    files.make_folder(directory)
    with self._blaming():
      self._writer = EventsWriter(str(directory / 'events'), suffix)
      log = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
      self._write(first_step, session_log=log)
      self._writer.flush()

  def write(self, record: Record) -> None:
    """Writes one event for each value.

    Raises:
      StorageError: it cannot be written.
    """
    with self._blaming():
      for name, value in record.values.items():
        tag = f'{record.name}/{name}'
        if np.ndim(value) == 0:
          self._write_scalar(tag, float(value), record.step)
        else:
          low, high = float(np.min(value)), float(np.max(value))
          self._write_scalar(f'{tag}_min', low, record.step)
          self._write_scalar(f'{tag}_max', high, record.step)
      now = time.monotonic()
      if now - self._flushed > _SECONDS_BETWEEN_FLUSHES:
        self._writer.flush()
        self._flushed = now

  def close(self) -> None:
    """Writes the remaining events, unless writing has failed before.

    Raises:
      StorageError: it cannot be written.
    """
    if not self._failed:
      with self._blaming():
        self._writer.close()

  def _write_scalar(self, tag: str, value: float, step: int) -> None:
    self._write(step, summary=summary.scalar(tag, value))

  def _write(self, step: int, **content) -> None:
    self._writer.write_event(
      event_pb2.Event(step=int(step), wall_time=time.time(), **content)
    )

  @contextlib.contextmanager
  def _blaming(self):
    try:
      yield
    except OSError as error:
      self._failed = True
      raise errors.StorageError(
        f'cannot write {self._directory}: {errors.reason(error)}'
      ) from error
