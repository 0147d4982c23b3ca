"""Figure 4 of Ioffe and Szegedy (2015): an ensemble of six, and 144 crops.

Section 4.2.3: six networks like BN-x30, each with some of: larger initial
weights, Dropout of 5 or 10 %, norms of each activation in the last modules.

  python train.py --config=configs/ioffe2015/figure4.py --data_dir=DIR \\
      --workdir=RUNS
  python -m bn_jax evaluate RUNS/*/seed0  # one crop
  python -m bn_jax evaluate RUNS/*/seed0 --crops=144

The evaluations print each network and the mean of all; both are the table. What
the paper leaves open, and what is chosen: weights twice as large
(`model.kernel_scale`); which network has which of these; the last modules, 5a
and 5b; one seed for all. Protocol and other choices: inception.py. The images
of `small` are squares, whose 144 crops are 48 thrice; with
--config.data.name=imagenette_mini --config.data.resolution=32 all differ. The
paper's size was not run.
"""

import ml_collections

from bn_jax.config import defaults, shipped

inception = shipped.module('ioffe2015/inception')


def get_config(size: str = 'paper') -> ml_collections.ConfigDict:
  """Returns six runs of a size, 'paper' or 'small'."""
  config = inception.get_config(size)
  last = ('mixed_5a', 'mixed_5b') if size == 'paper' else ('mixed_5b',)
  large, per_unit = dict(kernel_scale=2.0), dict(per_activation=last)
  variants = dict(
    large=large,
    dropout_5=dict(dropout=0.05),
    dropout_10=dict(dropout=0.1),
    per_activation=per_unit,
    large_dropout_5=large | dict(dropout=0.05),
    per_activation_dropout_10=per_unit | dict(dropout=0.1),
  )
  runs = {}
  for name, model in variants.items():
    runs[name] = inception.accelerated(size, 30)
    runs[name]['model'].update(model)
  config.runs = defaults.runs(**runs)
  config.expected_divergence = ()
  config.seeds = (0,)
  return config
