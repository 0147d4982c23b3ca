"""Outliers of the Hessian's spectrum, with and without BN.

Ghorbani, Krishnan and Xiao (2019, arXiv:1901.10159): the Hessian of a network
without BN has a few eigenvalues far outside the rest of its spectrum, and the
gradient lies in their eigenvectors; BN suppresses both, and it is its batch
statistics that do: with running statistics outliers come back.

  python train.py --config=configs/curvature/outliers.py --data_dir=DIR
  python train.py --config=configs/curvature/outliers.py:small --data_dir=DIR

VGG on CIFAR-10, plain SGD, no decay. The density and the ten largest
eigenvalues of one and the same batch of training images, under both statistics,
at the beginning, in the middle and at the end. Of the network without a norm
both are the same function, and `_running` repeats it.

`paper`: VGG-16, 15,000 steps of 128 at 0.1, 2,048 images, 90 products a probe.
`small`: VGG-11 at an eighth of the width, 8 x 8 pixels, 300 steps of 64 at
0.1, 128 images, 40 products a probe, densities with the statistics of the batch
alone. For want of time it was a dense network once, as
docs/results/curvature.md says. The paper's size was not run.
"""

import ml_collections

from bn_jax.config import defaults


def get_config(size: str = 'paper') -> ml_collections.ConfigDict:
  """Returns two runs of a size, 'paper' or 'small'."""
  defaults.check_size(size)
  config = defaults.get_config()
  config.runs = defaults.runs(
    standard=dict(norm=dict(name='none')),
    batchnorm=dict(norm=dict(name='batch')),
  )
  config.seeds = (0, 1, 2, 3, 4)
  is_small = size == 'small'
  config.data.name = 'cifar10'
  config.model = dict(
    name='vgg11' if is_small else 'vgg16',
    width=0.125 if is_small else 1.0,
    lowering='product' if is_small else 'auto',  # what 'auto' was on a CPU
  )
  config.batch_size = 64 if is_small else 128
  config.steps = 300 if is_small else 15_000
  config.schedule.learning_rate = 0.1
  section = dict(
    data='train:128' if is_small else 'train:2048',
    every_steps=config.steps // 2,
  )
  density = dict(
    name='spectral_density',
    order=40 if is_small else 90,
    samples=2 if is_small else 10,
  )
  top = dict(name='top_eigenvalues', k=10, tolerance=1e-2)
  config.measures = dict(
    test=dict(
      name='evaluation',
      data='test:1000' if is_small else 'test',
      every_steps=config.steps // 2,
    ),
    density=section | density,
    density_running=section | density | dict(statistics='running'),
    top=section | top,
    top_running=section | top | dict(statistics='running'),
  )
  config.checkpoint.every_steps = config.steps
  if is_small:
    config.data.resolution = 8
    del config.measures.density_running  # no claim reads it
  return config
