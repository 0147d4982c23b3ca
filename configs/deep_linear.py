"""A deep linear network, standard and with BN: 25 layers of 10 units.

Santurkar et al. (2018), appendix A and Figures 3, 9 and 10: y = A x is learned
from 1,000 samples by gradient descent over all of them at once, summed squared
error, no nonlinearity, Glorot weights.

  python train.py --config=configs/deep_linear.py

10,000 steps at 1e-6 as in the paper, which leaves open the scale of A and x,
whether the square is halved, whether the last layer is normalised, and biases:
keys of data, loss and model, whose choices are standard normal, no, no, none.
So compare losses with their first value, not with the paper's.
"""

import ml_collections

from configs import default


def get_config() -> ml_collections.ConfigDict:
  """Two runs, one seed."""
  config = default.get_config()
  config.data = dict(
    name='linear_task',
    dimension=10,  # of x and A x
    num_examples=1000,
    matrix_scale=1.0,  # standard deviation of A's entries
    input_scale=1.0,  # of x's
    seed=0,  # of A and x
  )
  config.loss = dict(name='squared_error', factor=1.0, reduction='sum')
  config.model = dict(
    name='deep_linear',
    depth=25,
    features=10,
    bias=False,
    norm_last=False,  # whether the last layer is normalised, too
  )
  config.batch_size = 1000
  config.evaluation_batch_size = 1000
  config.steps = 10_000
  config.schedule.learning_rate = 1e-6
  config.log_every_steps = 100
  config.measures = dict(
    test=dict(name='evaluation', data='test', every_steps=500),
    landscape=dict(
      name='along_gradient',
      data='current_batch',
      every_steps=50,
      step_factors=(0.01, 0.1, 1.0, 10.0, 31.6),
      statistics='batch',
      spread='batch',
      curvature=True,
    ),
    shift=dict(
      name='covariate_shift',
      data='current_batch',
      every_steps=50,
      layers=('linear9', 'linear17'),
      statistics='batch',
    ),
    signal=dict(
      name='signal', data='current_batch', every_steps=2_500, statistics='batch'
    ),
    weights=dict(
      name='weights', data='current_batch', every_steps=500, statistics='batch'
    ),
    activations=dict(
      name='activations',
      data='test:1000',
      every_steps=500,
      layers=('linear1', 'linear11', 'linear24'),
      statistics='batch',
    ),
  )
  config.checkpoint.every_steps = 2_500
  return config
