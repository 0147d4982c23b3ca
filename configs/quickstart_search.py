"""Searches the learning rate of the quickstart, the best for the plain network.

Only the network without Batch Normalization is tried, at {.01, .03, .1, .3}, by
steps to 90 % of training batches. All networks of the quickstart then train at
its best rate.

  python train.py --config=configs/quickstart_search.py

Steps to 90 % with seeds 0, 1, 2 (mean and half of the 95 % interval; two CPU
cores, 2026-11-23, five minutes). An earlier run of the same seeds, presumably
with other rounding, gave 185 ± 26 at 0.1 and 206 ± 115 at 0.3.

  0.01    never in 300 steps
  0.03    never in 300 steps
  0.1     192, 193, 184: 190 ± 12    the quickstart's
  0.3     169, never, 253
"""

import ml_collections

from bn_jax.config import defaults, shipped

quickstart = shipped.module('quickstart')

RATES = (0.01, 0.03, 0.1, 0.3)


def get_config() -> ml_collections.ConfigDict:
  """Returns one run for each learning rate, with three seeds."""
  config = quickstart.get_config()
  config.runs = defaults.runs(
    **{
      f'rate_{rate:.0e}': dict(
        norm=dict(name='none'), schedule=dict(learning_rate=rate)
      )
      for rate in RATES
    }
  )
  config.seeds = (0, 1, 2)
  config.expected_divergence = tuple(config.runs)
  config.recalibrate = ()
  config.steps = 300
  del config.measures.landscape
  del config.measures.activations
  return config
