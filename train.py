"""Trains an experiment: python train.py --config=configs/quickstart.py"""

import sys

from bn_jax.commands import train

if __name__ == '__main__':
  sys.exit(train.main(sys.argv))
