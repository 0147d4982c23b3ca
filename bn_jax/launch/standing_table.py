"""How far the cells of a sweep are, as a table for people."""

import collections
import textwrap
from collections.abc import Sequence

from bn_jax.launch import status as status_lib
from bn_jax.launch import sweep

_WIDTH = 80
_FAR = 6 * ' '
_HEAD = ('run', 'status', 'steps', 'job')


def text(
  cells: Sequence[sweep.Cell], standings: Sequence[status_lib.Standing]
) -> str:
  """The table, working directory by working directory, and a line of sums."""
  rows = [_row(cell, now) for cell, now in zip(cells, standings)]
  widths = [max(map(len, column)) for column in zip(_HEAD, *rows)]
  lines, above = [], None
  for cell, now, row in zip(cells, standings, rows):
    if cell.workdir != above:
      above = cell.workdir
      lines += [above, _line(_HEAD, widths)]
    lines.append(_line(row, widths))
    if now.said:
      lines += textwrap.wrap(
        now.said, _WIDTH, initial_indent=_FAR, subsequent_indent=_FAR
      )
  counts = collections.Counter(now.status for now in standings)
  lines.append(', '.join(f'{n} {status}' for status, n in counts.items()))
  return ''.join(f'{line}\n' for line in lines)


def _row(cell: sweep.Cell, now: status_lib.Standing) -> tuple[str, ...]:
  status, code = now.status, now.exit_code
  if code is not None:
    status += f', exit {code}' if code > 0 else f', signal {-code}'
  return cell.label, status, f'{now.step or 0} of {cell.steps}', now.job or '-'


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
  words = (f'{word:{width}}' for word, width in zip(row, widths))
  return f'  {"  ".join(words)}'.rstrip()
