"""The VGG network of Santurkar et al. (2018) on CIFAR-10: all of its figures.

Sections 1 to 3 and appendix A: a VGG without and with a norm before each
nonlinearity, plain SGD at 0.1 (`_fast`: 0.5, `_slow`: 0.01), batches of 128, no
augmentation, Glorot weights, 15,000 steps, measured every 100 steps or more
rarely; the loss landscape along the gradient of the current batch, at {1/2, 1,
2, 4} x rate. Figures 1 to 6, 8, 11 and 12 select from these.

  python train.py --config=configs/santurkar2018/vgg.py --data_dir=DIR
  python train.py --config=configs/santurkar2018/vgg.py:small --data_dir=DIR

What the paper leaves open, and what is chosen: VGG-16's convolutions, as the
figures name layer 13 (`model.name`), and no hidden dense layers (`model.head`);
Glorot uniform; epsilon 1e-5; no weight decay, although the level of the loss in
Figure 4 shows that the paper had one: the `_decay` runs have 5e-4 on kernels,
coupled. Probes go down the gradient of the objective on the same batch, with
batch statistics.

Beyond the paper: noise without BN, which fails according to the paper and has
no figure there; `smaller_steps`, which show whether beta depends on the
curvature or on the smallest step; random directions. Residual networks, which
the paper left out, are in resnet.py.

`small`, for two CPU cores: VGG-11 at a quarter of the width, 1,200 steps,
measured every 40 or more rarely, in layers of the paper's relative depths. The
levels of accuracy in its claims were chosen from one seed (100) that is not
judged. The paper's size was not run.
"""

import ml_collections

from bn_jax.config import defaults

# Layers of the paper's figures: 2, 9 and 13 in Figures 2 and 8, 3 and 11 in
# Figure 1, 11 in Figure 6; 5 and 10 in Figure 3.
LAYERS = {
  'paper': ('conv2', 'conv3', 'conv9', 'conv11', 'conv13'),
  'small': ('conv2', 'conv5', 'conv7', 'conv8'),
}
SHIFTED = {'paper': ('conv5', 'conv10'), 'small': ('conv3', 'conv6')}
STEP_FACTORS = (0.5, 1.0, 2.0, 4.0)  # times the learning rate, as in Figure 11
SMALLER = (1 / 32, 1 / 8, *STEP_FACTORS)  # 16 and 4 times below the smallest
# The paper names none; this fits the level and fall of its loss in Figure 4.
WEIGHT_DECAY = 5e-4


def get_config(size: str = 'paper') -> ml_collections.ConfigDict:
  """Returns thirteen runs of a size, 'paper' or 'small'."""
  defaults.check_size(size)
  config = defaults.get_config()
  config.runs = _runs()
  # Both fail to train in the paper, so their divergence is no failure.
  config.expected_divergence = ('standard_fast', 'noise_alone')
  config.seeds = (0, 1, 2) if size == 'paper' else (0,)
  config.data.name = 'cifar10'
  config.model.name = 'vgg16' if size == 'paper' else 'vgg11'
  config.batch_size = 128
  config.steps = 15_000 if size == 'paper' else 1_200
  config.schedule.learning_rate = 0.1
  config.measures = _measures(size, every=100 if size == 'paper' else 40)
  config.checkpoint.every_steps = 1_000 if size == 'paper' else 400
  if size == 'small':
    config.model.width = 0.25
    config.model.lowering = 'winograd'
    config.evaluation_batch_size = 1000
  return config


def _runs() -> ml_collections.ConfigDict:
  none, batch = dict(name='none'), dict(name='batch')
  fast, slow = dict(learning_rate=0.5), dict(learning_rate=0.01)
  return defaults.runs(
    standard=dict(norm=none),
    batchnorm=dict(norm=batch),
    noisy_batchnorm=dict(norm=dict(name='noisy')),
    noise_alone=dict(norm=dict(name='noise')),
    standard_fast=dict(norm=none, schedule=fast),
    batchnorm_fast=dict(norm=batch, schedule=fast),
    standard_slow=dict(norm=none, schedule=slow),
    batchnorm_slow=dict(norm=batch, schedule=slow),
    l1=dict(norm=dict(name='l1')),
    l2=dict(norm=dict(name='l2')),
    linf=dict(norm=dict(name='linf')),
    standard_decay=dict(norm=none, weight_decay=WEIGHT_DECAY),
    batchnorm_decay=dict(norm=batch, weight_decay=WEIGHT_DECAY),
  )


def _measures(size: str, every: int) -> dict:
  along = dict(
    name='along_gradient',
    data='current_batch',
    statistics='batch',
    spread='batch',
  )
  return dict(
    test=dict(name='evaluation', data='test', every_steps=10 * every),
    landscape=dict(**along, every_steps=every, step_factors=STEP_FACTORS),
    smaller_steps=dict(
      **along, every_steps=5 * every, step_factors=SMALLER, curvature=True
    ),
    random=dict(
      **along,
      every_steps=5 * every,
      step_factors=STEP_FACTORS,
      direction='random',
    ),
    shift=dict(
      name='covariate_shift',
      data='current_batch',
      every_steps=every,
      layers=SHIFTED[size],
      statistics='batch',
    ),
    activations=dict(
      name='activations',
      data='test:256',
      every_steps=every,
      layers=LAYERS[size],
      statistics='batch',
    ),
  )
