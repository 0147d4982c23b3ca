"""How a command ends: an exit code, and one line if something was wrong."""

import sys
from collections.abc import Callable

from bn_jax import errors


def of(command: Callable[[], int]) -> int:
  """The exit code of a command; failures become one line on stderr.

  Anything that is neither a `Failure` nor Ctrl-C is a bug of ours, and keeps
  its traceback.
  """
  try:
    return command()
  except errors.Failure as failure:
    line = ' '.join(str(failure).split())
    sys.stderr.write(f'error: {line}\n')
    return failure.exit_code
  except KeyboardInterrupt:  # outside training, which handles it itself
    sys.stderr.write('error: interrupted; the same command starts again\n')
    return errors.Interrupted.exit_code
