"""Compares norms in a network and on data of one's own.

python train.py --config=examples/my_config.py
python -m bn_jax analyze runs/my_config --measure=covariate_shift
"""

from bn_jax.config import defaults


def get_config():
  """Returns the defaults, with what lies in my_module.py beside this file."""
  config = defaults.get_config()
  config.runs = defaults.runs(
    batch=dict(norm=dict(name='batch')),
    group=dict(norm=dict(name='group')),
    none=dict(norm=dict(name='none')),
  )
  config.model = dict(name='my_module:network', width=8)
  config.data = dict(name='my_module:data')
  config.steps = 100
  config.batch_size = 64
  config.schedule.learning_rate = 0.1
  config.measures = dict(
    accuracy=dict(name='evaluation', data='test', every_steps=50),
    landscape=dict(
      name='along_gradient', data='current_batch', every_steps=10,
      step_sizes=(0.05, 0.1, 0.2, 0.4),
    ),
  )  # fmt: skip
  return config
