"""One run with one seed on disk: where its files lie, and what they say.

WORKDIR/experiment.json            the runs, resolved, and their seeds
WORKDIR/RUN/seedK/                 a `RunFolder`
  manifest.json                    what it is, on what it ran, how far it is
  scalars.jsonl, timing.jsonl, tb/ records, their seconds, for TensorBoard
  arrays/NAME-STEP.npz             records that are too large for a line
  checkpoints/STEP/                states of training
  population/, population.json     what `recalibrate` found
  analysis/NAME/                   an `AnalysisFolder`: a measure that was
                                   taken of its checkpoints afterwards
"""

import dataclasses
import functools
import os
import pathlib
import re
from typing import Any

from bn_jax import errors
from bn_jax.storage import files, records

# How the page speaks of a measure: see `analysis.Kind.page`.
_PAGE = {'title': str, 'quantities': {...: str}}
# What a manifest holds at least, to go on with; `config` is the resolved run.
MANIFEST = {
  'status': str,  # 'running', 'done', 'interrupted', 'diverged'
  'step': int | None,
  'run': str,
  'seed': int,
  'config': dict,
}
# And what it holds for those who speak of the run: the report and the papers.
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
  'measures': (None, {...: _PAGE}),  # by measure; older ones lack it
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
_FILE = 'experiment.json'
_SEED = re.compile(r'seed(0|[1-9]\d*)')


def seed_name(seed: int) -> str:
  """Returns what a seed is called, as a folder too: 'seed0'."""
  return f'seed{seed}'


def label(run: str, seed: int) -> str:
  """Returns what a run with a seed is called everywhere: 'batchnorm/seed0'."""
  return f'{run}/{seed_name(seed)}'


@dataclasses.dataclass(frozen=True)
class RunFolder:
  """One run with one seed: WORKDIR/RUN/seedK, whether it has begun or not.

  Attributes:
    path: of the folder.
    run: its name in the experiment.
    seed: of its weights and examples.
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
    """What it is and how far it is, see `MANIFEST`; None before it begins.

    It is read once, when it is first asked for: make a new RunFolder, or see
    `again`, to look at a run that goes on.

    Raises:
      StorageError: a file that was changed, or that is another seed's.
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
      StorageError: a file that was changed.
    """
    files.check_shape(self.manifest_file, self.manifest, WHOLE)
    return self.manifest

  @property
  def status(self) -> str | None:
    """'running', 'done', 'interrupted', 'diverged'; None before it begins."""
    return self.manifest['status'] if self.manifest else None

  @property
  def step(self) -> int:
    """How far it is by its manifest; 0 before it begins."""
    return (self.manifest['step'] or 0) if self.manifest else 0

  @property
  def has_ended(self) -> bool:
    """Whether it goes on no more by itself."""
    return self.status in ('done', 'diverged')

  @property
  def has_records(self) -> bool:
    """Whether it made steps: its first checkpoint is older than they are."""
    return bool(self.step) or any(True for _ in records.read(self.scalars))

  def again(self) -> 'RunFolder':
    """Returns the same folder, to be read anew."""
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
    """The checkpoint whose statistics are those of the training set."""
    return self.path / 'population'

  @property
  def population_file(self) -> pathlib.Path:
    return self.path / 'population.json'

  def read_population(self) -> dict[str, Any] | None:
    """Returns how those were found, and the test with both; None for none."""
    return files.read_json(self.population_file, _POPULATION)

  def analysis(self, name: str) -> 'AnalysisFolder':
    """Returns the folder of the analysis of this name."""
    return AnalysisFolder(self.path / 'analysis' / name)

  def analyses(self) -> list['AnalysisFolder']:
    """Returns the analyses that have begun, in the order of their names."""
    found = sorted((self.path / 'analysis').glob('*/settings.json'))
    names = [path.parent.name for path in found]
    return [self.analysis(n) for n in names if records.NAME.fullmatch(n)]

  def seconds(self) -> dict[str, float]:
    """Returns name -> seconds of it, over all restarts that counted.

    Raises:
      StorageError: a file that was changed.
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
  """A measure of a run's checkpoints: RUN/seedK/analysis/NAME.

  Attributes:
    path: of the folder.
  """

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
    """Returns where a look at a checkpoint keeps what it has so far."""
    return self.path / 'partial' / f'{step}'

  def settings(self) -> dict[str, Any] | None:
    """Returns what was measured, and how; None before the first look.

    Raises:
      StorageError: a file that was changed.
    """
    begun = (self.scalars, self.arrays, self.path / 'partial')
    if not any(path.exists() for path in begun):
      return None
    return files.read_json(self.settings_file, _SETTINGS)


def at(workdir: str | os.PathLike, run: str, seed: int) -> RunFolder:
  """Returns the folder of a run and seed, which need not be there."""
  return RunFolder(pathlib.Path(workdir) / run / seed_name(seed), run, seed)


def below(workdir: pathlib.Path, run: str = '*') -> list[RunFolder]:
  """Returns what has begun in a working directory, by run and seed.

  Args:
    workdir: the working directory.
    run: one run of it; by default all.
  """
  found = []
  for folder in workdir.glob(run):
    found += _seeds(folder, folder.name)
  return sorted(found, key=lambda one: (one.run, one.seed))


def find(path: pathlib.Path) -> list[RunFolder]:
  """Returns what has begun at WORKDIR, WORKDIR/RUN or WORKDIR/RUN/seedK.

  They are called as their manifests say: a folder may have moved.

  Raises:
    ConfigError: nothing has.
    StorageError: a manifest that was changed, or that is another seed's.
  """
  match = _SEED.fullmatch(path.absolute().name)
  if path.is_dir() and (path / 'manifest.json').exists():
    manifest = files.read_json(path / 'manifest.json', MANIFEST)
    seed = int(match[1]) if match else manifest['seed']
    found = [RunFolder(path, manifest['run'], seed)]
  else:
    found = _seeds(path, path.absolute().name) or below(path)
  if not found:
    raise errors.ConfigError(
      f'{path} holds no run; give WORKDIR/run or WORKDIR/run/seedK'
    )
  return [
    dataclasses.replace(folder, run=folder.manifest['run']) for folder in found
  ]


def _seeds(folder: pathlib.Path, run: str) -> list[RunFolder]:
  """Returns the seeds of one run that have begun, in order."""
  found = []
  for path in folder.glob('seed*/manifest.json'):
    match = _SEED.fullmatch(path.parent.name)
    if match:  # 'seed0.bak' is no seed
      found.append(RunFolder(path.parent, run, int(match[1])))
  return sorted(found, key=lambda one: one.seed)


def is_workdir(path: pathlib.Path) -> bool:
  """Whether a folder is a working directory: it has an experiment."""
  return (path / _FILE).exists()


def workdirs(folder: pathlib.Path) -> list[pathlib.Path]:
  """Returns the working directories in a folder and below it, in order."""
  return sorted(path.parent for path in folder.glob(f'**/{_FILE}'))


def read_experiment(workdir: pathlib.Path) -> dict[str, Any] | None:
  """Returns the runs and seeds of a working directory; None for none.

  Raises:
    StorageError: a file that was changed, or that cannot be read.
  """
  path = workdir / _FILE
  experiment = files.read_json(path, _EXPERIMENT)
  for name in experiment['runs'] if experiment else ():
    if not records.NAME.fullmatch(name):
      raise errors.StorageError(f'{path}: {name[:40]!r} is no name for a run')
  return experiment


def write_experiment(workdir: pathlib.Path, content: dict[str, Any]) -> None:
  """Writes experiment.json, whole."""
  files.write_json(workdir / _FILE, content)
