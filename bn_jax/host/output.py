"""Lets commands write to stdout and stderr, whether anybody takes it or not.

A reader may be gone (`| head -1`), the terminal closed, the disk of a log full.
No command stops for that: what it says from then on is dropped.
"""

import contextlib
import errno
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TextIO

from bn_jax import errors

# A pipe or socket without a reader, a terminal that was closed.
_GONE = (errno.EPIPE, errno.ECONNRESET, errno.EIO, errno.EBADF)


class Stream:
  """A text stream that drops what it cannot write.

  Attributes:
    error: why it drops everything from now on; None while it writes.
  """

  def __init__(self, stream: TextIO):
    """Takes the stream to write to."""
    self._stream = stream
    self.error = None

  def __getattr__(self, name: str) -> Any:
    return getattr(self._stream, name)

  def write(self, text: str) -> int:
    """Writes a text; characters that the encoding lacks are spelled out."""
    self._try(lambda: self._written(text))
    return len(text)

  def flush(self) -> None:
    """Hands what was written to the system."""
    self._try(self._stream.flush)

  def _written(self, text: str) -> None:
    try:
      self._stream.write(text)
    except UnicodeEncodeError:
      encoding = self._stream.encoding
      spelled = text.encode(encoding, 'backslashreplace')
      self._stream.write(spelled.decode(encoding))

  def _try(self, action: Callable[[], Any]) -> None:
    if self.error is not None:
      return
    try:
      action()
    except OSError as error:
      self.error = error
      # Python would try once more at its end, and complain.
      with (
        contextlib.suppress(OSError),
        open(os.devnull, 'wb') as nowhere,
      ):
        os.dup2(nowhere.fileno(), self._stream.fileno())


@contextlib.contextmanager
def dropping() -> Iterator[None]:
  """Lets stdout and stderr drop what nobody takes, during a `with` block."""
  _open_descriptors()
  old = sys.stdout, sys.stderr
  with open(os.devnull, 'w', encoding='utf-8') as nowhere:
    sys.stdout, sys.stderr = new = [Stream(one or nowhere) for one in old]
    try:
      yield
    finally:
      for stream in new:
        stream.flush()
      sys.stdout, sys.stderr = old


def check() -> None:
  """Raises StorageError if the device that stdout is written to is full."""
  sys.stdout.flush()
  error = sys.stdout.error
  if error is not None and error.errno not in _GONE:
    raise errors.StorageError(
      f'cannot write standard output: {errors.reason(error)}'
    )


def show(texts: Iterable[str]) -> None:
  """Writes texts to stdout as they are made, as long as somebody takes them.

  Like `check`, it needs the streams of `dropping`.
  """
  for text in texts:
    sys.stdout.write(text)
    sys.stdout.flush()
    if sys.stdout.error is not None:
      return


def _open_descriptors() -> None:
  """Opens stdin, stdout and stderr where a caller has closed them.

  Else the next file, such as one of records, has the number of stderr, and what
  libraries say lands in it.
  """
  for descriptor in range(3):
    try:
      os.fstat(descriptor)
    except OSError:  # what is opened gets the lowest number that is free
      os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
