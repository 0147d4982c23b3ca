"""Figure 2 of Ioffe and Szegedy (2015): Inception, without and with BN.

Validation accuracy over steps.

  python train.py --config=configs/ioffe2015/figure2.py --data_dir=DIR
  python train.py --config=configs/ioffe2015/figure2.py:small --data_dir=DIR

Protocol, choices and sizes: inception.py. The paper's size was not run.
"""

import ml_collections

from bn_jax.config import defaults, shipped

inception = shipped.module('ioffe2015/inception')


def get_config(size: str = 'paper') -> ml_collections.ConfigDict:
  """Returns the config of a size, 'paper' or 'small'."""
  config = inception.get_config(size)
  defaults.select(
    config,
    runs=('inception', 'bn_baseline', 'bn_x5', 'bn_x30', 'bn_x5_sigmoid'),
    measures=('validation',),
  )
  return config
