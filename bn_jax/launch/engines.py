"""Who runs the cells of a sweep: submitit, here or through SLURM."""

import contextlib
import io
import os
import pathlib
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from bn_jax import errors
from bn_jax.launch import job, status, sweep
from bn_jax.storage import files, lock

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_POLL = 0.2  # seconds between two looks at local jobs
_POLL_QUEUE = 5.0  # and at a queue, which others look at too
_SILENT = 60  # looks in a row that SLURM may leave without an answer
_FOREVER = 10**6  # minutes
_AGAIN = 1000  # how often a job whose time was over is queued again
_DELAY = 90  # seconds before the end of a job's time in which it is told
_TIME = re.compile(r'(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?')
_ENGINES = ('local', 'print', 'slurm')


def command(cell: sweep.Cell) -> list[str]:
  """The command of a cell, for the processes of this machine's Python."""
  return [sys.executable, str(_ROOT / 'train.py'), *cell.words]


def printed(cell: sweep.Cell) -> list[str]:
  """The command of a cell as one would type it here."""
  here = pathlib.Path.cwd()
  script = 'train.py' if here == _ROOT else str(_ROOT / 'train.py')
  python = sys.executable
  if shutil.which('python') == python:
    python = 'python'
  elif pathlib.Path(python).is_relative_to(here):
    python = str(pathlib.Path(python).relative_to(here))
  return [python, script, *cell.words]


def check(engine: str, options: Sequence[str]) -> dict[str, str]:
  """The options of SLURM, key -> value, of an engine that is there.

  Raises:
    ConfigError: an unknown engine, one that is not installed, or options that
      it does not have.
  """
  if engine not in _ENGINES:
    raise errors.ConfigError(
      f'--engine: {errors.unknown("engine", engine, _ENGINES)}'
    )
  if engine == 'slurm' and shutil.which('sbatch') is None:
    raise errors.ConfigError(
      '--engine=slurm: there is no sbatch on the PATH; give it on a node of '
      'the cluster, or --engine=local'
    )
  if engine != 'slurm' and options:
    raise errors.ConfigError(
      f'--slurm {options[0]}: allowed with --engine=slurm'
    )
  return sbatch_options(options) if engine == 'slurm' else {}


def locally(
  sweep_dir: str,
  cells: Sequence[sweep.Cell],
  *,
  at_once: int,
  say: Callable[[str], None],
) -> None:
  """Runs cells as local jobs, so many at once, and waits for their end.

  Ctrl-C and SIGTERM are passed on; what runs saves its state first.

  Raises:
    ConfigError: another process does so for this sweep. From a job's start
      until train.py locks its folder, nothing else keeps a second one away.
  """
  executor = _executor(sweep_dir, 'local')
  executor.update_parameters(timeout_min=_FOREVER)
  with lock.held(pathlib.Path(sweep_dir) / sweep.FOLDER, 'launch.lock'):
    # Whoever held it until now may have ended some of them.
    standings = status.of(sweep_dir, cells)
    todo = [cell for cell, now in zip(cells, standings) if now.is_to_start]
    _run_here(executor, sweep_dir, todo, at_once, say)


def _run_here(
  executor: Any,
  sweep_dir: str,
  todo: list[sweep.Cell],
  at_once: int,
  say: Callable[[str], None],
) -> None:
  running = {}
  try:
    while todo or running:
      while todo and len(running) < at_once:
        cell = todo.pop(0)
        made = _submit_here(executor, _job(sweep_dir, cell, local=True))
        status.Notes(sweep_dir, cell).submitted('local', made.job_id)
        running[made.job_id] = (made, cell)
        say(f'{cell.workdir}: {cell.label} started, job {made.job_id}')
      time.sleep(_POLL)
      for name in [name for name, (made, _) in running.items() if made.done()]:
        _, cell = running.pop(name)
        (now,) = status.of(sweep_dir, [cell])
        say(f'{cell.workdir}: {cell.label} {now.status}')
  except KeyboardInterrupt:
    say('stopping; the jobs save their state first. Once more to stop at once')
    for made, _ in running.values():
      # It may have ended a moment ago.
      with contextlib.suppress(ProcessLookupError):
        os.kill(int(made.job_id), signal.SIGTERM)
    while not all(made.done() for made, _ in running.values()):
      time.sleep(_POLL)


def to_slurm(
  sweep_dir: str,
  cells: Sequence[sweep.Cell],
  *,
  at_once: int | None,
  options: dict[str, str],
) -> None:
  """Hands cells to SLURM, as one array.

  Raises:
    ConfigError: sbatch refuses them.
  """
  executor = _executor(sweep_dir, 'slurm', slurm_max_num_timeout=_AGAIN)
  executor.update_parameters(**sbatch_parameters(options, at_once))
  from submitit.core import utils

  waiting = []
  try:
    # submitit prints what sbatch says; here it is part of the one line.
    with contextlib.redirect_stderr(io.StringIO()), executor.batch():
      for cell in cells:
        waiting.append(executor.submit(_job(sweep_dir, cell, local=False)))
  except (utils.FailedJobError, utils.FailedSubmissionError) as error:
    lines = [line for line in str(error).splitlines() if 'sbatch: ' in line]
    raise errors.ConfigError(
      f'SLURM refuses: {" ".join(lines) or error}'
    ) from error
  for cell, made in zip(cells, waiting):
    status.Notes(sweep_dir, cell).submitted('slurm', made.job_id)


def sbatch_options(words: Sequence[str]) -> dict[str, str]:
  """Splits 'KEY=VALUE' into key -> value, keys as sbatch spells them.

  Raises:
    ConfigError: no such pair, or no time.
  """
  options = {}
  for word in words:
    match = re.fullmatch(r'(?:--)?([a-z][a-z_-]*)=(.+)', word)
    if not match:
      raise errors.ConfigError(
        f'--slurm {word}: allowed: KEY=VALUE, an option of sbatch, such as '
        'partition=gpu'
      )
    options[match[1].replace('_', '-')] = match[2]
  if 'time' not in options:
    raise errors.ConfigError(
      '--slurm time=MINUTES is missing; at the end of it a job saves its state '
      'and is queued again'
    )
  _minutes(options['time'])
  return options


def sbatch_parameters(
  options: dict[str, str], at_once: int | None
) -> dict[str, Any]:
  """Translates options of sbatch into submitit's words."""
  options = dict(options)
  minutes = _minutes(options.pop('time'))
  parameters = {
    'name': 'bn_jax',
    'slurm_time': minutes,
    'slurm_signal_delay_s': min(_DELAY, 30 * minutes),
  }
  if at_once is not None:
    parameters['slurm_array_parallelism'] = at_once
  # srun does not take it over from sbatch since SLURM 22.05.
  if cpus := options.get('cpus-per-task'):
    parameters['slurm_srun_args'] = ['--cpus-per-task', cpus]
  if options:
    parameters['slurm_additional_parameters'] = options
  return parameters


def wait(sweep_dir: str, cells: Sequence[sweep.Cell]) -> None:
  """Waits until no job of the cells is in SLURM's queue, and none is written.

  Raises:
    ConfigError: SLURM has some of them and has not answered for minutes.
  """
  silent = 0
  while True:
    try:
      if not _any_alive(sweep_dir, cells):
        return
      silent = 0
    except errors.ConfigError:
      # It may be starting anew: the jobs go on.
      silent += 1
      if silent == _SILENT:
        raise
    time.sleep(_POLL_QUEUE)


def _any_alive(sweep_dir: str, cells: Sequence[sweep.Cell]) -> bool:
  notes = [status.Notes(sweep_dir, cell).read() for cell in cells]
  jobs = {note.job for note in notes if note.engine == 'slurm'}
  if jobs and jobs & status.in_queue().keys():
    return True
  return any(lock.is_held(cell.folder.path) for cell in cells)


def _executor(sweep_dir: str, cluster: str, **keywords: Any) -> Any:
  try:
    import cloudpickle
    import submitit
  except ImportError as error:
    raise errors.ConfigError(
      f'--engine={cluster} needs submitit (pip install submitit); or give '
      '--engine=print'
    ) from error
  # The job may start elsewhere, and with another working directory.
  cloudpickle.register_pickle_by_value(job)
  folder = pathlib.Path(sweep_dir) / sweep.FOLDER
  files.make_folder(folder, 'give another --workdir')
  try:
    return submitit.AutoExecutor(folder, cluster=cluster, **keywords)
  except OSError as error:
    raise errors.StorageError(
      f'--workdir: cannot make {folder}: {error.strerror}'
    ) from error


def _job(sweep_dir: str, cell: sweep.Cell, *, local: bool) -> job.Training:
  notes = status.Notes(sweep_dir, cell)
  notes.prepare()
  visible = os.environ.get('CUDA_VISIBLE_DEVICES') if local else None
  ended = str(notes.ended.absolute())
  return job.Training(command(cell), ended, local=local, visible=visible)


def _submit_here(executor: Any, training: job.Training) -> Any:
  # Ctrl-C in a terminal reaches the whole group; it is for this process, which
  # tells the others: submitit's would kill their jobs a second later.
  old = signal.signal(signal.SIGINT, signal.SIG_IGN)
  try:
    return executor.submit(training)
  finally:
    signal.signal(signal.SIGINT, old)


def _minutes(text: str) -> int:
  """Reads SLURM's time, in minutes: M, M:S, H:M:S, D-H, D-H:M, D-H:M:S."""
  match = _TIME.fullmatch(text)
  if not match:
    raise errors.ConfigError(
      f'--slurm time={text}: allowed: MINUTES, HOURS:MINUTES:SECONDS, '
      'DAYS-HOURS'
    )
  days, *rest = match.groups()
  first, second, third = (int(part or 0) for part in rest)
  if days is not None:
    minutes = (int(days) * 24 + first) * 60 + second + third / 60
  elif rest[2] is not None:
    minutes = first * 60 + second + third / 60
  else:
    minutes = first + second / 60
  if minutes < 1:
    raise errors.ConfigError(f'--slurm time={text}: allowed: a minute or more')
  return int(minutes)
