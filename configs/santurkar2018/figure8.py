"""Figure 8: how the moments of activations move in VGG.

  python train.py --config=configs/santurkar2018/figure8.py --data_dir=DIR

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
    runs=('standard', 'batchnorm', 'noisy_batchnorm'),
    measures=('test', 'activations'),
  )
  return config
