"""Makes optimizers, learning rates and weight decay from plain keywords.

The update is optax's. Hyperparameters live in its state, so that a checkpoint
has them and a program can change them.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from bn_jax import checks, errors, plugins, trees, types

Schedule = Callable[[jax.Array], jax.Array]


def constant(*, learning_rate: float) -> Schedule:
  """Returns the same learning rate at every step."""
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

  staircase rounds the exponent down.

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


def sgd(
  schedule: Schedule, *, momentum: float = 0.0, nesterov: bool = False
) -> types.Optimizer:
  """Returns stochastic gradient descent; by default plain, as in the paper.

  Args:
    schedule: the learning rate at each step.
    momentum: in [0, 1): trace = momentum * trace + gradient.
    nesterov: whether the update looks ahead by one step of the trace.

  Raises:
    ValueError: a keyword out of its range.
  """
  checks.number('momentum', momentum, least=0, below=1)
  checks.flag('nesterov', nesterov)
  if nesterov and not momentum:
    raise ValueError('nesterov is True, momentum is 0; allowed: above 0')
  transformation = optax.inject_hyperparams(
    optax.sgd, static_args=('nesterov',)
  )(learning_rate=schedule, momentum=momentum or None, nesterov=nesterov)
  return types.Optimizer(
    init=transformation.init,
    update=transformation.update,
    learning_rate=lambda opt_state, step: jnp.asarray(
      schedule(step), jnp.float32
    ),
  )


OPTIMIZERS = {'sgd': sgd}


def weight_decay(
  *, weight_decay: float, weight_decay_on: str = 'kernels'
) -> Callable[[Any], jax.Array]:
  """Returns params -> weight_decay / 2 * |W|^2, a term of the objective.

  As its gradient passes through the optimizer, the decay is coupled with the
  learning rate and momentum.

  Args:
    weight_decay: the factor of |W|^2 / 2, 0 or more.
    weight_decay_on: 'kernels', or 'all' parameters (biases and scales too).

  Raises:
    ValueError: a keyword out of its range.
  """
  checks.number('weight_decay', weight_decay, least=0)
  checks.one_of('weight_decay_on', weight_decay_on, ('kernels', 'all'))

  def penalty(params):
    if not weight_decay:
      return jnp.zeros(())
    leaves = [
      leaf
      for path, leaf in zip(trees.paths(params), jax.tree.leaves(params))
      if weight_decay_on == 'all' or path.split('/')[-1] == 'kernel'
    ]
    return 0.5 * weight_decay * trees.vdot(leaves, leaves)

  return penalty


def make_schedule(name: str, **keywords: Any) -> Schedule:
  """Returns the schedule called `name`; ValueError: a wrong name or keyword."""
  if plugins.is_reference(name):
    return plugins.made(
      name, keywords, callable, 'a function of the step, such as those of optax'
    )
  return errors.lookup('schedule', SCHEDULES, name)(**keywords)


def make(name: str, schedule: Schedule, **keywords: Any) -> types.Optimizer:
  """Returns the optimizer called `name`; ValueError: wrong name or keyword."""
  if plugins.is_reference(name):
    return _of_user(name, schedule, keywords)
  return errors.lookup('optimizer', OPTIMIZERS, name)(schedule, **keywords)


def _of_user(name: str, schedule: Schedule, keywords: Any) -> types.Optimizer:
  """Returns the optimizer of a reference; one of optax says no rate itself."""
  made = plugins.made(
    name,
    {'schedule': schedule, **keywords},
    lambda made: isinstance(
      made, optax.GradientTransformation | types.Optimizer
    ),
    'an optax.GradientTransformation, which uses the schedule as its rate',
  )
  if isinstance(made, types.Optimizer):
    return made
  return types.Optimizer(
    init=made.init,
    update=made.update,
    learning_rate=lambda opt_state, step: jnp.asarray(
      schedule(step), jnp.float32
    ),
  )
