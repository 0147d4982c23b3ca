"""What lies between two networks, under three kinds of statistics.

Goodfellow et al. (2015, arXiv:1412.6544) look at the straight line from the
beginning of training to its end; Frankle et al. (2020, arXiv:1912.05671) and
Entezari et al. (2021, arXiv:2110.06296) at the line between two networks
trained from different seeds, on which the loss rises: a barrier. On the line
between networks with BN the statistics matter: those of the batch; those of the
population, found anew at each point (Jordan et al., 2022, arXiv:2211.08403);
and, naively, running averages interpolated with the weights.

  python train.py --config=configs/curvature/connectivity.py --data_dir=DIR
  python -m bn_jax analyze RUNS/batchnorm/seed0 --measure=path \\
      --to=RUNS/batchnorm/seed1 --data=train:1024 --name=seeds

Training records the line back to step 0; the second command, for each run and
seed (seed 4 to seed 0), that to the next seed, as `analysis/seeds`, which the
claims are about. Each network is then an end of two lines, so that the lines
are not quite independent of each other.

`paper`: VGG-16 on CIFAR-10, 15,000 steps of 128 at 0.1, as in
santurkar2018/vgg.py. `small`: VGG-11 at an eighth of the width on the digits,
300 steps of 64 at 0.1. Thresholds that are of no paper were chosen after a
pilot of `small` with seeds 100 and 101, which are not judged. The paper's size
was not run.
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
  config.data.name = 'digits' if is_small else 'cifar10'
  config.model = dict(
    name='vgg11' if is_small else 'vgg16',
    width=0.125 if is_small else 1.0,
    lowering='product' if is_small else 'auto',  # what 'auto' was on a CPU
  )
  config.batch_size = 64 if is_small else 128
  config.steps = 300 if is_small else 15_000
  config.schedule.learning_rate = 0.1
  config.measures = dict(
    test=dict(name='evaluation', data='test', every_steps=config.steps // 6),
    beginning=dict(
      name='path', data='train:1024', every_steps=config.steps, to='0'
    ),
  )
  config.checkpoint.every_steps = config.steps
  return config
