"""Gradients that explode, and ranks that do not collapse, with depth.

At initialisation, without a step of training worth the name: Yang et al. (2019,
arXiv:1902.08129) derive that Batch Normalization makes the gradient by the
activations of a deep ReLU network grow by sqrt(pi / (pi - 1)) = 1.211 a layer
on the way back, in wide networks and large batches, and faster in small ones;
Daneshmand et al. (2020, arXiv:2003.01652) that it keeps the rank of a batch's
hidden vectors above the order of the square root of the width, where it falls
to 1 without.

  python train.py --config=configs/curvature/depth.py --data_dir=DIR
  python train.py --config=configs/curvature/depth.py:small --data_dir=DIR

Dense layers of equal width on MNIST, ReLU, initial weights N(0, 2 / width),
which without a norm keep the size of activations and gradients (He et al.,
2015, arXiv:1502.01852). `batchnorm_groups` has statistics over groups of 8
examples of the same batch, `layernorm` those of each example. What is judged
are the records of step 0; the one step of 1e-6 only makes it a run. Ranks are
those of what enters the nonlinearities, not centred: the participation ratio
(sum s^2)^2 / sum s^4 of singular values s, Daneshmand's r(H).

`paper`: 100 layers of 1,000 units, batches of 1,024. `small`: 32 of 256,
batches of 256. The layers left out of a fit, and that the factor is judged to 2
percent, were chosen after one pilot of `small` with seed 100, which is not
judged.
"""

import ml_collections

from bn_jax.config import defaults

DEPTH = {'paper': 100, 'small': 32}
WIDTH = {'paper': 1000, 'small': 256}
BATCH = {'paper': 1024, 'small': 256}


def get_config(size: str = 'paper') -> ml_collections.ConfigDict:
  """Returns four runs of a size, 'paper' or 'small'."""
  defaults.check_size(size)
  config = defaults.get_config()
  config.runs = defaults.runs(
    standard=dict(norm=dict(name='none')),
    batchnorm=dict(norm=dict(name='batch')),
    batchnorm_groups=dict(norm=dict(name='batch', group_size=8)),
    layernorm=dict(norm=dict(name='layer')),
  )
  config.seeds = (0, 1, 2, 3, 4)
  config.data.name = 'mnist'
  config.batch_size = BATCH[size]
  config.model = dict(
    name='mlp',
    hidden=(WIDTH[size],) * DEPTH[size],
    activation='relu',
    initial_std=(2 / WIDTH[size]) ** 0.5,
  )
  config.steps = 1
  config.schedule.learning_rate = 1e-6
  config.log_every_steps = 1
  data = f'train:{BATCH[size]}'
  config.measures = dict(
    signal=dict(name='signal', data=data, every_steps=1),
    rank=dict(
      name='representations',
      data=data,
      every_steps=1,
      examples=BATCH[size],
    ),
  )
  return config
