"""Expands one command line to those of train.py: overrides x runs x seeds."""

import hashlib
import itertools
import json
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from bn_jax import errors
from bn_jax.config import flags
from bn_jax.config.run_config import RunConfig
from bn_jax.storage import run_folder

# In the working directory; the scheduler's files lie there.
FOLDER = 'launch'
_LONGEST = 120  # characters of a folder's name; file systems allow 255 bytes


class Cell(NamedTuple):
  """One run with one seed of one combination: one command, one folder.

  Attributes:
    folder: of the run and seed, in the working directory of the combination.
    config: of the run, resolved.
    may_diverge: whether the config expects the run to diverge.
    words: the arguments of train.py.
  """

  folder: run_folder.RunFolder
  config: RunConfig
  may_diverge: bool
  words: tuple[str, ...]

  @property
  def steps(self) -> int:
    """Number of steps that the run is to make."""
    return self.config.steps

  @property
  def workdir(self) -> pathlib.Path:
    return self.folder.workdir

  @property
  def label(self) -> str:
    return self.folder.label


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
  """Returns every run and seed of every combination of settings.

  Each combination of the keys other than `seeds` has a working directory of its
  own below `workdir`, named after it: 'norm.name=batch__steps=100'.

  Args:
    words: arguments that all commands share: --config=FILE and its changes.
    settings: 'KEY=VALUE,VALUE,...' each, or 'seeds=FIRST:END'.
    workdir: None is that of train.py.
    only: RUN or RUN/seedK; None is all.

  Raises:
    ConfigError: train.py would refuse an argument or the config.
    StorageError: experiment.json of a working directory is damaged.
  """
  keys = [_setting(text, words) for text in settings]
  for key in {key for key, _ in keys}:
    if sum(other == key for other, _ in keys) > 1:
      raise errors.ConfigError(
        f'--set {key}: given twice; give all values once'
      )
  seeds = [f'--config.seeds={",".join(v)}' for k, v in keys if k == 'seeds']
  common = [*words, *seeds]
  swept = [(key, values) for key, values in keys if key != 'seeds']
  workdir = workdir or flags.train(['train.py', *common]).workdir
  cells, experiments = [], {}
  for values in itertools.product(*(values for _, values in swept)):
    chosen = [(key, value) for (key, _), value in zip(swept, values)]
    cells += _cells(common, chosen, workdir, only, experiments)
  return Sweep(workdir, tuple(cells))


def _cells(
  common: Sequence[str],
  chosen: Sequence[tuple[str, str]],
  workdir: str,
  only: str | None,
  experiments: dict[str, str],
) -> Iterator[Cell]:
  """Yields the cells of one combination.

  Args:
    common: arguments of all commands.
    chosen: (key, value) of each swept key.
    workdir: of the sweep.
    only: RUN or RUN/seedK; None is all.
    experiments: runs, as JSON -> the combination that they belong to; this one
      is added.
  """
  words = [*common, *(f'--config.{key}={value}' for key, value in chosen)]
  values = flags.train(['train.py', *words])
  if values.plan:
    raise errors.ConfigError('--plan trains nothing; give it to train.py')
  if any(value is not None for value in values.place):
    raise errors.ConfigError(
      '--coordinator_address, --num_processes, --process_id: each run is one '
      'job, whose processes find each other; give --slurm ntasks-per-node=N'
    )
  # Imported late, so that a wrong command line is refused without JAX.
  from bn_jax.config import differences, resolve

  experiment = resolve.experiment(values.config.to_dict(), values.overrides)
  combination = ' '.join(f'{key}={value}' for key, value in chosen)
  runs = json.dumps(
    {name: config.as_json() for name, config in experiment.runs.items()}
  )
  if runs in experiments:
    raise errors.ConfigError(
      f'--set: {combination} is the same experiment as {experiments[runs]}; '
      'give each value once'
    )
  experiments[runs] = combination
  own_workdir = pathlib.Path(workdir)
  if chosen:
    own_workdir /= _name(chosen)
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
        words=(*words, f'--workdir={own_workdir}', f'--only={folder.label}'),
      )


def _setting(text: str, words: Sequence[str]) -> tuple[str, list[str]]:
  """Splits KEY=VALUE,VALUE into (key, values); checks it against the words."""
  key, equals, rest = text.partition('=')
  match = re.fullmatch(r'(\d{1,10}):(\d{1,10})', rest)
  if key == 'seeds' and match:
    first, end = map(int, match.groups())
    if not 0 < end - first <= 10_000:  # more are a typing error
      raise errors.ConfigError(
        f'--set {text}: {end - first} seeds, FIRST to END - 1; allowed: 1 to '
        '10000'
      )
    values = [str(seed) for seed in range(first, end)]
  else:
    values = _split(rest)
  if not key or key[0] == '-' or not equals or not all(values):
    raise errors.ConfigError(
      f'--set {text}: allowed: KEY=VALUE,VALUE,..., such as '
      'norm.name=batch,none or seeds=0:5'
    )
  if any(re.match(rf'--?(no)?config\.{re.escape(key)}(=|$)', w) for w in words):
    raise errors.ConfigError(
      f'--set {key} and --config.{key}: the same key; give one of them'
    )
  return key, values


def _split(text: str) -> list[str]:
  """Splits at the commas outside brackets."""
  depth, values = 0, ['']
  for character in text:
    depth += (character in '([{') - (character in ')]}')
    if character == ',' and not depth:
      values.append('')
    else:
      values[-1] += character
  return [value.strip() for value in values]


def _name(chosen: Sequence[tuple[str, str]]) -> str:
  """Returns the folder name of a combination, safe in paths and shells.

  It depends on this combination alone, so that more values can be added to a
  sweep later.
  """
  name = '__'.join(f'{key}={value}' for key, value in chosen)
  safe = re.sub(r'[^A-Za-z0-9._=+-]+', '-', name).lstrip('.-=')
  if safe == name and len(name) <= _LONGEST:
    return name
  digest = hashlib.sha256(name.encode()).hexdigest()[:8]
  return f'{safe[: _LONGEST - 9]}-{digest}'
