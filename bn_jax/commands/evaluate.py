"""Prints loss, top-1 and top-5 accuracy of trained networks.

Each example counts once. Several networks are evaluated as an ensemble too, by
the mean of their probabilities (Ioffe and Szegedy 2015, section 4.2.3 and
Figure 4). Of a regression it is the loss alone, and the mean of the outputs.
"""

import argparse
import sys

from bn_jax import commands
from bn_jax.config import parser as parser_lib


def configure(parser: parser_lib.Parser) -> None:
  """Adds the words and flags of the command."""
  parser.set_defaults(run=run)
  commands.add_trained(parser, nargs='+')
  parser.add_argument(
    '--crops', choices=('1', '144'), default='1',
    help='1 is the whole image, or its central square if the set is streamed; '
    '144 are 4 scales x 3 squares x 6 crops x 2 mirrors, whose probabilities '
    'are averaged',
  )  # fmt: skip
  parser.add_argument(
    '--statistics', choices=('running', 'batch', 'population'),
    default='running',
    help='whose mean and variance the norms use: running, the averages kept in '
    'training; population, what recalibrate estimated; batch, those of each '
    'batch, so that results depend on --batch_size',
  )  # fmt: skip
  parser.add_argument(
    '--weights', choices=('trained', 'ema'), default='trained',
    help='of the network: trained, those of the last update; ema, their '
    'average over the updates, which config.ema keeps, with the average of the '
    "running statistics ('running') or those of each batch",
  )  # fmt: skip
  parser.add_argument(
    '--data', choices=('test', 'train'), default='test',
    help='the split; train has the subset and label noise of the config, and '
    'no augmentation',
  )  # fmt: skip
  parser.add_argument(
    '--batch_size', metavar='N', type=parser_lib.count,
    help='images, or crops of them, at a time; default: '
    'config.evaluation_batch_size',
  )  # fmt: skip
  parser.add_argument(
    '--out', metavar='FILE.json', type=parser_lib.path,
    help='writes the numbers there, too',
  )  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
  """Evaluates and prints; returns the exit code."""
  commands.begin()
  # Imported late: a wrong command line need not wait for JAX.
  from bn_jax.trained import evaluate

  return evaluate.printed(arguments.paths, arguments)


if __name__ == '__main__':
  sys.exit(commands.main(sys.modules[__name__], sys.argv))
