"""Names the services that records can go to beside the files of a run.

Nothing comes back from them: the page and all commands read the files.
"""

import importlib.util
import os
from collections.abc import Sequence

from bn_jax import errors

NAMES = ('tensorboard', 'wandb', 'mlflow', 'trackio')


def check(names: Sequence[str]) -> None:
  """Checks that what sinks need is installed; imports none of it.

  Raises:
    ConfigError: it is not.
  """
  for name in names:
    # TensorBoard's events need none of its own.
    if name != 'tensorboard' and not _has(name):
      raise errors.ConfigError(
        f'config.sinks: {name} is not installed; pip install {name}, or leave '
        'it out'
      )
    has_server = bool(os.environ.get('MLFLOW_TRACKING_URI'))
    if name == 'mlflow' and not has_server and not _has('sqlalchemy'):
      raise errors.ConfigError(
        'config.sinks: mlflow-skinny has no database on this machine; pip '
        'install mlflow, or set MLFLOW_TRACKING_URI to a server'
      )


def _has(package: str) -> bool:
  return importlib.util.find_spec(package) is not None
