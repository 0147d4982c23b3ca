"""How claims came off, as text for people and as CSV."""

import csv
import io
import textwrap
from collections.abc import Iterator, Sequence

from bn_jax.papers import verify
from bn_jax.report.claims import judge, verdicts

_WIDTH = 80
_COLUMNS = tuple(name for name in verdicts.COLUMNS if name != 'values')


def text(found: Sequence[verify.Judged]) -> str:
  """Figure by figure, claim by claim; ends with counts."""
  lines = [line for one in found for line in _figure(one)]
  said = [row['verdict'] for one in found for row in one.rows]
  lines.append(
    f'{said.count(judge.HOLDS)} hold, {said.count(judge.FAILS)} fail, '
    f'{said.count(judge.UNKNOWN)} not measured'
  )
  return ''.join(f'{line}\n' for line in lines)


def as_csv(found: Sequence[verify.Judged]) -> str:
  """A line a claim; a number that is not there is empty."""
  content = io.StringIO()
  writer = csv.writer(content, lineterminator='\n')
  writer.writerow(_COLUMNS)
  for one in found:
    for row in one.rows:
      writer.writerow([_cell(row[name]) for name in _COLUMNS])
  return content.getvalue()


def _figure(one: verify.Judged) -> Iterator[str]:
  yield from _wrapped(f'{one.label}: {one.title}', 0)
  for row in one.rows:
    yield from _wrapped(f'{row["verdict"].upper()}  {row["statement"]}', 2)
    yield from _wrapped(f'source     {row["source"]}', 6, 11)
    yield from _wrapped(f'statistic  {row["statistic"]}', 6, 11)
    yield from _wrapped(f'threshold  {row["threshold"]}', 6, 11)
    if row['measured']:
      yield from _wrapped(f'measured   {row["measured"]}', 6, 11)
    yield from _wrapped(f'           {row["detail"]}', 6, 11)
  for line in one.twice:
    yield from _wrapped(f'left out: {line}', 2)
  yield ''


def _wrapped(line: str, indent: int, hang: int = 4) -> list[str]:
  return textwrap.wrap(
    line,
    _WIDTH,
    initial_indent=' ' * indent,
    subsequent_indent=' ' * (indent + hang),
    break_on_hyphens=False,
  )


def _cell(value) -> str:
  return '' if value is None else str(value)
