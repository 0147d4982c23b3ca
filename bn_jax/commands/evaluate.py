"""Prints loss, top-1 and top-5 accuracy of trained networks.

Each example counts once. Several networks are evaluated as an ensemble too, by
the mean of their probabilities (Ioffe and Szegedy 2015, section 4.2.3 and
Figure 4). Of a regression it is the loss alone, and the mean of the outputs.
"""

import argparse
import re
import sys

from bn_jax import checks, commands, errors
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
    '--statistics', metavar='S1,S2,...', type=_statistics, default='running',
    help='whose mean and variance the norms use: running, the averages kept in '
    'training; population, what recalibrate estimated; test_batch (or batch), '
    'those of each batch of the split; mixture:N, both, running ones with the '
    'weight of N examples (Schneider et al. 2020). With the last two, results '
    'depend on --batch_size. Several give a table',
  )  # fmt: skip
  parser.add_argument(
    '--weights', choices=('trained', 'ema'), default='trained',
    help='of the network: trained, those of the last update; ema, their '
    'average over the updates, which config.ema keeps, with the average of the '
    'running statistics, or those of each batch',
  )  # fmt: skip
  parser.add_argument(
    '--data', choices=('test', 'train'), default='test',
    help='the split; train has the subset and label noise of the config, and '
    'no augmentation',
  )  # fmt: skip
  parser.add_argument(
    '--corruption', metavar='NAME:K,...', type=_corruptions, default=(),
    help='evaluates on corrupted images too, as of CIFAR-10-C at strength K, 1 '
    'to 5: fog:3; fog is all strengths of it, and all is all that the images '
    'can have. Of images in memory',
  )  # fmt: skip
  parser.add_argument(
    '--examples', metavar='N', type=parser_lib.count,
    help='the first N of the split; default: all. Of a set in memory',
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


def _statistics(words: str) -> tuple[str, ...]:
  """Reads words with commas between; 'batch' is another one for test_batch."""
  return tuple(dict.fromkeys(map(_statistic, words.split(','))))


def _statistic(word: str) -> str:
  if word == 'batch':
    return 'test_batch'
  kind, _, number = word.partition(':')
  if word in ('running', 'population', 'test_batch') or (
    kind == 'mixture' and re.fullmatch(r'\d+(\.\d*)?(e\d\d?)?', number)
  ):
    return word
  raise argparse.ArgumentTypeError(
    f'{checks.shown(word)}; allowed: running, population, test_batch, and '
    'mixture:N with a number from 0 on, such as mixture:16'
  )


def _corruptions(words: str) -> tuple[tuple[str, int | None], ...]:
  """Reads names with strengths, (name, strength); (name, None) is of all five.

  The name 'all' stays as it is.
  """
  # Imported late: few commands corrupt images.
  from bn_jax.data import corruptions

  allowed = ', '.join(map(str, corruptions.STRENGTHS))
  pairs = []
  for word in words.split(','):
    name, colon, strength = word.partition(':')
    if name not in corruptions.CORRUPTIONS and word != 'all':
      known = (*corruptions.CORRUPTIONS, 'all')
      raise argparse.ArgumentTypeError(
        errors.unknown('corruption', name, known)
      )
    if colon and strength not in allowed.split(', '):
      raise argparse.ArgumentTypeError(
        f'{checks.shown(word)}; allowed after {name}: nothing or a strength, '
        f'{allowed}'
      )
    pairs.append((name, int(strength) if colon else None))
  return tuple(pairs)


def run(arguments: argparse.Namespace) -> int:
  """Evaluates and prints; returns the exit code."""
  commands.begin()
  # Imported late: a wrong command line need not wait for JAX.
  from bn_jax.trained import evaluate

  return evaluate.printed(arguments.paths, arguments)


if __name__ == '__main__':
  sys.exit(commands.main(sys.modules[__name__], sys.argv))
