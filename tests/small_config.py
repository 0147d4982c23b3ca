"""The smallest experiment: the MLP of Ioffe and Szegedy on digits, 4 steps."""

from configs import default


def get_config():
  config = default.get_config()
  config.runs = default.runs(batchnorm=dict(norm=dict(name='batch')))
  config.seeds = (0, 1)
  config.model = dict(name='mlp', hidden=(8,))
  config.batch_size = 16
  config.evaluation_batch_size = 100
  config.steps = 4
  config.log_every_steps = 4
  config.measures = dict()
  config.checkpoint.every_steps = 4
  return config
