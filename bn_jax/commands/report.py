"""python -m bn_jax report WORKDIR... [--output=DIR]"""

import pathlib
import sys
from collections.abc import Sequence

from absl import flags

from bn_jax import commands, errors

_USAGE = """\
usage: python -m bn_jax report WORKDIR... [--output=DIR]

Builds report.html and figures/ again from what was recorded, without JAX.
Several working directories are put side by side.

  --output=DIR    where to write; default: the WORKDIR, or, for several, a
                  folder beside the first that is called after all of them
"""


def main(argv: Sequence[str]) -> int:
  """Runs the command; argv[0] is its name. Returns the exit code."""
  if any(word in ('-h', '--help') for word in argv[1:]):
    sys.stdout.write(_USAGE)
    return 0
  return commands.run(lambda: _report(argv))


def _report(argv: Sequence[str]) -> int:
  values = flags.FlagValues()
  flags.DEFINE_string('output', None, '', flag_values=values)
  try:
    workdirs = [pathlib.Path(word) for word in values(argv)[1:]]
  except flags.Error as error:
    raise errors.ConfigError(str(error)) from error
  if not workdirs:
    raise errors.ConfigError('WORKDIR is missing; give one or more')
  for workdir in workdirs:
    if not workdir.is_dir():
      raise errors.ConfigError(f'{workdir} is not a directory')
  # Imported late: matplotlib takes a second, a wrong command line none.
  from bn_jax.report import page

  output = pathlib.Path(values.output) if values.output else None
  sys.stdout.write(f'{page.write(workdirs, output)}\n')
  return 0
