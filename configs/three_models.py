"""Is it the distributions? VGG-16, with BN, with BN and noise after it.

Santurkar et al. (2018), section 2.2 and Figures 2, 4 and 8: a network whose
activations are shaken at every step should, if internal covariate shift were
what slows training, train slowly; it trains nearly as fast as with BN, and
faster than the plain one. The same noise without BN is the paper's control,
which "failed to train" (no curve is shown).

  python train.py --config=configs/three_models.py --data_dir=DIR
  python train.py --config=configs/three_models.py:small --data_dir=DIR

CIFAR-10, plain SGD at 0.1, batch 128, no augmentation, no weight decay, Glorot
weights, landscape and activations every 100 steps, 15,000 steps. Not run at
this size. `small` is 1/8 of the width and 1,000 steps, for two CPU cores.
"""

import ml_collections

from configs import default


def get_config(size: str = 'paper') -> ml_collections.ConfigDict:
  """Four runs; the size is 'paper' or 'small'."""
  if size not in ('paper', 'small'):
    raise ValueError(f'the size is {size!r}; allowed: paper, small')
  config = default.get_config()
  config.runs = default.runs(
    standard=dict(norm=dict(name='none')),
    batchnorm=dict(norm=dict(name='batch')),
    noisy_batchnorm=dict(norm=dict(name='noisy')),
    noise_alone=dict(norm=dict(name='noise')),
  )
  config.expected_divergence = ('noise_alone',)
  config.data.name = 'cifar10'
  config.model.name = 'vgg16'
  config.batch_size = 128
  config.steps = 15_000
  config.schedule.learning_rate = 0.1
  config.measures.test.every_steps = 1_000
  config.checkpoint.every_steps = 1_000
  if size == 'small':
    config.model.width = 0.125
    config.steps = 1_000
    config.measures.test.every_steps = 500
    config.measures.landscape.every_steps = 50
    config.measures.activations.every_steps = 50
    config.checkpoint.every_steps = 250
  return config
