"""What SIGTERM and Ctrl-C do: the first asks, the second one exits at once.

Whatever can be started again ends where it stands; training, whose state is to
be saved, is asked, and ends at its next step.
"""

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Self

_log = logging.getLogger('bn_jax')
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_AT_ONCE = 130
# Some launchers send SIGTERM to a process and to its group: that is one.
_ONE_SIGTERM = 0.3  # seconds


class Now(BaseException):
  """Ends a look in which a signal came; nothing that it found is kept."""


@contextlib.contextmanager
def at_once() -> Iterator[None]:
  """Within, SIGTERM ends a command as Ctrl-C does: by KeyboardInterrupt."""
  if threading.current_thread() is not threading.main_thread():
    yield  # signals are the main thread's
    return
  asked = []

  def ask(*unused):
    if asked:
      os._exit(_AT_ONCE)
    asked.append(True)
    raise KeyboardInterrupt

  old = {number: signal.signal(number, ask) for number in _SIGNALS}
  try:
    yield
  finally:
    for number, handler in old.items():
      signal.signal(number, handler)


class Stop:
  """Within, the first signal is kept as the answer to a question.

  A second one exits with 130, even while the program is compiling or in a
  step: a thread of its own waits for it.
  """

  def __enter__(self) -> Self:
    self._asked = False
    self._may_end_now = False
    self._old = {
      number: signal.signal(number, self._ask) for number in _SIGNALS
    }
    self._seen, told = os.pipe()
    os.set_blocking(told, False)
    self._told = told
    self._old_wakeup = signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    self._watch = threading.Thread(target=self._second, daemon=True)
    self._watch.start()
    return self

  def __exit__(self, *unused) -> None:
    signal.set_wakeup_fd(self._old_wakeup)
    for number, handler in self._old.items():
      signal.signal(number, handler)
    os.close(self._told)
    self._watch.join()
    os.close(self._seen)

  def __call__(self) -> bool:
    """Whether a signal has come."""
    return self._asked

  def unless_asked(self, look: Callable[[], Any]) -> Any:
    """What a look sees, or None if a signal comes before its end.

    For what changes nothing, and may take long.
    """
    if self._asked:
      return None
    try:
      self._may_end_now = True
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

  def _second(self) -> None:
    """Waits for signals as the system delivers them, one byte each."""
    first = None
    while numbers := os.read(self._seen, 1):
      if numbers[0] not in _SIGNALS:
        continue
      now = time.monotonic()
      if first is None:
        first = (numbers[0], now)
        continue
      again = numbers[0] == signal.SIGTERM == first[0]
      if not (again and now - first[1] < _ONE_SIGTERM):
        os._exit(_AT_ONCE)
