"""Makes the table that training ends with: the runs of a page, a line each."""

import functools
import math
from collections.abc import Callable, Sequence

from bn_jax.report import reached
from bn_jax.report.results import curves, looks

_LINES = 10  # of a table: what is read before the page is opened
_COLUMNS = 80
_NAME = 12  # characters of a run's name at least


def table(runs: Sequence[curves.Run]) -> list[str]:
  """Returns the lines of a table, ten at most and 80 columns wide.

  Numbers are means over seeds, with half of the 95 % interval where there is
  room. What was not measured is '-'; a column that all runs lack is left out.
  """
  fit = _LINES - 1 if len(runs) < _LINES else _LINES - 2
  for has_spread in (True, False):
    rows = [_cells(run, has_spread) for run in runs[:fit]]
    if max(len(run.seeds) for run in runs) == 1:
      rows = [row | {'seeds': ''} for row in rows]
    names = [name for name in rows[0] if any(row[name] for row in rows)]
    columns = [[name, *(row[name] or '-' for row in rows)] for name in names]
    room = _COLUMNS - sum(2 + max(map(len, column)) for column in columns)
    if room >= _NAME:
      break
  columns.insert(0, ['run', *(_short(run.name, room) for run in runs[:fit])])
  widths = [max(map(len, column)) for column in columns]
  lines = [
    '  '.join(f'{cell:{width}}' for cell, width in zip(row, widths)).rstrip()
    for row in zip(*columns)
  ]
  if len(runs) > fit:
    lines.append(f'and {len(runs) - fit} more runs, on the page')
  return lines


def _cells(run: curves.Run, has_spread: bool) -> dict[str, str]:
  number = functools.partial(_number, run, has_spread)
  trained = {
    'accuracy': curves.final_train_accuracy, 'loss': curves.final_train_loss,
  }  # fmt: skip
  entries = curves.training_measures(run, looks.EVALUATION)
  sections = curves.measures(run)
  test = next((e for e in entries if sections[e]['data'] == 'test'), '')
  return {
    'seeds': str(len(run.seeds)),
    'steps': _steps(run),
    'training': number(lambda seed, value: trained[value](seed)),
    'test': number(functools.partial(curves.last, name=test)),
    'recalibrated': number(curves.of_population),
    'time': _time(sum(sum(seed.seconds.values()) for seed in run.seeds)),
  }


def _steps(run: curves.Run) -> str:
  done = sum(seed.manifest['status'] == 'done' for seed in run.seeds)
  steps = {curves.reached(seed) for seed in run.seeds}
  if done == len(run.seeds):
    return ' to '.join(map(str, sorted({min(steps), max(steps)})))
  if len(run.seeds) > 1:
    return f'{done} of {len(run.seeds)} done'
  return f'{run.seeds[0].manifest["status"]} at {max(steps)}'


def _number(run: curves.Run, has_spread: bool, read: Callable) -> str:
  """Returns an accuracy in words; where there is none a loss, or ''.

  Args:
    has_spread: whether the mean has half of its interval behind it.
    read: (seed, value='accuracy' or 'loss') -> a number, or nan.
  """
  for value, before, show in (
    ('accuracy', '', reached.percent),
    ('loss', 'loss ', '{:.3g}'.format),
  ):
    numbers = [read(seed, value=value) for seed in run.seeds]
    if not all(map(math.isnan, numbers)):
      text = before + curves.in_words(numbers, show)
      return text if has_spread else text.partition(' ±')[0]
  return ''


def _time(seconds: float) -> str:
  """Returns '45 s', '12 min' or '3.4 h'."""
  if seconds < 100:
    return f'{seconds:.0f} s'
  minutes = seconds / 60
  return f'{minutes:.0f} min' if minutes < 100 else f'{minutes / 60:.1f} h'


def _short(name: str, room: int) -> str:
  """Returns a name without its middle, where it is too long."""
  if len(name) <= room:
    return name
  end = (room - 3) // 2
  return f'{name[: room - 3 - end]}...{name[-end:]}'
