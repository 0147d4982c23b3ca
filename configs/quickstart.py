"""VGG-11 with and without Batch Normalization on real digits, on a laptop.

Santurkar et al. (2018), Figures 1 and 4, in small: plain SGD, no augmentation,
no weight decay, the same learning rate, weights and batches for both networks.
"""

import ml_collections

from configs import default


def get_config() -> ml_collections.ConfigDict:
  """Two runs, one seed."""
  config = default.get_config()
  config.data.name = 'digits'
  config.model.name = 'vgg11'
  config.model.width = 0.25
  config.batch_size = 64
  config.steps = 250
  config.schedule.learning_rate = 0.1
  config.measures.test.every_steps = 20
  config.measures.landscape.every_steps = 10
  config.checkpoint.every_steps = 100
  return config
