"""Trains an experiment: python train.py --config=configs/quickstart.py"""

import sys

from bn_jax.commands import train
from bn_jax.host import memory

if __name__ == '__main__':
  memory.use_huge_pages()
  sys.exit(train.main(sys.argv))
