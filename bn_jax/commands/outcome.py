"""How a command ends: an exit code, and one line if something was wrong."""

import sys
from collections.abc import Callable

from bn_jax import errors
from bn_jax.host import signals


def of(command: Callable[[], int]) -> int:
  """The exit code of a command; failures become one line on stderr.

  Anything that is neither a `Failure` nor a signal is a bug of ours, and keeps
  its traceback.
  """
  try:
    with signals.at_once():
      return command()
  except errors.Failure as failure:
    if not failure.told:
      line = ' '.join(str(failure).split())
      sys.stderr.write(f'error: {line}\n')
    return failure.exit_code
  except KeyboardInterrupt:  # outside training, which handles it itself
    sys.stderr.write('error: interrupted; the same command starts again\n')
    return errors.Interrupted.exit_code
