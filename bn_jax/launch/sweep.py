"""Expands a command line to those of train.py: combinations x runs x seeds.

Seeds that share a program share a command.
"""

import hashlib
import itertools
import json
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from bn_jax import errors, modules
from bn_jax.config import flags
from bn_jax.config import numbers as numbers_lib
from bn_jax.config.run_config import MOST_SEEDS, RunConfig
from bn_jax.storage import run_folder

FOLDER = 'launch'  # in a sweep's working directory, for the scheduler's files
# Characters of a folder's name: more are hard to read, fewer cut more names.
_LONGEST = 120


class Cell(NamedTuple):
  """One run with one seed of one combination: one folder.

  Attributes:
    folder: of the run and seed, in the working directory of the combination.
    config: of the run, resolved.
    may_diverge: whether the config expects the run to diverge.
    line: the arguments of train.py for the whole combination, a string each.
  """

  folder: run_folder.RunFolder
  config: RunConfig
  may_diverge: bool
  line: tuple[str, ...]

  @property
  def steps(self) -> int:
    """Returns the number of steps that the run is to make."""
    return self.config.steps

  @property
  def workdir(self) -> pathlib.Path:
    return self.folder.workdir

  @property
  def label(self) -> str:
    return self.folder.label


class Group(NamedTuple):
  """Cells that one command trains: one, or those that share a program.

  Attributes:
    cells: of one combination.
    at_once: for how many seeds the program is.
  """

  cells: tuple[Cell, ...]
  at_once: int = 1

  @property
  def workdir(self) -> pathlib.Path:
    return self.cells[0].workdir

  @property
  def label(self) -> str:
    """Returns the value of --only, 'RUN/seed0:32' for seeds in a row."""
    return ','.join(
      run_folder.labels(run, seeds) for run, seeds in self._seeds().items()
    )

  @property
  def words(self) -> tuple[str, ...]:
    """Returns the arguments of train.py, one string each."""
    line, config = self.cells[0].line, self.cells[0].config
    begins = any(cell.folder.manifest is None for cell in self.cells)
    if self.at_once > 1 and config.seeds_at_once == 'auto' and begins:
      # Said, so that what the job finds out there makes no other program; seeds
      # that have begun keep their number, which may be above all of today's.
      # 'auto' for all runs would count more than a number for one.
      line = list(_without('config.seeds_at_once', line))
      line += [
        f'--config.runs.{run}.seeds_at_once={self.at_once}'
        for run in self._seeds()
      ]
    return (*line, f'--only={self.label}')

  def _seeds(self) -> dict[str, list[int]]:
    """Returns run -> its seeds."""
    seeds = {}
    for cell in self.cells:
      seeds.setdefault(cell.folder.run, []).append(cell.folder.seed)
    return seeds


class Sweep(NamedTuple):
  """All cells of a command line.

  Attributes:
    workdir: contains the working directories of all combinations.
    cells: combination by combination, run by run, seed by seed.
  """

  workdir: str
  cells: tuple[Cell, ...]


def expand(
  words: Sequence[str],
  settings: Sequence[str],
  *,
  workdir: str | None,
  only: str | None,
) -> Sweep:
  """Returns the cells of every combination of settings.

  Each combination of the keys other than `seeds` has a working directory of its
  own below `workdir`, named after it: 'norm.name=batch__steps=100'.

  Args:
    words: arguments that all commands share: --config=FILE and its changes.
    settings: 'KEY=VALUE,VALUE,...' each, or 'seeds=FIRST:END'.
    workdir: of the sweep; None is what train.py takes by default.
    only: what train.py takes; None is all.

  Raises:
    ConfigError: a setting or combination is wrong, or train.py would refuse it.
    StorageError: experiment.json of a working directory is damaged.
  """
  values_of = {}
  for key, values in (_setting(text, words) for text in settings):
    if key in values_of:
      raise errors.ConfigError(
        f'--set {key}: given twice; give all values once'
      )
    values_of[key] = values
  if 'seeds' in values_of:
    words = [*words, f'--config.seeds={",".join(values_of.pop("seeds"))}']
  workdir = workdir or flags.train(['train.py', *words]).workdir
  cells, experiments = [], {}
  for values in itertools.product(*values_of.values()):
    combination = list(zip(values_of, values))
    cells += _cells(words, combination, workdir, only, experiments)
  return Sweep(workdir, tuple(cells))


def groups(
  cells: Sequence[Cell], to_start: Sequence[Cell], shares: int = 1
) -> list[Group]:
  """Returns the jobs for the cells to start, in the order of the sweep.

  What `seeds_at_once` has in one program is a job: seeds of a run, and of runs
  that differ in numbers alone. 'auto' goes by the processor and memory of this
  machine, as no accelerator is touched. Where it lacks what the rule needs, as
  the data, each seed is a job.

  Args:
    cells: of the sweep.
    to_start: those of them that are to start.
    shares: how many jobs share the memory of this machine.
  """
  every_group, folders_to_start = [], {cell.folder for cell in to_start}
  for _, of_workdir in itertools.groupby(cells, lambda cell: cell.workdir):
    by_folder = {cell.folder: cell for cell in of_workdir}
    asked, left = {}, {}
    for folder in by_folder:
      asked.setdefault(folder.run, []).append(folder)
      if folder in folders_to_start:
        left.setdefault(folder.run, []).append(folder)
    configs = {
      run: by_folder[folders[0]].config for run, folders in asked.items()
    }
    for family in numbers_lib.families(configs):
      for group in _together(family, configs, left, asked, shares):
        of_group = tuple(by_folder[folder] for folder in group.folders)
        every_group.append(Group(of_group, group.at_once))
  return every_group


def _together(
  family: numbers_lib.Family,
  configs: Mapping[str, RunConfig],
  left: Mapping[str, list[run_folder.RunFolder]],
  asked: Mapping[str, list[run_folder.RunFolder]],
  shares: int,
) -> list[Any]:
  """Returns what `together.of_family` does; of one each if it cannot tell."""
  import jax

  # A GPU that this process takes would be missing for the jobs.
  jax.config.update('jax_platforms', 'cpu')
  from bn_jax.config import build
  from bn_jax.experiment import together

  folders = [one for run in family.names if run in left for one in left[run]]
  apart = [together.Group([folder]) for folder in folders]
  if not folders or sum(len(asked[run]) for run in family.names) == 1:
    return apart
  config = configs[folders[0].run]
  if config.seeds_at_once == 1:
    return apart
  try:
    with modules.bound(config.modules):
      # As many devices as the job will have need not be here; and the runs have
      # the same shapes.
      problem = build.problem(config.replace(devices=1, layout='jit'))
      problems = dict.fromkeys(family.names, problem)
      return together.of_family(family, configs, problems, left, asked, shares)
  except errors.Failure:  # which the job will find, and say
    return apart


def _cells(
  words: Sequence[str],
  combination: Sequence[tuple[str, str]],
  workdir: str,
  only: str | None,
  experiments: dict[str, str],
) -> Iterator[Cell]:
  """Yields the cells of one combination.

  Args:
    words: arguments of all commands of the sweep.
    combination: (key, value) of each key of the sweep.
    workdir: the folder above those of all combinations.
    only: what train.py takes; None is all.
    experiments: the runs of each earlier combination, as JSON -> its text; this
      combination is added.
  """
  words = [*words, *(f'--config.{key}={value}' for key, value in combination)]
  values = flags.train(['train.py', *words])
  for flag in ('plan', 'show'):
    if getattr(values, flag):
      raise errors.ConfigError(f'--{flag} trains nothing; give it to train.py')
  if any(value is not None for value in values.place):
    raise errors.ConfigError(
      '--coordinator_address, --num_processes, --process_id: each run is one '
      'job, whose processes find each other; give --slurm ntasks-per-node=N'
    )
  # Imported late, so that a wrong command line is refused without JAX.
  from bn_jax.config import differences, resolve

  experiment = resolve.experiment(values.config.to_dict(), values.overrides)
  text = ' '.join(f'{key}={value}' for key, value in combination)
  runs = json.dumps(
    {name: config.as_json() for name, config in experiment.runs.items()}
  )
  if runs in experiments:
    raise errors.ConfigError(
      f'--set: {text} is the same experiment as {experiments[runs]}; '
      'give each value once'
    )
  experiments[runs] = text
  own_workdir = pathlib.Path(workdir)
  if combination:
    own_workdir /= _name(combination)
  elif any(name.lower() == FOLDER for name in experiment.runs):
    raise errors.ConfigError(
      f'config.runs: {FOLDER!r}; the folder of that name is for the '
      "scheduler's files: give the run another name"
    )
  differences.check_same(own_workdir, experiment)
  for run, seeds in experiment.chosen(only).items():
    for seed in seeds:
      folder = run_folder.at(own_workdir, run, seed)
      yield Cell(
        folder=folder,
        config=experiment.runs[run],
        may_diverge=run in experiment.expected_divergence,
        line=(*words, f'--workdir={own_workdir}'),
      )


def _setting(text: str, words: Sequence[str]) -> tuple[str, list[str]]:
  """Splits KEY=VALUE,VALUE into (key, values); refuses a key of the words."""
  key, equals, values_text = text.partition('=')
  match = re.fullmatch(r'(\d{1,10}):(\d{1,10})', values_text)
  if key == 'seeds' and match:
    first, end = map(int, match.groups())
    if not 0 < end - first <= MOST_SEEDS:
      raise errors.ConfigError(
        f'--set {text}: {max(0, end - first)} seeds, FIRST to END - 1; '
        f'allowed: 1 to {MOST_SEEDS}'
      )
    values = [values_text]  # which train.py reads too
  else:
    values = _split(values_text)
  if not key or key[0] == '-' or not equals or not all(values):
    raise errors.ConfigError(
      f'--set {text}: allowed: KEY=VALUE,VALUE,..., such as '
      'norm.name=batch,none or seeds=0:5'
    )
  flag = re.compile(rf'--?(no)?config\.{re.escape(key)}(=|$)')
  if any(flag.match(word) for word in words):
    raise errors.ConfigError(
      f'--set {key} and --config.{key}: the same key; give one of them'
    )
  return key, values


def _split(text: str) -> list[str]:
  """Splits a text at the commas outside brackets."""
  depth, values = 0, ['']
  for character in text:
    depth += (character in '([{') - (character in ')]}')
    if character == ',' and not depth:
      values.append('')
    else:
      values[-1] += character
  return [value.strip() for value in values]


def _without(flag: str, words: Sequence[str]) -> Iterator[str]:
  """Yields words but a flag with its value, '--flag=value' or two words."""
  rest = iter(words)
  for word in rest:
    name, equals, _ = word.partition('=')
    if name not in (f'--{flag}', f'-{flag}'):
      yield word
    elif not equals:
      next(rest)


def _name(combination: Sequence[tuple[str, str]]) -> str:
  """Returns the folder name of a combination, safe in paths and shells.

  The name depends on this combination alone, so that a later sweep of more
  values finds the same folders.
  """
  name = '__'.join(f'{key}={value}' for key, value in combination)
  safe = re.sub(r'[^A-Za-z0-9._=+-]+', '-', name).lstrip('.-=')
  if safe == name and len(name) <= _LONGEST:
    return name
  digest = hashlib.sha256(name.encode()).hexdigest()[:8]
  return f'{safe[: _LONGEST - 9]}-{digest}'  # 9: the dash and the digest
