"""Holds the commands, one thin file each, and ends them with an exit code.

The module of a command has `configure(parser)`, which adds its words and flags,
and `run(arguments)`, which carries it out and returns the exit code. Its
docstring is the command's help.
"""

import gc
import pathlib
import sys
import types
from collections.abc import Callable, Sequence
from typing import Any

from bn_jax import errors
from bn_jax.config import parser as parser_lib
from bn_jax.host import output, signals

# Allocations between two garbage collections: imports and tracing make objects
# that live, by the million; looking through them after every 700 took a tenth
# of a start with compiled programs.
_GARBAGE = (100_000, 50, 50)


def main(
  command: types.ModuleType, argv: Sequence[str], prog: str | None = None
) -> int:
  """Runs the module of a command as a program; returns the exit code.

  Args:
    argv: the words of the command line, behind the name of the program.
    prog: how the program is called; None is `python -m bn_jax NAME`.
  """
  words = argv[1:]

  def parsed():
    parser = parser_lib.Parser(
      prog=prog or f'python -m bn_jax {pathlib.Path(command.__file__).stem}',
      description=command.__doc__,
      words=words,
    )
    command.configure(parser)
    return parser.run(words)

  return run(parsed)


def run(command: Callable[[], int]) -> int:
  """Returns the exit code of a command; failures become a line on stderr.

  Anything that is neither a `Failure` nor a signal is a bug of ours, and keeps
  its traceback.
  """
  with output.dropping():
    try:
      with signals.at_once():
        code = command()
        output.check()
        return code
    except errors.Failure as failure:
      if not failure.told:
        line = ' '.join(str(failure).split())
        sys.stderr.write(f'error: {line}\n')
      return failure.exit_code
    except Exception as error:
      if not errors.is_out_of_memory(error):
        raise
      sys.stderr.write(
        f'error: out of memory: {errors.first_line(error)}; give a smaller '
        'config.batch_size, config.evaluation_batch_size, data or network\n'
      )
      return errors.ConfigError.exit_code
    except KeyboardInterrupt:  # outside training, which handles it itself
      sys.stderr.write('error: interrupted; the same command starts again\n')
      return errors.Interrupted.exit_code


def begin() -> None:
  """Begins JAX: looks for its devices, and keeps the programs it compiles.

  Raises:
    ConfigError: a variable of the environment is wrong.
  """
  gc.set_threshold(*_GARBAGE)
  # Imported late: a wrong command line need not wait for JAX.
  from bn_jax.host import environment

  environment.check()
  environment.check_devices()
  environment.allow_files()
  from bn_jax.host import compilation_cache

  compilation_cache.keep()


def draw(*arguments: Any, **keywords: Any) -> pathlib.Path:
  """Calls `report.page.write`, and shows on stderr how far it has come."""
  # Imported late: matplotlib takes a second, a wrong command line none.
  from bn_jax.host import progress
  from bn_jax.report import page

  return page.write(*arguments, **keywords, shown=progress.drawing)


def add_trained(parser: parser_lib.Parser, nargs: str | None = None) -> None:
  """Adds the words and the flag of a command that reads trained runs.

  Args:
    nargs: of argparse, such as '+' for several runs; None is one.
  """
  parser.add_argument(
    'paths' if nargs else 'path', metavar='WORKDIR/run', nargs=nargs,
    type=parser_lib.path_object,
    help='a trained run, or one seed of it: WORKDIR/run/seedK',
  )  # fmt: skip
  parser.add_argument(
    '--data_dir', metavar='DIR', type=parser_lib.path,
    help='folder of tensorflow-datasets; default: where training found it',
  )  # fmt: skip
