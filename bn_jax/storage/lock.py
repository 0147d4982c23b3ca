"""Locks a folder, so that one process at a time writes in it.

The operating system releases a lock when its process dies, so a killed process
blocks nobody. The lock file's content tells people which process holds it.
Locks work between hosts if the file system's do (NFS, Lustre with flock).
"""

import contextlib
import datetime
import errno
import json
import logging
import os
import pathlib
import socket
import struct
import sys
from collections.abc import Iterator

from bn_jax import errors

_log = logging.getLogger('bn_jax')
# The system's answers where a file system has no locks.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextlib.contextmanager
def held(folder: pathlib.Path, name: str = 'lock') -> Iterator[None]:
  """Holds the lock of an existing folder while the `with` block runs.

  Args:
    name: of the lock's file in the folder; locks of other names are others.

  Raises:
    ConfigError: another process holds the lock.
    StorageError: the lock's file cannot be written or locked.
  """
  path = folder / name
  try:
    # Unbuffered, so that closing does not retry what a full disk has refused.
    file = path.open('ab+', buffering=0)
  except OSError as error:
    raise errors.StorageError(
      f'cannot write {path}: {errors.reason(error)}'
    ) from error
  with file:
    _take(file, folder)
    previous = _holder(file)
    if previous:
      _log.info('%s: taken over from %s, which ended without notice',
                folder, previous)  # fmt: skip
    _write(file, _this_process())
    try:
      yield
    finally:
      _write(file, '')


def is_held(folder: pathlib.Path, name: str = 'lock') -> bool:
  """Returns whether another process holds a folder's lock; takes none.

  Where the system is not Linux, or does not say, the file's content decides.
  """
  try:
    file = (folder / name).open('rb', buffering=0)
  except OSError:
    return False
  with file:
    if sys.platform == 'linux':
      import fcntl

      # struct flock: type, whence, start, length, process id.
      request = struct.pack('hhqqi4x', fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
      with contextlib.suppress(OSError):
        kind, *_ = struct.unpack(
          'hhqqi4x', fcntl.fcntl(file, fcntl.F_GETLK, request)
        )
        return kind != fcntl.F_UNLCK
    return bool(_holder(file))


def _take(file, folder: pathlib.Path) -> None:
  try:
    import fcntl
  except ImportError:  # Windows has no such locks, and any process may write
    return
  try:
    # Not flock, which worker processes would inherit and might hold for longer.
    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except OSError as error:
    if error.errno in _NO_LOCKS:
      _log.warning('%s: no locks on this file system (%s); see to it that one '
                   'process writes there', folder, error.strerror)  # fmt: skip
      return
    if error.errno not in (errno.EACCES, errno.EAGAIN):
      raise errors.StorageError(
        f'cannot lock {folder}: {error.strerror}'
      ) from error
    raise errors.ConfigError(
      f'{folder} is being written by {_holder(file) or "another process"}; '
      'wait for it, or give another --workdir'
    ) from error


def _this_process() -> str:
  now = datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')
  return json.dumps(
    {'host': socket.gethostname(), 'process': os.getpid(), 'started': now}
  )


def _holder(file) -> str:
  """Returns the process named in the file, in words, or ''."""
  file.seek(0)
  try:
    line = json.loads(file.read(1000))  # `_this_process` writes fewer bytes
    return (
      f'process {line["process"]} on {line["host"]} since {line["started"]}'
    )
  except (OSError, ValueError, KeyError, TypeError, RecursionError):
    return ''


def _write(file, text: str) -> None:
  # A full disk may refuse the text; the lock holds all the same.
  with contextlib.suppress(OSError):
    file.seek(0)
    file.truncate()
    file.write(text.encode())
