"""A laboratory for normalization layers."""

import re
import sys


def _refuse_module() -> None:
  """Ends `python -m bn_jax.some.module`, which would do nothing, in silence.

  Python sets argv[0] to '-m' while it looks for the module that it is to run.
  """
  if sys.argv[:1] != ['-m']:
    return
  module = re.sub('^-[^m]*m', '', sys.orig_argv[-len(sys.argv)])
  if re.match(r'bn_jax\.(?!__main__$|commands\.)', module):
    line = f'error: {module} is no command; see python -m bn_jax --help'
    print(line, file=sys.stderr)  # which is None where it is closed
    raise SystemExit(2)


_refuse_module()
