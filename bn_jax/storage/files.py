"""Writes whole files, reads JSON of a known shape, makes folders.

Every file of a working directory is written here. A file gets its name when it
is complete, so a killed process leaves either the old file or the new one.
"""

import contextlib
import json
import os
import pathlib
import re
import socket
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

from bn_jax import errors

Content = bytes | str | Callable[[BinaryIO], Any]


def write(path: pathlib.Path, content: Content, *, sync: bool = True) -> None:
  """Writes a file whole: under another name first, then renamed.

  Args:
    path: of the file, which is replaced if it exists.
    content: bytes, a text, or a function that writes to an open file.
    sync: whether to wait for the disk before renaming. Without it, the file
      survives a crash of the process, but not a power failure.

  Raises:
    StorageError: it cannot be written; the old file is unchanged.
  """
  # Named by host and process, as several may write the same file at once.
  temporary = path.with_name(f'{path.name}.{_host()}.{os.getpid()}.tmp')
  try:
    with temporary.open('wb') as file:
      if callable(content):
        content(file)
      else:
        file.write(content.encode() if isinstance(content, str) else content)
      file.flush()
      if sync:
        os.fsync(file.fileno())
    os.replace(temporary, path)
  except BaseException as error:
    with contextlib.suppress(OSError):  # the file system may be read-only
      temporary.unlink()
    if not isinstance(error, OSError):
      raise
    raise errors.StorageError(
      f'cannot write {path}: {errors.reason(error)}'
    ) from error


def remove_torn(folder: pathlib.Path) -> None:
  """Removes the temporary files of writers that were killed on this host."""
  for path in folder.glob(f'*.{_host()}.*.tmp'):
    writer = path.suffixes[-2][1:]
    if writer.isdecimal() and not _is_alive(int(writer)):
      with contextlib.suppress(OSError):
        path.unlink()


def make_folder(
  folder: pathlib.Path, hint: str = '', *, parents: bool = True
) -> None:
  """Makes a folder, unless it exists.

  Args:
    hint: what to do if it cannot be made, for the message.
    parents: whether the folders above are made too. False if they must exist:
      where somebody has removed them, they are not made again.

  Raises:
    StorageError: it cannot be made.
  """
  try:
    folder.mkdir(parents=parents, exist_ok=True)
  except OSError as error:
    advice = f'; {hint}' if hint else ''
    raise errors.StorageError(
      f'cannot make {folder}: {errors.reason(error)}{advice}'
    ) from error


def write_json(path: pathlib.Path, value: Mapping[str, Any]) -> None:
  """Writes a JSON file whole."""
  write(path, json.dumps(value, indent=2, allow_nan=False) + '\n')


def read_json(path: pathlib.Path, shape: Any = dict) -> dict[str, Any] | None:
  """Returns the content of a JSON file, or None where there is no such file.

  Args:
    path: of the file, which may be absent.
    shape: what it must hold: a type, or field -> shape, where the key `...`
      stands for all fields. `(None, shape)` allows an absent field. Further
      fields are allowed.

  Raises:
    StorageError: it is no JSON, or not of this shape.
  """
  try:
    content = json.loads(path.read_bytes().decode())
  except FileNotFoundError:
    return None
  except OSError as error:
    raise errors.StorageError(
      f'cannot read {path}: {error.strerror}'
    ) from error
  except ValueError as error:
    raise errors.StorageError(f'{path} is not JSON: {error}') from error
  check_shape(path, content, shape)
  return content


def check_shape(path: pathlib.Path, content: Any, shape: Any) -> None:
  """Raises StorageError unless a file's content has the shape; `read_json`."""
  wrong = _misfit('its content', content, shape)
  if wrong is not None:
    raise errors.StorageError(
      f'{path}: {wrong}; the file was changed after it was written: restore '
      'it, or give another directory'
    )


def _misfit(where: str, value: Any, shape: Any) -> str | None:
  """Returns the first misfit of a value and a shape, in words, or None."""
  if isinstance(shape, tuple):
    return None if value is None else _misfit(where, value, shape[1])
  kind = dict if isinstance(shape, dict) else shape
  if not isinstance(value, kind):
    shown, allowed = repr(value)[:40], getattr(kind, '__name__', kind)
    return f'{where} is {shown}, allowed: {allowed}'
  if kind is shape:
    return None
  for key, inner in shape.items():
    for name in value if key is ... else (key,):
      wrong = _misfit(repr(name), value.get(name), inner)
      if wrong is not None:
        return wrong
  return None


def _host() -> str:
  return re.sub(r'[^A-Za-z0-9-]', '-', socket.gethostname())


def _is_alive(process: int) -> bool:
  try:
    os.kill(process, 0)
  except ProcessLookupError:
    return False
  except OSError:  # another user's
    pass
  return True
