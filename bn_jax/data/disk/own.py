"""Opens a user's own data by the name that a config gives them.

folder:PATH       a folder of images, or a CSV of their names (`listing`)
PATH.npz          arrays (`arrays`); arrays:PATH too
X.npy,Y.npy       the same in files of their own; X_TEST.npy,Y_TEST.npy after
                  them are a test split
"""

import os
import pathlib
import re

from bn_jax import checks, errors
from bn_jax.data.disk import arrays, folders, held_out, labels, sets, store

_FOLDER, _ARRAYS = 'folder:', 'arrays:'
_FORMS = (
  'folder:PATH, PATH.npz, X.npy,Y.npy or X.npy,Y.npy,X_TEST.npy,Y_TEST.npy'
)


def is_own(name: str) -> bool:
  """Returns whether a name is that of a folder or of files of arrays."""
  return bool(
    name.startswith((_FOLDER, _ARRAYS))
    or re.search(r'\.np[yz]$', name, re.IGNORECASE)
  )


def absolute(name: str) -> str:
  """Returns the name with whole paths, for commands in another folder.

  Raises:
    ConfigError: a form that is not known, or a path that cannot be one.
  """
  prefix, paths = _paths(name)
  return prefix + ','.join(map(str, paths))


def opened(name: str) -> folders.Folder | arrays.Arrays:
  """Opens the set.

  Raises:
    ConfigError: a form that is not known.
    DataError: it is absent, or cannot be used.
  """
  prefix, paths = _paths(name)
  if prefix == _FOLDER:
    return folders.opened(paths[0])
  return arrays.of_files(paths)


def rules(dataset: sets.Set) -> tuple[tuple[str, str], ...]:
  """Returns what is, for `data info`: (what it is, what becomes of it)."""
  base = getattr(dataset, 'base', dataset)
  further = (*labels.RULES, *held_out.RULES)
  if isinstance(base, folders.Folder):
    return (*folders.RULES, *further)
  if isinstance(base, store.Prepared):
    return held_out.RULES if base is not dataset else ()
  return (*arrays.RULES, *further) if isinstance(base, arrays.Arrays) else ()


def _paths(name: str) -> tuple[str, list[pathlib.Path]]:
  """Returns (the prefix of a name, the whole paths in it)."""
  prefix = next((p for p in (_FOLDER, _ARRAYS) if name.startswith(p)), '')
  words = name.removeprefix(prefix)
  words = [words] if prefix == _FOLDER else words.split(',')
  suffixes = {os.path.splitext(word)[1].lower() for word in words}
  is_whole = len(words) == 1 and (prefix == _FOLDER or suffixes == {'.npz'})
  if not all(words) or not (
    is_whole or (len(words) in (2, 4) and suffixes == {'.npy'})
  ):
    raise errors.ConfigError(f'data: {name!r}; allowed: {_FORMS}')
  return prefix, [_path(name, word) for word in words]


def _path(name: str, word: str) -> pathlib.Path:
  try:
    checks.path('data', word)
    path = pathlib.Path(word).expanduser()
  except (checks.Refused, RuntimeError) as error:
    raise errors.ConfigError(f'data: {name!r}: {error}') from error
  if '\0' in word:
    raise errors.ConfigError(f'data: {name!r} has a character that no path has')
  return pathlib.Path(os.path.abspath(path))
