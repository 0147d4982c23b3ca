"""Reads a section of a config as one constructor: its name, its keywords.

Checks that the name is known and that the constructor has the keywords, and
fills in the defaults of the others.
"""

import functools
import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from bn_jax import (
  analysis,
  checks,
  errors,
  losses,
  models,
  norms,
  optim,
  plugins,
)
from bn_jax.config import parser, run_config
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
    of_function: a user's function -> the constructor that it stands for.
  """

  kind: str
  registry: dict[str, Any]
  supplied: tuple[str, ...] = ()
  also: tuple[str, ...] = ()
  other: Any = None
  of_function: Callable[[Any], Any] = lambda function: function

  def constructor(self, name: Any) -> Any:
    """Returns the constructor of this name; None if it is unknown.

    Raises:
      ConfigError: a reference to a user's function that cannot be loaded.
    """
    if not isinstance(name, str):
      return None
    if plugins.is_reference(name):
      return self.of_function(plugins.constructor(name))
    if name in self.registry:
      return self.registry[name]
    return self.other


SECTIONS = {
  'data': Section(
    'dataset',
    datasets.DATASETS,
    ('name', 'data_dir'),
    other=images.make,
    of_function=datasets.of_function,
  ),
  'loss': Section('loss', losses.LOSSES),
  'model': Section('model', models.MODELS, ('num_classes', 'norm')),
  'norm': Section('norm', norms.NORMS, ('axis', 'spread')),
  'optimizer': Section(
    'optimizer',
    optim.OPTIMIZERS,
    ('schedule', 'learning_rate', 'weight_decay_on'),
  ),
  'schedule': Section('schedule', optim.SCHEDULES),
}
MEASURE = Section(
  'measure', analysis.MEASURES, also=('data', 'every_steps')
)  # fmt: skip


def of(kind: str) -> Section:
  """Returns the section of this name, or that of each 'measure'."""
  return MEASURE if kind == 'measure' else SECTIONS[kind]


def completed(where: str, section: Section, keys: Any) -> Config:
  """Returns the section with the defaults of its constructor filled in.

  Args:
    where: the path of the section, for messages.
    keys: name and keywords, as the config has them.

  Raises:
    ConfigError: no name, an unknown one, an unknown or a missing keyword.
  """
  if not isinstance(keys, dict) or 'name' not in keys:
    likely = keys.get(section.kind) if isinstance(keys, dict) else None
    hint = f', as name={likely!r}' if isinstance(likely, str) else ''
    raise errors.ConfigError(
      f'{where}: {keys!r}; allowed: a dict with a name{hint}'
    )
  name = keys['name']
  try:
    constructor = section.constructor(name)
  except errors.ConfigError as error:
    raise errors.ConfigError(f'{where}.name: {error}') from error
  if constructor is None:
    message = errors.unknown(section.kind, name, section.registry)
    raise errors.ConfigError(f'{where}.name: {message}')
  keywords = parameters(section, name)
  if not plugins.takes_any(constructor):
    check_keys(
      f'{where} ({section.kind} {name!r})',
      keys,
      ('name', *section.also, *keywords),
    )
  for keyword, parameter in keywords.items():
    if keyword not in keys and parameter.default is inspect.Parameter.empty:
      other = run_config.in_other_unit(section.kind, keyword)
      raise errors.ConfigError(
        f'{where}.{keyword}: missing; {section.kind} {name!r} needs it'
        + (f', or {other}' if other else '')
      )
  defaults = {
    keyword: jsonable(f'{where}.{keyword}', parameter.default)
    for keyword, parameter in keywords.items()
    if keyword not in keys and not _is_own(name, parameter.default)
  }
  # A flag reads a step as a number, and `to` may be a path in its place.
  texts = {
    keyword: str(keys[keyword])
    for keyword, parameter in keywords.items()
    if parameter.annotation is str and checks.is_whole(keys.get(keyword))
  }
  return {'name': name, **defaults, **keys, **texts}


def allowed(section: Section, name: Any) -> tuple[str, ...] | None:
  """Returns the keys that the section may have in a config.

  What a schedule takes in steps may be said in epochs: `warmup_epochs`.

  Args:
    name: of its constructor; for one that is unknown, or fails, the result is
      None.
  """
  try:
    if section.constructor(name) is None:
      return None
  except errors.ConfigError:  # which `completed` raises too
    return None
  keys = ('name', *section.also, *parameters(section, name))
  if section.kind != 'schedule':
    return keys
  in_epochs = (key for key in keys if key.endswith('_steps'))
  return (*keys, *(f'{key.removesuffix("steps")}epochs' for key in in_epochs))


def may_have(section: Section, name: Any, key: str) -> bool:
  """Returns whether a key may be in a section; also if nobody can know."""
  known = allowed(section, name)
  if known is None or key in known:
    return True
  return plugins.takes_any(section.constructor(name))


def lists(section: Section, name: Any) -> tuple[str, ...]:
  """Returns the keywords of a constructor that take a list; () if unknown."""
  if allowed(section, name) is None:
    return ()
  return tuple(
    keyword
    for keyword, parameter in parameters(section, name).items()
    if isinstance(parameter.default, list | tuple)
  )


def filled(section: Section, keys: Config) -> Config:
  """Returns the section with defaults for what it lacks; nothing is checked.

  See `differences.filled`.
  """
  try:
    if not section.constructor(keys['name']):
      return keys
  except errors.ConfigError:  # said by who builds the run
    return keys
  defaults = {
    keyword: jsonable(keyword, parameter.default)
    for keyword, parameter in parameters(section, keys['name']).items()
    if parameter.default is not inspect.Parameter.empty
    and not _is_own(keys['name'], parameter.default)
  }
  return {**defaults, **keys}


def measured(section: Config) -> Config:
  """Returns a measure's section, filled, without what only the page reads.

  Looks of two such sections that are equal are looks of one measure.
  """
  try:
    shown = getattr(MEASURE.constructor(section['name']), 'shown', ())
  except errors.ConfigError:  # said by who builds the run
    shown = ()
  whole = filled(MEASURE, section)
  return {key: value for key, value in whole.items() if key not in shown}


def renamed(section: Section, keys: Config, name: Any) -> Config:
  """Returns the section with another name, without keywords unknown to it."""
  known = allowed(section, name)
  if known is None or name == keys.get('name'):
    return {**keys, 'name': name}
  return {k: v for k, v in keys.items() if k in known} | {'name': name}


def check_number(where: str, value: Any, **limits: float) -> None:
  """Raises ConfigError unless a value is a number, see `checks.number`."""
  check(where, functools.partial(checks.number, **limits), value)


def check_keys(where: str, keys: Iterable[str], allowed: Iterable[str]) -> None:
  """Raises ConfigError, which names every key that is not allowed."""
  allowed = tuple(allowed)
  messages = [
    parser.unknown_key(key, allowed) for key in keys if key not in allowed
  ]
  if messages:
    raise errors.ConfigError(f'{where}: {parser.listed(messages)}')


def check(
  where: str, rule: Callable[..., None], value: Any, *arguments: Any
) -> None:
  """Raises ConfigError for a value that a function of `checks` refuses.

  Args:
    where: the path of the key, for messages.
    rule: the function, such as `checks.count`.
    *arguments: of the function, after the value.
  """
  try:
    rule(where, value, *arguments)
  except checks.Refused as refusal:
    raise errors.ConfigError(
      f'{where}: {refusal.value}; allowed: {refusal.allowed}'
    ) from refusal


def jsonable(where: str, value: Any) -> Any:
  """Returns a value as JSON holds it: tuples become lists.

  Args:
    where: the path of the value, for messages.

  Raises:
    ConfigError: what JSON cannot hold, nan and infinity included.
  """
  if isinstance(value, dict):
    for key in value:
      if not isinstance(key, str):
        raise errors.ConfigError(
          f'{where}: the key {checks.shown(key)}; allowed: text'
        )
    return {
      key: jsonable(f'{where}.{key}', inner) for key, inner in value.items()
    }
  value = checks.plain(value)  # numbers of NumPy become Python's
  if isinstance(value, list | tuple | range):
    return [jsonable(where, inner) for inner in value]
  is_finite = checks.is_number(value) and math.isfinite(value)
  if not (isinstance(value, str | bool | None) or is_finite):
    raise errors.ConfigError(
      f'{where}: {checks.shown(value)}; allowed: finite numbers, strings, '
      'lists and dicts'
    )
  return value


def parameters(section: Section, name: str) -> dict[str, inspect.Parameter]:
  """Returns the keywords of a constructor that a config may set."""
  factory = section.constructor(name)
  bound = getattr(factory, 'keywords', {})  # of a functools.partial
  others = {*bound, *section.supplied}
  if plugins.is_reference(name):  # a class of flax has a name and a parent
    others |= {'name', 'parent', *section.also}
  return {
    keyword: parameter
    for keyword, parameter in plugins.keywords_of(factory).items()
    if keyword not in others
  }


def references(run: Mapping[str, Any]) -> list[str]:
  """Returns the names in a resolved run that refer to users' modules."""
  sections = [run[key] for key in SECTIONS if key in run]
  if 'measures' in run:
    sections += run['measures'].values()
  names = (section['name'] for section in sections)
  return list(filter(plugins.is_reference, names))


def _is_own(name: str, default: Any) -> bool:
  """Returns whether only a user's code can hold a default, as a function."""
  if not plugins.is_reference(name):
    return False
  try:
    jsonable(name, default)
  except errors.ConfigError:
    return default is not inspect.Parameter.empty
  return False
