"""Beyond Figure 4: the loss landscape of a residual network.

Santurkar et al. (2018) left residual networks out, "to isolate the effect of
BN"; the protocol is vgg.py's, the network ResNet-20 (`small`: half its width).

  python train.py --config=configs/santurkar2018/resnet.py --data_dir=DIR
"""

import ml_collections

from bn_jax.config import defaults, shipped

vgg = shipped.module('santurkar2018/vgg')


def get_config(size: str = 'paper') -> ml_collections.ConfigDict:
  """Returns two runs of a size, 'paper' or 'small'."""
  config = vgg.get_config(size)
  defaults.select(
    config,
    runs=('standard', 'batchnorm'),
    measures=('test', 'landscape', 'smaller_steps', 'random'),
  )
  config.model = dict(
    name='resnet20',
    width=1.0 if size == 'paper' else 0.5,
    shortcut='zeros',
    init='glorot',
    lowering='auto' if size == 'paper' else 'winograd',
  )
  return config
