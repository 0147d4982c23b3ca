"""The claims of the papers, judged by what lies in working directories."""

import csv
import io
import logging
import pathlib
import textwrap
from collections.abc import Iterator, Sequence

from bn_jax import errors
from bn_jax.papers import figures as figures_lib
from bn_jax.papers import matching
from bn_jax.report.claims import rows as rows_lib
from bn_jax.report.claims import verifying
from bn_jax.report.results import curves

_log = logging.getLogger('bn_jax')
_WIDTH = 80  # of what is printed
_COLUMNS = [name for name in rows_lib.COLUMNS if name != 'values']


def of(workdirs: Sequence[pathlib.Path]) -> verifying.Verification:
  """Judges every figure of which there are runs.

  Seeds of all directories count together.

  Raises:
    ConfigError: a claim file that is not as it must be.
    StorageError: records that were changed after they were written.
  """
  begun = matching.begun(workdirs)
  return verifying.of(
    workdirs, [matching.match(figure, begun) for figure in figures_lib.every()]
  )


def write(verification: verifying.Verification) -> None:
  """Writes verdicts.json into each directory that has some of the runs."""
  for workdir in verification.runs:
    rows = [
      row
      for figure in verification.figures
      if workdir in figure.workdirs
      for row in figure.rows
    ]
    if rows:
      verifying.write(workdir, rows)


def refresh(workdir: pathlib.Path) -> list[curves.Run] | None:
  """Judges anew what a training has changed; a failure is only warned of.

  Returns:
    The runs in the directory, if they were read for it.
  """
  try:
    verification = of([workdir])
    write(verification)
    return verification.runs.get(workdir)
  except Exception as error:  # the runs are worth more than their verdicts
    said = ' '.join(str(error).split())
    _log.warning('%s: no verdicts: %s', workdir, said or repr(error))
    return None


def nothing(workdirs: Sequence[pathlib.Path]) -> errors.ConfigError:
  """Returns what to say where no run is one of a figure."""
  begun = matching.begun(workdirs)
  near = matching.nearest(figures_lib.every(), begun)
  hint = near or 'python -m bn_jax papers lists what can be trained'
  names = ', '.join(map(str, workdirs))
  return errors.ConfigError(f'{names}: no run is one of a figure; {hint}')


def text(figures: Sequence[verifying.Judged]) -> str:
  """Says figure by figure and claim by claim how it came off; then counts."""
  lines = [line for one in figures for line in _lines(one)]
  lines.append(rows_lib.counted([row for one in figures for row in one.rows]))
  return ''.join(f'{line}\n' for line in lines)


def as_csv(figures: Sequence[verifying.Judged]) -> str:
  """Writes a line a claim; a number that is not there is empty."""
  content = io.StringIO()
  writer = csv.DictWriter(
    content, _COLUMNS, extrasaction='ignore', lineterminator='\n'
  )
  writer.writeheader()
  writer.writerows(row for one in figures for row in one.rows)
  return content.getvalue()


def _lines(figure: verifying.Judged) -> Iterator[str]:
  yield from _wrapped(f'{figure.label}: {figure.title}', 0)
  for row in figure.rows:
    word = rows_lib.said(row).upper()
    yield from _wrapped(f'{word}  {row["statement"]}', 2)
    yield from _wrapped(f'source     {row["source"]}', 6, 11)
    yield from _wrapped(f'statistic  {row["statistic"]}', 6, 11)
    yield from _wrapped(f'threshold  {row["threshold"]}', 6, 11)
    if row['measured']:
      yield from _wrapped(f'measured   {row["measured"]}', 6, 11)
    yield from _wrapped(f'           {row["detail"]}', 6, 11)
  for line in figure.twice:
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
