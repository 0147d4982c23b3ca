"""Turns what a config says in epochs into steps, of which a run is made."""

import fractions
import math
from collections.abc import Callable
from typing import Any

from bn_jax import checks, errors
from bn_jax.config import run_config, schema


def replaced(kind: str, new: dict[str, Any]) -> set[str]:
  """Returns the keys whose time some new keys say in the other unit.

  Args:
    kind: of the section, see `changeable.kind_below`.

  Raises:
    ConfigError: the new keys have one time in both units.
  """
  keys = set()
  for key, value in new.items():
    other = run_config.in_other_unit(kind, key)
    if other is None or value is None:
      continue
    if new.get(other) is not None:
      where = 'config.schedule' if kind == 'schedule' else 'config'
      raise errors.ConfigError(
        f'{where}.{key}: {checks.shown(value)}, and {other}: '
        f'{checks.shown(new[other])}; allowed: one of them, None for the other'
      )
    keys.add(other)
  return keys


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
      steps = run_config.in_other_unit('schedule', key)
      if key.endswith('_epochs') and steps in allowed:
        number = schedule.pop(key)
        if number is not None:
          where = f'config.schedule.{key}'
          schedule[steps] = steps_of(where, number, least=0)
  return config
