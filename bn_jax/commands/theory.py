"""Computes both sides of the theorems about Batch Normalization.

Trains each run of a config for a few steps; then computes, in float64, both
sides of each statement of Santurkar et al. (2018) about Batch Normalization,
for units of the network's first, middle and last norm, and prints them. Nothing
is written. Runs without Batch Normalization are left out.
"""

import argparse
import sys

from bn_jax import commands
from bn_jax.config import flags
from bn_jax.config import parser as parser_lib
from bn_jax.host import output


def configure(parser: parser_lib.Parser) -> None:
  """Adds the flags of the command."""
  parser.set_defaults(run=run)
  flags.add_config(parser)
  parser.add_argument(
    '--only', metavar='RUN/seedK',
    help='one run, RUN, or one seed of it; default: all runs, first seed',
  )  # fmt: skip
  parser.add_argument(
    '--units', metavar='N', type=parser_lib.count, default=8,
    help='at most N units of each layer',
  )  # fmt: skip
  parser.add_argument(
    '--steps', metavar='N', type=parser_lib.count, default=10,
    help='training steps before the statements are evaluated',
  )  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
  """Prints the tables; returns the exit code."""
  config, overrides = flags.read(arguments)
  commands.begin()
  # Imported late: a wrong command line need not wait for JAX.
  from bn_jax.config import resolve
  from bn_jax.trained import theory

  output.show(
    theory.texts(
      resolve.experiment(config.to_dict(), overrides),
      only=arguments.only,
      units=arguments.units,
      steps=arguments.steps,
    )
  )
  return 0


if __name__ == '__main__':
  sys.exit(commands.main(sys.modules[__name__], sys.argv))
