"""Statistics that a claim may be about: each a number of one run and seed.

nan is 'not recorded'; inf, of a number of steps, is 'never reached'.
"""

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

from bn_jax import errors
from bn_jax.report.results import activation_statistics as activation
from bn_jax.report.results import curves, reductions
from bn_jax.report.results import landscape_statistics as landscape
from bn_jax.report.results import training_statistics as training

STATISTICS: dict[str, Callable[..., float]] = {
  'activation_std': activation.activation_std,
  'at_factor': landscape.at_factor,
  'band_width': landscape.band_width,
  'beta_of_rate': landscape.beta_of_rate,
  'curvature_of_rate': landscape.curvature_of_rate,
  'diverged': training.diverged,
  'final_accuracy': training.final_accuracy,
  'final_loss': training.final_loss,
  'growth': landscape.growth,
  'last_of': training.last_of,
  'moment_change': activation.moment_change,
  'of_layer': landscape.of_layer,
  'of_measure': landscape.of_measure,
  'shape_distance': activation.shape_distance,
  'steps_to_accuracy': training.steps_to_accuracy,
  'steps_to_test_accuracy': training.steps_to_test_accuracy,
  'unit_movement': activation.unit_movement,
  'upper_edge': landscape.upper_edge,
  'value_at': training.value_at,
}

# Numbers of steps: of these alone inf means that it was never reached.
STEPS = ('steps_to_accuracy', 'steps_to_test_accuracy')

_CHOICES = {
  'reduce': tuple(reductions.REDUCTIONS),
  'moment': ('mean', 'var'),
  'of': ('median', 'width'),
  'relative': (False, True),
}
_NUMBERS = ('accuracy', 'factor', 'step', 'after')


def check(where: str, given: Any) -> None:
  """Raises ConfigError unless {'name': ..., keywords} names a statistic."""
  if not isinstance(given, dict) or 'name' not in given:
    raise errors.ConfigError(f'{where}: {given!r}; allowed: a dict with a name')
  name = given['name']
  if name not in tuple(STATISTICS):
    message = errors.unknown('statistic', name, STATISTICS)
    raise errors.ConfigError(f'{where}.name: {message}')
  _, *known = inspect.signature(STATISTICS[name]).parameters.values()
  names = [keyword.name for keyword in known]
  for key in given:
    if key not in ('name', *names):
      message = errors.unknown('keyword', key, names)
      raise errors.ConfigError(f'{where} ({name}): {message}')
  for keyword in known:
    if keyword.name in given:
      _check_value(f'{where}.{keyword.name}', keyword.name, given[keyword.name])
    elif keyword.default is inspect.Parameter.empty:
      raise errors.ConfigError(
        f'{where}.{keyword.name}: missing; {name} needs it'
      )


def of(given: Mapping[str, Any], seed: curves.Seed) -> float:
  """The number of a seed; `check` has looked at what is given.

  What is infinite and no number of steps is nan: it cannot be compared.
  """
  keywords = {key: value for key, value in given.items() if key != 'name'}
  number = STATISTICS[given['name']](seed, **keywords)
  infinite = math.isinf(number) and given['name'] not in STEPS
  return math.nan if infinite else number


def words(given: Mapping[str, Any]) -> str:
  """'band_width(measure=landscape, value=loss, reduce=median)'."""
  keywords = ', '.join(
    f'{key}={value}' for key, value in given.items() if key != 'name'
  )
  return f'{given["name"]}({keywords})'


def _check_value(where: str, key: str, value: Any) -> None:
  if key in _CHOICES:
    if value not in _CHOICES[key]:
      known = ', '.join(map(str, _CHOICES[key]))
      raise errors.ConfigError(f'{where}: {value!r}; allowed: {known}')
  elif key in _NUMBERS:
    if not is_number(value):
      raise errors.ConfigError(f'{where}: {value!r}; allowed: a number')
  elif key == 'factors':
    pair = isinstance(value, list) and len(value) == 2
    if not pair or not all(map(is_number, value)):
      raise errors.ConfigError(f'{where}: {value!r}; allowed: two numbers')
  elif not isinstance(value, str):
    raise errors.ConfigError(f'{where}: {value!r}; allowed: a name')


def is_number(value: Any) -> bool:
  """Whether it is a finite number, and no truth value."""
  return type(value) in (int, float) and math.isfinite(value)
