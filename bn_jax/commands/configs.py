"""Lists the configs that come with bn_jax, with their sizes and times.

Each of them can be given by its name: --config=santurkar2018/figure4:small.
"""

import argparse
import sys

from bn_jax import commands, errors
from bn_jax.config import parser as parser_lib
from bn_jax.config import shipped


def configure(parser: parser_lib.Parser) -> None:
  """Adds the word of the command."""
  parser.set_defaults(run=run)
  parser.add_argument(
    'folder', metavar='FOLDER', nargs='?',
    help='lists those below it, such as santurkar2018, or the one of this name',
  )  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
  """Prints each config as soon as its time is known; returns the exit code."""
  names = shipped.names()
  if arguments.folder is not None:
    wanted = arguments.folder.rstrip('/')
    names = [
      name for name in names if name == wanted or name.startswith(f'{wanted}/')
    ]
    if not names:
      known = {*shipped.names()}
      known |= {name.partition('/')[0] for name in known}
      raise errors.ConfigError(
        errors.unknown('config', wanted, known, see='bn_jax configs')
      )
  commands.begin()
  # Imported late: a wrong command line need not wait for JAX.
  from bn_jax.papers import listing

  # Those of no paper come first: the quickstart is one of them.
  for line in listing.configs(sorted(names, key=lambda name: '/' in name)):
    sys.stdout.write(f'{line}\n')
    sys.stdout.flush()
  return 0


if __name__ == '__main__':
  sys.exit(commands.main(sys.modules[__name__], sys.argv))
