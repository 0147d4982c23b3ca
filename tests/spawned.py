"""Commands in processes of their own, which are killed at any moment.

What costs seconds is imported once, by a process that trains nothing; each
command is a fork of it, made before JAX has a thread.
"""

import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
_SETTINGS = {
  'JAX_PLATFORMS': 'cpu',
  'JAX_DISABLE_MOST_OPTIMIZATIONS': '1',  # compilation takes the time
  'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
  'JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES': '-1',
}


class Process:
  """A command that was started.

  Attributes:
    pid: of it.
    said: the file of what it says, stdout and stderr.
  """

  def __init__(self, server: 'Server', pid: int, said: pathlib.Path):
    self._server, self.pid, self.said = server, pid, said
    self._code = None

  def poll(self) -> int | None:
    """The exit code, negative after a signal; None while it runs."""
    if self._code is None:
      self._code = self._server.ask({'poll': self.pid})
    return self._code

  def wait(self, seconds: float) -> int:
    """The exit code; raises TimeoutError if it does not end in time."""
    end = time.monotonic() + seconds
    while self.poll() is None:
      if time.monotonic() > end:
        raise TimeoutError(f'process {self.pid} runs on:\n{self.text()}')
      time.sleep(0.01)
    return self._code

  def send(self, number: int) -> None:
    if self.poll() is None:
      os.kill(self.pid, number)

  def kill(self) -> None:
    """Kills it and all that it started, without notice."""
    if self.poll() is None:
      os.killpg(self.pid, signal.SIGKILL)
      self.wait(10)

  def text(self) -> str:
    return self.said.read_text(errors='replace')

  def await_text(self, text: str, seconds: float = 60) -> None:
    """Waits until it has said something."""
    end = time.monotonic() + seconds
    while text not in self.text():
      if self.poll() is not None or time.monotonic() > end:
        raise AssertionError(f'never said {text!r}:\n{self.text()}')
      time.sleep(0.005)


class Server:
  """Starts commands: ('train', words) or ('bn_jax', words)."""

  def __init__(self, **environment: str):
    self._folder = tempfile.TemporaryDirectory()
    self._count = 0
    cache = pathlib.Path(self._folder.name) / 'compiled'
    self._process = subprocess.Popen(
      [sys.executable, __file__],
      cwd=ROOT,
      env={
        **os.environ, **_SETTINGS, 'JAX_COMPILATION_CACHE_DIR': str(cache),
        **environment,
      },
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
    )  # fmt: skip

  def ask(self, question: dict):
    self._process.stdin.write(json.dumps(question) + '\n')
    self._process.stdin.flush()
    return json.loads(self._process.stdout.readline())

  def start(self, program: str, *words: str, **environment: str) -> Process:
    said = pathlib.Path(self._folder.name) / f'said{self._count}'
    self._count += 1
    said.touch()
    pid = self.ask(
      {
        'start': [program, *words],
        'said': str(said),
        'environment': environment,
      }
    )
    return Process(self, pid, said)

  def run(self, program: str, *words: str, **environment: str) -> Process:
    """Starts a command and waits for its end."""
    process = self.start(program, *words, **environment)
    process.wait(300)
    return process

  def close(self) -> None:
    self._process.stdin.close()
    self._process.wait(30)
    self._process.stdout.close()
    self._folder.cleanup()


def _main() -> int:
  """Serves; returns in the child, with its exit code."""
  sys.path.insert(0, str(ROOT))
  import matplotlib.figure  # noqa: F401
  import tensorboardX  # noqa: F401

  from bn_jax.commands import train  # noqa: F401
  from bn_jax.report import page  # noqa: F401

  for line in sys.stdin:
    question = json.loads(line)
    if 'poll' in question:
      pid, status = os.waitpid(question['poll'], os.WNOHANG)
      answer = os.waitstatus_to_exitcode(status) if pid else None
    else:
      answer = os.fork()
      if not answer:
        return _child(question)
    print(json.dumps(answer), flush=True)
  return 0


def _child(question: dict) -> int:
  os.setsid()
  os.environ.update(question['environment'])
  said = os.open(question['said'], os.O_WRONLY | os.O_APPEND)
  os.dup2(said, 1)
  os.dup2(said, 2)
  program, *words = question['start']
  if program == 'train':
    from bn_jax.commands import train

    return train.main(['train.py', *words])
  from bn_jax import __main__

  return __main__.main(['bn_jax', *words])


if __name__ == '__main__':
  sys.exit(_main())
