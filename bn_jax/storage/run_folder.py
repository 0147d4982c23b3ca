"""Finds and reads the files of one run with one seed.

WORKDIR/experiment.json            the runs, resolved, and their seeds
WORKDIR/RUN/seedK/                 a `RunFolder`
  manifest.json                    the config, the machine, the last step
  scalars.jsonl, tb/               records; the same for TensorBoard
  timing.jsonl                     seconds of steps, measures and saves
  arrays/NAME-STEP.npz             records that are too large for a line
  checkpoints/STEP/                states of training
  population/, population.json     result of `recalibrate`
  analysis/NAME/                   a measure taken later, an `AnalysisFolder`
"""

import dataclasses
import functools
import os
import pathlib
import re
from typing import Any

from bn_jax import errors
from bn_jax.storage import files, records

# The shapes below are those of `files.read_json`.
# A measure's title and quantities on the page: see `analysis.Kind.page`.
_PAGE = {'title': str, 'quantities': {...: str}}
# What a manifest must hold to continue the run; `config` is the resolved run.
MANIFEST = {
  'status': str,  # 'running', 'done', 'interrupted', 'diverged'
  'step': int | None,
  'run': str,
  'seed': int,
  'config': dict,
}
# What a manifest must hold for the report and the papers.
WHOLE = {
  **MANIFEST,
  'config': {
    'batch_size': int,
    'data': {'name': str},
    'model': {'name': str},
    'norm': {'name': str},
    'schedule': {'learning_rate': int | float},
    'measures': {...: {'name': str, 'data': str, 'every_steps': int}},
  },
  'measures': (None, {...: _PAGE}),  # older manifests lack it
  'parameters': int,
  'layout': str,
  'device': {'kind': str, 'count': int},
  'precision': {'dtype': str, 'training': str, 'measures': str},
  'versions': {...: str},
  'git_commit': str | None,
  'written': str,
}
_EXPERIMENT = {'runs': {...: dict}, 'seeds': list}
_NUMBERS = {'accuracy': float | None, 'loss': float}
_POPULATION = {
  'step': int,
  'batches': int,
  'test': {'running': _NUMBERS, 'population': _NUMBERS},
}
_SETTINGS = {
  'measure': {'name': str, 'data': str},
  'statistics': str,
  'page': (None, _PAGE),
}
_EXPERIMENT_FILE = 'experiment.json'
_SEED = re.compile(r'seed(0|[1-9]\d*)')


def seed_name(seed: int) -> str:
  """Returns the name of a seed, also of its folder: 'seed0'."""
  return f'seed{seed}'


def label(run: str, seed: int) -> str:
  """Returns the name of a run with a seed: 'batchnorm/seed0'."""
  return f'{run}/{seed_name(seed)}'


@dataclasses.dataclass(frozen=True)
class RunFolder:
  """The folder of one run with one seed; before training it need not exist.

  Attributes:
    path: WORKDIR/RUN/seedK.
    run: name of the run in the experiment.
    seed: of the weights and of the order of examples.
  """

  path: pathlib.Path
  run: str
  seed: int

  @property
  def label(self) -> str:
    return label(self.run, self.seed)

  @property
  def workdir(self) -> pathlib.Path:
    return self.path.parent.parent

  @functools.cached_property
  def manifest(self) -> dict[str, Any] | None:
    """Returns the content of manifest.json, see `MANIFEST`, or None.

    None is for a run that has not begun. The file is read once, at the first
    access; `again` is for a run that is in progress.

    Raises:
      StorageError: the file cannot be read, was changed or is another seed's.
    """
    manifest = files.read_json(self.manifest_file, MANIFEST)
    if manifest is not None and manifest['seed'] != self.seed:
      raise errors.StorageError(
        f'{self.manifest_file} is that of seed {manifest["seed"]}; give the '
        f'folder its name again, {seed_name(manifest["seed"])}'
      )
    return manifest

  def whole_manifest(self) -> dict[str, Any]:
    """Returns the manifest of a run that has begun, see `WHOLE`.

    Raises:
      StorageError: see `manifest`.
    """
    files.check_shape(self.manifest_file, self.manifest, WHOLE)
    return self.manifest

  @property
  def status(self) -> str | None:
    """Returns a status as in `MANIFEST`, or None before the run begins."""
    return self.manifest['status'] if self.manifest else None

  @property
  def step(self) -> int:
    """Returns the number of steps by the manifest, 0 before the run begins."""
    return (self.manifest['step'] or 0) if self.manifest else 0

  @property
  def has_ended(self) -> bool:
    """Returns whether training is over: done or diverged."""
    return self.status in ('done', 'diverged')

  @property
  def has_records(self) -> bool:
    """Returns whether the manifest or a record tells of a step."""
    return bool(self.step) or any(True for _ in records.read(self.scalars))

  def again(self) -> 'RunFolder':
    """Returns the same folder, which will read its manifest anew."""
    return dataclasses.replace(self)

  @property
  def manifest_file(self) -> pathlib.Path:
    return self.path / 'manifest.json'

  @property
  def scalars(self) -> pathlib.Path:
    return self.path / 'scalars.jsonl'

  @property
  def timing(self) -> pathlib.Path:
    return self.path / 'timing.jsonl'

  @property
  def arrays(self) -> pathlib.Path:
    return self.path / 'arrays'

  @property
  def events(self) -> pathlib.Path:
    return self.path / 'tb'

  @property
  def checkpoints(self) -> pathlib.Path:
    return self.path / 'checkpoints'

  @property
  def population(self) -> pathlib.Path:
    """Returns the path of the checkpoint with population statistics."""
    return self.path / 'population'

  @property
  def population_file(self) -> pathlib.Path:
    return self.path / 'population.json'

  def read_population(self) -> dict[str, Any] | None:
    """Returns the content of population.json, None without such a file."""
    return files.read_json(self.population_file, _POPULATION)

  def analysis(self, name: str) -> 'AnalysisFolder':
    """Returns the folder of the analysis of this name."""
    return AnalysisFolder(self.path / 'analysis' / name)

  def analyses(self) -> list['AnalysisFolder']:
    """Returns the analyses with settings.json, in the order of their names."""
    paths = sorted((self.path / 'analysis').glob('*/settings.json'))
    names = [path.parent.name for path in paths]
    return [
      self.analysis(name) for name in names if records.NAME.fullmatch(name)
    ]

  def seconds(self) -> dict[str, float]:
    """Returns name -> seconds in timing.jsonl, summed over all restarts.

    Raises:
      StorageError: the file cannot be read or was changed.
    """
    total = {}
    for record in records.read(self.timing):
      seconds = record.values.get('seconds')
      if not isinstance(seconds, int | float):
        raise errors.StorageError(
          f'{self.timing}: {record.name} at step {record.step} took {seconds} '
          'seconds; the file was changed after it was written'
        )
      total[record.name] = total.get(record.name, 0.0) + seconds
    return total


@dataclasses.dataclass(frozen=True)
class AnalysisFolder:
  """The folder RUN/seedK/analysis/NAME: a measure of a run's checkpoints."""

  path: pathlib.Path

  @property
  def name(self) -> str:
    return self.path.name

  @property
  def settings_file(self) -> pathlib.Path:
    return self.path / 'settings.json'

  @property
  def scalars(self) -> pathlib.Path:
    return self.path / 'scalars.jsonl'

  @property
  def arrays(self) -> pathlib.Path:
    return self.path / 'arrays'

  def partial(self, step: int) -> pathlib.Path:
    """Returns the journal's folder for a checkpoint that is being measured."""
    return self.path / 'partial' / f'{step}'

  def settings(self) -> dict[str, Any] | None:
    """Returns the settings of the measure; None without any result.

    Raises:
      StorageError: settings.json cannot be read or was changed.
    """
    results = (self.scalars, self.arrays, self.path / 'partial')
    if not any(path.exists() for path in results):
      return None
    return files.read_json(self.settings_file, _SETTINGS)


def at(workdir: str | os.PathLike, run: str, seed: int) -> RunFolder:
  """Returns the folder of a run and seed, which need not exist."""
  return RunFolder(pathlib.Path(workdir) / run / seed_name(seed), run, seed)


def below(workdir: pathlib.Path, run: str = '*') -> list[RunFolder]:
  """Returns the folders with a manifest, in the order of run and seed.

  Args:
    workdir: the folder above those of the runs.
    run: a name, or a pattern as in shells; '*' stands for all runs.
  """
  folders = []
  for path in workdir.glob(run):
    folders += _seeds(path, path.name)
  return sorted(folders, key=lambda folder: (folder.run, folder.seed))


def find(path: pathlib.Path) -> list[RunFolder]:
  """Returns the folders at WORKDIR, WORKDIR/RUN or WORKDIR/RUN/seedK.

  A run's name is that in its manifest, as its folder may have been moved.

  Raises:
    ConfigError: no run has begun there.
    StorageError: see `RunFolder.manifest`.
  """
  match = _SEED.fullmatch(path.absolute().name)
  if path.is_dir() and (path / 'manifest.json').exists():
    manifest = files.read_json(path / 'manifest.json', MANIFEST)
    seed = int(match[1]) if match else manifest['seed']
    folders = [RunFolder(path, manifest['run'], seed)]
  else:
    folders = _seeds(path, path.absolute().name) or below(path)
  if not folders:
    raise errors.ConfigError(
      f'{path} holds no run; give WORKDIR/run or WORKDIR/run/seedK'
    )
  return [
    dataclasses.replace(folder, run=folder.manifest['run'])
    for folder in folders
  ]


def _seeds(folder: pathlib.Path, run: str) -> list[RunFolder]:
  """Returns the folders of one run with a manifest, in the order of seeds."""
  folders = []
  for path in folder.glob('seed*/manifest.json'):
    match = _SEED.fullmatch(path.parent.name)
    if match:  # 'seed0.bak' is no seed
      folders.append(RunFolder(path.parent, run, int(match[1])))
  return sorted(folders, key=lambda folder: folder.seed)


def is_workdir(path: pathlib.Path) -> bool:
  """Returns whether a folder is a working directory: has experiment.json."""
  return (path / _EXPERIMENT_FILE).exists()


def workdirs(folder: pathlib.Path) -> list[pathlib.Path]:
  """Returns the working directories in a folder and below it, in order."""
  return sorted(path.parent for path in folder.glob(f'**/{_EXPERIMENT_FILE}'))


def read_experiment(workdir: pathlib.Path) -> dict[str, Any] | None:
  """Returns the content of experiment.json, None without such a file.

  Raises:
    StorageError: the file cannot be read or was changed.
  """
  path = workdir / _EXPERIMENT_FILE
  experiment = files.read_json(path, _EXPERIMENT)
  for name in experiment['runs'] if experiment else ():
    if not records.NAME.fullmatch(name):
      raise errors.StorageError(f'{path}: {name[:40]!r} is no name for a run')
  return experiment


def write_experiment(workdir: pathlib.Path, content: dict[str, Any]) -> None:
  """Writes experiment.json, whole."""
  files.write_json(workdir / _EXPERIMENT_FILE, content)
