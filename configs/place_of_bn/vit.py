"""Which norm can take the place of BN in a vision transformer?

  python train.py --config=configs/place_of_bn/vit.py
  python train.py --config=configs/place_of_bn/vit.py:small --data_dir=DIR

`paper` is the study in full, on the digits; `small` is CIFAR-10 in small.
Protocol, rates and choices: configs/without_statistics.py.
"""

import ml_collections

from bn_jax.config import defaults, shipped

without_statistics = shipped.module('without_statistics')

STUDY = {'paper': 'vit_digits', 'small': 'vit_cifar10'}


def get_config(size: str = 'paper') -> ml_collections.ConfigDict:
  """Returns the config of a size, 'paper' or 'small'."""
  defaults.check_size(size)
  return without_statistics.of_network(STUDY[size], 'vit')
