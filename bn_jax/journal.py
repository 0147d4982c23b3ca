"""What a long computation has found so far, on disk.

A file for each name, written whole: whoever is killed has lost what was being
computed, and nothing else. Nothing waits for the disk: what is written is the
system's, and survives the process.
"""

import os
import pathlib
import shutil
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from bn_jax import errors


class Journal:
  """A `types.Journal` in a folder of its own."""

  def __init__(self, directory: pathlib.Path):
    self._directory = directory

  def kept(self, name: str) -> dict[str, np.ndarray] | None:
    """What was kept under a name, None for nothing.

    Raises:
      StorageError: it is damaged.
    """
    path = self._path(name)
    if not path.exists():
      return None
    try:
      with path.open('rb') as file:
        return dict(np.load(file, allow_pickle=False))
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
      raise errors.StorageError(
        f'{path} is damaged ({error}); remove {self._directory} to begin again'
      ) from error

  def keep(self, name: str, arrays: Mapping[str, Any]) -> None:
    """Keeps arrays in the place of what was there.

    Raises:
      StorageError: they cannot be written.
    """
    path = self._path(name)
    temporary = path.with_suffix('.tmp')
    try:
      self._directory.mkdir(parents=True, exist_ok=True)
      with temporary.open('wb') as file:
        np.savez(file, **arrays)
      os.replace(temporary, path)
    except OSError as error:
      temporary.unlink(missing_ok=True)
      raise errors.StorageError(
        f'cannot write {path}: {error.strerror}'
      ) from error

  def drop(self, name: str) -> None:
    """Forgets a name."""
    self._path(name).unlink(missing_ok=True)

  def clear(self) -> None:
    """Forgets everything."""
    shutil.rmtree(self._directory, ignore_errors=True)

  def _path(self, name: str) -> pathlib.Path:
    # Names of layers may have slashes; a file's may not.
    return self._directory / f'{name.replace("/", "%2F")}.npz'
