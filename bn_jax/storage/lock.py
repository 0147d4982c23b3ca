"""One writer a folder: a lock that the system gives back when a process dies.

The lock is the system's, so one that was left by a killed process holds nobody
up; the file says whose it is, for people. It holds between hosts where the file
system's locks do (NFS, Lustre with flock).
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
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextlib.contextmanager
def held(folder: pathlib.Path, name: str = 'lock') -> Iterator[None]:
  """Holds the lock of a folder, which exists, or of something in it.

  Raises:
    ConfigError: another process holds it.
    StorageError: nothing can be written there.
  """
  path = folder / name
  try:
    # Unbuffered: what a full disk refused must not be tried again at the end.
    file = path.open('ab+', buffering=0)
  except OSError as error:
    raise errors.StorageError(
      f'cannot write {path}: {errors.reason(error)}'
    ) from error
  with file:
    _take(file, folder)
    left = _said(file)
    if left:
      _log.info('%s: taken over from %s, which ended without notice',
                folder, left)  # fmt: skip
    _say(file, _who())
    try:
      yield
    finally:
      _say(file, '')


def is_held(folder: pathlib.Path, name: str = 'lock') -> bool:
  """Whether another process holds it; nothing is taken.

  Where the system cannot be asked, the word of the file is taken.
  """
  try:
    file = (folder / name).open('rb', buffering=0)
  except OSError:
    return False
  with file:
    if sys.platform == 'linux':
      import fcntl

      # struct flock: type, whence, start, length, process.
      asked = struct.pack('hhqqi4x', fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
      with contextlib.suppress(OSError):
        kind, *_ = struct.unpack(
          'hhqqi4x', fcntl.fcntl(file, fcntl.F_GETLK, asked)
        )
        return kind != fcntl.F_UNLCK
    return bool(_said(file))


def _take(file, folder: pathlib.Path) -> None:
  try:
    import fcntl
  except ImportError:  # Windows: nobody is kept out
    return
  try:
    # Not flock: that would be inherited by workers, which may outlive us.
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
      f'{folder} is being written by {_said(file) or "another process"}; wait '
      'for it, or give another --workdir'
    ) from error


def _who() -> str:
  started = datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')
  return json.dumps(
    {'host': socket.gethostname(), 'process': os.getpid(), 'started': started}
  )


def _said(file) -> str:
  """Who wrote the file, in words; '' where it says nothing."""
  file.seek(0)
  try:
    who = json.loads(file.read(1000))
    return (
      f'process {who["process"]} on {who["host"]}, started {who["started"]}'
    )
  except (OSError, ValueError, KeyError, TypeError):
    return ''


def _say(file, text: str) -> None:
  # A full disk takes no words; the lock holds without.
  with contextlib.suppress(OSError):
    file.seek(0)
    file.truncate()
    file.write(text.encode())
