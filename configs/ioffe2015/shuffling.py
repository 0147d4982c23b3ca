"""Section 4.2.1 of Ioffe and Szegedy (2015): shuffled against fixed batches.

Section 4.2.1: BN-x5 whose examples meet in new batches in each epoch, and BN-x5
whose batches stay those of the first epoch, in a new order: "about 1 %" of
accuracy.

  python train.py --config=configs/ioffe2015/shuffling.py --data_dir=DIR
  python train.py --config=configs/ioffe2015/shuffling.py:small --data_dir=DIR

Protocol and choices: inception.py. `small` has 4,000 training images, so that
there are eight epochs. The paper's size was not run.
"""

import ml_collections

from bn_jax.config import defaults, shipped

inception = shipped.module('ioffe2015/inception')


def get_config(size: str = 'paper') -> ml_collections.ConfigDict:
  """Returns two runs of a size, 'paper' or 'small'."""
  config = inception.get_config(size)
  shuffled = inception.accelerated(size, 5)
  fixed = inception.accelerated(size, 5)
  fixed['data'] = dict(fixed['data'], fixed_batches=True)
  config.runs = defaults.runs(shuffled=shuffled, fixed=fixed)
  config.expected_divergence = ()
  if size == 'small':
    config.data.subset = 4_000
  return config
