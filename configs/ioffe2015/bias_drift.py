"""Section 2 of Ioffe and Szegedy (2015): a bias drifts without end.

If x = u + b is normalized and the statistics do not take part in the gradient
step, the update of b has no effect on what leaves the norm, so that b grows
without limit while the loss stays. An MLP on MNIST with a bias before each norm
and no scale and bias after it, with the gradient of Algorithm 1 and with
statistics that are constants to it (`norm.stop_statistics_gradient`).

  python train.py --config=configs/ioffe2015/bias_drift.py --data_dir=DIR
  python train.py --config=configs/ioffe2015/bias_drift.py:small --data_dir=DIR

The paper has no numbers. What is chosen: the network of Figure 1 (figure1.py)
with rectifiers, 20,000 steps at 0.1; `small` has 3,000. Rectifiers and the
threshold of the claim were chosen after pilots with seed 100, which is not
judged: at step 3,000 the bias of the last hidden layer had length 6.3 with
rectifiers and 1.1 with the paper's sigmoids.
"""

import ml_collections

from bn_jax.config import defaults, shipped

figure1 = shipped.module('ioffe2015/figure1')


def get_config(size: str = 'paper') -> ml_collections.ConfigDict:
  """Returns two runs of a size, 'paper' or 'small'."""
  defaults.check_size(size)
  config = figure1.get_config(size)
  batch = dict(name='batch', affine=False, bias_before=True)
  del config.runs['standard'], config.runs['batchnorm']
  config.runs.inside = dict(norm=batch)
  config.runs.outside = dict(norm=batch | dict(stop_statistics_gradient=True))
  config.seeds = (0, 1, 2)
  config.model = dict(name='mlp', hidden=(100, 100, 100), activation='relu')
  config.steps = 20_000 if size == 'paper' else 3_000
  config.measures = dict(
    test=config.measures.test,
    weights=dict(
      name='weights',
      data='current_batch',
      every_steps=config.steps // 40,
      layers=('dense1', 'dense2', 'dense3'),
      biases=True,
    ),
  )
  config.checkpoint.every_steps = config.steps // 4
  return config
