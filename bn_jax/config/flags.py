"""Reads command lines about one config: --config, its changes, train's flags.

`--config.KEY=VALUE` is read by ml_collections' config_flags, which knows the
type of each key; all other flags by argparse.
"""

import argparse
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import ml_collections
from absl import flags
from ml_collections import config_flags

from bn_jax import checks, errors
from bn_jax.config import files, run_flags
from bn_jax.config import parser as parser_lib
from bn_jax.config.run_config import KEYS
from bn_jax.host import processes

_CHANGE = re.compile(r'--?(?:no)?config\.([^=]*)')
_ALLOWED = {int: 'whole numbers', float: 'numbers', bool: 'True, False'}
_LISTED = 5  # keys of a section that a message names: it stays one line


class Training(NamedTuple):
  """What a command line of train.py asks for.

  Attributes:
    config: that of the file, with the changes of the command line.
    overrides: the changes alone, path -> value.
    place: of this process among others.

  The other attributes are flags; see `add_train`.
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


def add_config(parser: parser_lib.Parser) -> None:
  """Adds --config and --data_dir; keeps --config.KEY=VALUE in `rest`."""
  parser.keeps_rest = True
  parser.add_argument(
    '--config', metavar='FILE', type=parser_lib.path,
    help='the experiment, a file of configs/ or your own; FILE:ARGUMENT gives '
    'its get_config() an argument. --config.KEY=VALUE changes a key',
  )  # fmt: skip
  parser.add_argument(
    '--data_dir', metavar='DIR', type=parser_lib.path,
    help='of tensorflow-datasets; default: TFDS_DATA_DIR, or '
    '~/tensorflow_datasets',
  )  # fmt: skip


def add_train(parser: parser_lib.Parser) -> None:
  """Adds the flags of train.py."""
  add_config(parser)
  parser.add_argument(
    '--workdir', metavar='DIR', type=parser_lib.path,
    help='where the experiment is written; default: runs/ and the path of the '
    'config below configs/: runs/santurkar2018/figure10-small',
  )  # fmt: skip
  parser.add_argument(
    '--only', metavar='RUN/seedK',
    help='trains one run, RUN, or one seed of it',
  )  # fmt: skip
  parser.add_argument(
    '--devices', metavar='N', type=parser_lib.whole,
    help='the same as --config.devices=N',
  )  # fmt: skip
  parser.add_argument(
    '--resume', choices=('auto', 'must', 'never'), default='auto',
    help='auto: goes on where it stopped, or begins; must: only goes on; '
    'never: only begins',
  )  # fmt: skip
  parser.add_argument(
    '--distributed', choices=('auto', 'on', 'off'), default='auto',
    help='whether this process joins others; auto: where SLURM, Open MPI, '
    'Kubernetes, a TPU pod or the next flags show several',
  )  # fmt: skip
  parser.add_argument(
    '--coordinator_address', metavar='HOST:PORT',
    help='of process 0, for processes that are started by hand',
  )  # fmt: skip
  parser.add_argument(
    '--num_processes', metavar='N', type=parser_lib.whole,
    help='number of processes that are started by hand',
  )  # fmt: skip
  parser.add_argument(
    '--process_id', metavar='K', type=parser_lib.whole,
    help='number of this process, from 0',
  )  # fmt: skip
  parser.add_argument(
    '--join_timeout', metavar='SECONDS', type=parser_lib.count, default=300,
    help='in which all processes must have joined',
  )  # fmt: skip
  parser.add_switch(
    '--plan',
    'prints what a step costs (parameters, FLOPs, memory, what devices tell '
    'each other) and stops; a CPU stands in for as many devices as are asked '
    'for',
  )


def train(
  argv: Sequence[str], beside: parser_lib.Parser | None = None
) -> Training:
  """Reads a command line of train.py; argv[0] is its name.

  Args:
    beside: of another command that takes these words; a message about a wrong
      flag names the flags of both, and that command's help.

  Raises:
    ConfigError: no config or a broken one, an unknown flag or key, a value of
      another type, a word that belongs to no flag.
  """
  parser = parser_lib.Parser(prog='python train.py')
  add_train(parser)
  return training(parser.parse_args(argv[1:]), beside)


def training(
  arguments: argparse.Namespace, beside: parser_lib.Parser | None = None
) -> Training:
  """Returns what the arguments of a parser with train.py's flags ask for."""
  config, overrides = read(arguments, beside)
  return Training(
    config=config,
    overrides=overrides,
    workdir=arguments.workdir or default_workdir(arguments.config),
    only=arguments.only,
    resume=arguments.resume,
    distributed=arguments.distributed,
    place=processes.Place(
      arguments.coordinator_address,
      arguments.num_processes,
      arguments.process_id,
    ),
    join_timeout=arguments.join_timeout,
    plan=arguments.plan,
  )


def read(
  arguments: argparse.Namespace, beside: parser_lib.Parser | None = None
) -> tuple[ml_collections.ConfigDict, dict[str, Any]]:
  """Returns the config with its changes, and the changes alone, path -> value.

  Args:
    arguments: of a parser with the flags of `add_config`.
    beside: as in `train`.

  Raises:
    ConfigError: as `train`.
  """
  if not arguments.config:
    raise errors.ConfigError(_missing(arguments, beside))
  config = files.load(arguments.config)
  words, added = run_flags.added(arguments.rest, config)
  _check_words(arguments, config, beside)
  values = flags.FlagValues()
  line = [arguments.parser.prog, *words]
  config_flags.DEFINE_config_dict(
    'config', config, flag_values=values, sys_argv=line
  )
  try:
    other_words = values(line)[1:]
  except flags.Error as error:
    raise errors.ConfigError(_wrong_value(str(error), config)) from error
  if other_words:
    raise errors.ConfigError(
      f'{other_words[0]!r} belongs to no flag; a value is given with "=", as '
      'in --config.optimizer.nesterov=False'
    )
  overrides = added | values['config'].override_values
  for key in ('devices', 'data_dir'):
    value = vars(arguments).get(key)
    if value is not None:
      config[key] = overrides[key] = value
  return config, overrides


def default_workdir(config: str) -> str:
  """Returns where an experiment is written without --workdir.

  It is runs/PATH[-ARGUMENT] for --config=FILE[:ARGUMENT]. PATH is the path of
  the file below configs/, without .py; of a file elsewhere, its name. Each
  character of ARGUMENT but letters, digits, '.', '_' and '-' becomes '-'.
  """
  name, _, argument = config.partition(':')
  *folders, stem = pathlib.Path(os.path.normpath(name)).with_suffix('').parts
  folders_below = []
  if 'configs' in folders:
    folders_below = folders[len(folders) - folders[::-1].index('configs') :]
  suffix = re.sub(r'[^A-Za-z0-9._-]', '-', argument)
  path = pathlib.Path('runs', *folders_below, stem)
  return f'{path}-{suffix}' if suffix else str(path)


def _check_words(
  arguments: argparse.Namespace,
  config: ml_collections.ConfigDict,
  beside: parser_lib.Parser | None,
) -> None:
  """Refuses unknown flags, and flags on sections or on unknown keys."""
  is_key = _paths(config)
  keys = [path for path in is_key if is_key[path]]
  unknown_keys = {}
  for word in arguments.rest:
    change = _CHANGE.match(word)
    if change is None and parser_lib.is_flag(word):
      raise errors.ConfigError(
        _unknown_flag(word, keys, arguments.parser, beside)
      )
    path = change and change[1]
    if change and path not in is_key:
      unknown_keys[path] = _unknown_key(path, keys, config)
    elif change and not is_key[path]:
      raise errors.ConfigError(
        f'--config.{path} is a section; change one of {_below(path, keys)}'
      )
  if unknown_keys:
    messages = [
      f'--config.{path}: {text}' for path, text in unknown_keys.items()
    ]
    raise errors.ConfigError(parser_lib.listed(messages))


def _unknown_key(
  path: str, keys: Sequence[str], config: ml_collections.ConfigDict
) -> str:
  """Returns the message for an unknown key; runs have those of the config."""
  section, *below = path.split('.', 2)
  runs = config.get('runs')
  if section != 'runs' or len(below) < 2 or not isinstance(runs, type(config)):
    return parser_lib.unknown_key(path, keys)
  run, key = below
  if run not in runs:
    return errors.unknown('run', run, runs)
  if _paths(config).get(key) is False:
    return f'a section; change one of its keys {_below(key, keys)}'
  return parser_lib.unknown_key(
    key, [path for path in keys if path.split('.')[0] in KEYS]
  )


def _unknown_flag(
  word: str,
  keys: Sequence[str],
  parser: parser_lib.Parser,
  beside: parser_lib.Parser | None,
) -> str:
  """Returns the message for an unknown flag, which may be meant as a key."""
  flag, equals, value = word.partition('=')
  changes = [
    f'--config.{key}{equals}{value}'
    for key in parser_lib.meant(flag.lstrip('-'), keys)
    if key in keys
  ]
  if beside is None:
    return parser.unknown_flag(flag, also=changes)
  return beside.unknown_flag(flag, parser.flags(), also=changes)


def _missing(
  arguments: argparse.Namespace, beside: parser_lib.Parser | None
) -> str:
  """Returns the message for a line without --config, or with a misspelt one."""
  example = 'configs/quickstart.py'
  for word in arguments.rest:
    if parser_lib.is_flag(word) and not _CHANGE.match(word):
      keys = []
      if pathlib.Path(parser_lib.DEFAULTS).is_file():
        keys = list(_paths(files.load(parser_lib.DEFAULTS)))
      return _unknown_flag(word, keys, arguments.parser, beside)
    if word.endswith('.py'):
      example = word
  return (
    '--config is missing; give a file of configs/ or your own, such as '
    f'--config={example}'
  )


def _wrong_value(message: str, config: ml_collections.ConfigDict) -> str:
  """Returns absl's message about a value, or one with what its key allows."""
  match = re.match(r'flag --config\.(\S+?)=(.*?): ', message)
  if match is None:
    return message
  *above, key = match[1].split('.')
  for section in above:
    config = config[section]
  allowed = _ALLOWED.get(config.get_type(key))
  if allowed is None:
    return message
  return f'--config.{match[1]}: {checks.shown(match[2])}; allowed: {allowed}'


def _below(section: str, keys: Sequence[str]) -> str:
  """Lists keys of a section, its name first: most likely it is meant."""
  paths = [key for key in keys if key.startswith(f'{section}.')]
  paths.sort(key=lambda key: not key.endswith('.name'))
  more = f' and {len(paths) - _LISTED} more' if len(paths) > _LISTED else ''
  return ', '.join(paths[:_LISTED]) + more


def _paths(
  config: ml_collections.ConfigDict, above: str = ''
) -> dict[str, bool]:
  """Returns path, such as 'norm' or 'norm.name' -> whether it is no section."""
  paths = {}
  for key, value in config.items():
    is_section = isinstance(value, ml_collections.ConfigDict)
    paths[above + key] = not is_section
    if is_section:
      paths |= _paths(value, f'{above}{key}.')
  return paths
