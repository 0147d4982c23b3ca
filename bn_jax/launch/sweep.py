"""From one command line to those of train.py: overrides x runs x seeds."""

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

# Below the working directory; what the scheduler leaves lies there.
FOLDER = 'launch'
_LONGEST = 120  # characters of a folder's name


class Cell(NamedTuple):
  """One run with one seed of one combination: one command, one folder.

  Attributes:
    folder: of the run and seed; its working directory is the combination's.
    config: of the run, resolved.
    may_diverge: whether the config expects it to.
    words: the command line of train.py, without its name.
  """

  folder: run_folder.RunFolder
  config: RunConfig
  may_diverge: bool
  words: tuple[str, ...]

  @property
  def steps(self) -> int:
    """That it is to make."""
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
    workdir: of all combinations.
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
  """Every run and seed of every combination of settings.

  The combinations of all keys but `seeds` have working directories of their
  own below `workdir`, named after them: 'norm.name=batch__steps=100'.

  Args:
    words: what all commands have in common: --config=FILE and its changes.
    settings: 'KEY=VALUE,VALUE,...' each; of seeds, 'seeds=FIRST:END' too.
    workdir: None is that of train.py.
    only: RUN or RUN/seedK; None is all.

  Raises:
    ConfigError: whatever train.py would refuse before it builds a network.
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
  cells, seen = [], {}
  for values in itertools.product(*(values for _, values in swept)):
    chosen = [(key, value) for (key, _), value in zip(swept, values)]
    cells += _cells(common, chosen, workdir, only, seen)
  return Sweep(workdir, tuple(cells))


def _cells(
  common: Sequence[str],
  chosen: Sequence[tuple[str, str]],
  workdir: str,
  only: str | None,
  seen: dict[str, str],
) -> Iterator[Cell]:
  """The cells of one combination."""
  words = [*common, *(f'--config.{key}={value}' for key, value in chosen)]
  given = flags.train(['train.py', *words])
  if given.plan:
    raise errors.ConfigError('--plan trains nothing; give it to train.py')
  if any(value is not None for value in given.place):
    raise errors.ConfigError(
      '--coordinator_address, --num_processes, --process_id: each run is one '
      'job, whose processes find each other; give --slurm ntasks-per-node=N'
    )
  # Imported late: a wrong command line need not wait for JAX.
  from bn_jax.config import differences, resolve

  resolved = resolve.experiment(given.config.to_dict(), given.overrides)
  said = ' '.join(f'{key}={value}' for key, value in chosen)
  runs = json.dumps({k: run.as_json() for k, run in resolved.runs.items()})
  if runs in seen:
    raise errors.ConfigError(
      f'--set: {said} is the same experiment as {seen[runs]}; give each value '
      'once'
    )
  seen[runs] = said
  place = pathlib.Path(workdir)
  if chosen:
    place /= _name(chosen)
  elif any(name.lower() == FOLDER for name in resolved.runs):
    raise errors.ConfigError(
      f'config.runs: {FOLDER!r}; the folder of that name is for the '
      "scheduler's files: give the run another name"
    )
  differences.check_same(place, resolved)
  for run, seeds in resolved.chosen(only).items():
    for seed in seeds:
      folder = run_folder.at(place, run, seed)
      yield Cell(
        folder=folder,
        config=resolved.runs[run],
        may_diverge=run in resolved.expected_divergence,
        words=(*words, f'--workdir={place}', f'--only={folder.label}'),
      )


def _setting(text: str, words: Sequence[str]) -> tuple[str, list[str]]:
  """KEY=VALUE,VALUE as (key, values)."""
  key, equals, rest = text.partition('=')
  match = re.fullmatch(r'(\d{1,10}):(\d{1,10})', rest)
  if key == 'seeds' and match:
    first, end = map(int, match.groups())
    if not 0 < end - first <= 10_000:
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
  """Cuts at the commas that stand in no bracket."""
  depth, values = 0, ['']
  for character in text:
    depth += (character in '([{') - (character in ')]}')
    if character == ',' and not depth:
      values.append('')
    else:
      values[-1] += character
  return [value.strip() for value in values]


def _name(chosen: Sequence[tuple[str, str]]) -> str:
  """A combination as the name of a folder, safe in paths and shells.

  It depends on this combination alone, so that more values may be added to a
  sweep later.
  """
  said = '__'.join(f'{key}={value}' for key, value in chosen)
  safe = re.sub(r'[^A-Za-z0-9._=+-]+', '-', said).lstrip('.-=')
  if safe == said and len(said) <= _LONGEST:
    return said
  digest = hashlib.sha256(said.encode()).hexdigest()[:8]
  return f'{safe[: _LONGEST - 9]}-{digest}'
