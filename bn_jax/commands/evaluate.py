"""python -m bn_jax evaluate WORKDIR/run...: how well trained networks do."""

import pathlib
import sys
from collections.abc import Sequence

from absl import flags

from bn_jax import commands, errors

_STATISTICS = ('running', 'batch', 'population')
_USAGE = """\
usage: python -m bn_jax evaluate WORKDIR/run[/seedK]... [options]

Loss, top-1 and top-5 accuracy of trained networks, each example counted once.
Several networks are also taken as one, by the mean of their probabilities
(Ioffe and Szegedy 2015, section 4.2.3 and Figure 4).

  --crops=1             the centre of an image; or 144: 4 scales x 3 squares x 6
                        crops x 2 mirrors, whose probabilities are averaged
  --statistics=running  what the norms use: the running averages of training,
                        those of recalibrate (population), or each batch's own
                        (batch; then a result depends on the batch's size)
  --data=test           the split; or train, as it was trained on
  --batch_size=N        images at a time; default: config.evaluation_batch_size
  --data_dir=DIR        of tensorflow-datasets; default: where training found it
  --out=FILE.json       writes the numbers there, too
"""


def main(argv: Sequence[str]) -> int:
  """Runs the command; argv[0] is its name. Returns the exit code."""
  if any(word in ('-h', '--help') for word in argv[1:]):
    sys.stdout.write(_USAGE)
    return 0
  return commands.run(lambda: _evaluate(argv))


def _evaluate(argv: Sequence[str]) -> int:
  values = flags.FlagValues()
  flags.DEFINE_enum('crops', '1', ['1', '144'], '', flag_values=values)
  flags.DEFINE_enum(
    'statistics', 'running', _STATISTICS, '', flag_values=values
  )
  flags.DEFINE_enum('data', 'test', ['test', 'train'], '', flag_values=values)
  flags.DEFINE_integer('batch_size', None, '', 1, flag_values=values)
  flags.DEFINE_string('data_dir', None, '', flag_values=values)
  flags.DEFINE_string('out', None, '', flag_values=values)
  try:
    words = values(argv)[1:]
  except flags.Error as error:
    raise errors.ConfigError(str(error)) from error
  if not words:
    raise errors.ConfigError('no run given; give WORKDIR/run or several')
  # Imported late: a wrong command line need not wait for JAX.
  from bn_jax.host import compilation_cache
  from bn_jax.trained import evaluate

  compilation_cache.keep()

  return evaluate.printed(list(map(pathlib.Path, words)), values)
