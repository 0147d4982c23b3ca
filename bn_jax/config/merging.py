"""Merges what the file, a run and the command line say; the last one counts."""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from bn_jax import errors
from bn_jax.config import changeable, epochs, parser, run_config, schema

Config = dict[str, Any]

ABSENT = object()


def nested(changes: Mapping[str, Any]) -> Config:
  """Returns the tree of path -> value: {'norm.name': 'l1'} as {'norm': ...}."""
  tree = {}
  for path, value in changes.items():
    *above, last = path.split('.')
    section = tree
    for key in above:
      if not isinstance(section.get(key), dict):
        section[key] = {}
      section = section[key]
    section[last] = value
  return tree


def merged(old: Any, new: Any, kind: str) -> Any:
  """Returns the old section, changed by the new one at all depths.

  A name drops the keywords that belong to the one before it. A number of steps
  takes the place of one of epochs, and the other way round.

  Args:
    kind: of both, see `changeable.kind_below`; '' for what is no section.

  Raises:
    ConfigError: the new section has the same time in steps and in epochs.
  """
  is_named = kind in changeable.NAMED
  if is_named and isinstance(new, str):
    new = {'name': new}
  if not isinstance(new, dict):
    return new
  old = old if isinstance(old, dict) else {}
  if is_named and 'name' in new:
    old = schema.renamed(schema.of(kind), old, new['name'])
  replaced = epochs.replaced(kind, new)
  result = {
    key: None if key in replaced else copy.deepcopy(value)
    for key, value in old.items()
  }
  for key, value in new.items():
    below = changeable.kind_below(kind, key)
    result[key] = merged(result.get(key), value, below)
  return result


def check_taken_away(where: str, config: Config, override: Config) -> None:
  """Refuses to take measures away that there are not.

  Args:
    where: the path of the override, for messages.
    config: of the file, for all runs.
    override: what the file changes in a run.

  Raises:
    ConfigError: names the measures.
  """
  if not all(isinstance(x.get('measures'), dict) for x in (config, override)):
    return
  for name, entry in override['measures'].items():
    if entry is None and name not in config['measures']:
      message = errors.unknown('measure', name, config['measures'])
      raise errors.ConfigError(f'{where}.measures: {message}')


def with_own(config: Config, override: Config, flags: Config) -> Config:
  """Returns what a run is by the file, and by the flags on this run alone.

  Args:
    config: of the file, for all runs.
    override: what the file changes in the run.
    flags: on the run, as a tree.
  """
  config = merged(config, override, 'run')
  return merged(config, _by_section(flags, config, _typed), 'run')


def fitting(flags: Config, config: Config) -> Config:
  """Returns the flags for all runs on what a run has.

  The others are for other runs.

  Args:
    flags: as a tree.
    config: of the run.
  """

  def own_keys(kind, keys, name):
    section = schema.of(kind)
    own = {k: v for k, v in keys.items() if schema.may_have(section, name, k)}
    return _typed(kind, own, name)

  flags = _by_section(flags, config, own_keys)
  if 'measures' in flags:
    old = config['measures'] if isinstance(config['measures'], dict) else {}
    flags['measures'] = {
      name: entry
      for name, entry in flags['measures'].items()
      if old.get(name) is not None or 'name' in (entry or ())
    }
  return flags


def _by_section(
  flags: Config,
  config: Config,
  change: Callable[[str, Config, Any], Config],
) -> Config:
  """Returns flags with each section that has a name changed.

  Args:
    config: that the flags change.
    change: (kind, flags of the section, name of its constructor) -> flags.
  """

  def changed(kind, section, old):
    if not isinstance(section, dict):
      return section
    old_name = old.get('name') if isinstance(old, dict) else None
    return change(kind, section, section.get('name', old_name))

  result = {}
  for key, value in flags.items():
    old = config.get(key)
    if key in schema.SECTIONS:
      value = changed(key, value, old)
    elif key == 'measures':
      entries = old if isinstance(old, dict) else {}
      value = {
        name: changed('measure', entry, entries.get(name))
        for name, entry in value.items()
      }
    result[key] = value
  return result


def _typed(kind: str, flags: Config, name: Any) -> Config:
  """Returns flags with a list for a single value of what takes lists."""
  lists = schema.lists(schema.of(kind), name)
  return {
    key: value
    if key not in lists or isinstance(value, list | None)
    else [value]
    for key, value in flags.items()
  }


def check_used(
  changes: Mapping[str, Any],
  runs: Mapping[str, Config],
  fits: Mapping[str, Config],
) -> None:
  """Refuses flags for all runs that fit no run.

  Args:
    changes: path -> value of these flags.
    runs: name -> what the run is by all levels.
    fits: name -> those of the flags that fit the run.

  Raises:
    ConfigError: names the keys, and what they may mean.
  """
  messages = []
  for path in changes:
    keys = path.split('.')
    if any(at(flags, keys) is not ABSENT for flags in fits.values()):
      continue
    known = dict.fromkeys(key for run in runs.values() for key in _keys(run))
    if _is_of_another(keys):
      sections = ', '.join(
        f'{name}: {config[keys[0]]["name"]}' for name, config in runs.items()
      )
      text = f'no run has it; the runs have {sections}'
    else:
      text = parser.unknown_key(path, known)
    messages.append(f'--config.{path}: {text}')
  if messages:
    raise errors.ConfigError(parser.listed(messages))


def check_agreed(path: str, runs: Mapping[str, Config]) -> None:
  """Refuses a flag for all runs on a key in which the runs differ.

  Args:
    runs: name -> what changes in the run alone, by the file and by flags.

  Raises:
    ConfigError: names the runs.
  """
  *above, last = path.split('.')
  kind = 'run'
  for key in above:
    kind = changeable.kind_below(kind, key)
  for key in {last: None, run_config.in_other_unit(kind, last): None}:
    values = {
      name: value
      for name, own in runs.items()
      if key and (value := at(own, [*above, key])) is not ABSENT
    }
    distinct = {str(value) for value in values.values()}
    if values and (len(values) < len(runs) or len(distinct) > 1):
      by_run = ', '.join(f'{name}: {value}' for name, value in values.items())
      differing = '.'.join([*above, key])
      it = 'it' if key == last else differing
      raise errors.ConfigError(
        f'--config.{path}: the runs differ in {it} ({by_run}); change one of '
        f'them with --config.runs.{next(iter(values))}.{path}=...'
      )


def at(tree: Any, keys: Iterable[str]) -> Any:
  """Returns what is at a path of a tree, or `ABSENT`."""
  for key in keys:
    if not isinstance(tree, dict) or key not in tree:
      return ABSENT
    tree = tree[key]
  return tree


def _keys(config: Config) -> Iterator[str]:
  """Yields all keys that a run may have: 'steps', 'norm.momentum', ..."""
  sections = {key: (key, config[key]) for key in schema.SECTIONS}
  measures = config['measures'] if isinstance(config['measures'], dict) else {}
  for name, entry in measures.items():
    sections[f'measures.{name}'] = ('measure', entry)
  for path, (kind, section) in sections.items():
    yield path
    name = section.get('name') if isinstance(section, dict) else None
    for key in schema.allowed(schema.of(kind), name) or ():
      yield f'{path}.{key}'
  yield from (key for key in config if key not in (*sections, 'measures'))


def _is_of_another(keys: list[str]) -> bool:
  """Returns whether a path is a keyword, but not of these constructors."""
  if len(keys) != 2 or keys[0] not in schema.SECTIONS:
    return False
  section = schema.of(keys[0])
  return any(
    keys[1] in schema.allowed(section, name) for name in section.registry
  )
