"""Figure 3(a): internal covariate shift of VGG, at rates 0.1 and 0.01.

  python train.py --config=configs/santurkar2018/figure3.py --data_dir=DIR

Protocol, choices and sizes: vgg.py.
"""

import ml_collections

from bn_jax.config import defaults, shipped

vgg = shipped.module('santurkar2018/vgg')


def get_config(size: str = 'paper') -> ml_collections.ConfigDict:
  """Returns the config of a size, 'paper' or 'small'."""
  config = vgg.get_config(size)
  defaults.select(
    config,
    runs=('standard', 'batchnorm', 'standard_slow', 'batchnorm_slow'),
    measures=('test', 'shift'),
  )
  return config
