"""Handles SIGTERM and Ctrl-C: the first asks to stop, a second exits at once.

On the first signal, a command that can simply be started again ends where it is
(`at_once`); training ends at its next step and saves its state (`Stop`).
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
_SECOND_SIGNAL = 130  # the shells' exit code of Ctrl-C: 128 + SIGINT
# Seconds in which two SIGTERMs count as one, as some launchers signal a process
# and then also its group.
_ONE_SIGTERM = 0.3
# Seconds for Python to handle a signal: more than most calls take, and less
# than the 10 s after which Docker kills a container.
_PATIENCE = 8.0


class Now(BaseException):
  """Ends a look during which a signal comes; the look's results are lost."""


@contextlib.contextmanager
def at_once() -> Iterator[None]:
  """Raises KeyboardInterrupt on SIGTERM too, during a `with` block.

  A process that is in a call outside Python for longer than `_PATIENCE` ends
  with `errors.Interrupted.exit_code`.
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

  handlers = {number: signal.signal(number, interrupt) for number in _SIGNALS}
  try:
    with _watched(exit_unless_handled):
      yield
  finally:
    for number, handler in handlers.items():
      signal.signal(number, handler)


def end_with(parent: int) -> None:
  """Sends this process SIGTERM when its parent has ended, however that was.

  Args:
    parent: its process id.
  """

  def watch():
    while os.getppid() == parent:
      time.sleep(1.0)
    os.kill(os.getpid(), signal.SIGTERM)

  threading.Thread(target=watch, name='parent', daemon=True).start()


@contextlib.contextmanager
def _watched(at_first: Callable[[], None] = lambda: None) -> Iterator[None]:
  """Exits with 130 on a second signal, during a `with` block.

  A call outside Python does not delay the exit.

  Args:
    at_first: called in a new thread on the first signal.
  """
  first_signal = None

  def hear(number):
    nonlocal first_signal
    if number not in _SIGNALS:
      return
    now = time.monotonic()
    if first_signal is None:
      first_signal = (number, now)
      threading.Thread(target=at_first, daemon=True).start()
      return
    first_number, first_time = first_signal
    is_repeated = number == signal.SIGTERM == first_number
    if not (is_repeated and now - first_time < _ONE_SIGTERM):
      os._exit(_SECOND_SIGNAL)

  with on_signal(hear):
    yield


@contextlib.contextmanager
def on_signal(hear: Callable[[int], None]) -> Iterator[None]:
  """Calls a function with the number of each signal, during a `with` block.

  It is called in a thread, so a call outside Python does not delay it. Signals
  without a Python handler do not reach it.
  """
  reader, writer = os.pipe()
  os.set_blocking(writer, False)
  old_writer = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

  def watch():
    # One byte for each signal; '' when the block ends.
    while numbers := os.read(reader, 1):
      hear(numbers[0])

  thread = threading.Thread(target=watch, name='signals', daemon=True)
  thread.start()
  try:
    yield
  finally:
    signal.set_wakeup_fd(old_writer)
    os.close(writer)
    thread.join()
    os.close(reader)


class Stop:
  """Whether a signal has come during a `with` block; call it to learn that.

  A second signal exits with 130, even during a compilation or a step.
  """

  def __enter__(self) -> Self:
    self._has_signal = False
    self._may_end_now = False  # whether a signal raises `Now`
    self._old_handlers = {
      number: signal.signal(number, self._ask) for number in _SIGNALS
    }
    self._watch = _watched()
    self._watch.__enter__()
    return self

  def __exit__(self, *unused) -> None:
    self._watch.__exit__(None, None, None)
    for number, handler in self._old_handlers.items():
      signal.signal(number, handler)

  def __call__(self) -> bool:
    """Returns whether a signal has come."""
    return self._has_signal

  def unless_asked(self, look: Callable[[], Any]) -> Any:
    """Calls `look`; returns its result, or None if a signal comes meanwhile.

    A look may take long, and changes nothing, so it can end anywhere.
    """
    try:
      self._may_end_now = True
      if self._has_signal:
        return None
      result = look()
      self._may_end_now = False
      return result
    except Now:
      return None
    finally:
      self._may_end_now = False

  def _ask(self, *unused) -> None:
    is_first, self._has_signal = not self._has_signal, True
    if is_first:
      _log.info('stopping; the state is saved first. Once more to stop at once')
    if self._may_end_now:
      self._may_end_now = False
      raise Now
