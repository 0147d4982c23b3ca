"""Figure 3 of Ioffe and Szegedy (2015): the table of the Inception networks.

Their highest validation accuracy; and the two networks without BN that fail in
the text of section 4.2.2: at 5 times the rate, and with sigmoids.

  python train.py --config=configs/ioffe2015/figure3.py --data_dir=DIR
  python train.py --config=configs/ioffe2015/figure3.py:small --data_dir=DIR

Protocol, choices and sizes: inception.py. The paper's size was not run.
"""

import ml_collections

from bn_jax.config import shipped

inception = shipped.module('ioffe2015/inception')


def get_config(size: str = 'paper') -> ml_collections.ConfigDict:
  """Returns all seven runs of a size, 'paper' or 'small'."""
  return inception.get_config(size)
