"""The files that grow with a run, and its progress on the screen."""

import contextlib
import logging
from typing import Self

from bn_jax.experiment import divergence
from bn_jax.host import processes, progress, tensorboard
from bn_jax.storage import records, run_folder

_log = logging.getLogger('bn_jax')


class Outputs:
  """Where the records of a run go; those of process 0 go to its files.

  Attributes:
    sinks: of all that is measured, in the order of steps, arrays excepted.
    arrays: of what is too large for a line.
    timing: of seconds.
    sync: waits until the disk has the lines of the sinks.
    last: one of the sinks, which knows the newest row of training.
  """

  def __init__(
    self, folder: run_folder.RunFolder, *, first_step: int, steps: int
  ):
    """Opens them.

    Args:
      folder: of the run and seed.
      first_step: from which it goes on.
      steps: in all.

    Raises:
      StorageError: they cannot be written.
    """
    self._open = contextlib.ExitStack()
    self.last = divergence.LastRow()
    self.sinks, self.arrays = (self.last,), _Nowhere()
    self.timing = _Nowhere()
    self.sync = lambda: None
    if not processes.is_first():
      return
    files = (
      records.Lines(folder.scalars),
      records.Lines(folder.timing),
      tensorboard.Events(folder.events, first_step=first_step),
    )
    for file in files:
      self._open.callback(file.close)
    scalars, self.timing, events = files
    self.sync = scalars.sync
    shown = progress.Progress(
      folder.label, first_step=first_step, steps=steps, say=_log.info
    )
    self._open.enter_context(shown)
    self.sinks = (scalars, events, shown, self.last)
    self.arrays = records.Arrays(folder.arrays)

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *unused) -> None:
    self._open.close()


class _Nowhere:
  """Takes records where process 0 writes them."""

  def write(self, record: records.Record) -> None:
    """Process 0 has it too."""
