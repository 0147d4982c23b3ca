"""Writes and checks digests of all files in a folder, to notice damage.

  {"format": 1, ..., "files": {"state/d/0": [4194304, "9f86d0..."], ...},
   "digest": "60303a..."}

`digests.json` is written last, so a folder without it is unfinished. Its own
"digest" is of all its other content. Digests show accidents: flipped bits, and
files that are cut or missing. They do not stop people who can write there.
"""

import errno
import hashlib
import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from bn_jax import errors
from bn_jax.storage import files as files_lib

NAME = 'digests.json'
_FORMAT = 1  # of digests.json; another version of it is refused
_STEP = re.compile('0|[1-9][0-9]*')
# The file is lost, or the disk cannot read it; a missing permission is neither.
_DAMAGE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EIO)


class Damaged(Exception):
  """A folder's content differs from what was written; the message says how."""


def steps(directory: pathlib.Path) -> tuple[int, ...]:
  """Returns the names of a directory's folders that are numbers, in order."""
  if not directory.is_dir():
    return ()
  names = (path.name for path in directory.iterdir() if path.is_dir())
  return tuple(sorted(int(name) for name in names if _STEP.fullmatch(name)))


def write(folder: pathlib.Path, facts: Mapping[str, Any]) -> None:
  """Writes digests.json over all files below a folder.

  Args:
    folder: no file in it may change afterwards.
    facts: JSON that digests.json also holds.

  Raises:
    StorageError: digests.json cannot be written.
  """
  body = {'format': _FORMAT, **facts, 'files': _of_files(folder)}
  files_lib.write(folder / NAME, _signed(body))


def read(folder: pathlib.Path) -> dict[str, Any]:
  """Reads digests.json.

  Raises:
    Damaged: the file is missing, or was changed.
    CheckpointError: it cannot be read, or another version wrote it.
  """
  try:
    content = (folder / NAME).read_bytes()
  except OSError as error:
    if (folder / '_CHECKPOINT_METADATA').exists():
      raise errors.CheckpointError(
        f'{folder} was written by an earlier version, without digests; go on '
        'with that version, or give another --workdir'
      ) from error
    raise _failure(folder / NAME, error) from error
  try:
    body = json.loads(content)
    del body['digest']
    is_intact = content == _signed(body)
  except (ValueError, KeyError, TypeError, RecursionError) as error:
    raise Damaged(f'{NAME} cannot be read') from error
  if not is_intact:
    raise Damaged(f'{NAME} is not as it was written')
  if body['format'] != _FORMAT:
    raise errors.CheckpointError(
      f'{folder} has format {body["format"]}; allowed: {_FORMAT}; '
      'use the version that wrote it'
    )
  return body


def read_of(folder: pathlib.Path, step: int) -> dict[str, Any]:
  """Reads digests.json of the checkpoint of a step; raises as `read`."""
  facts = read(folder / str(step))
  if facts['step'] != step:
    raise Damaged(f'it is that of step {facts["step"]}')
  return facts


def verify(folder: pathlib.Path, facts: Mapping[str, Any]) -> None:
  """Compares every file with its digest.

  Args:
    facts: what `read` returns of this folder.

  Raises:
    Damaged: a file is missing, or has another size or content.
    CheckpointError: a file cannot be read.
  """
  for name, (size, digest) in facts['files'].items():
    path = folder / name
    try:
      actual = path.stat().st_size
      if actual != size:
        raise Damaged(f'{name} has {actual:,} bytes, {size:,} were written')
      if of_file(path) != digest:
        raise Damaged(f'{name} is not what was written')
    except OSError as error:
      raise _failure(path, error) from error


def none_is_whole(
  directory: pathlib.Path, damaged: Mapping[int, str]
) -> errors.CheckpointError:
  """Returns the refusal of a directory in which all checkpoints are damaged.

  Args:
    damaged: step -> how, the newest first.
  """
  step, why = next(iter(damaged.items()))
  return errors.CheckpointError(
    f'no checkpoint in {directory} is whole: {len(damaged)} tried, the newest, '
    f'{step}: {why}; restore the folder from a copy, or give another --workdir '
    'to begin again'
  )


def _failure(path: pathlib.Path, error: OSError) -> Exception:
  """Returns Damaged if the file is lost, else CheckpointError."""
  if error.errno in _DAMAGE:
    return Damaged(f'{path.name}: {error.strerror}')
  return errors.CheckpointError(f'cannot read {path}: {error.strerror}')


def _signed(body: Mapping[str, Any]) -> bytes:
  """Returns the content of digests.json, with its own digest at the end."""
  return files_lib.with_digest(body, indent=1).encode()


def _of_files(folder: pathlib.Path) -> dict[str, list]:
  """Returns path -> [bytes, digest] of each file below a folder."""
  paths = sorted(path for path in folder.rglob('*') if path.is_file())
  return {
    path.relative_to(folder).as_posix(): [path.stat().st_size, of_file(path)]
    for path in paths
  }


def of_file(path: pathlib.Path) -> str:
  """Returns the SHA-256 of a file's content."""
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()
