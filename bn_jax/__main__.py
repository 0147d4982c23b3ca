"""Runs a command of bn_jax: python -m bn_jax COMMAND ..."""

import argparse
import importlib
import sys
from collections.abc import Sequence

from bn_jax import commands
from bn_jax.config import parser as parser_lib
from bn_jax.host import memory

# Name of a module of bn_jax.commands -> its help. Modules are imported late: no
# command needs what the others need.
COMMANDS = {
  'train': 'trains the runs and seeds of a config, as train.py does',
  'analyze': 'takes measures of trained networks, checkpoint by checkpoint',
  'configs': 'lists the configs that come with bn_jax',
  'convert': 'reads and writes the weights of other frameworks',
  'data': 'shows a dataset, or prepares one',
  'evaluate': 'evaluates trained networks, each and as an ensemble',
  'launch': 'trains all runs and seeds of one or many experiments, here or '
  'through SLURM',
  'models': 'prints the networks, or the layers of one',
  'papers': 'lists the figures of the papers, judges their claims by runs',
  'report': 'builds report.html again from what was recorded',
  'recalibrate': 'estimates the statistics for inference anew',
  'theory': 'computes both sides of each theorem about Batch Normalization',
}


def script() -> int:
  """Runs `bn_jax COMMAND ...`, the program that pip installs."""
  memory.use_huge_pages()
  return main(sys.argv)


def main(argv: Sequence[str]) -> int:
  """Runs a command, whose program is argv[0]; returns the exit code."""
  words = argv[1:]
  return commands.run(lambda: parser(words).run(words) if words else _help())


def _help() -> int:
  """Prints what there is to a line without a command, which is an error."""
  parser([]).print_help()
  return 2


def parser(words: Sequence[str]) -> parser_lib.Parser:
  """Returns the parser of a command line, with the flags of its command."""
  root = parser_lib.Parser(
    prog='python -m bn_jax',
    description='A laboratory for normalization layers. COMMAND --help says '
    'what each command takes.',
  )
  root.add_argument(
    '--version', action=_Version, nargs=0,
    help='prints the versions of bn_jax, jax and flax',
  )  # fmt: skip
  subparsers = root.add_subparsers(
    metavar='COMMAND', title='commands', required=True
  )
  for name, line in COMMANDS.items():
    command = subparsers.add_parser(name, help=line, words=words[1:])
    if name in words[:1]:
      module = importlib.import_module(f'bn_jax.commands.{name}')
      command.description = module.__doc__
      module.configure(command)
  return root


class _Version(argparse.Action):
  """Prints versions, looked up only then, and ends."""

  def __call__(self, parser, *_):
    # Imported late: other commands need neither.
    from importlib import metadata

    from bn_jax.host import code

    jax, flax = metadata.version('jax'), metadata.version('flax')
    sys.stdout.write(f'bn_jax {code.version()} (jax {jax}, flax {flax})\n')
    parser.exit()


if __name__ == '__main__':
  sys.exit(script())
