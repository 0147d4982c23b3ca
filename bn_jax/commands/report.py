"""Builds report.html and figures/ again from what was recorded, without JAX.

Several working directories are put side by side.
"""

import argparse
import sys

from bn_jax import commands, errors
from bn_jax.config import parser as parser_lib


def configure(parser: parser_lib.Parser) -> None:
  """Adds the words and flags of the command."""
  parser.set_defaults(run=run)
  parser.add_argument(
    'workdirs', metavar='WORKDIR', nargs='+', type=parser_lib.path_object,
    help='the --workdir of a training',
  )  # fmt: skip
  parser.add_argument(
    '--output', metavar='DIR', type=parser_lib.path_object,
    help='where to write; default: the WORKDIR, or, for several, a folder '
    'beside the first that is named after all of them',
  )  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
  """Writes the page; returns the exit code."""
  for workdir in arguments.workdirs:
    if not workdir.is_dir():
      raise errors.ConfigError(f'{workdir} is not a directory')
  path = commands.draw(arguments.workdirs, arguments.output)
  sys.stdout.write(f'{path}\n')
  return 0


if __name__ == '__main__':
  sys.exit(commands.main(sys.modules[__name__], sys.argv))
