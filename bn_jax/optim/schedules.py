"""Makes learning rates from plain keywords: step -> rate."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from bn_jax import checks, errors, modules, plugins

Schedule = Callable[[jax.Array], jax.Array]


def constant(*, learning_rate: float) -> Schedule:
  """Returns the same learning rate at every step.

  Args:
    learning_rate: of every step.
  """
  checks.number('learning_rate', learning_rate, above=0)
  return optax.constant_schedule(learning_rate)


def cosine(
  *,
  learning_rate: float,
  decay_steps: int,
  warmup_steps: int = 0,
  end_factor: float = 0.0,
) -> Schedule:
  """Returns a linear warm-up to `learning_rate`, then half a cosine down.

  Args:
    learning_rate: the peak.
    decay_steps: the step at which the rate has reached its end, warm-up
      included.
    warmup_steps: steps from 0 to the peak.
    end_factor: the last rate as a share of the peak, 0 to 1.

  Raises:
    ValueError: a keyword out of its range.
  """
  checks.number('learning_rate', learning_rate, above=0)
  checks.count('decay_steps', decay_steps)
  checks.count('warmup_steps', warmup_steps, least=0)
  checks.number('end_factor', end_factor, least=0, most=1)
  if not warmup_steps < decay_steps:
    raise ValueError(
      f'warmup_steps is {warmup_steps}, decay_steps is {decay_steps}; '
      'allowed: 0 <= warmup_steps < decay_steps'
    )
  return optax.warmup_cosine_decay_schedule(
    init_value=0.0 if warmup_steps else learning_rate,
    peak_value=learning_rate,
    warmup_steps=warmup_steps,
    decay_steps=decay_steps,
    end_value=learning_rate * end_factor,
  )


def exponential(
  *,
  learning_rate: float,
  decay_steps: int,
  decay_factor: float,
  staircase: bool = False,
) -> Schedule:
  """Returns learning_rate * decay_factor^(step / decay_steps).

  Args:
    learning_rate: of step 0.
    decay_factor: of the rate after decay_steps more steps, at most 1.
    staircase: whether the exponent is rounded down.

  Raises:
    ValueError: a keyword out of its range.
  """
  checks.number('learning_rate', learning_rate, above=0)
  checks.count('decay_steps', decay_steps)
  checks.number('decay_factor', decay_factor, above=0, most=1)
  checks.flag('staircase', staircase)
  return optax.exponential_decay(
    learning_rate, decay_steps, decay_factor, staircase=staircase
  )


SCHEDULES = {
  'constant': constant,
  'cosine': cosine,
  'exponential': exponential,
}


def make_schedule(name: str, **keywords: Any) -> Schedule:
  """Returns the schedule called `name`; ValueError: a wrong name or keyword."""
  if plugins.is_reference(name):
    return plugins.made(
      name,
      keywords,
      _is_schedule,
      'a function: step -> learning rate, such as those of optax',
    )
  return errors.lookup('schedule', SCHEDULES, name)(**keywords)


def _is_schedule(made: Any) -> bool:
  """Returns whether something gives a number at a step."""
  if not callable(made):
    return False
  try:
    rate = jax.eval_shape(made, jax.ShapeDtypeStruct((), jnp.int32))
  except jax.errors.TracerBoolConversionError as error:
    raise ValueError(
      f'{modules.described(error)}; a schedule is traced: use jnp.where in '
      'place of a Python `if`'
    ) from error
  return getattr(rate, 'shape', None) == () and jnp.issubdtype(
    rate.dtype, jnp.floating
  )
