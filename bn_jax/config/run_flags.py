"""Reads flags on the keys of one run: --config.runs.RUN.KEY=VALUE.

Such a flag does what the same line in the run's override in the file would do,
also for a key that the file does not change in that run.
"""

import ast
import re
from collections.abc import Sequence
from typing import Any

import ml_collections
from ml_collections import config_dict

from bn_jax.config.run_config import KEYS

_FLAG = re.compile(
  r'--?(?:no)?config\.runs\.([^.=]+)\.([^=]+)(?:=(.*))?', re.DOTALL
)
_WORDS = {'true': True, 'false': False, 'none': None}
_ABSENT = object()


def added(
  words: Sequence[str], config: ml_collections.ConfigDict
) -> tuple[list[str], dict[str, Any]]:
  """Adds to the runs of a config the keys that flags name, and the file not.

  A key of the whole config gets its value there, whose type absl then reads. A
  keyword that only the run's constructor has is read as Python reads it; the
  constructor checks it.

  Args:
    words: of the command line; those that name no known key stay untouched.
    config: is changed.

  Returns:
    The words that are left for absl, and path -> value of the others.
  """
  rest, values = [], {}
  for word in words:
    match = _FLAG.fullmatch(word)
    run, path, text = match.groups() if match else ('', '', None)
    *above, key = path.split('.')
    value, is_keyword = _beside(config, run, above, key)
    if value is not _ABSENT:
      rest.append(word)
    elif is_keyword and text is not None:
      value = values[f'runs.{run}.{path}'] = _read(text)
    else:
      rest.append(word)
      continue
    with config.unlocked(), config.ignore_type():
      _put(config.runs, [run, *above], key, value)
  return rest, values


def _beside(
  config: ml_collections.ConfigDict, run: str, above: Sequence[str], key: str
) -> tuple[Any, bool]:
  """Returns what a run would get that lacks a key, and whether it may have it.

  Args:
    above: the sections of the key, from the run on.

  Returns:
    The value, typed, of the key in the config; _ABSENT if it has none, or the
    run has the key already. And whether the section names a constructor, which
    may have the key.
  """
  runs = config.get('runs')
  if not isinstance(runs, ml_collections.ConfigDict) or run not in runs:
    return _ABSENT, False
  if [*above, key][0] not in KEYS or not _is_free(runs[run], [*above, key]):
    return _ABSENT, False
  sections = [_at(tree, above) for tree in (config, runs[run])]
  sections = [one for one in sections if isinstance(one, type(config))]
  for section in sections:
    if key not in section:
      continue
    if isinstance(section[key], type(config)):
      return _ABSENT, False
    if section[key] is None:
      return config_dict.placeholder(section.get_type(key)), False
    return section[key], False
  return _ABSENT, any('name' in section for section in sections)


def _is_free(tree: Any, path: Sequence[str]) -> bool:
  """Returns whether a run's override has nothing at a path or across it."""
  for key in path:
    if tree is None:
      return True
    if not isinstance(tree, ml_collections.ConfigDict):
      return False
    if key not in tree:
      return True
    tree = tree[key]
  return False


def _at(tree: Any, path: Sequence[str]) -> Any:
  for key in path:
    if not isinstance(tree, ml_collections.ConfigDict) or key not in tree:
      return None
    tree = tree[key]
  return tree


def _put(
  section: ml_collections.ConfigDict, above: Sequence[str], key: str, value: Any
) -> None:
  for name in above:
    if section.get(name) is None:
      section[name] = ml_collections.ConfigDict()
    section = section[name]
  section[key] = value


def _read(text: str) -> Any:
  """Returns a number, True, None, a list, ... as Python reads it; else text."""
  if text.lower() in _WORDS:
    return _WORDS[text.lower()]
  try:
    return ast.literal_eval(text)
  except (ValueError, SyntaxError, MemoryError, RecursionError):
    return text
