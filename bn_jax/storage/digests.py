"""What a folder must hold to be what was written: a digest of every file.

  {"format": 1, ..., "files": {"state/d/0": [4194304, "9f86d0..."], ...},
   "digest": "60303a..."}

`digests.json` is written last, so a folder that has none is not finished; its
own digest is over the rest of it. It finds accidents: bits that flipped, files
that are cut or gone. It is no protection from anybody who can write there.
"""

import errno
import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from bn_jax import errors
from bn_jax.storage import files as files_lib

NAME = 'digests.json'
_FORMAT = 1
_DAMAGE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EIO)


class Damaged(Exception):
  """A folder does not hold what was written; the message says what is wrong."""


def write(folder: pathlib.Path, facts: Mapping[str, Any]) -> None:
  """Writes digests.json over all files below a folder.

  Args:
    folder: which nobody writes to any more.
    facts: what else the file is to say; of JSON.

  Raises:
    StorageError: it cannot be written.
  """
  body = {'format': _FORMAT, **facts, 'files': _of_files(folder)}
  files_lib.write(folder / NAME, _signed(body))


def read(folder: pathlib.Path) -> dict[str, Any]:
  """What digests.json says, when it is as it was written.

  Raises:
    Damaged: it is not there, or not as it was written.
    CheckpointError: it was written by a newer version.
  """
  try:
    content = (folder / NAME).read_bytes()
  except OSError as error:
    if (folder / '_CHECKPOINT_METADATA').exists():
      raise errors.CheckpointError(
        f'{folder} was written by an earlier version, without digests; go on '
        'with that version, or give another --workdir'
      ) from error
    raise _what(folder / NAME, error) from error
  try:
    body = json.loads(content)
    del body['digest']
    whole = content == _signed(body)
  except (ValueError, KeyError, TypeError) as error:
    raise Damaged(f'{NAME} cannot be read') from error
  if not whole:
    raise Damaged(f'{NAME} is not as it was written')
  if body['format'] != _FORMAT:
    raise errors.CheckpointError(
      f'{folder} has format {body["format"]}, this version knows {_FORMAT}; '
      'use the version that wrote it'
    )
  return body


def verify(folder: pathlib.Path) -> None:
  """Compares every file with its digest.

  Raises:
    Damaged: one is missing, of another size, or of other content.
    CheckpointError: written by a newer version.
  """
  for name, (size, digest) in read(folder)['files'].items():
    path = folder / name
    try:
      is_size = path.stat().st_size
      if is_size != size:
        raise Damaged(f'{name} has {is_size:,} bytes, {size:,} were written')
      if _of_file(path) != digest:
        raise Damaged(f'{name} is not what was written')
    except OSError as error:
      raise _what(path, error) from error


def _what(path: pathlib.Path, error: OSError) -> Exception:
  """Damage, or a file that cannot be read now: that says nothing of it."""
  if error.errno in _DAMAGE:
    return Damaged(f'{path.name}: {error.strerror}')
  return errors.CheckpointError(f'cannot read {path}: {error.strerror}')


def _signed(body: Mapping[str, Any]) -> bytes:
  """The file with its own digest at its end."""
  digest = hashlib.sha256(_text(body)).hexdigest()
  return _text({**body, 'digest': digest})


def _text(body: Mapping[str, Any]) -> bytes:
  return json.dumps(body, indent=1, allow_nan=False).encode()


def _of_files(folder: pathlib.Path) -> dict[str, list]:
  """path -> [bytes, digest] of each file below a folder."""
  files = sorted(path for path in folder.rglob('*') if path.is_file())
  return {
    path.relative_to(folder).as_posix(): [path.stat().st_size, _of_file(path)]
    for path in files
  }


def _of_file(path: pathlib.Path) -> str:
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()
