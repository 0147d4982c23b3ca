"""Surfaces of the loss around trained networks: BN, and skips.

Li, Xu, Taylor, Studer and Goldstein (2018, arXiv:1712.09913): planes through
the trained parameters along two random directions, filter by filter as long as
the weights. Networks with skips lie in flat and nearly convex surroundings,
deep ones without in chaotic ones. VGG, and residual networks with and without
their skips, each with and without BN.

  python train.py --config=configs/curvature/surfaces.py --data_dir=DIR
  python train.py --config=configs/curvature/surfaces.py:small --data_dir=DIR
  python -m bn_jax analyze RUNS/resnet_batchnorm/seed0 --measure=surface \\
      --directions=trajectory --data=train:256 --name=trajectory
  python -m bn_jax report RUNS

Training records the random plane at its beginning and its end, with the
statistics of the batch; the third command draws the plane in which most of the
way of a run lies, through the checkpoints that it kept, with their own losses.

`paper`: VGG-16 and ResNet-20, 39,000 steps of 128 at 0.1 with momentum 0.9 and
a decay of 5e-4, cropped and mirrored; planes of 51 x 51 points over 2,048
images. `small`: VGG-11 at an eighth and ResNet-20 at a quarter of the width on
the digits, 200 steps of 64 at 0.05 with momentum, planes of 11 x 11 points over
256 images. The paper's size was not run.
"""

import ml_collections

from bn_jax.config import defaults

PLAIN = dict(norm=dict(name='none'))
BATCH = dict(norm=dict(name='batch'))
SMALL_LOWERING = 'product'  # what 'auto' was on a CPU when it was run


def get_config(size: str = 'paper') -> ml_collections.ConfigDict:
  """Returns six runs of a size, 'paper' or 'small'."""
  defaults.check_size(size)
  is_small = size == 'small'
  config = defaults.get_config()
  vgg = dict(model=_vgg(is_small))
  resnet = dict(model=_resnet(is_small))
  noskip = dict(model=_resnet(is_small) | dict(skip=False))
  config.runs = defaults.runs(
    vgg=vgg | PLAIN,
    vgg_batchnorm=vgg | BATCH,
    resnet=resnet | PLAIN,
    resnet_batchnorm=resnet | BATCH,
    noskip=noskip | PLAIN,
    noskip_batchnorm=noskip | BATCH,
  )
  # Without a norm, 20 layers do not keep their scale.
  config.expected_divergence = ('vgg', 'resnet', 'noskip')
  config.seeds = (0, 1, 2, 3, 4)
  config.data.name = 'digits' if is_small else 'cifar10'
  config.batch_size = 64 if is_small else 128
  config.steps = 200 if is_small else 39_000
  config.optimizer = dict(name='sgd', momentum=0.9)
  config.schedule.learning_rate = 0.05 if is_small else 0.1
  config.measures = dict(
    test=dict(
      name='evaluation',
      data='test',
      every_steps=config.steps // 2,
    ),
    plane=dict(
      name='surface',
      data='train:256' if is_small else 'train:2048',
      every_steps=config.steps,
      points=11 if is_small else 51,
    ),
  )
  config.checkpoint = dict(every_steps=config.steps // 10, keep=11)
  if not is_small:
    config.data.crop_padding, config.data.flip = 4, True
    config.weight_decay = 5e-4
  return config


def _vgg(is_small: bool) -> dict:
  if is_small:
    return dict(name='vgg11', width=0.125, lowering=SMALL_LOWERING)
  return dict(name='vgg16')


def _resnet(is_small: bool) -> dict:
  if is_small:
    return dict(name='resnet20', width=0.25, lowering=SMALL_LOWERING)
  return dict(name='resnet20', width=1.0)
