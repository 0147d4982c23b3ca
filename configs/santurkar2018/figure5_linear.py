"""Figure 5(b): lp normalization in the deep linear network.

  python train.py --config=configs/santurkar2018/figure5_linear.py

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
    runs=('standard', 'batchnorm', 'l1', 'l2', 'linf'),
    measures=('test',),
  )
  return config
