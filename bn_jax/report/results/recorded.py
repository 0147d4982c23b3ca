"""Working directories, read: the runs of which there is something to report."""

import pathlib
from collections.abc import Sequence

from bn_jax import errors
from bn_jax.report.results import analysed, curves, series
from bn_jax.storage import records, run_folder


def load(workdirs: Sequence[pathlib.Path]) -> list[curves.Run]:
  """The runs of working directories that have begun, in their order.

  Raises:
    ConfigError: a directory that is given twice.
    StorageError: a directory without an experiment, or with nothing recorded,
      or one whose files were changed.
  """
  _check_distinct(workdirs)
  short = [workdir.resolve().name for workdir in workdirs]
  distinct = len(set(short)) == len(short)
  runs = []
  for workdir, base in zip(workdirs, short):
    above = f'{base if distinct else workdir}/' if len(workdirs) > 1 else ''
    for name in _names(workdir):
      seeds = tuple(map(seed, run_folder.below(workdir, name)))
      if seeds:
        runs.append(curves.Run(above + name, seeds))
  if not runs:
    raise errors.StorageError(
      f'{", ".join(map(str, workdirs))}: nothing was recorded yet'
    )
  return runs


def seed(folder: run_folder.RunFolder) -> curves.Seed:
  """One run with one seed, from its folder, which has a manifest.

  Raises:
    StorageError: files that were changed.
  """
  manifest = folder.manifest
  found = curves.Seed(
    seed=folder.seed,
    manifest=manifest,
    series=series.read(folder.scalars),
    seconds=folder.seconds(),
    arrays={
      name: records.read_arrays(folder.arrays, name)
      for name in manifest['config']['measures']
    },
    population=folder.read_population(),
  )
  return analysed.added(found, folder)


def _check_distinct(workdirs: Sequence[pathlib.Path]) -> None:
  given = {}
  for workdir in workdirs:
    place = workdir.resolve()
    if place in given:
      raise errors.ConfigError(
        f'{given[place]} and {workdir} are one directory; give each once'
      )
    given[place] = workdir


def _names(workdir: pathlib.Path) -> list[str]:
  """The runs of an experiment, whether they have begun or not."""
  experiment = run_folder.read_experiment(workdir)
  if experiment is None:
    raise errors.StorageError(
      f'{workdir} holds no experiment (no experiment.json); give the '
      '--workdir of a training'
    )
  return list(experiment['runs'])
