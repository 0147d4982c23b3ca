"""The deep linear network of Santurkar et al. (2018): all of its figures.

Section 2 and appendix A: 25 layers of 10 units learn y = A x from 1,000
samples, by gradient descent over all of them, summed squared error, Glorot
weights, 10,000 steps at 1e-6 and (`_slow`) at 1e-7; measured every 50 steps or
more rarely. Figures 3, 5, 9, 10, 11 and 13 select from these.

  python train.py --config=configs/santurkar2018/linear.py
  python train.py --config=configs/santurkar2018/linear.py:small

What the paper leaves open, and what is chosen: A and x standard normal
(`data.matrix_scale`, `data.input_scale`), the square not halved
(`loss.factor`), no biases (`model.bias`), the last layer not normalised
(`model.norm_last`), Glorot uniform. Its losses begin at 3.5e4 to 5.6e4, ours
at about 1e5: compare losses with their first value.

Beyond the paper: the curvature along the gradient, which tells whether the
network is at the edge of stability; probes in random directions; both rates
for all five networks. `small` has 2,000 steps.
"""

import ml_collections

from bn_jax.config import defaults

SLOW = 1e-7  # the paper's second rate
STEP_FACTORS = (0.01, 0.1, 1.0, 10.0, 31.6)  # of the rate, as in Figure 11
NETWORKS = {
  'standard': dict(name='none'),
  'batchnorm': dict(name='batch'),
  'l1': dict(name='l1'),
  'l2': dict(name='l2'),
  'linf': dict(name='linf'),
}


def get_config(size: str = 'paper') -> ml_collections.ConfigDict:
  """Returns ten runs: five networks at two rates."""
  defaults.check_size(size)
  config = defaults.get_config()
  config.runs = defaults.runs(
    **{name: dict(norm=norm) for name, norm in NETWORKS.items()},
    **{
      f'{name}_slow': dict(norm=norm, schedule=dict(learning_rate=SLOW))
      for name, norm in NETWORKS.items()
    },
  )
  config.seeds = (0, 1, 2) if size == 'paper' else (0,)
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
  config.steps = 10_000 if size == 'paper' else 2_000
  config.schedule.learning_rate = 1e-6
  config.log_every_steps = 100
  config.measures = dict(
    test=dict(name='evaluation', data='test', every_steps=1_000),
    landscape=dict(
      name='along_gradient',
      data='current_batch',
      every_steps=50,
      step_factors=STEP_FACTORS,
      statistics='batch',
      spread='batch',
      curvature=True,
    ),
    random=dict(
      name='along_gradient',
      data='current_batch',
      every_steps=500,
      step_factors=STEP_FACTORS,
      direction='random',
      statistics='batch',
      spread='batch',
    ),
    shift=dict(
      name='covariate_shift',
      data='current_batch',
      every_steps=50,
      layers=('linear9', 'linear17'),  # of Figure 3
      statistics='batch',
    ),
    activations=dict(
      name='activations',
      data='test:1000',
      every_steps=250,
      layers=('linear1', 'linear11', 'linear24'),  # of Figure 9
      statistics='batch',
    ),
  )
  config.checkpoint.every_steps = 2_500
  return config
