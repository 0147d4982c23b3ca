"""Beyond Figure 1: each network at its own best learning rate.

Beyond Figure 1: a comparison at one rate is open to the objection that the rate
suits one of the networks. The best rate takes the fewest steps to an accuracy
of training batches. The protocol is vgg.py's.

  python train.py --config=configs/santurkar2018/best_rate.py --data_dir=DIR
"""

import ml_collections

from bn_jax.config import defaults, shipped

vgg = shipped.module('santurkar2018/vgg')

# The paper's 0.01, 0.1 and 0.5, and rates between and above them.
RATES = (0.01, 0.03, 0.1, 0.2, 0.5, 1.0)


def get_config(size: str = 'paper') -> ml_collections.ConfigDict:
  """Returns twelve runs of a size, 'paper' or 'small'."""
  config = vgg.get_config(size)
  defaults.select(config, runs=(), measures=('test',))
  config.runs = defaults.runs(
    **{
      f'{name}_{rate:g}'.replace('.', '_'): dict(
        norm=dict(name=norm), schedule=dict(learning_rate=rate)
      )
      for name, norm in (('standard', 'none'), ('batchnorm', 'batch'))
      for rate in RATES
    }
  )
  config.expected_divergence = tuple(config.runs)
  return config
