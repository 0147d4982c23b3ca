"""python -m bn_jax theory --config=FILE [--only=RUN] [--units=8] ..."""

import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import ml_collections
from absl import flags

from bn_jax import commands
from bn_jax.config import flags as flags_lib

_USAGE = """\
usage: python -m bn_jax theory --config=FILE [options]

Trains each run of a config for a few steps; then computes, in float64, both
sides of each statement of Santurkar et al. (2018) about Batch Normalization,
for units of its first, middle and last normalization, and prints them. Nothing
is written. Runs without Batch Normalization are left out.

  --config=FILE         the experiment, as for train.py
  --config.KEY=VALUE    changes a key: --config.norm.epsilon=0.01
  --only=RUN[/seedK]    one run, or one seed of it; default: all, first seed
  --data_dir=DIR        as for train.py
  --units=N             units of each layer at most; default: 8
  --steps=N             training steps before; default: 10
"""


class Given(NamedTuple):
  """A command line, understood.

  Attributes:
    config: with its changes.
    overrides: the changes alone, path -> value.
    only: a run, or a run and seed; None for all.
    units: of each layer at most.
    steps: of training.
  """

  config: ml_collections.ConfigDict
  overrides: dict[str, Any]
  only: str | None
  units: int
  steps: int


def main(argv: Sequence[str]) -> int:
  """Runs the command; argv[0] is its name. Returns the exit code."""
  if any(word in ('-h', '--help') for word in argv[1:]):
    sys.stdout.write(_USAGE)
    return 0
  return commands.run(lambda: _run(parse(argv)))


def parse(argv: Sequence[str]) -> Given:
  """Understands a command line.

  Raises:
    ConfigError: no config or a broken one, an unknown flag or key, a value of
      another type or below 1, a word that belongs to no flag.
  """

  def define(values: flags.FlagValues) -> None:
    flags.DEFINE_string('only', None, '', flag_values=values)
    flags.DEFINE_string('data_dir', None, '', flag_values=values)
    for name, default in (('units', 8), ('steps', 10)):
      flags.DEFINE_integer(name, default, '', lower_bound=1, flag_values=values)

  line = flags_lib.parse(argv, define)
  values = line.values
  if values.data_dir is not None:
    line.config.data_dir = line.overrides['data_dir'] = values.data_dir
  return Given(
    line.config,
    line.overrides,
    only=values.only,
    units=values.units,
    steps=values.steps,
  )


def _run(given: Given) -> int:
  # Imported late: a wrong command line need not wait for JAX.
  from bn_jax.config import resolve
  from bn_jax.host import compilation_cache
  from bn_jax.trained import theory

  compilation_cache.keep()

  for text in theory.texts(
    resolve.experiment(given.config.to_dict(), given.overrides),
    only=given.only,
    units=given.units,
    steps=given.steps,
  ):
    sys.stdout.write(text)
    sys.stdout.flush()
  return 0
