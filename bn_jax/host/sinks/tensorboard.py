"""Writes records as TensorBoard events, through tensorboardX (no TensorFlow).

The thread that trains writes them. The thread of tensorboardX's SummaryWriter
dies silently on a full disk, and closing that writer then never returns.
"""

import contextlib
import logging
import os
import pathlib
import struct
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto import api_pb2, event_pb2, plugin_hparams_pb2
from tensorboardX.proto.summary_pb2 import Summary, SummaryMetadata

from bn_jax import errors
from bn_jax.host.sinks import about
from bn_jax.storage import files
from bn_jax.storage.records import Record

# Longer lets a page that shows the events fall behind, shorter makes training
# wait for the disk more often.
_SECONDS_BETWEEN_FLUSHES = 10
# TensorBoard keeps the first end that it reads: one that the same command goes
# on from is not told.
_ENDS = {'done': 'STATUS_SUCCESS', 'diverged': 'STATUS_FAILURE'}
# It warns of each number that is not finite, without the number's name, which
# who computed it tells.
logging.getLogger('tensorboardX.x2num').setLevel(logging.ERROR)


class Events:
  """A folder of events; a list of numbers becomes its minimum and maximum."""

  def __init__(
    self,
    directory: pathlib.Path,
    *,
    first_step: int,
    config: Mapping[str, Any] | None = None,
  ):
    """Opens a directory; events from `first_step` on replace older ones.

    Args:
      config: key -> value, by which TensorBoard compares runs (HPARAMS).

    Raises:
      StorageError: the directory cannot be made or written.
    """
    self._directory = directory
    self._has_failed = False
    self._last_flush = time.monotonic()
    self._step = first_step
    # tensorboardX names files by the second; a run may be resumed within it.
    suffix = f'.{first_step}.{os.getpid()}'
    files.make_folder(directory)
    with self._blaming():
      self._writer = EventsWriter(str(directory / 'events'), suffix)
      log = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
      self._write(first_step, session_log=log)
      if config is not None:
        # Without the list of an experiment's keys: TensorBoard would take the
        # list of one run for that of all. It makes one of all runs' itself.
        _, start, _ = summary.hparams(about.flat(config), {})
        self._write(0, summary=start)
      self._writer.flush()

  def write(self, record: Record) -> None:
    """Writes one event for each number, two for each list of numbers.

    Raises:
      StorageError: the directory cannot be written.
    """
    self._step = record.step
    with self._blaming():
      for tag, number in about.numbers(record).items():
        self._write(record.step, summary=summary.scalar(tag, number))
      self._flush_if_due()

  def write_arrays(self, record: Record) -> None:
    """Writes the histograms of a record, one event each; nothing else of it.

    Raises:
      StorageError: the directory cannot be written.
    """
    with self._blaming():
      for tag, histogram in _histograms(record):
        value = Summary.Value(tag=tag, histo=histogram)
        self._write(record.step, summary=Summary(value=[value]))
      self._flush_if_due()

  def write_images(self, paths: Sequence[pathlib.Path], step: int) -> None:
    """Writes PNGs as they are, each under the name of its file.

    Raises:
      StorageError: the directory cannot be written, or a file not be read.
    """
    with self._blaming():
      for path in paths:
        content = files.read(path)
        width, height = struct.unpack('>II', content[16:24])  # of a PNG's head
        image = Summary.Image(
          width=width, height=height, colorspace=4, encoded_image_string=content
        )
        value = Summary.Value(tag=f'figures/{path.stem}', image=image)
        self._write(step, summary=Summary(value=[value]))

  def close(self, status: str | None = None) -> None:
    """Writes the remaining events, unless writing has failed before.

    Raises:
      StorageError: the directory cannot be written.
    """
    if not self._has_failed:
      with self._blaming():
        if status in _ENDS:
          self._write(self._step, summary=_end(_ENDS[status]))
        self._writer.close()

  def _flush_if_due(self) -> None:
    now = time.monotonic()
    if now - self._last_flush > _SECONDS_BETWEEN_FLUSHES:
      self._writer.flush()
      self._last_flush = now

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


class Figures:
  """Events of images, as `outside.Client` of `WORKDIR/sinks/figures`."""

  def __init__(self, run: about.Run, old_id: str | None):
    self.id = run.name
    self._directory = run.home / run.name

  def send_images(self, paths: Sequence[pathlib.Path], step: int) -> None:
    # From the step after on, older ones are replaced: none of them.
    events = Events(self._directory, first_step=step + 1)
    events.write_images(paths, step)
    events.close()

  def finish(self, status: str) -> None:
    """Has nothing left to do."""


def _end(status: str) -> Summary:
  """Returns what tells the end of a run; tensorboardX has only a success."""
  end = plugin_hparams_pb2.SessionEndInfo(
    status=api_pb2.Status.Value(status), end_time_secs=time.time()
  )
  content = plugin_hparams_pb2.HParamsPluginData(session_end_info=end)
  metadata = SummaryMetadata(
    plugin_data=SummaryMetadata.PluginData(
      plugin_name='hparams', content=content.SerializeToString()
    )
  )
  tag = '_hparams_/session_end_info'
  return Summary(value=[Summary.Value(tag=tag, metadata=metadata)])


def _histograms(record: Record):
  """Yields (tag, histogram) of what `analysis.activations` has found.

  The moments are those of all values; the smallest and the largest value are
  known to a bin, and those outside of all bins lie in the outermost.
  """
  values = record.values
  for key, counts in values.items():
    layer, _, quantity = key.rpartition('/')
    if quantity != 'histogram' or 'edges' not in values or not np.sum(counts):
      continue
    edges = np.asarray(values['edges'])
    inner = np.array(counts[1:-1])
    inner[0] += counts[0]
    inner[-1] += counts[-1]
    first, *_, last = np.flatnonzero(inner)[[0, -1]]
    mean, var = (np.asarray(values[f'{layer}/{k}']) for k in ('mean', 'var'))
    count = float(values[f'{layer}/count'])
    yield (
      f'{record.name}/{layer}',
      summary.HistogramProto(
        min=edges[first],
        max=edges[last + 1],
        num=float(np.sum(counts)),
        sum=count * np.sum(mean),
        sum_squares=count * np.sum(var + mean**2),
        # A bucket has its right end; an empty one has the left end of all.
        bucket_limit=edges[first : last + 2],
        bucket=[0, *inner[first : last + 1]],
      ),
    )
