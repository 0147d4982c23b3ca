"""An experiment of seconds for the tests: a very narrow VGG-11 on digits."""

from configs import default


def get_config():
  config = default.get_config()
  config.model.width = 0.0625
  config.batch_size = 16
  config.evaluation_batch_size = 200
  config.steps = 6
  config.log_every_steps = 4
  config.schedule.learning_rate = 0.05
  config.measures.test.every_steps = 3
  config.measures.landscape.every_steps = 2
  config.measures.activations.every_steps = 3
  config.checkpoint.every_steps = 2
  return config
