"""Shows how far a run or a page is: a bar on a terminal, plain lines elsewhere.

All of it goes to stderr.
"""

import contextlib
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, Self

from rich import console as rich_console
from rich import progress as rich_progress

from bn_jax.storage.records import Record

# A line after each fiftieth of the time so far, but every 5 s to 60 s: often
# enough to follow a short training, rare enough for the log of a long one.
_SHARE, _SHORTEST, _LONGEST = 0.02, 5.0, 60.0
_SECONDS_BETWEEN_BARS = 0.1  # as often as a terminal is drawn anew


class _Drawing(Protocol):
  """What a page draws; see `drawing`."""

  name: str


def drawing(figures: Sequence[_Drawing]) -> Iterator[_Drawing]:
  """Yields figures, and shows which one is being drawn until the next."""
  console = rich_console.Console(stderr=True)
  if not console.is_terminal:
    sys.stderr.write(f'drawing {len(figures)} figures\n')
    yield from figures
    return
  with rich_progress.Progress(
    rich_progress.TextColumn('drawing'),
    rich_progress.BarColumn(),
    rich_progress.MofNCompleteColumn(),
    rich_progress.TextColumn('{task.description}'),
    console=console, transient=True,
  ) as bar:  # fmt: skip
    task = bar.add_task('', total=len(figures))
    for figure in figures:
      bar.update(task, description=figure.name)
      yield figure
      bar.advance(task)


class Progress:
  """Shows the step, loss and accuracy of seeds that are trained together."""

  def __init__(
    self, label: str, *, first_step: int, steps: int,
    say: Callable[[str], None], compiling: float | None = None,
    compiled: Callable[[float], None] = lambda seconds: None,
  ):  # fmt: skip
    """Prepares the bar, if there is a terminal.

    Args:
      label: of the seeds, which stands before the bar or each line.
      first_step: number of steps that earlier processes took, of the seed that
        is behind the others.
      steps: number of steps of the whole training.
      say: writes a plain line, if there is no terminal.
      compiling: seconds to the first step the last time; None: nobody knows.
      compiled: is told the seconds to the first step this time.
    """
    self._compiling, self._compiled = 'compiling', compiled
    if compiling is not None:
      self._compiling += f' ({compiling:.0f} s the last time)'
    self._label, self._steps, self._say = label, steps, say
    self._start_time, self._first_step = time.monotonic(), first_step
    self._rows = {}  # seed that is in training -> its newest record
    self._last_time = -math.inf  # the first record is shown at once
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
        label, total=steps, completed=first_step, numbers=self._compiling
      )

  def __enter__(self) -> Self:
    if self._bar:
      self._bar.start()
    else:
      position = f'step {self._first_step}/{self._steps}'
      self._say(f'{self._label}: {position}, {self._compiling}')
    return self

  def __exit__(self, *unused) -> None:
    if self._bar:
      self._bar.stop()

  @contextlib.contextmanager
  def of_seed(self) -> Iterator['_OfSeed']:
    """Returns the sink of a seed, whose training ends with the context."""
    sink = _OfSeed(self)
    self._rows[sink] = None
    try:
      yield sink
    finally:
      del self._rows[sink]

  def write(self, seed: '_OfSeed', record: Record) -> None:
    """Shows a record of training; ignores those of measures."""
    if record.name != 'train':
      return
    self._rows[seed] = record
    now = time.monotonic()
    is_due = now - self._last_time > self._between(now)
    rows = self._rows.values()
    if (not is_due and record.step + 1 < self._steps) or None in rows:
      return
    if self._last_time == -math.inf:
      self._compiled(now - self._start_time)
    step = 1 + min(row.step for row in rows)
    if is_due or step == self._steps:
      self._last_time = now
      self._show(step, list(rows), now)

  def _between(self, now: float) -> float:
    """Returns the least seconds from one bar, or line, to the next."""
    if self._bar:
      return _SECONDS_BETWEEN_BARS
    return min(max(_SHARE * (now - self._start_time), _SHORTEST), _LONGEST)

  def _show(self, step: int, rows: list[Record], now: float) -> None:
    """Shows the step of the seed that is last, and how far numbers range."""
    losses = [row.values['data_loss'] for row in rows]
    numbers = f'loss {_range(losses, ".4g")}'
    if 'accuracy' in rows[0].values:
      accuracies = [100 * row.values['accuracy'] for row in rows]
      numbers += f' accuracy {_range(accuracies, ".0f")} %'
    if self._bar:
      self._bar.update(self._task, completed=step, numbers=numbers)
      return
    # Of this process alone, compilation included; 1e-9 avoids dividing by 0.
    rate = (step - self._first_step) / max(now - self._start_time, 1e-9)
    self._say(
      f'{self._label}: step {step}/{self._steps}, {numbers}, {rate:.1f} steps/s'
    )


class _OfSeed:
  """The sink of one seed."""

  def __init__(self, progress: Progress):
    self._progress = progress

  def write(self, record: Record) -> None:
    self._progress.write(self, record)


def _range(values: list, form: str) -> str:
  words = sorted({format(float(x), form) for x in values}, key=float)
  return ' to '.join(words[:: max(1, len(words) - 1)])
