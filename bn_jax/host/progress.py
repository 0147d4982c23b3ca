"""Shows the progress of a run: a bar on a terminal, plain lines elsewhere."""

import math
import time
from collections.abc import Callable
from typing import Self

from rich import console as rich_console
from rich import progress as rich_progress

from bn_jax.storage.records import Record

_SECONDS_BETWEEN_LINES = 10.0  # often enough to follow, rare enough for a log


class Progress:
  """Takes records and shows the step, loss and accuracy of training."""

  def __init__(
    self, label: str, *, first_step: int, steps: int, say: Callable[[str], None]
  ):
    """Prepares the bar, if there is a terminal.

    Args:
      label: RUN/seedK, which stands before the bar or each line.
      first_step: number of steps that earlier processes took.
      steps: number of steps of the whole training.
      say: writes a plain line, if there is no terminal.
    """
    self._label, self._steps, self._say = label, steps, say
    self._start_time, self._first_step = time.monotonic(), first_step
    self._last_line_time = -math.inf  # the first record is shown at once
    console = rich_console.Console(stderr=True)
    self._bar = None
    if console.is_terminal:
      self._bar = rich_progress.Progress(
        rich_progress.TextColumn('{task.description}'),
        rich_progress.BarColumn(),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TextColumn('{task.fields[numbers]}'),
        rich_progress.TimeRemainingColumn(),
        console=console,
      )
      self._task = self._bar.add_task(
        label, total=steps, completed=first_step, numbers='compiling'
      )

  def __enter__(self) -> Self:
    if self._bar:
      self._bar.start()
    else:
      position = f'step {self._first_step}/{self._steps}'
      self._say(f'{self._label}: {position}, compiling')
    return self

  def __exit__(self, *unused) -> None:
    if self._bar:
      self._bar.stop()

  def write(self, record: Record) -> None:
    """Shows a record of training; ignores those of measures."""
    if record.name != 'train':
      return
    step = record.step + 1
    numbers = f'loss {record.values["data_loss"]:.4g}'
    if 'accuracy' in record.values:
      numbers += f' accuracy {100 * record.values["accuracy"]:.0f} %'
    if self._bar:
      self._bar.update(self._task, completed=step, numbers=numbers)
      return
    now = time.monotonic()
    is_last = step == self._steps
    if is_last or now - self._last_line_time > _SECONDS_BETWEEN_LINES:
      self._last_line_time = now
      # Of this process alone, compilation included; 1e-9 avoids dividing by 0.
      rate = (step - self._first_step) / max(now - self._start_time, 1e-9)
      self._say(
        f'{self._label}: step {step}/{self._steps}, {numbers}, '
        f'{rate:.1f} steps/s'
      )
