"""Records as TensorBoard events, through tensorboardX (no TensorFlow)."""

import pathlib

import numpy as np
import tensorboardX

from bn_jax.records import Record


class Events:
  """Takes records; a list of numbers becomes its smallest and its largest."""

  def __init__(self, directory: pathlib.Path, *, first_step: int):
    """Opens a directory; events from `first_step` on replace older ones."""
    self._writer = tensorboardX.SummaryWriter(
      str(directory), purge_step=first_step
    )

  def write(self, record: Record) -> None:
    for name, value in record.values.items():
      tag = f'{record.name}/{name}'
      if np.ndim(value) == 0:
        self._writer.add_scalar(tag, float(value), record.step)
      else:
        low, high = float(np.min(value)), float(np.max(value))
        self._writer.add_scalar(f'{tag}_min', low, record.step)
        self._writer.add_scalar(f'{tag}_max', high, record.step)

  def close(self) -> None:
    self._writer.close()
