"""Command lines about one config: --config=FILE, its changes, further flags."""

import os
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import ml_collections
from absl import flags
from ml_collections import config_flags

from bn_jax import errors
from bn_jax.config import files
from bn_jax.host import processes

_RESUME = ('auto', 'must', 'never')


class Line(NamedTuple):
  """A command line, understood.

  Attributes:
    file: as it was given.
    config: of that file, with its changes.
    overrides: the changes alone, path -> value.
    values: of the further flags.
  """

  file: str
  config: ml_collections.ConfigDict
  overrides: dict[str, Any]
  values: flags.FlagValues


class Given(NamedTuple):
  """A command line of train.py, understood.

  Attributes:
    config: with its changes.
    overrides: the changes alone, path -> value.
    workdir: where to write.
    only: a run, or a run and seed; None for all.
    resume: 'auto', 'must' or 'never'.
    distributed: 'auto', 'on' or 'off'.
    place: of this process among others.
    join_timeout: seconds in which all must be there.
    plan: whether to print what a step costs, instead of training.
  """

  config: ml_collections.ConfigDict
  overrides: dict[str, Any]
  workdir: str
  only: str | None
  resume: str
  distributed: str
  place: processes.Place
  join_timeout: int
  plan: bool


def parse(
  argv: Sequence[str], define: Callable[[flags.FlagValues], None]
) -> Line:
  """Understands a command line; argv[0] is the name of the command.

  Args:
    argv: the words.
    define: defines the flags beside --config.

  Raises:
    ConfigError: no config or a broken one, an unknown flag or key, a value of
      another type, a word that belongs to no flag.
  """
  file, rest = _split(argv)
  if file is None:
    raise errors.ConfigError(
      f'--config is missing; give one of {_listed(files.shipped())}'
    )
  config = files.load(file)
  _check_keys(rest, config)
  values = flags.FlagValues()
  config_flags.DEFINE_config_dict(
    'config', config, flag_values=values, sys_argv=rest
  )
  define(values)
  try:
    words = values(rest)[1:]
  except flags.Error as error:
    raise errors.ConfigError(str(error)) from error
  if words:
    raise errors.ConfigError(
      f'{words[0]!r} belongs to no flag; a value is given with "=", as in '
      '--config.optimizer.nesterov=False'
    )
  return Line(file, config, dict(values['config'].override_values), values)


def train(argv: Sequence[str]) -> Given:
  """Understands a command line of train.py.

  Raises:
    ConfigError: no config or a broken one, an unknown flag or key, a value of
      another type, a word that belongs to no flag.
  """

  def define(values: flags.FlagValues) -> None:
    flags.DEFINE_string('workdir', None, '', flag_values=values)
    flags.DEFINE_string('only', None, '', flag_values=values)
    flags.DEFINE_string('data_dir', None, '', flag_values=values)
    flags.DEFINE_integer('devices', None, '', flag_values=values)
    flags.DEFINE_enum('resume', 'auto', _RESUME, '', flag_values=values)
    flags.DEFINE_string('distributed', 'auto', '', flag_values=values)
    flags.DEFINE_string('coordinator_address', None, '', flag_values=values)
    flags.DEFINE_integer('num_processes', None, '', flag_values=values)
    flags.DEFINE_integer('process_id', None, '', flag_values=values)
    flags.DEFINE_integer(
      'join_timeout', 300, '', lower_bound=1, flag_values=values
    )
    flags.DEFINE_bool('plan', False, '', flag_values=values)

  file, config, overrides, values = parse(argv, define)
  for key in ('devices', 'data_dir'):
    if values[key].value is not None:
      config[key] = overrides[key] = values[key].value
  return Given(
    config=config,
    overrides=overrides,
    workdir=values.workdir or default_workdir(file),
    only=values.only,
    resume=values.resume,
    distributed=values.distributed,
    place=processes.Place(
      values.coordinator_address, values.num_processes, values.process_id
    ),
    join_timeout=values.join_timeout,
    plan=values.plan,
  )


def default_workdir(config: str) -> str:
  """Returns where an experiment is written that nobody said a place for.

  runs/PATH[-ARGUMENT] of a config FILE or FILE:ARGUMENT. PATH is that of the
  file below configs/, without .py; a file elsewhere has its name alone. What is
  no letter, digit, '.', '_' or '-' in the argument becomes '-'.
  """
  name, _, argument = config.partition(':')
  *folders, stem = pathlib.Path(os.path.normpath(name)).with_suffix('').parts
  below = []
  if 'configs' in folders:
    below = folders[len(folders) - folders[::-1].index('configs') :]
  suffix = re.sub(r'[^A-Za-z0-9._-]', '-', argument)
  path = pathlib.Path('runs', *below, stem)
  return f'{path}-{suffix}' if suffix else str(path)


def _split(argv: Sequence[str]) -> tuple[str | None, list[str]]:
  """The value of --config, and the command line without it."""
  file, rest, words = None, [], iter(argv)
  for word in words:
    match = re.fullmatch(r'--?config(?:=(.*))?', word)
    if match:
      file = match[1] if match[1] is not None else next(words, None)
    else:
      rest.append(word)
  return file or None, rest


def _check_keys(rest: Sequence[str], config: ml_collections.ConfigDict) -> None:
  """Refuses flags on sections and on keys that the config does not have."""
  known = _paths(config)
  leaves = [path for path, is_leaf in known.items() if is_leaf]
  for word in rest:
    match = re.match(r'--?(?:no)?config\.([^=]*)', word)
    if not match:
      continue
    path = match[1]
    if path not in known:
      message = errors.unknown('key', path, leaves)
      raise errors.ConfigError(f'--config.{path}: {message}')
    if not known[path]:
      below = [leaf for leaf in leaves if leaf.startswith(f'{path}.')]
      raise errors.ConfigError(
        f'--config.{path} is a section; change one of {", ".join(below)}'
      )


def _paths(
  config: ml_collections.ConfigDict, above: str = ''
) -> dict[str, bool]:
  """'section.key' -> whether it is a value and no section."""
  paths = {}
  for key, value in config.items():
    is_section = isinstance(value, ml_collections.ConfigDict)
    paths[above + key] = not is_section
    if is_section:
      paths |= _paths(value, f'{above}{key}.')
  return paths


def _listed(names: Sequence[str]) -> str:
  return ', '.join(names) or 'your own (see configs/default.py)'
