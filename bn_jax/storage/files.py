"""Files that are written whole, JSON of a known shape, and folders.

Every writer of a working directory goes through here: a file has its name only
when all of it is there, so whoever is killed leaves what was before, or what
was to be.
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
    path: of the file; what is there is replaced.
    content: bytes, a text, or a function that writes them into a file.
    sync: whether the disk must have it before the name changes; without, a
      file survives the process, not a power failure.

  Raises:
    StorageError: it cannot be written; the old file is as it was.
  """
  # Several processes may write it at once, on several hosts.
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
  """Removes what writers that were killed on this host left in a folder."""
  for path in folder.glob(f'*.{_host()}.*.tmp'):
    writer = path.suffixes[-2][1:]
    if writer.isdecimal() and not _is_alive(int(writer)):
      with contextlib.suppress(OSError):
        path.unlink()


def make_folder(
  folder: pathlib.Path, hint: str = '', *, parents: bool = True
) -> None:
  """Makes a folder, where it is not there yet.

  Args:
    folder: its path.
    hint: what to do where it cannot be made, for the message.
    parents: False where the folder above is there, or was removed meanwhile,
      which is not to be undone.

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
    path: of the file.
    shape: what it holds at least: a type, or the shapes of its fields by their
      names; `...` is the name of all of them. `(None, shape)` may be absent.

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
  """Raises StorageError unless the content of a file is of a shape."""
  wrong = _misfit('its content', content, shape)
  if wrong is not None:
    raise errors.StorageError(
      f'{path}: {wrong}; the file was changed after it was written: restore '
      'it, or give another directory'
    )


def _misfit(where: str, value: Any, shape: Any) -> str | None:
  """Returns the first place at which a value is not of a shape, in words."""
  if isinstance(shape, tuple):
    return None if value is None else _misfit(where, value, shape[1])
  kind = dict if isinstance(shape, dict) else shape
  if not isinstance(value, kind):
    given, allowed = repr(value)[:40], getattr(kind, '__name__', kind)
    return f'{where} is {given}, allowed: {allowed}'
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
