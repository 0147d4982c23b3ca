"""Figure 1(a) of Ioffe and Szegedy (2015) over what the paper leaves open.

Each network trains at each learning rate and standard deviation of the initial
weights, so that each network can be read at its own best.

  python train.py --config=configs/ioffe2015/figure1_sweep.py --data_dir=DIR
  python train.py --config=configs/ioffe2015/figure1_sweep.py:small \\
      --data_dir=DIR

Everything else is figure1.py's; `small` has its 5,000 steps.
"""

import itertools

import ml_collections

from bn_jax.config import defaults, shipped

figure1 = shipped.module('ioffe2015/figure1')

# Below and above the 0.1 that figure1.py has of both, by factors of about 3.
RATES = (0.03, 0.1, 0.3, 1.0, 3.0)
DEVIATIONS = (0.03, 0.1, 0.3)


def get_config(size: str = 'paper') -> ml_collections.ConfigDict:
  """Returns thirty runs: two networks, five rates, three deviations."""
  config = figure1.get_config(size)
  config.runs = defaults.runs(
    **{
      f'{name}_rate{rate:g}_std{deviation:g}'.replace('.', '_'): dict(
        norm=dict(name=norm),
        schedule=dict(learning_rate=rate),
        model=dict(initial_std=deviation),
      )
      for (name, norm), rate, deviation in itertools.product(
        (('standard', 'none'), ('batchnorm', 'batch')), RATES, DEVIATIONS
      )
    }
  )
  config.seeds = (0, 1, 2) if size == 'paper' else (0,)
  config.expected_divergence = tuple(config.runs)
  del config.measures.activations
  return config
