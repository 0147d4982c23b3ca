"""The files that grow with a run, and its progress on the screen."""

import contextlib
import logging
import pathlib
from typing import Self

from bn_jax.experiment import divergence
from bn_jax.host import processes, progress, tensorboard
from bn_jax.storage import records

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
    self, directory: pathlib.Path, label: str, *, first_step: int, steps: int
  ):
    """Opens them.

    Args:
      directory: of the run and seed.
      label: of it, for people.
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
      records.Lines(directory / 'scalars.jsonl'),
      records.Lines(directory / 'timing.jsonl'),
      tensorboard.Events(directory / 'tb', first_step=first_step),
    )
    for file in files:
      self._open.callback(file.close)
    scalars, self.timing, events = files
    self.sync = scalars.sync
    shown = progress.Progress(
      label, first_step=first_step, steps=steps, say=_log.info
    )
    self._open.enter_context(shown)
    self.sinks = (scalars, events, shown, self.last)
    self.arrays = records.Arrays(directory / 'arrays')

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *unused) -> None:
    self._open.close()


class _Nowhere:
  """Takes records where process 0 writes them."""

  def write(self, record: records.Record) -> None:
    """Process 0 has it too."""
