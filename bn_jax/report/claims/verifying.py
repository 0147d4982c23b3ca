"""Judges the claims of figures by the runs that stand for them.

verdicts.json of a working directory keeps the rows of all figures of which it
has runs, by figure, size and id, and how far each run was: {'standard/seed0':
'done at 2000'}.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from bn_jax.report.claims import judging, reading
from bn_jax.report.claims import rows as rows_lib
from bn_jax.report.results import curves, read
from bn_jax.storage import files, run_folder

FILE = 'verdicts.json'
# Of the rules by which verdicts were found; files of before have no number.
_RULES = 2
_SHAPE = {
  'verdicts': {...: rows_lib.COLUMNS},
  'runs': {...: str},
  'rules': (None, int),
}


class Standing(NamedTuple):
  """What stands for the runs of a figure."""

  figure: str  # such as 'santurkar2018/figure10'
  size: str  # one of `reading.SIZES`
  runs: tuple[str, ...]  # the names of all runs of the figure
  # Run -> seed -> the folder that stands for it.
  folders: Mapping[str, Mapping[int, run_folder.RunFolder]]
  # Run that nothing stands for -> what nearly does, and its difference.
  notes: Mapping[str, str]
  # A note on each folder whose run and seed another one stands for.
  twice: tuple[str, ...]

  @property
  def workdirs(self) -> tuple[pathlib.Path, ...]:
    """Returns the working directories of these folders."""
    every = (f for seeds in self.folders.values() for f in seeds.values())
    return tuple(dict.fromkeys(folder.workdir for folder in every))


class Judged(NamedTuple):
  """The claims of a figure at one size, and how they came off."""

  title: str  # of the figure
  label: str  # the figure and its size
  rows: tuple[rows_lib.Row, ...]  # a claim each, see `rows`
  twice: tuple[str, ...]  # as of its `Standing`
  workdirs: tuple[pathlib.Path, ...]  # as of its `Standing`


class Verification(NamedTuple):
  """What was judged."""

  figures: tuple[Judged, ...]  # those that have claims and runs
  # Working directory with some of these runs -> all runs in it.
  runs: dict[pathlib.Path, list[curves.Run]]


def of(
  workdirs: Sequence[pathlib.Path], standings: Sequence[Standing]
) -> Verification:
  """Judges the claims of figures by what stands for their runs.

  Args:
    workdirs: those that hold the folders of `standings`.
    standings: of figures, with or without claims and runs.

  Raises:
    ConfigError: a claim file whose content is not allowed.
    StorageError: records that were changed after they were written.
  """
  claims = reading.load()
  standings = _spoken_of(
    [s for s in standings if s.figure in claims and s.folders], claims
  )
  runs = {
    workdir: read.runs([workdir])
    for workdir in workdirs
    if any(workdir in standing.workdirs for standing in standings)
  }
  seeds = {
    (workdir, run.name, seed.seed): seed
    for workdir, runs_of_workdir in runs.items()
    for run in runs_of_workdir
    for seed in run.seeds
  }
  figures = []
  for standing in standings:
    evidence = {
      name: {
        number: seeds[folder.workdir, folder.run, number]
        for number, folder in sorted(folders.items())
      }
      for name, folders in standing.folders.items()
    }
    figures.append(judged(standing, evidence, claims[standing.figure]))
  return Verification(tuple(figures), runs)


def judged(
  standing: Standing,
  seeds: Mapping[str, Mapping[int, curves.Seed]],
  claims: reading.Figure,
) -> Judged:
  """Judges the claims of a figure by run -> number of a seed -> its records."""
  evidence = judging.Evidence(seeds, standing.notes)
  rows = tuple(
    rows_lib.of(claims, judging.verdict(claim, standing.size, evidence))
    for claim in claims.claims
    if standing.size in claim.sizes
  )
  label = f'{standing.figure} ({standing.size})'
  return Judged(claims.title, label, rows, standing.twice, standing.workdirs)


def write(workdir: pathlib.Path, rows: Sequence[rows_lib.Row]) -> None:
  """Writes verdicts.json with some rows, and how far the runs are."""
  content = {
    'verdicts': {f'{r["figure"]} {r["size"]} {r["id"]}': r for r in rows},
    'runs': _states(workdir),
    'rules': _RULES,
  }
  files.write_json(workdir / FILE, content, digest=True)


def kept(workdir: pathlib.Path) -> tuple[list[rows_lib.Row], bool]:
  """Returns the rows of a working directory, and whether they are out of date.

  No rows where there is no such file.

  Raises:
    StorageError: a file that was changed by hand.
  """
  content = files.read_json(workdir / FILE, _SHAPE)
  if content is None:
    return [], False
  current = content.get('rules') == _RULES
  stale = not current or content['runs'] != _states(workdir)
  return list(content['verdicts'].values()), stale


def _states(workdir: pathlib.Path) -> dict[str, str]:
  """Returns RUN/seedK -> its status and step, of a working directory."""
  return {
    folder.label: f'{folder.status} at {folder.step}'
    for folder in run_folder.below(workdir)
  }


def _spoken_of(standings, claims: Mapping) -> Sequence[Standing]:
  """Returns those with half of their runs, or all runs of some claim.

  Figures share runs: two runs of one figure may be two of thirty of another,
  of which the user does not ask. If no figure has enough runs, all are meant.
  """

  def is_meant(standing: Standing) -> bool:
    complete = any(
      set(reading.names(claim)) <= set(standing.folders)
      for claim in claims[standing.figure].claims
    )
    return complete or 2 * len(standing.folders) >= len(standing.runs)

  return [s for s in standings if is_meant(s)] or standings
