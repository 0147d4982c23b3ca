"""Figure 10: the loss landscape of the deep linear network.

  python train.py --config=configs/santurkar2018/figure10.py

Protocol, choices and sizes: linear.py.
"""

import ml_collections

from bn_jax.config import defaults, shipped

linear = shipped.module('santurkar2018/linear')


def get_config(size: str = 'paper') -> ml_collections.ConfigDict:
  """Returns the config of a size, 'paper' or 'small'."""
  config = linear.get_config(size)
  defaults.select(
    config,
    runs=('standard', 'batchnorm'),
    measures=('test', 'landscape', 'random'),
  )
  return config
