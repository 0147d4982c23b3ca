"""Makes an optimizer of what a user's function, or one of optax, returns."""

from collections.abc import Mapping
from typing import Any

import jax
import optax
from optax import contrib

from bn_jax import errors, plugins, types
from bn_jax.optim import optimizers
from bn_jax.optim.schedules import Schedule

_RATES = ('schedule', 'learning_rate')  # what a function calls its first one
# State -> what to do in place of a transformation that has it.
_UNFIT = {
  contrib.SAMState: (
    'its gradients up the slope would move the running statistics; give '
    "optimizer.name='sam', or wrap yours: optim.sharpness_aware"
  ),
  contrib.ScheduleFreeState: (
    'what is to be evaluated lies in its state, and nothing here would look '
    'there; give config.ema for an average of the parameters'
  ),
}


def make(
  name: str,
  schedule: Schedule,
  weight_decay_on: str,
  keywords: Mapping[str, Any],
) -> types.Optimizer:
  """Returns the optimizer that the function of a reference makes.

  Args:
    name: 'my_module:make' or 'optax:adabelief'. Its keyword `schedule` or
      `learning_rate` gets the schedule.
    keywords: the others; `weight_decay_on` too where the function has it.

  Raises:
    ValueError: the function has neither keyword.
    ConfigError: it fails, or returns neither a `types.Optimizer` nor a
      transformation of optax. Later: that fails, or has a state that training
      cannot look after, or its updates do not fit.
  """
  function = plugins.constructor(name)
  rates = [one for one in _RATES if plugins.takes(function, one)]
  if not rates:
    raise ValueError(
      f"{name} takes no 'schedule', step -> learning rate; give it one (its "
      "name may be 'learning_rate', too)"
    )
  made = plugins.made(
    name,
    {rates[0]: schedule, 'weight_decay_on': weight_decay_on, **keywords},
    lambda made: isinstance(
      made, optax.GradientTransformation | types.Optimizer
    ),
    'an optax.GradientTransformation, which uses the schedule as its rate',
    optional=('weight_decay_on',),
  )
  if isinstance(made, types.Optimizer):
    return made

  where = f'config.optimizer: {name}'

  def init(params):
    opt_state = _called(where, made.init, params)
    _check_state(where, opt_state)
    return opt_state

  def update(gradient, opt_state, params, **extra):
    updates, opt_state = _called(
      where, made.update, gradient, opt_state, params, **extra
    )
    _check_updates(where, updates, params)
    return updates, opt_state

  return optimizers.of(made, schedule)._replace(
    init=init,
    update=update,
    extra=isinstance(made, optax.GradientTransformationExtraArgs),
  )


def _called(where: str, function: Any, *arguments: Any, **extra: Any) -> Any:
  """Returns what a function returns; what it raises tells where it comes from.

  It runs while a network is traced, which a message would blame else.
  """
  try:
    return plugins.call(where, function, *arguments, **extra)
  except ValueError as error:
    raise errors.ConfigError(str(error)) from error


def _check_state(where: str, opt_state: Any) -> None:
  """Raises ConfigError for a state that needs more than its updates."""
  kinds = tuple(_UNFIT)
  for part in jax.tree.leaves(
    opt_state, is_leaf=lambda part: isinstance(part, kinds)
  ):
    for kind, instead in _UNFIT.items():
      if isinstance(part, kind):
        raise errors.ConfigError(f'{where}: {kind.__name__}: {instead}')


def _check_updates(where: str, updates: Any, params: Any) -> None:
  """Raises ConfigError unless updates are a tree of the parameters' shapes."""
  want, got = (
    jax.tree.map(lambda x: x.shape, tree) for tree in (params, updates)
  )
  if want != got:
    raise errors.ConfigError(
      f'{where}: its updates have other shapes than the '
      'parameters; allowed: a tree like them'
    )
