"""Judges the claims of the papers by the runs in working directories."""

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
_WIDTH = 80  # columns of what is printed
_COLUMNS = [name for name in rows_lib.COLUMNS if name != 'values']


def of(workdirs: Sequence[pathlib.Path]) -> verifying.Verification:
  """Judges every figure of which there are runs.

  Seeds of all directories count together.

  Raises:
    ConfigError: a claim file or a config that cannot be used.
    StorageError: a manifest or records that were changed.
  """
  runs = matching.begun(workdirs)
  return verifying.of(
    workdirs, [matching.match(figure, runs) for figure in figures_lib.every()]
  )


def write(verification: verifying.Verification) -> None:
  """Writes verdicts.json into each directory with runs of a figure."""
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
  """Judges the claims again after training; a failure is only warned of.

  Returns:
    The runs in the directory, if they were read for that.
  """
  try:
    verification = of([workdir])
    write(verification)
    return verification.runs.get(workdir)
  except Exception as error:  # the runs are worth more than their verdicts
    message = ' '.join(str(error).split())
    _log.warning('%s: no verdicts: %s', workdir, message or repr(error))
    return None


def nothing(workdirs: Sequence[pathlib.Path]) -> errors.ConfigError:
  """Returns the error for directories in which no run is one of a figure."""
  runs = matching.begun(workdirs)
  nearest = matching.nearest(figures_lib.every(), runs)
  hint = nearest or 'python -m bn_jax papers lists what can be trained'
  names = ', '.join(map(str, workdirs))
  return errors.ConfigError(f'{names}: no run is one of a figure; {hint}')


def text(figures: Sequence[verifying.Judged]) -> str:
  """Returns the verdicts, figure by figure and claim by claim; then counts."""
  lines = [line for figure in figures for line in _lines(figure)]
  rows = [row for figure in figures for row in figure.rows]
  lines.append(rows_lib.counted(rows))
  return ''.join(f'{line}\n' for line in lines)


def as_csv(figures: Sequence[verifying.Judged]) -> str:
  """Returns a line a claim; a number that was not measured is empty."""
  content = io.StringIO()
  writer = csv.DictWriter(
    content, _COLUMNS, extrasaction='ignore', lineterminator='\n'
  )
  writer.writeheader()
  writer.writerows(row for figure in figures for row in figure.rows)
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
