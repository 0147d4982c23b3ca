"""An experiment that saves all the time: an MLP on digits, 40 steps."""

from configs import default


def get_config():
  config = default.get_config()
  config.runs = default.runs(batchnorm=dict(norm=dict(name='batch')))
  config.model = dict(name='mlp', hidden=(8,))
  config.optimizer = dict(name='sgd', momentum=0.9)
  config.batch_size = 16
  config.evaluation_batch_size = 100
  config.steps = 40
  config.log_every_steps = 2
  config.measures = dict(
    test=dict(name='evaluation', data='test:100', every_steps=8),
    activations=dict(name='activations', data='test:16', every_steps=8),
  )
  config.checkpoint.every_steps = 4
  return config
