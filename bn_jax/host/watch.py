"""The other processes of a run: who they are, and whether all are still there.

Every process writes a sign of life once a second into the key-value store
that jax.distributed keeps in process 0; process 0 looks at all of them, and
tells the others of one that has none. Nothing here touches a device, so that
nothing here can wait for one.
"""

import atexit
import contextlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, NamedTuple, NoReturn

from bn_jax import errors

_SPACE = 'bn_jax'  # of our keys in the store
_BEAT = 1.0  # seconds between signs of life
_TURN = 0.2  # seconds that the watch waits for an event at a time
_SILENCE = 15.0  # seconds without one, after which a process is gone
_SUSPECTED = 5.0  # the same, once a communication has failed
_HEARD = 1.5  # seconds in which everybody hears of an end
_MEETING = 60.0  # seconds in which all that joined say who they are
_ANSWER = 5.0  # seconds in which the store gives what is there


class End(NamedTuple):
  """Why all processes leave at once: an exit code and a line of one of them."""

  by: int
  exit_code: int
  line: str


class Peers:
  """The processes that joined, seen by one of them.

  Stopping is agreed upon without waiting: whoever was asked to stop says so;
  each process then names, from a thread, the number of questions `stopping`
  that it has answered, and all stop at the first that nobody has answered yet.
  """

  def __init__(self, client: Any, index: int, count: int):
    """Introduces this process to the others.

    Args:
      client: of jax.distributed: a key-value store.
      index: of this process.
      count: of all.

    Raises:
      Interrupted: one of them has gone before it said who it is.
    """
    self.index, self.count = index, count
    self._client = client
    self._lock = threading.Lock()
    self._asked = False  # whether somebody was, to stop
    self._polls = 0  # how often `stopping` was called
    self._held = False  # whether it now waits for the others' numbers
    self._last = None  # the number at which all stop
    self._known = threading.Event()
    self._left = threading.Event()
    self._silence = _SILENCE
    self._seen = {}  # process -> its last sign of life, and when it came
    self._events = 0
    self._exit_code = 0
    self.ended = False  # whether this one has made the others leave
    try:
      self._names = self._introduced()
    except errors.Interrupted as end:
      # The runtime would wait for the others when Python ends.
      atexit.register(leave_at_once, end.exit_code)
      raise
    self._thread = threading.Thread(
      target=self._watch, name='peers', daemon=True
    )
    self._thread.start()

  def name(self, process: int) -> str:
    """A process as messages call it."""
    return f'process {process} of {self.count} on {self._names[process]}'

  def put(self, key: str, value: str) -> None:
    """Writes a value that others `get`, once."""
    with self._unless_lost():
      self._set(key, value)

  def get(self, key: str) -> str:
    """A value that another process puts, as soon as it has."""
    with self._unless_lost():
      while (found := self._waited(key, _BEAT)) is None:
        pass
    return found

  def stopping(self, asked: bool) -> bool:
    """Whether all processes stop now.

    All of them ask equally often, in the same places.

    Args:
      asked: whether this process was asked to stop.
    """
    with self._lock:
      self._polls += 1
      poll, waits = self._polls, self._held
    if asked and not self._asked:
      self._asked = True
      with self._unless_lost():
        self._tell({'stop': self.index})
    if waits:
      self._known.wait()
    return self._last is not None and poll >= self._last

  def leave(self, failure: End | None, seconds: float = 10.0) -> bool:
    """Waits until all have come to their end; or ends them, if this one failed.

    Args:
      failure: of this process; its `by` is this process.
      seconds: in which the others are given the time to fail alike.

    Returns:
      Whether process 0 says what this one would say.
    """
    self._exit_code = failure.exit_code if failure else 0
    patience = seconds if failure else float('inf')
    with self._unless_lost():
      self._set(f'left/{self.index}', json.dumps(failure))
      found = self._of_all('left', patience)
      if len(found) < self.count:
        self.end(failure)
        return self.index > 0
      # Process 0 takes the store with it: it goes when all have seen this.
      self._set(f'away/{self.index}', '')
      if self.index == 0:
        self._of_all('away', _SUSPECTED)
    self.close()
    if failure is None or not self.index:
      return False
    first = json.loads(found[0])
    return first is not None and End(*first).line == failure.line

  def suspect(self) -> None:
    """After a failed communication: waits until it is known who is missing.

    Nothing comes back where somebody is; else all are still there.
    """
    with contextlib.suppress(Exception):  # then it is process 0
      self._tell({'suspect': self.index})
    self._left.wait(_SUSPECTED + 5 * _BEAT)

  def end(self, end: End) -> None:
    """Makes all others leave."""
    self.ended = True
    self._exit_code = end.exit_code
    # The runtime would wait for the others when Python ends.
    atexit.register(leave_at_once, end.exit_code)
    with contextlib.suppress(Exception):  # then there is nobody to hear it
      self._tell({'end': end})
    time.sleep(_HEARD)
    self.close()

  def close(self) -> None:
    """Gives no more signs of life."""
    self._left.set()
    self._thread.join()

  def lost(self) -> NoReturn:
    """Leaves because the runtime has ended: that of process 0, with its store.

    In process 0 itself nobody else can be the reason.
    """
    if self.ended or self._left.is_set():
      time.sleep(_SILENCE)  # this process is ending, in its own words
      leave_at_once(self._exit_code)
    if self.index == 0:
      line = 'the runtime of jax ended without a reason'
      leave_at_once(errors.Failure.exit_code, line)
    line = f'{self.name(0)} is gone; start again to go on'
    leave_at_once(errors.Interrupted.exit_code, line)

  def _introduced(self) -> list[str]:
    """The names of all: until they are there, nobody looks after anybody."""
    deadline = time.monotonic() + _MEETING
    name = f'{socket.gethostname()} (pid {os.getpid()})'
    names = []
    try:
      self._set(f'who/{self.index}', name)
      self._set(f'alive/{self.index}', '0')
      while len(names) < self.count:
        if (name := self._waited(f'who/{len(names)}', _BEAT)) is not None:
          names.append(name)
        elif time.monotonic() > deadline:
          raise errors.Interrupted(
            f'process {len(names)} has not introduced itself within '
            f'{_MEETING:g} s; start again to go on'
          )
    except errors.Interrupted:
      raise
    except Exception as error:  # of the store
      if self.index == 0:
        raise
      raise errors.Interrupted(
        'process 0 is gone; start again to go on'
      ) from error
    return names

  def _watch(self) -> None:
    """Signs of life, and what others tell, until this process leaves."""
    beat, next_beat = 0, 0.0
    while not self._left.is_set():
      try:
        if time.monotonic() >= next_beat:
          beat, next_beat = beat + 1, time.monotonic() + _BEAT
          self._set(f'alive/{self.index}', str(beat))
          if self.index == 0:
            self._look()
        if self._held and not self._known.is_set():
          self._agree()
        event = self._waited(f'event/{self._events}', _TURN)
      except Exception:  # of the store: there is only one reason
        if not self._left.wait(_HEARD) and not self.ended:
          self.lost()
        return
      if event is not None:
        self._events += 1
        self._hear(json.loads(event))

  def _look(self) -> None:
    """Process 0: who has not been seen for long?"""
    now = time.monotonic()
    for process, sign in self._all('alive').items():
      before, at = self._seen.setdefault(process, (sign, now))
      if sign != before:
        self._seen[process] = sign, now
      elif now - at > self._silence and process not in self._all('left'):
        line = f'{self.name(process)} is gone; start again to go on'
        code = errors.Interrupted.exit_code
        self._tell({'end': End(process, code, line)})
        time.sleep(_HEARD)
        leave_at_once(code, line)

  def _hear(self, event: dict[str, Any]) -> None:
    if 'suspect' in event:
      self._silence = _SUSPECTED
      return
    if 'stop' in event:
      with self._lock:
        if self._held:
          return
        self._held = True
        polls = self._polls
      self._set(f'polls/{self.index}', str(polls))
      return
    end = End(*event['end'])
    if self.ended or self._left.is_set():
      return  # this one is leaving, in its own words
    if self.index:
      leave_at_once(end.exit_code)
    time.sleep(_HEARD)  # the store goes with this process
    leave_at_once(end.exit_code, f'{self.name(end.by)}: {end.line}')

  def _agree(self) -> None:
    polls = self._all('polls')
    if len(polls) == self.count:
      self._last = 1 + max(map(int, polls.values()))
      self._known.set()

  def _tell(self, event: dict[str, Any]) -> None:
    """Puts an event into the first place that is free; all hear all of them."""
    place = self._events
    while True:
      with contextlib.suppress(Exception):  # it is taken
        self._client.key_value_set(f'{_SPACE}/event/{place}', json.dumps(event))
        return
      if self._waited(f'event/{place}', _ANSWER) is None:
        raise ConnectionError('the key-value store of the processes is gone')
      place += 1

  @contextlib.contextmanager
  def _unless_lost(self) -> Iterator[None]:
    """Leaves it to the watch to say what a store that does not answer means."""
    try:
      yield
    except Exception:
      self._left.wait(2 * _HEARD)
      raise

  def _set(self, key: str, value: str) -> None:
    self._client.key_value_set(f'{_SPACE}/{key}', value, allow_overwrite=True)

  def _waited(self, key: str, seconds: float) -> str | None:
    """A value, if it comes within so many seconds."""
    try:
      return self._client.blocking_key_value_get(
        f'{_SPACE}/{key}', int(1000 * seconds)
      )
    except Exception as error:
      if 'DEADLINE_EXCEEDED' in str(error):
        return None
      raise

  def _of_all(self, folder: str, seconds: float) -> dict[int, str]:
    """The values of all processes, or of those that came within the time."""
    deadline = time.monotonic() + seconds
    while len(found := self._all(folder)) < self.count:
      if time.monotonic() > deadline:
        break
      time.sleep(0.02)
    return found

  def _all(self, folder: str) -> dict[int, str]:
    """process -> its value in a folder of the store."""
    found = self._client.key_value_dir_get(f'{_SPACE}/{folder}/')
    return {int(key.rpartition('/')[2]): value for key, value in found}


_last_words = threading.Lock()


def leave_at_once(exit_code: int, line: str | None = None) -> NoReturn:
  """Leaves from a thread, whatever the others are in the midst of.

  What is written is whole at any time, so this may be any time too.
  """
  _last_words.acquire()  # for good: another thread may come to the same end
  try:
    if line is not None:
      with contextlib.suppress(OSError, ValueError):  # nobody listens
        sys.stderr.write(f'error: {line}\n')
    for stream in (sys.stdout, sys.stderr):
      with contextlib.suppress(OSError, ValueError):
        stream.flush()
  finally:
    os._exit(exit_code)
