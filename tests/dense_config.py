"""The experiment of tiny_config with a dense network: compiled in a second."""

from tests import tiny_config


def get_config():
  config = tiny_config.get_config()
  config.model = dict(name='mlp', hidden=(8, 8), activation='relu')
  return config
