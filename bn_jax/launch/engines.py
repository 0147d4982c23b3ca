"""Runs the cells of a sweep with submitit, here or through SLURM."""

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
_POLL = 0.2  # seconds between checks of local jobs, each of some files
_POLL_QUEUE = 5.0  # seconds between checks of a queue, which serves many users
# Checks in a row without an answer of SLURM before waiting ends: 5 minutes, in
# which a controller can be started again.
_SILENT = 60
_FOREVER = 10**6  # minutes (two years): a local job has no limit
# How often a job whose time is over is queued again: in effect without end, but
# a job that makes no progress ends some day.
_AGAIN = 1000
_DELAY = 90  # seconds before the end of its time when a job is told to save
_TIME = re.compile(r'(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?')
_ENGINES = ('local', 'print', 'slurm')


def command(cell: sweep.Cell) -> list[str]:
  """Returns the command of a cell, with absolute paths."""
  return [sys.executable, str(_ROOT / 'train.py'), *cell.words]


def printed(cell: sweep.Cell) -> list[str]:
  """Returns the command of a cell as one would type it in this folder."""
  folder = pathlib.Path.cwd()
  script = 'train.py' if folder == _ROOT else str(_ROOT / 'train.py')
  python = sys.executable
  if shutil.which('python') == python:
    python = 'python'
  elif pathlib.Path(python).is_relative_to(folder):
    python = str(pathlib.Path(python).relative_to(folder))
  return [python, script, *cell.words]


def check(engine: str, options: Sequence[str]) -> dict[str, str]:
  """Checks an engine and its options; returns those of SLURM, key -> value.

  Raises:
    ConfigError: the engine is unknown, not installed, or has no such options.
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
  """Runs cells as local jobs, `at_once` at a time, until all have ended.

  Ctrl-C and SIGTERM are passed on to the jobs, which save their state first.

  Raises:
    ConfigError: another process runs local jobs of this sweep.
  """
  executor = _executor(sweep_dir, 'local')
  executor.update_parameters(timeout_min=_FOREVER)
  # Between a job's start and the lock that train.py takes in its folder, only
  # this lock keeps another launch from starting the same cell.
  with lock.held(pathlib.Path(sweep_dir) / sweep.FOLDER, 'launch.lock'):
    # A launch that held the lock before may have finished some cells.
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
        process = _submit_here(executor, _job(sweep_dir, cell, local=True))
        status.Notes(sweep_dir, cell).submitted('local', process.job_id)
        running[process.job_id] = (process, cell)
        say(f'{cell.workdir}: {cell.label} started, job {process.job_id}')
      time.sleep(_POLL)
      for name in [name for name, (p, _) in running.items() if p.done()]:
        _, cell = running.pop(name)
        (now,) = status.of(sweep_dir, [cell])
        say(f'{cell.workdir}: {cell.label} {now.status}')
  except KeyboardInterrupt:
    say('stopping; the jobs save their state first. Once more to stop at once')
    for process, _ in running.values():
      with contextlib.suppress(ProcessLookupError):  # it has just ended
        os.kill(int(process.job_id), signal.SIGTERM)
    while not all(process.done() for process, _ in running.values()):
      time.sleep(_POLL)


def to_slurm(
  sweep_dir: str,
  cells: Sequence[sweep.Cell],
  *,
  at_once: int | None,
  options: dict[str, str],
) -> None:
  """Submits cells to SLURM, as one job array.

  Raises:
    ConfigError: sbatch refuses them.
  """
  executor = _executor(sweep_dir, 'slurm', slurm_max_num_timeout=_AGAIN)
  executor.update_parameters(**sbatch_parameters(options, at_once))
  from submitit.core import utils

  jobs = []
  try:
    # submitit also prints sbatch's message, which is part of our error.
    with contextlib.redirect_stderr(io.StringIO()), executor.batch():
      for cell in cells:
        jobs.append(executor.submit(_job(sweep_dir, cell, local=False)))
  except (utils.FailedJobError, utils.FailedSubmissionError) as error:
    lines = [line for line in str(error).splitlines() if 'sbatch: ' in line]
    raise errors.ConfigError(
      f'SLURM refuses: {" ".join(lines) or error}'
    ) from error
  for cell, submitted in zip(cells, jobs):
    status.Notes(sweep_dir, cell).submitted('slurm', submitted.job_id)


def sbatch_options(words: Sequence[str]) -> dict[str, str]:
  """Splits 'KEY=VALUE' into key -> value, with keys as sbatch spells them.

  Raises:
    ConfigError: a word is no such pair, or `time` is missing.
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
  """Translates options of sbatch into parameters of submitit."""
  options = dict(options)
  minutes = _minutes(options.pop('time'))
  parameters = {
    'name': 'bn_jax',
    'slurm_time': minutes,
    # Half of its time at most, so that a short job trains at all.
    'slurm_signal_delay_s': min(_DELAY, 30 * minutes),
  }
  if at_once is not None:
    parameters['slurm_array_parallelism'] = at_once
  # Since SLURM 22.05 srun does not inherit this option from sbatch.
  if cpus := options.get('cpus-per-task'):
    parameters['slurm_srun_args'] = ['--cpus-per-task', cpus]
  if options:
    parameters['slurm_additional_parameters'] = options
  return parameters


def wait(sweep_dir: str, cells: Sequence[sweep.Cell]) -> None:
  """Waits until no cell is in SLURM's queue or being trained.

  Raises:
    ConfigError: some cells are SLURM's, which has not answered for 5 minutes.
  """
  silent = 0
  while True:
    try:
      if not _any_alive(sweep_dir, cells):
        return
      silent = 0
    except errors.ConfigError:
      # SLURM may be starting again; its jobs go on meanwhile.
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
  # The job may start on another machine and in another working directory,
  # where bn_jax cannot be imported.
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
  # Ctrl-C in a terminal reaches the whole process group. submitit's processes
  # inherit that they ignore it, as they would kill their jobs a second later;
  # this process stops them instead.
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
