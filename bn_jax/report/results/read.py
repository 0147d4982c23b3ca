"""Reads from working directories the runs that have something to report.

`analyze` measures checkpoints and writes beside what training recorded; in the
report each analysis is a further entry of `config.measures`, 'analysis/NAME'.
"""

import itertools
import pathlib
from collections.abc import Sequence

import numpy as np

from bn_jax import errors
from bn_jax.report.results import curves
from bn_jax.storage import (
  analysis_chain,
  analysis_folder,
  array_files,
  chain,
  records,
  run_folder,
)


def runs(workdirs: Sequence[pathlib.Path]) -> list[curves.Run]:
  """Returns the runs of working directories that have begun, in order.

  Raises:
    ConfigError: a directory that is given twice.
    StorageError: a directory without an experiment, files that were changed,
      or no run that has begun in any directory.
  """
  _check_distinct(workdirs)
  base_names = [workdir.resolve().name for workdir in workdirs]
  distinct = len(set(base_names)) == len(base_names)
  begun_runs = []
  for workdir, base in zip(workdirs, base_names):
    above = f'{base if distinct else workdir}/' if len(workdirs) > 1 else ''
    for name in _names(workdir):
      seeds = tuple(map(seed, run_folder.below(workdir, name)))
      if seeds:
        begun_runs.append(curves.Run(above + name, seeds))
  if not begun_runs:
    raise errors.StorageError(
      f'{", ".join(map(str, workdirs))}: nothing was recorded yet'
    )
  return begun_runs


def seed(folder: run_folder.RunFolder) -> curves.Seed:
  """Reads one run with one seed, which has begun.

  Raises:
    CheckpointError: its checkpoints are another run's.
    StorageError: files that were lost or changed.
  """
  manifest = folder.whole_manifest()
  chain.check(folder)
  population, left_out = None, ()
  try:
    population = chain.population(folder)
  except errors.StorageError as error:
    left_out = (str(error),)
  run_seed = curves.Seed(
    seed=folder.seed,
    manifest=manifest,
    series=series(folder.scalars),
    seconds=folder.seconds(),
    arrays={
      name: array_files.read(folder.arrays, name)
      for name in manifest['config']['measures']
    },
    population=population,
    left_out=left_out,
  )
  return _with_analyses(run_seed, folder)


def _check_distinct(workdirs: Sequence[pathlib.Path]) -> None:
  for one, other in itertools.combinations(workdirs, 2):
    if one.resolve() == other.resolve():
      raise errors.ConfigError(
        f'{one} and {other} are one directory; give each once'
      )


def _names(workdir: pathlib.Path) -> list[str]:
  """Returns the names of an experiment's runs, begun or not."""
  experiment = run_folder.read_experiment(workdir)
  if experiment is None:
    raise errors.StorageError(
      f'{workdir} holds no experiment (no experiment.json); give the '
      '--workdir of a training'
    )
  return list(experiment['runs'])


def series(path: pathlib.Path) -> dict[str, curves.Series]:
  """Reads what each name has recorded in a file; no file is no error.

  Raises:
    StorageError: a line that is no record, or records of one name that hold
      different values.
  """
  grouped = {}
  train, others = records.read_apart(path, 'train')
  for record in others:
    grouped.setdefault(record.name, []).append(record)
  try:
    every = {name: _joined(rows) for name, rows in grouped.items()}
  except (KeyError, TypeError, ValueError) as error:
    raise errors.StorageError(
      f'{path}: records of one name hold different values '
      f'({errors.first_line(error)}); the file was changed after it was '
      'written, or the measure between two of them'
    ) from error
  return every if train is None else {**every, 'train': curves.Series(*train)}


def _joined(rows: Sequence[records.Record]) -> curves.Series:
  conditions = []
  for record in rows:
    if record.conditions and record.conditions not in conditions:
      conditions.append(record.conditions)
  values = {
    value: np.array([record.values[value] for record in rows], float)
    for value in rows[0].values
    if value != curves.SKIPPED
  }
  skipped = [record.values.get(curves.SKIPPED) for record in rows]
  if any(count is not None for count in skipped):
    values[curves.SKIPPED] = np.array(skipped, float)  # nan for none
  return curves.Series(
    np.array([record.step for record in rows]), values, tuple(conditions)
  )


def _with_analyses(
  run_seed: curves.Seed, folder: run_folder.RunFolder
) -> curves.Seed:
  """Returns the seed with the analyses of its folder.

  An analysis that has recorded nothing yet is left out; so is one that cannot
  be read, and `left_out` of the seed says why.
  """
  for analysis in folder.analyses():
    try:
      if analysis.settings() is not None:
        analysis_chain.check(analysis, folder)
      run_seed = _with_analysis(run_seed, analysis)
    except errors.StorageError as error:
      reasons = (*run_seed.left_out, str(error))
      run_seed = run_seed._replace(left_out=reasons)
  return run_seed


def _with_analysis(
  run_seed: curves.Seed, analysis: analysis_folder.AnalysisFolder
) -> curves.Seed:
  """Returns the seed with one further analysis.

  Raises:
    StorageError: a file of the analysis that was changed.
  """
  settings, name = analysis.settings(), analysis.name
  series_of_name = series(analysis.scalars).get(name)
  arrays = array_files.read(analysis.arrays, name)
  if settings is None or (series_of_name is None and not arrays):
    return run_seed
  entry = f'{curves.ANALYSIS}{name}'
  statistics = {'statistics': settings['statistics']}
  config = run_seed.config
  measures = {**config['measures'], entry: settings['measure'] | statistics}
  pages = dict(run_seed.manifest.get('measures') or {})
  if settings.get('page'):
    pages.setdefault(settings['measure']['name'], settings['page'])
  every_series = run_seed.series
  if series_of_name is not None:
    every_series = {**every_series, entry: series_of_name}
  return run_seed._replace(
    manifest={
      **run_seed.manifest,
      'config': {**config, 'measures': measures},
      'measures': pages,
    },
    series=every_series,
    arrays=run_seed.arrays | ({entry: arrays} if arrays else {}),
  )
