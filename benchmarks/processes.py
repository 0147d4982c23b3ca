"""Runs programs in processes of their own, which take turns.

A process that waits blocks in a read of its pipe and uses no core. Messages are
lines of JSON, {"do": name, ...} to the process and a dict back.
"""

import json
import os
import pathlib
import re
import resource
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

_STATUS = pathlib.Path('/proc/self/status')  # on Linux


class Failed(Exception):
  """A process ended before it answered."""


class Process:
  """A program that waits for its turns, for a with statement."""

  def __init__(self, *command: str):
    """Starts Python with these words; the program calls `serve`."""
    self._command = command
    self._process = subprocess.Popen(
      [sys.executable, *command],
      stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip

  def __enter__(self) -> 'Process':
    return self

  def __exit__(self, *_) -> None:
    self._process.stdin.close()  # the program's loop ends
    self._process.wait()
    self._process.stdout.close()

  def tell(self, name: str, /, **words: Any) -> None:
    """Asks for something, without waiting for it."""
    try:
      print(
        json.dumps({'do': name, **words}),
        file=self._process.stdin, flush=True,
      )  # fmt: skip
    except BrokenPipeError as error:
      raise self._failed() from error

  def answer(self) -> dict[str, Any]:
    """Waits for what was asked for.

    Raises:
      Failed: the process ended instead.
    """
    line = self._process.stdout.readline()
    if not line:
      raise self._failed()
    return json.loads(line)

  def ask(self, name: str, /, **words: Any) -> dict[str, Any]:
    """Asks for something, and waits for it."""
    self.tell(name, **words)
    return self.answer()

  def _failed(self) -> Failed:
    code = self._process.wait()
    return Failed(f'{" ".join(self._command)} ended with {code}')


def serve(answers: Mapping[str, Callable[..., Any]]) -> None:
  """Answers what a `Process` asks for, until it has no more questions.

  Args:
    answers: name -> function of the words; None is an empty answer. 'memory' is
      that of the process, if nothing else is said, and 'forget_peak' lets the
      system count it anew.
  """
  # What libraries print is no answer: it goes where errors go.
  pipe = os.fdopen(os.dup(1), 'w')
  os.dup2(2, 1)
  answers = {'memory': memory, 'forget_peak': _PEAK.forget, **answers}
  for line in sys.stdin:
    words = json.loads(line)
    answer = answers[words.pop('do')](**words)
    print(json.dumps(answer or {}), file=pipe, flush=True)


class _Peak:
  """The most memory that this process has had."""

  def __init__(self):
    self._before = 0.0

  def sizes(self) -> dict[str, float]:
    """Returns MB: `peak_mb` from the start, `steps_mb` since `forget`."""
    if _STATUS.exists():
      # That of `resource` counts the process that began this one, too.
      (size,) = re.findall(r'VmHWM:\s+(\d+) kB', _STATUS.read_text())
      most = int(size) * 1024 / 1e6
    else:
      most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # macOS
    return {'peak_mb': max(most, self._before), 'steps_mb': most}

  def forget(self) -> None:
    """Lets the system count anew; only Linux does."""
    self._before = self.sizes()['peak_mb']
    if _STATUS.exists():
      _STATUS.with_name('clear_refs').write_text('5')


_PEAK = _Peak()


def memory() -> dict[str, float]:
  """Returns `peak_mb` of this process, and `steps_mb` since 'forget_peak'."""
  return _PEAK.sizes()
