"""Keeps the finished parts of a long computation on disk.

Each part has a name and a file, written whole: a killed process loses only the
part in progress. Writing does not wait for the disk, as the operating system
keeps the file when the process dies.
"""

import contextlib
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import numpy as np

from bn_jax import errors
from bn_jax.storage import array_files, files

_OWNER = '|owner'  # the key of what a part is, and of what


class Journal:
  """A `types.Journal` in a folder that holds nothing else."""

  def __init__(self, directory: pathlib.Path, of: str = ''):
    """Takes the folder, and what the parts are of, which each of them tells."""
    self._directory, self._of = directory, of

  def kept(self, name: str) -> dict[str, np.ndarray] | None:
    """Returns the arrays kept under a name, or None.

    Raises:
      StorageError: the file is damaged.
    """
    path = self._path(name)
    if not path.exists():
      return None
    try:
      arrays = array_files.load(path)
      owner = str(arrays.pop(_OWNER, self._owner(name)))
      if owner != self._owner(name):
        raise errors.StorageError(f'{path} is {owner}')
      return dict(_typed(key, value) for key, value in arrays.items())
    except (errors.StorageError, TypeError) as error:
      raise errors.StorageError(
        f'{errors.first_line(error)}; remove {self._directory} to begin again'
      ) from error

  def keep(self, name: str, arrays: Mapping[str, Any]) -> None:
    """Keeps arrays under a name, replacing what it held.

    Raises:
      StorageError: the folder or the file cannot be written.
    """
    storable = dict(_untyped(key, value) for key, value in arrays.items())
    storable[_OWNER] = np.array(self._owner(name))
    files.make_folder(self._directory)
    files.remove_torn(self._directory)
    files.write(
      self._path(name), lambda file: np.savez(file, **storable), sync=False
    )

  def drop(self, name: str) -> None:
    """Removes the arrays kept under a name, if there are any."""
    self._path(name).unlink(missing_ok=True)

  def clear(self) -> None:
    """Removes the folder, and the folder above if that is then empty."""
    shutil.rmtree(self._directory, ignore_errors=True)
    with contextlib.suppress(OSError):
      self._directory.parent.rmdir()

  def _owner(self, name: str) -> str:
    return f'{name} of {self._of}'

  def _path(self, name: str) -> pathlib.Path:
    # Names of layers may have slashes, file names may not.
    return self._directory / f'{name.replace("/", "%2F")}.npz'


def _untyped(key: str, value: Any) -> tuple[str, np.ndarray]:
  """Returns key and array as a .npz file can hold them: not as bfloat16."""
  array = np.asarray(value)
  if array.dtype.kind != 'V':
    return key, array
  bits = np.dtype(f'u{array.dtype.itemsize}')
  return f'{key}|{array.dtype.name}', array.view(bits)


def _typed(key: str, value: np.ndarray) -> tuple[str, np.ndarray]:
  """Inverts `_untyped`."""
  name, _, dtype = key.partition('|')
  return name, value.view(np.dtype(dtype)) if dtype else value
