"""The claims of the papers, judged by what lies in working directories."""

import csv
import io
import logging
import pathlib
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from bn_jax import errors
from bn_jax.papers import figures as figures_lib
from bn_jax.papers import matching
from bn_jax.report.claims import files as claim_files
from bn_jax.report.claims import judge, verdicts
from bn_jax.report.results import curves, read

_log = logging.getLogger('bn_jax')
_WIDTH = 80  # of what is printed
_COLUMNS = [name for name in verdicts.COLUMNS if name != 'values']

# Run of a figure -> number of a seed -> its records.
Seeds = Mapping[str, Mapping[int, curves.Seed]]


class Judged(NamedTuple):
  """The claims of a figure at one size, and how they came off.

  Attributes:
    title: of the figure.
    label: the figure and its size.
    rows: a claim each, see `verdicts.row`.
    workdirs: that have some of its runs.
    twice: seeds that were left out, as they were there already.
  """

  title: str
  label: str
  rows: tuple[verdicts.Row, ...]
  workdirs: tuple[pathlib.Path, ...]
  twice: tuple[str, ...]


class Verification(NamedTuple):
  """What was judged.

  Attributes:
    figures: of which there are runs.
    runs: directory with some of them -> all runs in it.
  """

  figures: tuple[Judged, ...]
  runs: dict[pathlib.Path, list[curves.Run]]


def of(workdirs: Sequence[pathlib.Path]) -> Verification:
  """Every figure of which there are runs, seeds of all directories together.

  Raises:
    ConfigError: a claim file that is not as it must be.
    StorageError: records that were changed after they were written.
  """
  found = matching.begun(workdirs)
  claims = claim_files.load()
  figures = [f for f in figures_lib.every() if f.figure in claims]
  matches = [(figure, matching.match(figure, found)) for figure in figures]
  matches = _spoken_of(
    [(figure, match) for figure, match in matches if match.folders], claims
  )
  runs = {
    workdir: read.runs([workdir])
    for workdir in workdirs
    if any(workdir in _workdirs(match) for _, match in matches)
  }
  recorded = _seeds(runs)
  return Verification(
    tuple(
      judged(figure, match, claims[figure.figure], _of_match(match, recorded))
      for figure, match in matches
    ),
    runs,
  )


def judged(
  figure: figures_lib.Reproduction,
  match: matching.Match,
  claims: claim_files.Figure,
  seeds: Seeds,
) -> Judged:
  """How the claims of a figure come off by what was found of it."""
  found = judge.Found(seeds=seeds, notes=match.notes)
  return Judged(
    title=claims.title,
    label=figure.label,
    rows=tuple(_rows(figure.size, claims, found)),
    workdirs=_workdirs(match),
    twice=match.twice,
  )


def write(found: Verification) -> None:
  """Writes verdicts.json into each directory that has some of the runs."""
  for workdir in found.runs:
    rows = [
      row
      for one in found.figures
      if workdir in one.workdirs
      for row in one.rows
    ]
    if rows:
      verdicts.write(workdir, rows)


def refresh(workdir: pathlib.Path) -> list[curves.Run] | None:
  """Judges anew what a training has changed; a failure is only warned of.

  Returns:
    The runs in the directory, if they were read for it.
  """
  try:
    found = of([workdir])
    write(found)
    return found.runs.get(workdir)
  except Exception as error:  # the runs are worth more than their verdicts
    said = ' '.join(str(error).split())
    _log.warning('%s: no verdicts: %s', workdir, said or repr(error))
    return None


def nothing(workdirs: Sequence[pathlib.Path]) -> errors.ConfigError:
  """What to say where no run is one of a figure."""
  found = matching.begun(workdirs)
  near = matching.nearest(figures_lib.every(), found)
  hint = near or 'python -m bn_jax papers lists what can be trained'
  names = ', '.join(map(str, workdirs))
  return errors.ConfigError(f'{names}: no run is one of a figure; {hint}')


def text(figures: Sequence[Judged]) -> str:
  """Says figure by figure and claim by claim how it came off; then counts."""
  lines = [line for one in figures for line in _lines(one)]
  kinds = [row['verdict'] for one in figures for row in one.rows]
  lines.append(
    f'{kinds.count(judge.HOLDS)} hold, {kinds.count(judge.FAILS)} fail, '
    f'{kinds.count(judge.UNKNOWN)} not measured'
  )
  return ''.join(f'{line}\n' for line in lines)


def as_csv(figures: Sequence[Judged]) -> str:
  """Writes a line a claim; a number that is not there is empty."""
  content = io.StringIO()
  writer = csv.DictWriter(
    content, _COLUMNS, extrasaction='ignore', lineterminator='\n'
  )
  writer.writeheader()
  writer.writerows(row for one in figures for row in one.rows)
  return content.getvalue()


def _spoken_of(matches: Sequence, claims: Mapping) -> Sequence:
  """Those of which some claim has all its runs, or half of the runs are there.

  Figures share runs: a search of thirty is not meant where two of it, which are
  another figure's, are all there is. Where only such are left, all of them.
  """

  def is_meant(figure, match) -> bool:
    complete = any(
      set(claim_files.names(claim)) <= set(match.folders)
      for claim in claims[figure.figure].claims
    )
    return complete or 2 * len(match.folders) >= len(figure.runs)

  return [pair for pair in matches if is_meant(*pair)] or matches


def _workdirs(match: matching.Match) -> tuple[pathlib.Path, ...]:
  return tuple(
    dict.fromkeys(
      folder.workdir
      for seeds in match.folders.values()
      for folder in seeds.values()
    )
  )


def _seeds(
  found: Mapping[pathlib.Path, Sequence[curves.Run]],
) -> dict[tuple[pathlib.Path, str, int], curves.Seed]:
  """(directory, run, seed) -> its records."""
  return {
    (workdir, run.name, seed.seed): seed
    for workdir, runs in found.items()
    for run in runs
    for seed in run.seeds
  }


def _of_match(
  match: matching.Match,
  recorded: Mapping[tuple[pathlib.Path, str, int], curves.Seed],
) -> Seeds:
  return {
    name: {
      number: recorded[folder.workdir, folder.run, number]
      for number, folder in sorted(folders.items())
    }
    for name, folders in match.folders.items()
  }


def _rows(
  size: str, claims: claim_files.Figure, found: judge.Found
) -> Iterator[verdicts.Row]:
  for claim in claims.claims:
    if size in claim.sizes:
      yield verdicts.row(claims, judge.verdict(claim, size, found))


def _lines(one: Judged) -> Iterator[str]:
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
