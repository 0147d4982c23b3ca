"""Turns what a config says in epochs into steps, of which a run is made."""

import fractions
import math
from collections.abc import Callable
from typing import Any

from bn_jax import checks, errors
from bn_jax.config import schema

_DEFAULT = 1000  # steps in configs/default.py, which no one has asked for


def replaced(kind: str, new: dict[str, Any]) -> set[str]:
  """Returns the keys whose time some new keys say in the other unit.

  Args:
    kind: of the section, see `changeable.kind_below`.

  Raises:
    ConfigError: the new keys have one time in both units.
  """
  keys = set()
  for key, value in new.items():
    other = in_other_unit(kind, key)
    if other is None or value is None:
      continue
    is_default = kind == 'config' and new.get('steps') == _DEFAULT
    if new.get(other) is not None and not is_default:
      where = 'config.schedule' if kind == 'schedule' else 'config'
      raise errors.ConfigError(
        f'{where}.{key}: {checks.shown(value)}, and {other}: '
        f'{checks.shown(new[other])}; allowed: one of them, None for the other'
      )
    keys.add(other)
  return keys


def in_other_unit(kind: str, key: str) -> str | None:
  """Returns 'epochs' for 'steps', and so on; None for what is no time."""
  if kind in ('config', 'run'):
    return {'steps': 'epochs', 'epochs': 'steps'}.get(key)
  if kind == 'schedule' and key.endswith('_steps'):
    return f'{key.removesuffix("steps")}epochs'
  if kind == 'schedule' and key.endswith('_epochs'):
    return f'{key.removesuffix("epochs")}steps'
  return None


def in_steps(
  config: dict[str, Any], examples: Callable[[], int]
) -> dict[str, Any]:
  """Returns the config of a run with steps for all that it says in epochs.

  steps = ceil(epochs * training examples / batch_size).

  Args:
    examples: returns how many there are to train on; called if it matters.

  Raises:
    ConfigError: epochs that are no number or out of range.
  """
  config = dict(config)

  def steps_of(where: str, number: Any, **limits: float) -> int:
    schema.check_number(where, number, **limits)
    # As it is written: 1.1 is 11/10, and 1.1 epochs of 10 steps are 11 steps.
    share = fractions.Fraction(str(number)) / config['batch_size']
    return math.ceil(share * examples())

  total = config.pop('epochs', None)
  if total is not None:
    config['steps'] = steps_of('config.epochs', total, above=0)
  schedule = config['schedule']
  if isinstance(schedule, dict):
    allowed = schema.allowed(schema.of('schedule'), schedule.get('name')) or ()
    config['schedule'] = schedule = dict(schedule)
    for key in tuple(schedule):
      steps = in_other_unit('schedule', key)
      if key.endswith('_epochs') and steps in allowed:
        number = schedule.pop(key)
        if number is not None:
          where = f'config.schedule.{key}'
          schedule[steps] = steps_of(where, number, least=0)
  return config
