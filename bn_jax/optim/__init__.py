"""Makes optimizers, learning rates and weight decay from plain keywords.

A new optimizer is a function in `optimizers` and a line in its table.
"""

import inspect
from typing import Any

from bn_jax import errors, plugins, types
from bn_jax.optim import users
from bn_jax.optim.by_path import weight_decay
from bn_jax.optim.optimizers import (
  OPTIMIZERS,
  adam,
  adamw,
  lamb,
  lion,
  muon,
  of,
  rmsprop,
  sam,
  sgd,
  sharpness_aware,
)
from bn_jax.optim.schedules import (
  SCHEDULES,
  Schedule,
  constant,
  cosine,
  exponential,
  make_schedule,
)
from bn_jax.optim.within import check_found, within

__all__ = [
  'OPTIMIZERS',
  'SCHEDULES',
  'Schedule',
  'adam',
  'adamw',
  'check_found',
  'constant',
  'cosine',
  'exponential',
  'lamb',
  'lion',
  'make',
  'make_schedule',
  'muon',
  'of',
  'rmsprop',
  'sam',
  'sgd',
  'sharpness_aware',
  'weight_decay',
  'within',
]


def make(
  name: str,
  schedule: Schedule,
  *,
  weight_decay_on: str = 'kernels',
  **keywords: Any,
) -> types.Optimizer:
  """Returns the optimizer called `name`; ValueError: wrong name or keyword.

  Args:
    weight_decay_on: what its own, decoupled decay acts on, if it has one.
  """
  if plugins.is_reference(name):
    return users.make(name, schedule, weight_decay_on, keywords)
  factory = errors.lookup('optimizer', OPTIMIZERS, name)
  if 'weight_decay_on' in inspect.signature(factory).parameters:
    keywords['weight_decay_on'] = weight_decay_on
  return factory(schedule, **keywords)
