"""Says which numbers of a run can be data of the program that trains it.

Runs that differ in these alone are trained in one program, as seeds are: each
number in which they differ is an array with one for each, which is traced where
the config has it. So no shape and no branch in Python may hang on it.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from bn_jax import optim, plugins
from bn_jax.config.run_config import RunConfig

# Section -> constructors -> keywords.
_IN_SECTIONS = {
  'schedule': {'constant': ('learning_rate',)},
  'optimizer': dict.fromkeys(optim.OPTIMIZERS, ('weight_decay',)),
  'norm': dict.fromkeys(
    ('noise', 'noisy'), ('n_mu', 'n_sigma', 'r_mu', 'r_sigma')
  ),
}


class Family(NamedTuple):
  """Runs that are the same but for some numbers.

  Attributes:
    names: of the runs, in the order of the config.
    numbers: paths of the numbers in which they differ, such as
      'schedule.learning_rate'; () of a run that has no relatives.
  """

  names: tuple[str, ...]
  numbers: tuple[str, ...]


def families(configs: Mapping[str, RunConfig]) -> list[Family]:
  """Returns all runs, those that differ in numbers alone together."""
  alike = []  # (what they share, the names)
  for name, config in configs.items():
    shared = _without(config)
    names = next((names for one, names in alike if one == shared), None)
    if names is None:
      alike.append((shared, names := []))
    names.append(name)
  return [
    Family(tuple(names), _differing([configs[name] for name in names]))
    for _, names in alike
  ]


def of(config: RunConfig, paths: tuple[str, ...]) -> dict[str, Any]:
  """Returns path -> the number that a run has there."""
  return {path: _at(config, path) for path in paths}


def replaced(config: RunConfig, numbers: Mapping[str, Any]) -> RunConfig:
  """Returns the run with other numbers, which may be traced."""
  for path, number in numbers.items():
    section, _, key = path.rpartition('.')
    change = {key: number}
    if section:
      change = {section: {**getattr(config, section), key: number}}
    config = config.replace(**change)
  return config


def _paths(config: RunConfig) -> tuple[str, ...]:
  """Returns the paths of all numbers of a run that can be data."""
  paths = ['weight_decay']
  # What is a user's is given these, and may look at their numbers.
  users_of = {'norm': config.model, 'schedule': config.optimizer}
  for section, constructors in _IN_SECTIONS.items():
    user = users_of.get(section)
    if user is not None and plugins.is_reference(user['name']):
      continue
    keywords = getattr(config, section)
    if (name := keywords['name']) in constructors:
      paths += [
        f'{section}.{key}' for key in constructors[name] if key in keywords
      ]
  return tuple(paths)


def _without(config: RunConfig) -> RunConfig:
  """Returns what a run shares with those that differ in numbers alone."""
  config = config.replace(seeds_at_once='auto')
  return replaced(config, dict.fromkeys(_paths(config)))


def _differing(configs: list[RunConfig]) -> tuple[str, ...]:
  first = configs[0]
  return tuple(
    path
    for path in _paths(first)
    if any(_at(config, path) != _at(first, path) for config in configs)
  )


def _at(config: RunConfig, path: str) -> Any:
  section, _, key = path.rpartition('.')
  return getattr(config, section)[key] if section else getattr(config, key)
