"""dense_config with one run, so that a sweep may change its norm."""

from configs import default
from tests import dense_config


def get_config():
  config = dense_config.get_config()
  config.runs = default.runs(only={})
  return config
