"""Reads working directories: the runs of which there is something to report.

What `analyze` has measured of checkpoints lies beside what training recorded:

  seedK/analysis/NAME/settings.json         the measure, its statistics
  seedK/analysis/NAME/scalars.jsonl         lines called NAME, or
  seedK/analysis/NAME/arrays/NAME-STEP.npz

In the report it is one measure more, whose key is 'analysis/NAME'.
"""

import pathlib
from collections.abc import Sequence

import numpy as np

from bn_jax import errors
from bn_jax.report.results import curves
from bn_jax.storage import records

_EXPERIMENT = {'runs': dict}
_MANIFEST = {
  'status': str,
  'step': int | None,
  'seed': int,
  'config': {
    'batch_size': int,
    'data': {'name': str},
    'model': {'name': str},
    'norm': {'name': str},
    'schedule': {'learning_rate': int | float},
    'measures': {...: {'name': str, 'data': str, 'every_steps': int}},
  },
  'parameters': int,
  'layout': str,
  'device': {'kind': str, 'count': int},
  'precision': {'dtype': str, 'training': str, 'measures': str},
  'versions': {...: str},
  'git_commit': str | None,
  'written': str,
}

_NUMBERS = {'accuracy': float | None, 'loss': float}
_POPULATION = {
  'step': int,
  'batches': int,
  'test': {'running': _NUMBERS, 'population': _NUMBERS},
}
_SETTINGS = {'measure': {'name': str, 'data': str}, 'statistics': str}


def runs(workdirs: Sequence[pathlib.Path]) -> list[curves.Run]:
  """The runs of working directories that have begun, in their order.

  Raises:
    ConfigError: a directory that is given twice.
    StorageError: a directory without an experiment, or with nothing recorded,
      or one whose files were changed.
  """
  _check_distinct(workdirs)
  short = [workdir.resolve().name for workdir in workdirs]
  distinct = len(set(short)) == len(short)
  begun = []
  for workdir, base in zip(workdirs, short):
    above = f'{base if distinct else workdir}/' if len(workdirs) > 1 else ''
    for name in _names(workdir):
      places = (workdir / name).glob('seed*/manifest.json')
      seeds = [seed(path.parent) for path in places]
      seeds.sort(key=lambda one: one.seed)
      if seeds:
        begun.append(curves.Run(above + name, tuple(seeds)))
  if not begun:
    raise errors.StorageError(
      f'{", ".join(map(str, workdirs))}: nothing was recorded yet'
    )
  return begun


def seed(place: pathlib.Path) -> curves.Seed:
  """One run with one seed, from its directory, which has a manifest.

  Raises:
    StorageError: files that were changed.
  """
  manifest = records.read_json(place / 'manifest.json', _MANIFEST)
  found = curves.Seed(
    seed=manifest['seed'],
    manifest=manifest,
    series=series(place / 'scalars.jsonl'),
    seconds=_seconds(place / 'timing.jsonl'),
    arrays={
      name: records.read_arrays(place / 'arrays', name)
      for name in manifest['config']['measures']
    },
    population=records.read_json(place / 'population.json', _POPULATION),
  )
  return _with_analyses(found, place / 'analysis')


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
  path = workdir / 'experiment.json'
  experiment = records.read_json(path, _EXPERIMENT)
  if experiment is None:
    raise errors.StorageError(
      f'{workdir} holds no experiment (no experiment.json); give the '
      '--workdir of a training'
    )
  for name in experiment['runs']:
    if not records.NAME.fullmatch(name):
      raise errors.StorageError(f'{path}: {name[:40]!r} is no name for a run')
  return list(experiment['runs'])


def _seconds(path: pathlib.Path) -> dict[str, float]:
  total = {}
  for record in records.read(path):
    seconds = record.values.get('seconds')
    if not isinstance(seconds, int | float):
      raise errors.StorageError(
        f'{path}: {record.name} at step {record.step} took {seconds} seconds; '
        'the file was changed after it was written'
      )
    total[record.name] = total.get(record.name, 0.0) + seconds
  return total


def series(path: pathlib.Path) -> dict[str, curves.Series]:
  """What each name has recorded in a file, as curves; no file is no error.

  Raises:
    StorageError: a line that is no record, or records of one name that hold
      different values.
  """
  grouped = {}
  for record in records.read(path):
    grouped.setdefault(record.name, []).append(record)
  try:
    return {name: _joined(rows) for name, rows in grouped.items()}
  except (KeyError, TypeError, ValueError) as error:
    raise errors.StorageError(
      f'{path}: records of one name hold different values ({error}); the file '
      'was changed after it was written'
    ) from error


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


def _with_analyses(seed: curves.Seed, folder: pathlib.Path) -> curves.Seed:
  """The seed with the analyses of a folder, in the order of their names.

  One that has recorded nothing yet is left out, and so is one that cannot be
  read: the seed says so.
  """
  for place in sorted(folder.glob('*/settings.json')):
    if not records.NAME.fullmatch(place.parent.name):
      continue
    try:
      seed = _with_analysis(seed, place.parent)
    except errors.StorageError as error:
      seed = seed._replace(left_out=(*seed.left_out, str(error)))
  return seed


def _with_analysis(seed: curves.Seed, folder: pathlib.Path) -> curves.Seed:
  """The seed with one analysis more.

  Raises:
    StorageError: it was changed after it was written.
  """
  settings = records.read_json(folder / 'settings.json', _SETTINGS)
  found = series(folder / 'scalars.jsonl').get(folder.name)
  arrays = records.read_arrays(folder / 'arrays', folder.name)
  if settings is None or (found is None and not arrays):
    return seed
  key = f'{curves.ANALYSIS}{folder.name}'
  statistics = {'statistics': settings['statistics']}
  config = seed.manifest['config']
  measures = {**config['measures'], key: settings['measure'] | statistics}
  return seed._replace(
    manifest={**seed.manifest, 'config': {**config, 'measures': measures}},
    series=seed.series if found is None else {**seed.series, key: found},
    arrays={**seed.arrays, key: arrays} if arrays else seed.arrays,
  )
