"""Estimates anew the statistics that a trained network normalises with.

They come from training batches (Ioffe and Szegedy 2015, Algorithm 2), instead
of the running averages of training. For each seed it writes, beside the run's
own checkpoints,

  population/         a checkpoint whose batch_stats are the population's
  population.json     how they were estimated, and test results with old and new

and builds the page of WORKDIR again, where there is one.
"""

import argparse
import functools
import sys

from bn_jax import commands
from bn_jax.commands import report
from bn_jax.config import parser as parser_lib


def configure(parser: parser_lib.Parser) -> None:
  """Adds the words and flags of the command."""
  parser.set_defaults(run=run)
  commands.add_trained(parser)
  parser.add_argument(
    '--batches', metavar='N', type=parser_lib.count, default=100,
    help="how many training batches, of the run's batch size",
  )  # fmt: skip
  parser.add_argument(
    '--variance', choices=('within', 'pooled'), default='within',
    help="within: m/(m-1) times the mean of the batches' variances, as the "
    'paper has it; pooled: the variance of all values',
  )  # fmt: skip
  parser.add_switch(
    '--layerwise',
    'estimates a layer when those below it use their new statistics already: '
    'the literal reading of the paper, a pass over the batches for each layer',
  )


def run(arguments: argparse.Namespace) -> int:
  """Recalibrates the seeds of a run; returns the exit code."""
  commands.begin()
  # Imported late: a wrong command line need not wait for JAX.
  from bn_jax.storage import run_folder
  from bn_jax.trained import recalibrate

  request = recalibrate.Request(
    batches=arguments.batches,
    variance=arguments.variance,
    layerwise=arguments.layerwise,
    data_dir=arguments.data_dir,
  )
  say = functools.partial(print, flush=True)
  recalibrate.done(run_folder.find(arguments.path), request, say)
  report.again(arguments.path)
  return 0


if __name__ == '__main__':
  sys.exit(commands.main(sys.modules[__name__], sys.argv))
