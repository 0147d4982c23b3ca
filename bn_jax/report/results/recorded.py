"""Working directories, read: the runs of which there is something to report."""

import pathlib
from collections.abc import Sequence

from bn_jax import errors
from bn_jax.report.results import analysed, curves, series
from bn_jax.storage import files, records

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
      places = (workdir / name).glob('seed*/manifest.json')
      seeds = [seed(path.parent) for path in places]
      seeds.sort(key=lambda one: one.seed)
      if seeds:
        runs.append(curves.Run(above + name, tuple(seeds)))
  if not runs:
    raise errors.StorageError(
      f'{", ".join(map(str, workdirs))}: nothing was recorded yet'
    )
  return runs


def seed(place: pathlib.Path) -> curves.Seed:
  """One run with one seed, from its directory, which has a manifest.

  Raises:
    StorageError: files that were changed.
  """
  manifest = files.read_json(place / 'manifest.json', _MANIFEST)
  found = curves.Seed(
    seed=manifest['seed'],
    manifest=manifest,
    series=series.read(place / 'scalars.jsonl'),
    seconds=_seconds(place / 'timing.jsonl'),
    arrays={
      name: records.read_arrays(place / 'arrays', name)
      for name in manifest['config']['measures']
    },
    population=files.read_json(place / 'population.json', _POPULATION),
  )
  return analysed.added(found, place / 'analysis')


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
  experiment = files.read_json(path, _EXPERIMENT)
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
