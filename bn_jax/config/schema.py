"""Reads a section of a config as one constructor: its name, its keywords.

Checks that the name is known and that the constructor has the keywords, and
fills in the defaults of the others.
"""

import inspect
import json
from collections.abc import Iterable
from typing import Any, NamedTuple

from bn_jax import analysis, errors, losses, models, norms, optim
from bn_jax.config import parser
from bn_jax.data import datasets, images

Config = dict[str, Any]


class Section(NamedTuple):
  """What a section of the config builds.

  Attributes:
    kind: the word for it in messages.
    registry: name -> constructor.
    supplied: keywords that the program passes, not the config.
    also: keys beside the constructor's, which the program itself reads.
    other: the constructor for names that the registry lacks; None: they are
      unknown.
  """

  kind: str
  registry: dict[str, Any]
  supplied: tuple[str, ...] = ()
  also: tuple[str, ...] = ()
  other: Any = None

  def constructor(self, name: Any) -> Any:
    """Returns the constructor of this name; None if it is unknown."""
    if name in self.registry:
      return self.registry[name]
    return self.other


SECTIONS = {
  'data': Section(
    'dataset', datasets.DATASETS, ('name', 'data_dir'), other=images.make
  ),
  'loss': Section('loss', losses.LOSSES),
  'model': Section('model', models.MODELS, ('num_classes', 'norm')),
  'norm': Section('norm', norms.NORMS, ('axis', 'spread')),
  'optimizer': Section('optimizer', optim.OPTIMIZERS, ('schedule',)),
  'schedule': Section('schedule', optim.SCHEDULES),
}
MEASURE = Section(
  'measure', analysis.MEASURES, also=('data', 'every_steps')
)  # fmt: skip


def completed(where: str, section: Section, keys: Any) -> Config:
  """Returns the section with the defaults of its constructor filled in.

  Args:
    where: the path of the section, for messages.
    keys: name and keywords, as the config has them.

  Raises:
    ConfigError: no name, an unknown one, an unknown or a missing keyword.
  """
  if not isinstance(keys, dict) or 'name' not in keys:
    raise errors.ConfigError(f'{where}: {keys!r}; allowed: a dict with a name')
  name = keys['name']
  if not isinstance(name, str) or section.constructor(name) is None:
    message = errors.unknown(section.kind, name, section.registry)
    raise errors.ConfigError(f'{where}.name: {message}')
  keywords = _keywords(section, name)
  check_keys(
    f'{where} ({section.kind} {name!r})',
    keys,
    ('name', *section.also, *keywords),
  )
  for keyword, parameter in keywords.items():
    if keyword not in keys and parameter.default is inspect.Parameter.empty:
      raise errors.ConfigError(
        f'{where}.{keyword}: missing; {section.kind} {name!r} needs it (set '
        'both in a config file)'
      )
  defaults = {
    keyword: jsonable(parameter.default)
    for keyword, parameter in keywords.items()
    if keyword not in keys
  }
  return {'name': name, **defaults, **keys}


def filled(section: Section, keys: Config) -> Config:
  """Returns the section with defaults for what it lacks; nothing is checked.

  See `differences.filled`.
  """
  if not section.constructor(keys['name']):
    return keys
  defaults = {
    keyword: jsonable(parameter.default)
    for keyword, parameter in _keywords(section, keys['name']).items()
    if parameter.default is not inspect.Parameter.empty
  }
  return {**defaults, **keys}


def renamed(section: Section, keys: Config, name: Any) -> Config:
  """Returns the section with another name, without keywords unknown to that."""
  if name == keys.get('name') or not section.constructor(name):
    return keys
  allowed = (*_keywords(section, name), *section.also)
  return {k: v for k, v in keys.items() if k in allowed} | {'name': name}


def check_keys(where: str, keys: Iterable[str], allowed: Iterable[str]) -> None:
  """Raises ConfigError for the first key that is not allowed."""
  allowed = tuple(allowed)
  for key in keys:
    if key not in allowed:
      message = parser.unknown_key(key, allowed)
      raise errors.ConfigError(f'{where}: {message}')


def check_count(where: str, value: Any) -> None:
  """Raises ConfigError unless value is 1, 2, 3, ..."""
  if type(value) is not int or value < 1:
    raise errors.ConfigError(f'{where}: {value!r}; allowed: 1, 2, 3, ...')


def jsonable(value: Any) -> Any:
  """Returns a value as JSON holds it: tuples become lists.

  Raises:
    ConfigError: what JSON cannot hold, nan and infinity included.
  """
  try:
    return json.loads(json.dumps(value, allow_nan=False))
  except (TypeError, ValueError) as error:
    raise errors.ConfigError(
      f'config: {error}; allowed: finite numbers, strings, lists and dicts'
    ) from error


def _keywords(section: Section, name: str) -> dict[str, inspect.Parameter]:
  """Returns the keywords of a constructor that a config may set."""
  factory = section.constructor(name)
  bound = getattr(factory, 'keywords', {})  # of a functools.partial
  return {
    keyword: parameter
    for keyword, parameter in inspect.signature(factory).parameters.items()
    if keyword not in bound and keyword not in section.supplied
  }
