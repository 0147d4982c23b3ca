"""Reads flags on the keys of a config: --config.KEY=VALUE.

Such a flag does what the same line in the file would do: for all runs, or as
--config.runs.RUN.KEY=VALUE for one, whether the file changes the key there or
not. `resolve.experiment` carries the changes out.
"""

import ast
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import ml_collections

from bn_jax import checks, errors
from bn_jax.config import changeable
from bn_jax.config import parser as parser_lib
from bn_jax.config.run_config import RUN_KEYS

FLAG = re.compile(r'--?(no)?config\.([^=]*)(?:=(.*))?', re.DOTALL)
_WORDS = {'true': True, 'false': False, 'none': None}
_SWITCHES = {**_WORDS, 't': True, 'f': False, '1': True, '0': False}
_ALLOWED = {int: 'whole numbers', float: 'numbers', bool: 'True, False'}
_FREE = ('rates',)  # sections whose keys are the user's
_LISTED = 5  # keys of a section that a message names: it stays one line


class _Key(NamedTuple):
  """A key that a flag changes, and the type of its value in the config.

  The type is None for a keyword that the config lacks, but the constructor may
  have.
  """

  path: str
  type: type | None


def read(
  words: Sequence[str], config: ml_collections.ConfigDict
) -> dict[str, Any]:
  """Returns path -> value of the keys that flags change.

  A value is read by the type of its key in the config. That of a keyword which
  the config lacks is read as Python reads it, and else is text.

  Args:
    words: flags, each with its value behind '=' or as the next word.

  Raises:
    ConfigError: an unknown key, a section, a value of another type, a word that
      belongs to no flag; a value for what another flag changes a part of.
  """
  matches = [match for match in map(FLAG.fullmatch, words) if match]
  new_measures = set(_measures(match[2] for match in matches))
  changes, unknown = {}, {}
  left = list(words)
  while left:
    word = left.pop(0)
    match = FLAG.fullmatch(word)
    if match is None:
      raise errors.ConfigError(
        f'{word!r} belongs to no flag; a value is given with "=", as in '
        '--config.optimizer.nesterov=False'
      )
    negation, path, text = match.groups()
    key = _key(path, config, new_measures)
    is_switch = isinstance(key, _Key) and key.type is bool
    if text is None and not negation and not is_switch:
      if left and not parser_lib.is_flag(left[0]):
        text = left.pop(0)
      elif isinstance(key, _Key):
        raise errors.ConfigError(
          f'--config.{path}: no value; give --config.{path}=VALUE'
        )
    if isinstance(key, str):
      unknown[path] = f'--config.{path}: {key}'
      continue
    if _kind(path) == 'measure' and text in ('None', 'none'):
      changes[path] = None
      continue
    changes[key.path] = _value(key, text, negation)
  if unknown:
    raise errors.ConfigError(parser_lib.listed(list(unknown.values())))
  _check_apart(changes)
  return changes


def _check_apart(changes: Mapping[str, Any]) -> None:
  """Raises ConfigError where the order of two flags would count.

  Others change different keys; and of two on one key the last one counts.
  """
  for path in changes:
    keys = path.split('.')
    for above in ('.'.join(keys[:k]) for k in range(1, len(keys))):
      if above in changes:
        raise errors.ConfigError(
          f'--config.{above}: {checks.shown(changes[above])}, and {path}: '
          f'{checks.shown(changes[path])}; give one of them'
        )


def paths(config: ml_collections.ConfigDict, above: str = '') -> Iterator[str]:
  """Yields 'steps', 'norm.name', ...: all keys that are no section."""
  for key, value in config.items():
    if isinstance(value, ml_collections.ConfigDict):
      yield from paths(value, f'{above}{key}.')
    else:
      yield above + key


def _measures(flag_paths: Iterable[str]) -> Iterator[str]:
  """Yields the paths of measures to which flags give a name."""
  for path in flag_paths:
    above, _, last = path.rpartition('.')
    if _kind(path) == 'measure':
      yield path
    elif last == 'name' and _kind(above) == 'measure':
      yield above


def _kind(path: str) -> str:
  """Returns what a path stands for, see `changeable.kind_below`."""
  kind = 'config'
  for key in path.split('.'):
    kind = changeable.kind_below(kind, key)
  return kind


def _key(
  path: str, config: ml_collections.ConfigDict, new_measures: set[str]
) -> _Key | str:
  """Returns the key of a path, or a message if a flag cannot change it."""
  below, trees = path.split('.'), [config]
  if below[0] == 'runs':
    runs, run, below = config.get('runs'), below[1:2], below[2:]
    if not run or not isinstance(runs, ml_collections.ConfigDict):
      return _no_key(path, config)
    if run[0] not in runs:
      return errors.unknown('run', run[0], runs)
    if not below:
      return _no_key(path, config)
    trees = [runs[run[0]], config] if below[0] in RUN_KEYS else []
  if below[0] in _FREE:
    return _Key(path, None)
  *above, last = below
  holders = [_at(tree, above) for tree in trees]
  for holder in holders:
    if isinstance(holder, ml_collections.ConfigDict) and last in holder:
      if _kind(path) in changeable.NAMED:
        return _Key(f'{path}.name', str)
      if isinstance(holder[last], ml_collections.ConfigDict):
        return _no_key(path, config)
      return _Key(path, tuple if last == 'seeds' else holder.get_type(last))
  if _kind(path) == 'measure' and trees:
    return _Key(f'{path}.name', str)
  path_above = path.rpartition('.')[0]
  is_there = path_above in new_measures or any(
    isinstance(holder, ml_collections.ConfigDict | str) for holder in holders
  )
  if _kind(path_above) in changeable.NAMED and is_there:
    return _Key(path, None)
  return _no_key(path, config)


def _at(tree: Any, path: Sequence[str]) -> Any:
  for key in path:
    if not isinstance(tree, ml_collections.ConfigDict) or key not in tree:
      return None
    tree = tree[key]
  return tree


def _no_key(path: str, config: ml_collections.ConfigDict) -> str:
  """Returns the message for a path of no key, or of a whole section."""
  keys = list(paths(config))
  if path.startswith('runs.'):
    path = path.split('.', 2)[2] if path.count('.') > 1 else ''
    keys = [key for key in keys if key.split('.')[0] in RUN_KEYS]
  below = [key for key in keys if not path or key.startswith(f'{path}.')]
  if not below:
    return parser_lib.unknown_key(path, keys)
  # Its name first: most likely it is meant.
  below.sort(key=lambda key: not key.endswith('.name'))
  more = f' and {len(below) - _LISTED} more' if len(below) > _LISTED else ''
  return f'a section; change one of its keys {", ".join(below[:_LISTED])}{more}'


def _value(key: _Key, text: str | None, negation: str | None) -> Any:
  """Returns the value of a flag.

  Args:
    text: None for a switch, --config.KEY or --noconfig.KEY.
  """
  if negation and (text is not None or key.type not in (bool, None)):
    raise errors.ConfigError(
      f'--noconfig.{key.path}: allowed for True and False alone, without a '
      f'value; give --config.{key.path}=VALUE'
    )
  if text is None:
    return not negation
  if key.type not in (int, float, bool, str, tuple, list):
    return _literal(text)
  if text == 'None' or (text == 'none' and key.type is not str):
    return None
  try:
    return _READERS[key.type](text)
  except (ValueError, KeyError) as error:  # a number of thousands of digits too
    raise errors.ConfigError(
      f'--config.{key.path}: {checks.shown(text)}; allowed: '
      f'{_ALLOWED[key.type]}'
    ) from error


def _sequence(text: str) -> tuple[Any, ...]:
  value = _literal(text)
  return tuple(value) if isinstance(value, list | tuple) else (value,)


_READERS = {
  int: int,
  float: float,
  bool: lambda text: _SWITCHES[text.lower()],
  str: str,
  tuple: _sequence,
  list: _sequence,
}


def _literal(text: str) -> Any:
  """Returns a number, True, None, a list, ... as Python reads it; else text.

  Words with commas between them are a list, too.
  """
  if text.lower() in _WORDS:
    return _WORDS[text.lower()]
  try:
    return ast.literal_eval(text)
  except (ValueError, SyntaxError, MemoryError, RecursionError):
    pass
  parts = text.split(',')
  if len(parts) == 1 or re.search(r'[(\[{]', text):
    return text
  return tuple(_literal(part.strip()) for part in parts)
