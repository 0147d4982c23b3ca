"""Trains parts of an experiment side by side, in processes of this machine.

Each process is a train.py with --only, and has its share of the processors.
XLA's numbers depend, in their last digits, on how many threads compute a
product: the threads stand in the manifest. The parent passes on what the jobs
say, a line at a time, and ends them when it ends.
"""

import contextlib
import logging
import math
import os
import queue
import re
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from bn_jax import errors, modules
from bn_jax.config import build, resolve
from bn_jax.experiment import cost, together
from bn_jax.host import code, environment

_log = logging.getLogger('bn_jax')
# Bytes of a process beside its states and activations: Python, JAX, programs
# and what compiling them takes. 0.5 to 0.9 GB were seen with the networks of
# the quickstart; a large one takes more to compile.
_PROCESS = 1e9
_SHARE = 0.5  # of the memory that is left, for all jobs
# Parts that each job gets at least, while there are as many: fewer would leave
# some jobs without work at the end, more would start more processes.
_PARTS = 2
_MOST = 500  # labels in a command line
_POLL = 0.2  # seconds between looks at processes that end
_DIVERGED = errors.Diverged.exit_code


def number(
  asked: int | str,
  resolved: resolve.Experiment,
  parts: Sequence[Sequence[str]],
  is_alone: bool,
) -> int:
  """Returns how many jobs train the parts: a rule, never a timing.

  'auto' is 1 on an accelerator, with several devices or several processes; else
  the fewest that end soonest if all parts cost the same, as far as the memory
  suffices: 3 jobs for 3 parts on 2 processors, which take 1.5 turns, not 2.

  Args:
    asked: a number, or 'auto'.
    parts: of `experiment.parts`.
    is_alone: whether this is the only process that was started.

  Raises:
    ConfigError: a number above 1 where jobs would share devices.
  """
  if asked == 1:
    return 1
  if reason := _together(resolved, is_alone):
    if asked == 'auto':
      return 1
    raise errors.ConfigError(
      f"--jobs: {asked}; {reason}; allowed: 1, or 'auto', which is 1 here"
    )
  count = len(parts)
  if asked != 'auto':
    return max(1, min(asked, count))
  cores = environment.threads()
  wanted = min(
    range(1, max(1, min(count, 2 * cores - 1)) + 1),
    key=lambda jobs: math.ceil(count / jobs) * max(1, jobs / cores),
  )
  return max(1, min(wanted, _fitting(resolved, parts))) if wanted > 1 else 1


def train(
  words: Sequence[str],
  parts: Sequence[Sequence[str]],
  jobs: int,
  say: Callable[[str], Any],
) -> None:
  """Trains parts, as many at a time as there are jobs, until all have ended.

  A run that diverges stops no other; any other failure does: the others save
  their states, and the same command goes on. So do Ctrl-C and SIGTERM.

  Args:
    words: of the command line that trains the whole experiment.
    parts: labels, RUN or RUN/seedK, that one process is to train.
    say: writes a line.

  Raises:
    Failure: with the exit code of the first job that failed.
    Interrupted: a signal came, or a job was killed.
  """
  waiting = list(_pieces(parts, jobs))
  lines = queue.SimpleQueue()
  running, shown, failure = {}, set(), None
  share = max(1, environment.threads() // jobs)
  _log.info('%d jobs of %d thread%s each', jobs, share, 's' * (share > 1))
  try:
    while running or (waiting and failure is None):
      while waiting and failure is None and len(running) < jobs:
        labels = waiting.pop(0)
        process = _started(words, labels, share, lines)
        running[process.pid] = (process, labels)
      pid, line = lines.get()
      if line is not None:
        _show(line, shown, say)
        continue
      process, labels = running.pop(pid)
      code = process.wait()
      if code not in (0, _DIVERGED) and failure is None:
        failure = _failure(code, labels, shown)
        _stop(running)
  except KeyboardInterrupt:
    say('stopping; the states are saved first. Once more to stop at once')
    _stop(running)
    # The signal may have come between a line's arrival and its turn.
    while any(process.poll() is None for process, _ in running.values()):
      time.sleep(_POLL)
    time.sleep(_POLL)  # for the last lines
    while not lines.empty():
      _, line = lines.get()
      if line is not None:
        _show(line, shown, say)
    failure = errors.Interrupted('interrupted; the same command goes on')
    failure.told = any(line.startswith('error:') for line in shown)
  if failure is not None:
    raise failure


def _together(resolved: resolve.Experiment, is_alone: bool) -> str | None:
  """Returns why runs cannot be trained side by side; None if they can."""
  import jax

  if not is_alone:
    return 'several processes train each run together'
  if any(config.devices > 1 for config in resolved.runs.values()):
    return 'each run takes several devices'
  if (platform := jax.default_backend()) != 'cpu':
    return f'the runs would share the {platform}'
  return None


def _fitting(
  resolved: resolve.Experiment, parts: Sequence[Sequence[str]]
) -> int:
  """Returns how many of the largest parts the memory holds."""
  import jax

  largest = 0
  for name in {_run(labels) for labels in parts}:
    config = resolved.runs[name]
    with resolve.naming(name, resolved.runs), modules.bound(config.modules):
      size = together.bytes_of_seed(config, build.problem(config))
    seeds = max(
      sum(
        len(resolved.seeds) if label in resolved.runs else 1 for label in part
      )
      for part in parts
      if _run(part) == name
    )
    largest = max(largest, size * seeds)
  left = _SHARE * cost.memory_left(jax.devices()[0])
  return int(left // (_PROCESS + largest))


def _pieces(parts: Sequence[Sequence[str]], jobs: int):
  """Yields labels for one process: seeds of a run share its programs.

  Pieces become smaller towards the end, so that all jobs end together.
  """
  parts = list(parts)
  left = len(parts)
  while parts:
    size = min(_MOST, math.ceil(left / (_PARTS * jobs)))
    run = _run(parts[0])
    piece = []
    while parts and size and _run(parts[0]) == run:
      piece += parts.pop(0)
      left, size = left - 1, size - 1
    yield piece


def _run(labels: Sequence[str]) -> str:
  return labels[0].partition('/')[0]


def _started(words, labels, share: int, lines) -> subprocess.Popen:
  """Returns a process, whose lines, and None at its end, come into a queue."""
  process = subprocess.Popen(
    [
      *code.training(), *words, '--resume=auto', '--jobs=1',
      f'--only={",".join(labels)}', f'--part_of={os.getpid()}',
    ],
    # XLA's own variable: how many threads its pool has, on any processors.
    env={**os.environ, 'PJRT_NPROC': str(share)},
    stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    errors='replace',
    # Ctrl-C of a terminal reaches this process alone, which passes it on.
    start_new_session=True,
  )  # fmt: skip

  def read():
    with process.stderr:
      for line in process.stderr:
        lines.put((process.pid, line.rstrip('\n')))
    lines.put((process.pid, None))

  threading.Thread(target=read, daemon=True).start()
  return process


def _show(line: str, shown: set[str], say: Callable[[str], Any]) -> None:
  """Says a line, unless another job has said the same."""
  if line in shown or line.startswith('stopping;'):
    return
  if not re.match(r'\S+/seed\d+( and \d+ more)?: step ', line):
    shown.add(line)
  say(line)


def _stop(running) -> None:
  for process, _ in running.values():
    with contextlib.suppress(ProcessLookupError):  # it has just ended
      process.terminate()


def _failure(code: int, labels, shown: set[str]) -> errors.Failure:
  if code < 0:
    return errors.Interrupted(
      f'{", ".join(labels[:3])}: the process was ended by signal {-code}, of '
      'the system if the memory was short; the same command goes on, with '
      'fewer --jobs if that comes again'
    )
  failure = errors.Failure(f'{", ".join(labels[:3])}: exit code {code}')
  failure.exit_code = code
  failure.told = any(line.startswith('error:') for line in shown)
  return failure
