"""Shows the progress of a run: a bar on a terminal, plain lines elsewhere."""

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
    self, run: str, *, first_step: int, steps: int, say: Callable[[str], None]
  ):
    """Prepares the bar, if there is a terminal.

    Args:
      run: name of the run and seed.
      first_step: updates made before.
      steps: updates in all.
      say: writes a plain line, if there is no terminal.
    """
    self._run, self._steps, self._say = run, steps, say
    self._started, self._first = time.monotonic(), first_step
    self._last_line = 0.0
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
        run, total=steps, completed=first_step, numbers='compiling'
      )

  def __enter__(self) -> Self:
    if self._bar:
      self._bar.start()
    else:
      self._say(f'{self._run}: step {self._first}/{self._steps}, compiling')
    return self

  def __exit__(self, *unused) -> None:
    if self._bar:
      self._bar.stop()

  def write(self, record: Record) -> None:
    if record.name != 'train':
      return
    steps = record.step + 1
    numbers = f'loss {record.values["data_loss"]:.4g}'
    if 'accuracy' in record.values:
      numbers += f' accuracy {100 * record.values["accuracy"]:.0f} %'
    if self._bar:
      self._bar.update(self._task, completed=steps, numbers=numbers)
      return
    now = time.monotonic()
    is_last = steps == self._steps
    if is_last or now - self._last_line > _SECONDS_BETWEEN_LINES:
      self._last_line = now
      rate = (steps - self._first) / max(now - self._started, 1e-9)
      self._say(
        f'{self._run}: step {steps}/{self._steps}, {numbers}, '
        f'{rate:.1f} steps/s'
      )
