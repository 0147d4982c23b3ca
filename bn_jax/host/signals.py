"""Handles SIGTERM and Ctrl-C: the first asks to stop, a second exits at once.

A command that can simply be started again ends where it is (`at_once`).
Training first saves its state and ends at its next step (`Stop`).
"""

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Self

from bn_jax import errors

_log = logging.getLogger('bn_jax')
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_AT_ONCE = 130  # the shells' exit code of Ctrl-C: 128 + SIGINT
# Seconds in which two SIGTERMs count as one, as some launchers send it to a
# process and also to its group.
_ONE_SIGTERM = 0.3
# Seconds for Python to handle a signal: longer than most calls take, and less
# than the 10 s after which Docker, for one, kills.
_PATIENCE = 8.0


class Now(BaseException):
  """Ends a look in which a signal came; its results are dropped."""


@contextlib.contextmanager
def at_once() -> Iterator[None]:
  """Raises KeyboardInterrupt on SIGTERM too, during a `with` block.

  If the program is in a long call outside Python, the process ends after a few
  seconds all the same.
  """
  if threading.current_thread() is not threading.main_thread():
    yield  # signals are the main thread's
    return
  handled = threading.Event()

  def interrupt(*unused):
    if not handled.is_set():  # `_watched` handles a second one
      handled.set()
      raise KeyboardInterrupt

  def exit_unless_handled():
    if not handled.wait(_PATIENCE):
      sys.stderr.write('error: interrupted; the same command starts again\n')
      os._exit(errors.Interrupted.exit_code)

  old = {number: signal.signal(number, interrupt) for number in _SIGNALS}
  try:
    with _watched(exit_unless_handled):
      yield
  finally:
    for number, handler in old.items():
      signal.signal(number, handler)


@contextlib.contextmanager
def _watched(at_first: Callable[[], None] = lambda: None) -> Iterator[None]:
  """Exits with 130 on a second signal, during a `with` block.

  It does so even while the program is in a call outside Python.

  Args:
    at_first: called in a thread of its own on the first signal.
  """
  first = None

  def hear(number):
    nonlocal first
    if number not in _SIGNALS:
      return
    now = time.monotonic()
    if first is None:
      first = (number, now)
      threading.Thread(target=at_first, daemon=True).start()
      return
    repeated = number == signal.SIGTERM == first[0]
    if not (repeated and now - first[1] < _ONE_SIGTERM):
      os._exit(_AT_ONCE)

  with on_signal(hear):
    yield


@contextlib.contextmanager
def on_signal(hear: Callable[[int], None]) -> Iterator[None]:
  """Calls a function with the number of each signal, during a `with` block.

  It is called in a thread, even while the program is in a call outside Python,
  but only for signals that have a Python handler.
  """
  reader, writer = os.pipe()
  os.set_blocking(writer, False)
  old = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

  def watch():
    # One byte for each signal; '' when the block ends.
    while numbers := os.read(reader, 1):
      hear(numbers[0])

  thread = threading.Thread(target=watch, name='signals', daemon=True)
  thread.start()
  try:
    yield
  finally:
    signal.set_wakeup_fd(old)
    os.close(writer)
    thread.join()
    os.close(reader)


class Stop:
  """A `with` block in which a signal is noted; call it to ask for one.

  A second signal exits with 130, even while the program is compiling or in a
  step.
  """

  def __enter__(self) -> Self:
    self._asked = False
    self._may_end_now = False
    self._old = {
      number: signal.signal(number, self._ask) for number in _SIGNALS
    }
    self._watch = _watched()
    self._watch.__enter__()
    return self

  def __exit__(self, *unused) -> None:
    self._watch.__exit__(None, None, None)
    for number, handler in self._old.items():
      signal.signal(number, handler)

  def __call__(self) -> bool:
    """Returns whether a signal has come."""
    return self._asked

  def unless_asked(self, look: Callable[[], Any]) -> Any:
    """Calls `look`; returns its result, or None if a signal comes before.

    It is for functions that may take long and change nothing.
    """
    try:
      self._may_end_now = True
      if self._asked:
        return None
      result = look()
      self._may_end_now = False
      return result
    except Now:
      return None
    finally:
      self._may_end_now = False

  def _ask(self, *unused) -> None:
    first, self._asked = not self._asked, True
    if first:
      _log.info('stopping; the state is saved first. Once more to stop at once')
    if self._may_end_now:
      self._may_end_now = False
      raise Now
