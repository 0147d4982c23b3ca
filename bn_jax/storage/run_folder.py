"""Finds and reads the files of one run with one seed.

`chain` checks that they belong together.

WORKDIR/experiment.json            the runs, resolved, and their seeds
WORKDIR/report.html                the page
WORKDIR/figures/                   of the page: a CSV each, and PNG and PDF
WORKDIR/results.csv                the last value of everything recorded
WORKDIR/verdicts.json              claims about the runs, judged
WORKDIR/papers/                    pages of figures of the papers, by `draw`
WORKDIR/sinks/                     what services write here, see `host.sinks`
WORKDIR/launch/                    output and ends of the jobs of `launch`
WORKDIR/RUN/seedK/                 a run with one seed, a `RunFolder`
  manifest.json                    the config, the machine, the last step
  scalars.jsonl                    records
  tb/                              the same for TensorBoard
  timing.jsonl                     seconds of steps, measures and saves
  arrays/NAME-STEP.npz             records that are too large for a line
  checkpoints/STEP/                states of training
  sinks/NAME.json                  what a service outside has been sent
  population/STEP/                 the state with statistics of `recalibrate`
  population.json                  what it was evaluated to be
  analysis/NAME/                   a measure taken later, see `analysis_folder`
  lock                             held by the process that trains
  population.lock                  held by `recalibrate`
  analysis-NAME.lock               held by `analyze`
"""

import dataclasses
import functools
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any

from bn_jax import errors
from bn_jax.storage import analysis_folder, files, records

# The shapes below are those of `files.read_json`.
# Modules of users: their files, and SHA-256 of these.
MODULES = {...: {'file': str, 'digest': str}}
# What a manifest must hold to continue the run; `config` is the resolved run.
MANIFEST = {
  'status': str,  # 'running', 'done', 'interrupted', 'diverged'
  'step': int | None,
  'run': str,
  'seed': int,
  'config': dict,
  'modules': (None, MODULES),
  'lowering': (None, str),  # of the step; some networks and old runs lack it
  'seeds_at_once': (None, int),  # these two: of the program; old runs lack them
  'numbers': (None, list),
  'records': (None, {'scalars': list, 'arrays': dict}),  # once it has stopped
}
# What a manifest must hold for the report and the papers.
WHOLE = {
  **MANIFEST,
  'config': {
    'batch_size': int,
    'data': {'name': str},
    'model': {'name': str},
    'norm': {'name': str},
    'schedule': dict,  # a user's need not have a learning_rate
    'measures': {...: {'name': str, 'data': str, 'every_steps': int}},
  },
  'normalization': (None, str),  # of a network that gets no norm
  'measures': (None, {...: analysis_folder.PAGE}),  # older manifests lack it
  'parameters': int,
  'layout': str,
  'measure_lowering': (None, str),
  'device': {'kind': str, 'count': int},
  'precision': {'dtype': str, 'training': str, 'measures': str},
  'versions': {...: str},
  'git_commit': str | None,
  'command': (None, str),  # these two: older manifests lack them
  'processor': (None, str),
  'written': str,
}
_EXPERIMENT = {'runs': {...: dict}, 'seeds': list}
# "NaN" and "Infinity" are texts, see `files.storable`.
_NUMBERS = {'accuracy': float | None, 'loss': float | str}
_POPULATION = {
  'step': int,
  'batches': int,
  'run': (None, str),
  'seed': (None, int),
  'state': (None, str),  # of the checkpoint, see `chain.state_digest`
  'test': {'running': _NUMBERS, 'population': _NUMBERS},
}
# Keys of a config that may change when a run goes on: none of it changes a
# number by more than rounding, except that evaluation_batch_size is the size of
# the batches of a split that is measured with batch statistics. on_nonfinite
# and max_skips change none before the first update that is not finite, at which
# a run that may skip none stops.
MAY_CHANGE = (
  'steps', 'measures', 'log_every_steps', 'checkpoint', 'evaluation_batch_size',
  'layout', 'devices', 'shard_state', 'remat', 'data_dir', 'on_nonfinite',
  'max_skips', 'measure_lowering', 'seeds_at_once', 'sinks',
)  # fmt: skip
_EXPERIMENT_FILE = 'experiment.json'
_SEED = re.compile('seed(0|[1-9][0-9]*)')


def seed_name(seed: int) -> str:
  """Returns the name of a seed, also of its folder: 'seed0'."""
  return f'seed{seed}'


def label(run: str, seed: int) -> str:
  """Returns the name of a run with a seed: 'batchnorm/seed0'."""
  return f'{run}/{seed_name(seed)}'


def labels(run: str, seeds: Sequence[int]) -> str:
  """Returns the names of a run with seeds, as --only takes them.

  Three or more in a row are 'batchnorm/seed0:3', the last one left out.
  """
  words, rest = [], list(seeds)
  while rest:
    first, count = rest[0], 1
    while count < len(rest) and rest[count] == first + count:
      count += 1
    count = count if count > 2 else 1
    words.append(label(run, first) + f':{first + count}' * (count > 1))
    del rest[:count]
  return ','.join(words)


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
      StorageError: the file cannot be read, was changed or is another run's.
    """
    manifest = files.read_json(self.manifest_file, MANIFEST)
    if manifest is not None:
      owner = (manifest['run'], manifest['seed'])
      if owner != (self.run, self.seed):
        raise errors.StorageError(
          f'{self.manifest_file} is that of run {owner[0]!r} with seed '
          f'{owner[1]}; give the folder its name again, {label(*owner)}'
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
  def sinks(self) -> pathlib.Path:
    return self.path / 'sinks'

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
    """Returns the content of population.json; see `chain.population`."""
    facts = files.read_json(self.population_file, _POPULATION)
    if facts is None:
      return None
    test = {
      statistics: {
        name: None if x is None else float(x) for name, x in numbers.items()
      }
      for statistics, numbers in facts['test'].items()
    }
    return {**facts, 'test': test}

  def analysis(self, name: str) -> analysis_folder.AnalysisFolder:
    """Returns the folder of the analysis of this name."""
    return analysis_folder.AnalysisFolder(self.path / 'analysis' / name)

  def analyses(self) -> list[analysis_folder.AnalysisFolder]:
    """Returns the analyses that were begun, in the order of their names."""
    above = self.path / 'analysis'
    paths = sorted(above.iterdir()) if above.is_dir() else ()
    found = [
      self.analysis(path.name)
      for path in paths
      if records.NAME.fullmatch(path.name) and path.is_dir()
    ]
    return [one for one in found if one.has_begun]

  def seconds(self) -> dict[str, float]:
    """Returns name -> seconds in timing.jsonl, summed over all restarts.

    Lines that were changed are left out: nothing but a time is read from them.

    Raises:
      StorageError: the file cannot be read.
    """
    total = {}
    for record in records.read(self.timing, strict=False):
      seconds = record.values.get('seconds')
      if isinstance(seconds, int | float):
        total[record.name] = total.get(record.name, 0.0) + seconds
    return total


def at(workdir: str | os.PathLike, run: str, seed: int) -> RunFolder:
  """Returns the folder of a run and seed, which need not exist."""
  return RunFolder(pathlib.Path(workdir) / run / seed_name(seed), run, seed)


def below(workdir: pathlib.Path, run: str | None = None) -> list[RunFolder]:
  """Returns the folders that have begun, in the order of run and seed.

  Args:
    workdir: the folder above those of the runs.
    run: a name; None is for all runs of the experiment, or where there is no
      experiment.json, all folders whose name is one for a run.

  Raises:
    StorageError: experiment.json was changed, or a manifest is missing.
  """
  if run is not None:
    names = [run]
  elif (experiment := read_experiment(workdir)) is not None:
    names = experiment['runs']
  elif workdir.is_dir():
    names = [path.name for path in workdir.iterdir()]
    names = filter(records.NAME.fullmatch, names)
  else:
    names = ()
  return [
    folder for name in sorted(names) for folder in _seeds(workdir / name, name)
  ]


def find(path: pathlib.Path) -> list[RunFolder]:
  """Returns the folders at WORKDIR, WORKDIR/RUN or WORKDIR/RUN/seedK.

  A folder that is no longer below its experiment, or under a name that the
  experiment does not have, is that of the run in its manifest.

  Raises:
    ConfigError: no run has begun there.
    StorageError: see `RunFolder.manifest`.
  """
  named = pathlib.Path(os.path.abspath(path))  # '.' has a name, too
  match = _SEED.fullmatch(named.name)
  if (path / 'manifest.json').exists():
    manifest = files.read_json(path / 'manifest.json', MANIFEST)
    seed = int(match[1]) if match else manifest['seed']
    run = _name_in_experiment(named.parent) or manifest['run']
    folders = [RunFolder(path, run, seed)]
  else:
    folders = _seeds(path, _name_in_experiment(named)) or below(path)
  if not folders:
    raise errors.ConfigError(
      f'{path} holds no run; give WORKDIR/run or WORKDIR/run/seedK'
    )
  for folder in folders:
    _ = folder.manifest  # refused here, before any of them is used
  return folders


def _name_in_experiment(path: pathlib.Path) -> str | None:
  """Returns the name of a run's folder, None if its experiment lacks it."""
  experiment = read_experiment(path.parent)
  return path.name if experiment and path.name in experiment['runs'] else None


def _seeds(folder: pathlib.Path, run: str | None) -> list[RunFolder]:
  """Returns the folders of one run that have begun, in the order of seeds.

  Args:
    run: its name; None is for that in each manifest.

  Raises:
    StorageError: a manifest is missing, or cannot be read.
  """
  folders = []
  for path in folder.iterdir() if folder.is_dir() else ():
    match = _SEED.fullmatch(path.name)  # 'seed0.bak' is no seed
    if not match:
      continue
    seed = RunFolder(path, run or '', int(match[1]))
    if not seed.manifest_file.exists():
      if seed.scalars.exists() or seed.checkpoints.exists():
        raise errors.StorageError(
          f'{seed.manifest_file} is missing: restore it; the command that '
          'trained the run writes it again'
        )
      continue  # has not begun
    if run is None:
      manifest = files.read_json(seed.manifest_file, MANIFEST)
      seed = dataclasses.replace(seed, run=manifest['run'])
    folders.append(seed)
  return sorted(folders, key=lambda folder: folder.seed)


def sinks(workdir: pathlib.Path) -> pathlib.Path:
  """Returns the folder of what services write for all runs together."""
  return workdir / 'sinks'


def is_workdir(path: pathlib.Path) -> bool:
  """Returns whether a folder is a working directory: has experiment.json."""
  return (path / _EXPERIMENT_FILE).exists()


def workdirs(folder: pathlib.Path) -> list[pathlib.Path]:
  """Returns the working directories in a folder and below it, in order.

  Hidden folders are left out, unless `folder` itself is one.
  """
  return sorted(
    path.parent
    for path in folder.glob(f'**/{_EXPERIMENT_FILE}')
    if not any(name.startswith('.') for name in path.relative_to(folder).parts)
  )


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
  files.write_json(workdir / _EXPERIMENT_FILE, content, digest=True)
