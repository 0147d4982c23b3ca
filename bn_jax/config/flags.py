"""Reads command lines about one config: --config, its changes, train's flags.

`--config.KEY=VALUE` is read by `changes`, all other flags by argparse.
"""

import argparse
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import ml_collections

from bn_jax import errors
from bn_jax.config import changes, defaults, files
from bn_jax.config import parser as parser_lib
from bn_jax.host import processes


class Training(NamedTuple):
  """What a command line of train.py asks for.

  Attributes:
    config: that of the file.
    overrides: the changes of the command line, path -> value.
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
  jobs: int | str
  part_of: int | None
  plan: bool
  show: bool

  @property
  def devices(self) -> int:
    """Returns how many devices a run uses that changes nothing itself."""
    return {'devices': self.config.devices, **self.overrides}['devices']


def add_config(parser: parser_lib.Parser) -> None:
  """Adds --config and --data_dir; keeps --config.KEY=VALUE in `rest`."""
  parser.keeps_rest = True
  parser.add_argument(
    '--config', metavar='FILE', type=parser_lib.path,
    help='the experiment: a name that `bn_jax configs` lists, or a file of '
    'your own; FILE:ARGUMENT gives its get_config() an argument. '
    '--config.KEY=VALUE changes a key',
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
    help='trains one run, RUN, or one seed of it; several: with commas, or '
    'RUN/seed0:32 for the seeds 0 to 31 of it',
  )  # fmt: skip
  parser.add_argument(
    '--devices', metavar='N', type=parser_lib.whole,
    help='the same as --config.devices=N',
  )  # fmt: skip
  parser.add_argument(
    '--jobs', metavar='N', type=_jobs, default=1,
    help='trains N runs or seeds at a time, each in a process with its share '
    'of the processors; auto: as many as pay on a CPU; default: 1',
  )  # fmt: skip
  # Of a process that another one's --jobs has started.
  parser.add_argument('--part_of', type=int, help=argparse.SUPPRESS)
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
  parser.add_switch(
    '--show',
    'prints each run, resolved: all keys, with defaults and changes, epochs '
    'as steps; and stops',
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
    jobs=arguments.jobs,
    part_of=arguments.part_of,
    plan=arguments.plan,
    show=arguments.show,
  )


def read(
  arguments: argparse.Namespace, beside: parser_lib.Parser | None = None
) -> tuple[ml_collections.ConfigDict, dict[str, Any]]:
  """Returns the config of the file, and the changes to it, path -> value.

  Args:
    arguments: of a parser with the flags of `add_config`.
    beside: as in `train`.

  Raises:
    ConfigError: as `train`.
  """
  if not arguments.config:
    raise errors.ConfigError(_missing(arguments, beside))
  config = files.load(arguments.config)
  for word in arguments.rest:
    if parser_lib.is_flag(word) and not changes.FLAG.match(word):
      keys = list(changes.paths(config))
      raise errors.ConfigError(
        _unknown_flag(word, keys, arguments.parser, beside)
      )
  overrides = changes.read(arguments.rest, config)
  for key in ('devices', 'data_dir'):
    value = vars(arguments).get(key)
    if value is not None:
      overrides[key] = value
  return config, overrides


def default_workdir(config: str) -> str:
  """Returns where an experiment is written without --workdir.

  It is runs/PATH[-ARGUMENT] for --config=FILE[:ARGUMENT]. PATH is the name of a
  shipped config, or the path of the file below a folder configs/, without .py;
  of a file elsewhere, its name. Each
  character of ARGUMENT but letters, digits, '.', '_' and '-' becomes '-'.
  """
  name, _, argument = config.partition(':')
  path = pathlib.Path(os.path.normpath(files.find(name)))
  *folders, stem = path.with_suffix('').parts
  folders_below = []
  if 'configs' in folders:
    folders_below = folders[len(folders) - folders[::-1].index('configs') :]
  suffix = re.sub(r'[^A-Za-z0-9._-]', '-', argument)
  path = pathlib.Path('runs', *folders_below, stem)
  return f'{path}-{suffix}' if suffix else str(path)


def _jobs(word: str) -> int | str:
  """Reads a number of jobs, or 'auto'."""
  try:
    return word if word == 'auto' else parser_lib.count(word)
  except argparse.ArgumentTypeError as error:
    raise argparse.ArgumentTypeError(f'{error}, or auto') from None


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
  example = 'quickstart'
  for word in arguments.rest:
    if parser_lib.is_flag(word) and not changes.FLAG.match(word):
      keys = list(changes.paths(defaults.get_config()))
      return _unknown_flag(word, keys, arguments.parser, beside)
    if word.endswith('.py'):
      example = word
  return (
    '--config is missing; give a name of `bn_jax configs` or a file, such as '
    f'--config={example}'
  )
