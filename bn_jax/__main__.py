"""python -m bn_jax COMMAND ...: everything but training (that is train.py)."""

import importlib
import sys
from collections.abc import Sequence

_USAGE = """\
usage: python -m bn_jax COMMAND ...

  analyze WORKDIR/run   takes measures of trained networks, checkpoint by
                        checkpoint
  data info|prepare NAME
                        shows a dataset; prepares one
  evaluate WORKDIR/run...
                        how well trained networks do, each and together
  launch --config=FILE --engine=ENGINE
                        trains all runs and seeds of one or many experiments,
                        here or through SLURM
  models [NAME]         the networks, or the layers of one
  papers [verify WORKDIR...]
                        the figures of the papers; judges their claims by runs
  report WORKDIR...     builds report.html again from what was recorded
  recalibrate WORKDIR/run
                        finds the statistics for inference anew
  theory --config=FILE  both sides of each theorem about Batch Normalization
"""
# Each is a module of bn_jax.commands, imported late: no command needs what the
# others need.
_COMMANDS = (
  'analyze', 'data', 'evaluate', 'launch', 'models', 'papers', 'recalibrate',
  'report', 'theory',
)  # fmt: skip


def main(argv: Sequence[str]) -> int:
  """Runs a command; returns its exit code."""
  command = argv[1] if len(argv) > 1 else None
  if command in _COMMANDS:
    module = importlib.import_module(f'bn_jax.commands.{command}')
    return module.main(argv[1:])
  if command in (None, '-h', '--help'):
    sys.stdout.write(_USAGE)
    return 0 if command else 2
  from bn_jax import errors

  message = errors.unknown('command', command, _COMMANDS)
  sys.stderr.write(f'error: {message}\n')
  return 2


if __name__ == '__main__':
  sys.exit(main(sys.argv))
