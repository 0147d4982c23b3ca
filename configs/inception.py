"""Trains BN-Inception on photographs, for a look at cost and memory.

Ioffe and Szegedy (2015), section 4.2 and Figure 5: the network of the paper, at
224 pixels, on any set of JPEGs that tensorflow-datasets knows. Batch 16 and
plain SGD, so that it runs on a laptop: no reproduction of the paper's training.

  python train.py --config=configs/inception.py --data_dir=DIR
  python train.py --config=configs/inception.py --data_dir=DIR \\
      --config.data.name=imagenette_mini

On the 600 images of imagenette_mini: 1.9 s a step on two CPU cores, 3.3 GB; the
mean loss of ten steps falls from 2.39 to 2.25 in 30 steps (one seed,
2026-11-24).

`imagenette` has 9,469 images of 10 classes; prepare it with
`python -m bn_jax data prepare imagenette`.
"""

import ml_collections

from bn_jax.config import defaults


def get_config() -> ml_collections.ConfigDict:
  """Returns a config of one run with one seed."""
  config = defaults.get_config()
  config.runs = defaults.runs(bn_inception=dict(norm=dict(name='batch')))
  config.data.name = 'imagenette'
  config.data.resolution = 224
  config.data.flip = True
  config.model = dict(
    name='bn_inception',
    width=1.0,
    pool_projection=128,  # of 4c and 4d; or 96, and the table's sizes hold
    separable=False,  # the first layer: depthwise, then 1 x 1
    activation='relu',  # or 'sigmoid'
    dropout=0.0,  # before the classifier
    stem='imagenet',  # or 'cifar', for small images
    per_activation=(),  # modules whose norms see activations, not maps
    lowering='auto',
  )
  config.batch_size = 16
  config.evaluation_batch_size = 50
  config.steps = 30
  config.schedule.learning_rate = 0.02
  config.log_every_steps = 5
  config.measures = dict(
    test=dict(name='evaluation', data='test', every_steps=30),
  )
  config.checkpoint.every_steps = 30
  return config
