"""Watches the processes of an experiment, and ends all if one is lost.

Every process writes a sign of life once a second into the key-value store that
jax.distributed keeps in process 0. Process 0 reads the signs, and tells all
processes if one gives none. This module uses no device and so waits for none.
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

_SPACE = 'bn_jax'  # prefix of our keys in the store
# Times in seconds. Long ones delay the end of a run that has lost a process,
# short ones end a run whose process is only slow.
_BEAT = 1.0  # between signs of life
_TURN = 0.2  # of a wait for an event; signs of life and votes wait for its end
# Without a sign of life, before a process counts as lost: 15 beats, so that a
# pause of the machine or the network is no loss.
_SILENCE = 15.0
_SUSPECTED = 5.0  # the same, once a communication has failed: a loss is likely
_HEARD = 1.5  # for all processes to read an end: a beat and some `_TURN`s
# For all to introduce themselves. If jax's runtime notices a loss before, it
# waits for the message of this meeting: see `processes._PATIENCE`.
_MEETING = 60.0
_ANSWER = 5.0  # for the store to return a value that exists


class End(NamedTuple):
  """Why all processes leave at once.

  Attributes:
    by: index of the process that failed or is lost.
    exit_code: with which all processes exit.
    line: the error message.
  """

  by: int
  exit_code: int
  line: str


class Peers:
  """The processes that joined, and this one among them.

  All stop at the same step, without waiting for each other at every step. A
  process that is to stop tells the others. In each, a thread then publishes how
  often `stopping` has been called there. All stop at the first call that no
  process has made yet.
  """

  def __init__(self, client: Any, index: int, count: int):
    """Introduces this process to the others.

    Args:
      client: of the key-value store of jax.distributed.
      index: of this process, from 0 on.
      count: number of processes.

    Raises:
      Interrupted: a process has not introduced itself in time or is gone.
    """
    self.index, self.count = index, count
    self._client = client
    self._lock = threading.Lock()
    self._has_told = False  # whether this process has told the others to stop
    self._polls = 0  # number of calls of `stopping`
    self._is_voting = False  # whether `stopping` waits for the others' polls
    self._last_poll = None  # the poll at which all stop
    self._agreement = threading.Event()  # set when `_last_poll` is known
    self._leaving = threading.Event()  # set when the watch shall end
    self._silence = _SILENCE
    self._signs = {}  # process -> its last sign of life, and when it came
    self._events = 0  # number of events that were read
    self._exit_code = 0
    self.ended = False  # whether this process has made the others leave
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
    """Returns what messages call the process of this index."""
    return f'process {process} of {self.count} on {self._names[process]}'

  def put(self, key: str, value: str) -> None:
    """Writes a value for the others to `get`."""
    with self._unless_lost():
      self._set(key, value)

  def get(self, key: str) -> str:
    """Waits until another process puts a value; returns the value."""
    with self._unless_lost():
      while (value := self._waited(key, _BEAT)) is None:
        pass
    return value

  def stopping(self, is_asked: bool) -> bool:
    """Returns whether all processes stop now.

    All processes must call it equally often, in the same places.

    Args:
      is_asked: whether this process was asked to stop.
    """
    with self._lock:
      self._polls += 1
      poll, is_voting = self._polls, self._is_voting
    if is_asked and not self._has_told:
      self._has_told = True
      with self._unless_lost():
        self._tell({'stop': self.index})
    if is_voting:
      self._agreement.wait()
    return self._last_poll is not None and poll >= self._last_poll

  def leave(self, failure: End | None, seconds: float = 10.0) -> bool:
    """Waits until all processes end; makes them end if this one failed alone.

    Args:
      failure: of this process; None if it has ended without one.
      seconds: for the others to fail too; a step or a save may lie between the
        failures.

    Returns:
      Whether process 0 reports the failure, so that this process need not.
    """
    self._exit_code = failure.exit_code if failure else 0
    patience = seconds if failure else float('inf')
    with self._unless_lost():
      self._set(f'left/{self.index}', json.dumps(failure))
      failures = self._of_all('left', patience)
      if len(failures) < self.count:
        self.end(failure)
        return self.index > 0
      # The store ends with process 0, which therefore leaves last.
      self._set(f'away/{self.index}', '')
      if self.index == 0:
        self._of_all('away', _SUSPECTED)
    self.close()
    if failure is None or not self.index:
      return False
    fields = json.loads(failures[0])
    return fields is not None and End(*fields).line == failure.line

  def suspect(self) -> None:
    """Lets the watch look for a lost process after a failed communication.

    If the watch finds one, this process leaves and the call does not return.
    """
    with contextlib.suppress(Exception):  # if it fails, process 0 is lost
      self._tell({'suspect': self.index})
    # Five beats more than process 0 waits, for its event to come here.
    self._leaving.wait(_SUSPECTED + 5 * _BEAT)

  def end(self, end: End) -> None:
    """Makes all other processes leave."""
    self.ended = True
    self._exit_code = end.exit_code
    # The runtime would wait for the others when Python ends.
    atexit.register(leave_at_once, end.exit_code)
    with contextlib.suppress(Exception):  # without a store nobody can read it
      self._tell({'end': end})
    time.sleep(_HEARD)
    self.close()

  def close(self) -> None:
    """Ends the thread and the signs of life."""
    self._leaving.set()
    self._thread.join()

  def lost(self) -> NoReturn:
    """Leaves because the runtime of process 0, which has the store, has ended.

    To the other processes this means that process 0 is lost.
    """
    if self.ended or self._leaving.is_set():
      time.sleep(_SILENCE)  # this process is about to leave by itself
      leave_at_once(self._exit_code)
    if self.index == 0:
      line = 'the runtime of jax ended without a reason'
      leave_at_once(errors.Failure.exit_code, line)
    line = f'{self.name(0)} is gone; start again to go on'
    leave_at_once(errors.Interrupted.exit_code, line)

  def _introduced(self) -> list[str]:
    """Returns the names of all processes; the watch begins only afterwards."""
    deadline = time.monotonic() + _MEETING
    own_name = f'{socket.gethostname()} (pid {os.getpid()})'
    names = []
    try:
      self._set(f'who/{self.index}', own_name)
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
    """Gives signs of life and reads events, until this process leaves."""
    beat, next_beat = 0, 0.0
    while not self._leaving.is_set():
      try:
        if time.monotonic() >= next_beat:
          beat, next_beat = beat + 1, time.monotonic() + _BEAT
          self._set(f'alive/{self.index}', str(beat))
          if self.index == 0:
            self._check_signs()
        if self._is_voting and not self._agreement.is_set():
          self._agree()
        event = self._waited(f'event/{self._events}', _TURN)
      except Exception:  # the store is gone, and so is process 0
        if not self._leaving.wait(_HEARD) and not self.ended:
          self.lost()
        return
      if event is not None:
        self._events += 1
        self._hear(json.loads(event))

  def _check_signs(self) -> None:
    """Ends all processes if one has given no sign of life for too long."""
    now = time.monotonic()
    for process, sign in self._all('alive').items():
      last, when = self._signs.setdefault(process, (sign, now))
      if sign != last:
        self._signs[process] = sign, now
      elif now - when > self._silence and process not in self._all('left'):
        line = f'{self.name(process)} is gone; start again to go on'
        code = errors.Interrupted.exit_code
        self._tell({'end': End(process, code, line)})
        time.sleep(_HEARD)
        leave_at_once(code, line)

  def _hear(self, event: dict[str, Any]) -> None:
    """Does what an event asks of this process."""
    if 'suspect' in event:
      self._silence = _SUSPECTED
      return
    if 'stop' in event:
      with self._lock:
        if self._is_voting:
          return
        self._is_voting = True
        polls = self._polls
      self._set(f'polls/{self.index}', str(polls))
      return
    end = End(*event['end'])
    if self.ended or self._leaving.is_set():
      return  # this process leaves by itself
    if self.index:
      leave_at_once(end.exit_code)
    time.sleep(_HEARD)  # the store ends with process 0: others read this first
    leave_at_once(end.exit_code, f'{self.name(end.by)}: {end.line}')

  def _agree(self) -> None:
    """Sets the poll at which all stop, once all have published their polls."""
    polls = self._all('polls')
    if len(polls) == self.count:
      self._last_poll = 1 + max(map(int, polls.values()))
      self._agreement.set()

  def _tell(self, event: dict[str, Any]) -> None:
    """Stores an event for all processes, under the first free number."""
    number = self._events
    while True:
      with contextlib.suppress(Exception):  # another event has this number
        key = f'{_SPACE}/event/{number}'
        self._client.key_value_set(key, json.dumps(event))
        return
      if self._waited(f'event/{number}', _ANSWER) is None:
        raise ConnectionError('the key-value store of the processes is gone')
      number += 1

  @contextlib.contextmanager
  def _unless_lost(self) -> Iterator[None]:
    """Delays errors of the store, so that the watch can report a loss first."""
    try:
      yield
    except Exception:
      self._leaving.wait(2 * _HEARD)
      raise

  def _set(self, key: str, value: str) -> None:
    self._client.key_value_set(f'{_SPACE}/{key}', value, allow_overwrite=True)

  def _waited(self, key: str, seconds: float) -> str | None:
    """Waits for a value; returns None if it does not come in time."""
    try:
      return self._client.blocking_key_value_get(
        f'{_SPACE}/{key}', int(1000 * seconds)
      )
    except Exception as error:
      if 'DEADLINE_EXCEEDED' in str(error):
        return None
      raise

  def _of_all(self, folder: str, seconds: float) -> dict[int, str]:
    """Waits for the values of all processes; returns those that came."""
    deadline = time.monotonic() + seconds
    while len(values := self._all(folder)) < self.count:
      if time.monotonic() > deadline:
        break
      time.sleep(0.02)  # short beside the end of a run, long for the store
    return values

  def _all(self, folder: str) -> dict[int, str]:
    """Returns process -> its value in a folder of the store."""
    entries = self._client.key_value_dir_get(f'{_SPACE}/{folder}/')
    return {int(key.rpartition('/')[2]): value for key, value in entries}


_last_words = threading.Lock()


def leave_at_once(exit_code: int, line: str | None = None) -> NoReturn:
  """Ends the process from any thread, whatever the other threads do.

  Files are whole at any time, so it may be called at any time.
  """
  _last_words.acquire()  # never released: only one thread reports the end
  try:
    if line is not None:
      with contextlib.suppress(OSError, ValueError):  # stderr is closed
        sys.stderr.write(f'error: {line}\n')
    for stream in (sys.stdout, sys.stderr):
      with contextlib.suppress(OSError, ValueError):
        stream.flush()
  finally:
    os._exit(exit_code)
