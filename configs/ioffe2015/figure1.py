"""Figure 1 of Ioffe and Szegedy (2015): MNIST, without and with BN.

Section 4.1: three hidden layers of 100 sigmoid units on binary images, 50,000
steps of 60 examples. (a) accuracy on the test set; (b, c) the 15th, 50th and
85th percentiles of what enters the sigmoid of one unit of the last hidden
layer, over training.

  python train.py --config=configs/ioffe2015/figure1.py --data_dir=DIR
  python train.py --config=configs/ioffe2015/figure1.py:small --data_dir=DIR

What the paper leaves open, and what is chosen: pixels are 1 above a brightness
of 1/2 (`data.binarize`); plain SGD at 0.1 on the mean cross-entropy, no decay
of rate or weights; weights "small random Gaussian" with a standard deviation of
0.1 (`model.initial_std`), biases 0; the test set with running averages of
momentum .99; percentiles after scale and bias, over the first 1,000 test
images, whose own statistics the norms use. figure1_sweep.py varies rate and
deviation. `small` has 5,000 steps.
"""

import ml_collections

from bn_jax.config import defaults


def get_config(size: str = 'paper') -> ml_collections.ConfigDict:
  """Returns two runs, with five seeds at the paper's size."""
  defaults.check_size(size)
  config = defaults.get_config()
  config.runs = defaults.runs(
    standard=dict(norm=dict(name='none')),
    batchnorm=dict(norm=dict(name='batch')),
  )
  config.seeds = (0, 1, 2, 3, 4) if size == 'paper' else (0,)
  config.data.name = 'mnist'
  config.data.binarize = 0.5
  config.model = dict(
    name='mlp',
    hidden=(100, 100, 100),
    activation='sigmoid',
    initial_std=0.1,
  )
  config.norm.momentum = 0.99
  config.batch_size = 60
  config.evaluation_batch_size = 1000
  config.steps = 50_000 if size == 'paper' else 5_000
  config.schedule.learning_rate = 0.1
  config.measures = dict(
    test=dict(name='evaluation', data='test', every_steps=500),
    activations=dict(
      name='activations',
      data='test:1000',
      every_steps=500 if size == 'paper' else 100,
      layers=('dense3',),
      statistics='batch',
      unit=True,
    ),
  )
  config.log_every_steps = 500
  config.checkpoint.every_steps = config.steps // 5
  return config
