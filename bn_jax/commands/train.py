"""python train.py --config=FILE [--workdir=DIR] [--only=RUN[/seedK]] ..."""

import logging
import pathlib
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import ml_collections
from absl import flags

from bn_jax import errors
from bn_jax.commands import command_line, outcome

_USAGE = """\
usage: python train.py --config=FILE [options]

  --config=FILE         the experiment; configs/default.py explains every key
  --config.KEY=VALUE    changes a key: --config.schedule.learning_rate=0.3
  --workdir=DIR         where it is written; default: runs/<name of the config>
  --only=RUN[/seedK]    trains one run, or one seed of it
  --data_dir=DIR        of tensorflow-datasets; default: TFDS_DATA_DIR, or
                        ~/tensorflow_datasets
  --devices=N           the same as --config.devices=N
  --resume=auto         goes on where it stopped, or begins; must: only goes on;
                        never: only begins
  --plan                prints what a step costs (parameters, FLOPs, memory,
                        what devices tell each other) and stops; a CPU stands in
                        for as many devices as are asked for
"""
_RESUME = ('auto', 'must', 'never')


class Given(NamedTuple):
  """A command line, understood.

  Attributes:
    config: with its changes.
    overrides: the changes alone, path -> value.
    workdir: where to write.
    only: a run, or a run and seed; None for all.
    resume: 'auto', 'must' or 'never'.
    plan: whether to print what a step costs, instead of training.
  """

  config: ml_collections.ConfigDict
  overrides: dict[str, Any]
  workdir: str
  only: str | None
  resume: str
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

  def define(values: flags.FlagValues) -> None:
    flags.DEFINE_string('workdir', None, '', flag_values=values)
    flags.DEFINE_string('only', None, '', flag_values=values)
    flags.DEFINE_string('data_dir', None, '', flag_values=values)
    flags.DEFINE_integer('devices', None, '', flag_values=values)
    flags.DEFINE_enum('resume', 'auto', _RESUME, '', flag_values=values)
    flags.DEFINE_bool('plan', False, '', flag_values=values)

  file, config, overrides, values = command_line.parse(argv, define)
  for key in ('devices', 'data_dir'):
    if values[key].value is not None:
      config[key] = overrides[key] = values[key].value
  stem = pathlib.Path(file.partition(':')[0]).stem
  return Given(
    config=config,
    overrides=overrides,
    workdir=values.workdir or str(pathlib.Path('runs') / stem),
    only=values.only,
    resume=values.resume,
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
    resume=given.resume,
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
