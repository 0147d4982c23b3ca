"""python train.py --config=FILE [--workdir=DIR] [--only=RUN[/seedK]] ..."""

import logging
import pathlib
import re
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import ml_collections
from absl import flags
from ml_collections import config_flags

from bn_jax import errors
from bn_jax.commands import config_file, outcome

_USAGE = """\
usage: python train.py --config=FILE [options]

  --config=FILE         the experiment; configs/default.py explains every key
  --config.KEY=VALUE    changes a key: --config.schedule.learning_rate=0.3
  --workdir=DIR         where it is written; default: runs/<name of the config>
  --only=RUN[/seedK]    trains one run, or one seed of it
  --data_dir=DIR        of tensorflow-datasets; default: TFDS_DATA_DIR, or
                        ~/tensorflow_datasets
  --devices=N           the same as --config.devices=N
  --plan                prints what a step costs (parameters, FLOPs, memory,
                        what devices tell each other) and stops; a CPU stands in
                        for as many devices as are asked for
"""


class Given(NamedTuple):
  """A command line, understood.

  Attributes:
    config: with its changes.
    overrides: the changes alone, path -> value.
    workdir: where to write.
    only: a run, or a run and seed; None for all.
    data_dir: of TFDS, or None.
    plan: whether to print what a step costs, instead of training.
  """

  config: ml_collections.ConfigDict
  overrides: dict[str, Any]
  workdir: str
  only: str | None
  data_dir: str | None
  plan: bool


def main(argv: Sequence[str]) -> int:
  """Runs the command; argv[0] is its name. Returns the exit code."""
  if any(word in ('-h', '--help') for word in argv[1:]):
    sys.stdout.write(_USAGE)
    return 0
  return outcome.of(lambda: _run(parse(argv)))


def parse(argv: Sequence[str]) -> Given:
  """Understands a command line.

  Raises:
    ConfigError: no config or a broken one, an unknown flag or key, a value of
      another type, a word that belongs to no flag.
  """
  file, rest = _split(argv)
  if file is None:
    raise errors.ConfigError(
      f'--config is missing; give one of {_listed(config_file.shipped())}'
    )
  config = config_file.load(file)
  _check_keys(rest, config)
  values = flags.FlagValues()
  config_flags.DEFINE_config_dict(
    'config', config, flag_values=values, sys_argv=rest
  )
  flags.DEFINE_string('workdir', None, '', flag_values=values)
  flags.DEFINE_string('only', None, '', flag_values=values)
  flags.DEFINE_string('data_dir', None, '', flag_values=values)
  flags.DEFINE_integer('devices', None, '', flag_values=values)
  flags.DEFINE_bool('plan', False, '', flag_values=values)
  try:
    words = values(rest)[1:]
  except flags.Error as error:
    raise errors.ConfigError(str(error)) from error
  if words:
    raise errors.ConfigError(
      f'{words[0]!r} belongs to no flag; a value is given with "=", as in '
      '--config.optimizer.nesterov=False'
    )
  overrides = dict(values['config'].override_values)
  if values.devices is not None:
    config.devices = overrides['devices'] = values.devices
  stem = pathlib.Path(file.partition(':')[0]).stem
  return Given(
    config=config,
    overrides=overrides,
    workdir=values.workdir or str(pathlib.Path('runs') / stem),
    only=values.only,
    data_dir=values.data_dir,
    plan=values.plan,
  )


def _run(given: Given) -> int:
  return _plan(given) if given.plan else _train(given)


def _plan(given: Given) -> int:
  import jax

  devices = given.config.devices
  if devices > max(1, jax.config.jax_num_cpu_devices):
    jax.config.update('jax_num_cpu_devices', devices)
  from bn_jax.commands import plan

  text = plan.text(given.config, overrides=given.overrides, only=given.only)
  sys.stdout.write(text)
  return 0


def _train(given: Given) -> int:
  _log_plainly()
  # Imported late: a wrong command line need not wait for JAX.
  from bn_jax import experiment
  from bn_jax.report import page

  diverged = experiment.run(
    given.config,
    given.workdir,
    overrides=given.overrides,
    only=given.only,
    data_dir=given.data_dir,
  )
  report = page.write([pathlib.Path(given.workdir)])
  sys.stderr.write(f'report: {report}\n')
  if diverged:
    raise errors.Diverged(f'diverged: {", ".join(diverged)}; see the report')
  return 0


def _log_plainly() -> None:
  """Our own messages on stderr, a line each; other loggers stay as they are."""
  logger = logging.getLogger('bn_jax')
  logger.setLevel(logging.INFO)
  logger.propagate = False
  if not logger.handlers:
    logger.addHandler(logging.StreamHandler())


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
