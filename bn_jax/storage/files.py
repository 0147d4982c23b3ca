"""Writes whole files, reads JSON of a known shape, makes folders.

A file gets its name when it is completely written, so a killed process leaves
either the old file or the new one.
"""

import contextlib
import hashlib
import json
import math
import os
import pathlib
import re
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO

from bn_jax import errors

# What every library takes in a path: '[', '{' and '\\' may be read as patterns,
# and C++ takes only what the encoding of the locale has.
_PLAIN = re.compile(r'[A-Za-z0-9 ._/+=,@:~%#-]*')

# Size in bytes and SHA-256 of a file, or of its beginning.
Digest = tuple[int, str]
Content = bytes | str | Callable[[BinaryIO], Any]
# Of JSON with a digest: a file that has this key must have the other one too.
_FORMAT, _DIGEST = 'format', 'digest'
_ENDS = {_FORMAT, _DIGEST}


def write(path: pathlib.Path, content: Content, *, sync: bool = True) -> None:
  """Writes a file whole: writes under another name first, then renames.

  Args:
    path: of the file, which is replaced if it exists.
    content: bytes, a text, or a function that writes them to an open file.
    sync: whether to wait for the disk before renaming. Without it, the file
      survives a crash of the process, but not a power failure.

  Raises:
    StorageError: the file cannot be written; the old one is unchanged.
  """
  # Its own name for each process, as several may write one file at once.
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


def read(path: pathlib.Path) -> bytes:
  """Reads a file whole.

  Raises:
    StorageError: the file cannot be read.
  """
  try:
    return path.read_bytes()
  except OSError as error:
    raise errors.StorageError(
      f'cannot read {path}: {error.strerror}'
    ) from error


def digest_of(content: bytes) -> Digest:
  """Returns the digest of a file's content."""
  return len(content), hashlib.sha256(content).hexdigest()


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
    hint: what a user can do if that fails, for the message.
    parents: whether the folders above are made too. False is for folders in one
      that somebody may have removed, which then stays removed.

  Raises:
    StorageError: the folder cannot be made.
  """
  try:
    folder.mkdir(parents=parents, exist_ok=True)
  except OSError as error:
    advice = f'; {hint}' if hint else ''
    raise errors.StorageError(
      f'cannot make {folder}: {errors.reason(error)}{advice}'
    ) from error


@contextlib.contextmanager
def plain(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields another path of the same file that every library takes.

  It is `path` itself, absolute, or leads through a link to its folder.

  Args:
    path: in a folder that exists; its last name is plain.

  Raises:
    StorageError: the folder of temporary files has no plain path either.
  """
  path = path.absolute()
  if _PLAIN.fullmatch(str(path)):
    yield path
    return
  with tempfile.TemporaryDirectory(prefix='bn_jax_') as folder:
    if not _PLAIN.fullmatch(folder):
      raise errors.StorageError(
        f'neither {path.parent} nor TMPDIR, {tempfile.gettempdir()}, is a path '
        'that the storage library takes; give one of letters and digits of '
        'ASCII and "._-", a working directory or TMPDIR'
      )
    link = pathlib.Path(folder) / 'link'
    link.symlink_to(path.parent, target_is_directory=True)
    yield link / path.name


def write_json(
  path: pathlib.Path, value: Mapping[str, Any], *, digest: bool = False
) -> None:
  """Writes a JSON file whole.

  Args:
    digest: whether the file ends with a digest of its content, so that
      `read_json` refuses it if it was changed.
  """
  if digest:
    text = with_digest({_FORMAT: 1, **value}, indent=2)
  else:
    text = json.dumps(value, indent=2, allow_nan=False)
  write(path, text + '\n')


def storable(number: float) -> float | str:
  """Returns a number as JSON can hold it; "NaN", "Infinity" as texts.

  `float` makes numbers of these again.
  """
  if math.isnan(number):
    return 'NaN'
  if math.isinf(number):
    return 'Infinity' if number > 0 else '-Infinity'
  return number


def with_digest(value: Mapping[str, Any], indent: int) -> str:
  """Returns JSON that ends with "digest", SHA-256 of its text without it."""
  as_text = lambda x: json.dumps(x, indent=indent, allow_nan=False)
  digest = hashlib.sha256(as_text(value).encode()).hexdigest()
  return as_text({**value, _DIGEST: digest})


def read_json(path: pathlib.Path, shape: Any = dict) -> dict[str, Any] | None:
  """Returns the content of a JSON file, or None where there is no such file.

  Args:
    shape: what the content must be: a type, or field -> shape, where the key
      `...` stands for all fields. `(None, shape)` allows an absent field.
      Further fields are allowed.

  Raises:
    StorageError: the file cannot be read, is no JSON, is not what was written
      with a digest, or has another shape.
  """
  try:
    text = path.read_bytes().decode()
    content = json.loads(text)
    has_digest = isinstance(content, dict) and bool(_ENDS & content.keys())
    body = (
      {k: content[k] for k in content if k != _DIGEST} if has_digest else {}
    )
    is_intact = not has_digest or text == with_digest(body, indent=2) + '\n'
  except (FileNotFoundError, NotADirectoryError):
    return None
  except OSError as error:
    raise errors.StorageError(
      f'cannot read {path}: {error.strerror}'
    ) from error
  except (ValueError, RecursionError) as error:
    raise errors.StorageError(
      f'{path} is not JSON: {errors.first_line(error)}; it was changed after '
      'it was written: restore it'
    ) from error
  if not is_intact:
    raise errors.StorageError(
      f'{path} is not as it was written: restore it from a copy'
    )
  if has_digest:
    content = {k: v for k, v in body.items() if k != _FORMAT}
  check_shape(path, content, shape)
  return content


def check_shape(path: pathlib.Path, content: Any, shape: Any) -> None:
  """Raises StorageError unless content has a shape; see `read_json`."""
  misfit = _misfit('its content', content, shape)
  if misfit is not None:
    raise errors.StorageError(
      f'{path}: {misfit}; the file was changed after it was written: restore '
      'it, or give another directory'
    )


def _misfit(where: str, value: Any, shape: Any) -> str | None:
  """Returns where a value first differs from a shape, in words, or None."""
  if isinstance(shape, tuple):
    return None if value is None else _misfit(where, value, shape[1])
  kind = dict if isinstance(shape, dict) else shape
  if not isinstance(value, kind):
    excerpt, allowed = repr(value)[:40], getattr(kind, '__name__', kind)
    return f'{where} is {excerpt}, allowed: {allowed}'
  if kind is shape:
    return None
  for key, field_shape in shape.items():
    for field in value if key is ... else (key,):
      misfit = _misfit(repr(field), value.get(field), field_shape)
      if misfit is not None:
        return misfit
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
