"""What SIGTERM and Ctrl-C do: the first asks, the second one exits at once.

Whatever can be started again ends where it stands; training, whose state is to
be saved, is asked, and ends at its next step.
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
_AT_ONCE = 130
# Some launchers send SIGTERM to a process and to its group: that is one.
_ONE_SIGTERM = 0.3  # seconds
_PATIENCE = 8.0  # seconds in which a signal is heard by Python


class Now(BaseException):
  """Ends a look in which a signal came; nothing that it found is kept."""


@contextlib.contextmanager
def at_once() -> Iterator[None]:
  """Within, SIGTERM ends a command as Ctrl-C does: by KeyboardInterrupt.

  Where the program is in a long call that no line of Python interrupts, it ends
  all the same, after a few seconds: with what is on the disk.
  """
  if threading.current_thread() is not threading.main_thread():
    yield  # signals are the main thread's
    return
  heard = threading.Event()

  def ask(*unused):
    if not heard.is_set():  # a second one is seen by the watch
      heard.set()
      raise KeyboardInterrupt

  def unheard():
    if not heard.wait(_PATIENCE):
      sys.stderr.write('error: interrupted; the same command starts again\n')
      os._exit(errors.Interrupted.exit_code)

  old = {number: signal.signal(number, ask) for number in _SIGNALS}
  try:
    with _watched(unheard):
      yield
  finally:
    for number, handler in old.items():
      signal.signal(number, handler)


@contextlib.contextmanager
def _watched(at_first: Callable[[], None] = lambda: None) -> Iterator[None]:
  """Within, a second signal exits with 130, whatever the program is doing.

  Args:
    at_first: called in a thread of its own when the first one comes.
  """
  seen, told = os.pipe()
  os.set_blocking(told, False)
  old = signal.set_wakeup_fd(told, warn_on_full_buffer=False)

  def watch():
    first = None
    # As the system delivers them, one byte each; '' when the block ends.
    while numbers := os.read(seen, 1):
      if numbers[0] not in _SIGNALS:
        continue
      now = time.monotonic()
      if first is None:
        first = (numbers[0], now)
        threading.Thread(target=at_first, daemon=True).start()
        continue
      again = numbers[0] == signal.SIGTERM == first[0]
      if not (again and now - first[1] < _ONE_SIGTERM):
        os._exit(_AT_ONCE)

  thread = threading.Thread(target=watch, daemon=True)
  thread.start()
  try:
    yield
  finally:
    signal.set_wakeup_fd(old)
    os.close(told)
    thread.join()
    os.close(seen)


class Stop:
  """Within, the first signal is kept as the answer to a question.

  A second one exits with 130, even while the program is compiling or in a
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
    """Whether a signal has come."""
    return self._asked

  def unless_asked(self, look: Callable[[], Any]) -> Any:
    """What a look sees, or None if a signal comes before its end.

    For what changes nothing, and may take long.
    """
    try:
      self._may_end_now = True
      if self._asked:
        return None
      seen = look()
      self._may_end_now = False
      return seen
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
