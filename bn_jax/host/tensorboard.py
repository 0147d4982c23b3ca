"""Writes records as TensorBoard events, through tensorboardX (no TensorFlow).

The thread that trains writes them. The thread of tensorboardX's SummaryWriter
dies silently on a full disk, and closing that writer then never returns.
"""

import contextlib
import logging
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

# Longer lets a page that shows the events fall behind, shorter makes training
# wait for the disk more often.
_SECONDS_BETWEEN_FLUSHES = 10
# It warns of each number that is not finite, without the number's name, which
# who computed it tells.
logging.getLogger('tensorboardX.x2num').setLevel(logging.ERROR)


class Events:
  """A folder of events; a list of numbers becomes its minimum and maximum."""

  def __init__(self, directory: pathlib.Path, *, first_step: int):
    """Opens a directory; events from `first_step` on replace older ones.

    Raises:
      StorageError: the directory cannot be made or written.
    """
    self._directory = directory
    self._has_failed = False
    self._last_flush = time.monotonic()
    # tensorboardX names files by the second; a run may be resumed within it.
    suffix = f'.{first_step}.{os.getpid()}'
    files.make_folder(directory)
    with self._blaming():
      self._writer = EventsWriter(str(directory / 'events'), suffix)
      log = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
      self._write(first_step, session_log=log)
      self._writer.flush()

  def write(self, record: Record) -> None:
    """Writes one event for each number, two for each list of numbers.

    Raises:
      StorageError: the directory cannot be written.
    """
    with self._blaming():
      for name, value in record.values.items():
        tag = f'{record.name}/{name}'
        if np.ndim(value) == 0:
          self._write_scalar(tag, float(value), record.step)
        else:
          least, largest = float(np.min(value)), float(np.max(value))
          self._write_scalar(f'{tag}_min', least, record.step)
          self._write_scalar(f'{tag}_max', largest, record.step)
      now = time.monotonic()
      if now - self._last_flush > _SECONDS_BETWEEN_FLUSHES:
        self._writer.flush()
        self._last_flush = now

  def close(self) -> None:
    """Writes the remaining events, unless writing has failed before.

    Raises:
      StorageError: the directory cannot be written.
    """
    if not self._has_failed:
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
    """Turns an OSError into a StorageError that names the directory."""
    try:
      yield
    except OSError as error:
      self._has_failed = True
      raise errors.StorageError(
        f'cannot write {self._directory}: {errors.reason(error)}'
      ) from error
