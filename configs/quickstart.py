"""Trains VGG-11 without and with Batch Normalization, and with noise after it.

Santurkar et al. (2018), Figures 1, 2, 4 and 8, in small, on real digits and on
a laptop: plain SGD, no augmentation, no weight decay, the same learning rate,
weights and batches for all networks.

  python train.py --config=configs/quickstart.py

The learning rate is the best one for the network *without* Batch Normalization
(configs/quickstart_search.py). With three seeds (--config.seeds=0,1,2; two CPU
cores, 2026-11-24; mean and half of the 95 % interval): 190 ± 12 steps to 90 %
of training batches without, 27 ± 1 with BN, 32 ± 2 with noise after it; loss
band 1.12 ± 0.287, 0.000578 ± 0.00035 and 0.0194 ± 0.0769 wide (median). One
seed of all three takes two to three minutes.

The running averages of the noisy network were collected with the noise, which
is off in testing. So it is recalibrated after training (`config.recalibrate`),
and the page has its test accuracy before and after.
"""

import ml_collections

from bn_jax.config import defaults


def get_config() -> ml_collections.ConfigDict:
  """Returns a config of three runs with one seed."""
  config = defaults.get_config()
  config.runs = defaults.runs(
    standard=dict(norm=dict(name='none')),
    batchnorm=dict(norm=dict(name='batch')),
    noisy_batchnorm=dict(norm=dict(name='noisy')),
  )
  config.recalibrate = ('noisy_batchnorm',)
  config.data.name = 'digits'
  config.model.name = 'vgg11'
  config.model.width = 0.25
  config.batch_size = 64
  config.steps = 250
  config.schedule.learning_rate = 0.1
  config.measures.test.every_steps = 25
  config.measures.landscape.every_steps = 20
  config.measures.activations.every_steps = 25
  config.checkpoint.every_steps = 100
  return config
