"""Runs groups of cells as jobs of submitit, on this machine or of SLURM."""

import contextlib
import io
import os
import pathlib
import re
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any

from bn_jax import errors
from bn_jax.host import code
from bn_jax.launch import job, status, sweep
from bn_jax.storage import files, lock

_POLL = 0.2  # seconds between checks of local jobs, each of some files
_POLL_QUEUE = 5.0  # seconds between checks of a queue, which serves many users
# Checks in a row without an answer of SLURM before waiting ends: at least 5
# minutes, in which a controller can be started again.
_SILENT = 60
_FOREVER = 10**6  # minutes (two years): a local job has no limit
# How often a job whose time is over is queued again: in effect without end, but
# a job that makes no progress ends some day.
_AGAIN = 1000
# Seconds before the end of its time when a job is told to save, submitit's
# default: less may not suffice for a step and a save, more is not trained.
_DELAY = 90
_TIME = re.compile(r'(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?')
# Options of sbatch that say how many processes a job has.
_TASKS = ('ntasks', 'ntasks-per-node', 'ntasks-per-gpu', 'nodes')
_ENGINES = ('local', 'print', 'slurm')


def command(group: sweep.Group) -> list[str]:
  """Returns the command of a group, by the absolute paths of its programs."""
  return [*code.training(), *group.words]


def printed(group: sweep.Group) -> list[str]:
  """Returns the command of a group, by paths as short as this folder allows."""
  folder = pathlib.Path.cwd()
  python, *program = code.training()
  if folder == code.checkout():
    program = ['train.py']
  if shutil.which('python') == python:
    python = 'python'
  elif pathlib.Path(python).is_relative_to(folder):
    python = str(pathlib.Path(python).relative_to(folder))
  return [python, *program, *group.words]


def check(engine: str, options: Sequence[str]) -> dict[str, str]:
  """Checks an engine and its options; returns those of SLURM, key -> value.

  Raises:
    ConfigError: the engine or an option is wrong, or sbatch or time is missing.
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
      f'--slurm {options[0]}: allowed only with --engine=slurm'
    )
  return sbatch_options(options) if engine == 'slurm' else {}


def check_folder(sweep_dir: str) -> None:
  """Raises ConfigError for a folder in which job logs would go elsewhere.

  submitit and SLURM put the number of a job in the place of '%j' in a path.
  """
  path = str(pathlib.Path(sweep_dir).absolute())
  if '%' in path or '\\' in path:
    raise errors.ConfigError(
      f'--workdir: {path} has "%" or "\\", which SLURM and submitit read as '
      'fields; give a folder without, or --engine=print'
    )


def locally(
  sweep_dir: str,
  groups: Sequence[sweep.Group],
  *,
  at_once: int,
  say: Callable[[str], None],
) -> None:
  """Runs groups as local jobs, `at_once` at a time, until all have ended.

  Ctrl-C and SIGTERM are passed on to the jobs, which save their state first.

  Raises:
    ConfigError: submitit is missing, or another process runs these jobs.
    StorageError: the working directory cannot be written.
  """
  executor = _executor(sweep_dir, 'local')
  executor.update_parameters(timeout_min=_FOREVER)
  # Between a job's start and the lock that train.py takes in its folder, only
  # this lock keeps another launch from starting the same cell.
  with lock.held(pathlib.Path(sweep_dir) / sweep.FOLDER, 'launch.lock'):
    # A launch that held the lock before may have finished some cells.
    waiting = []
    for group in groups:
      pairs = zip(group.cells, status.of(sweep_dir, group.cells))
      left = tuple(cell for cell, standing in pairs if standing.is_to_start)
      if left:
        waiting.append(group._replace(cells=left))
    _run_here(executor, sweep_dir, waiting, at_once, say)


def _run_here(
  executor: Any,
  sweep_dir: str,
  groups: list[sweep.Group],
  at_once: int,
  say: Callable[[str], None],
) -> None:
  """Runs all groups; takes each from the list when its job starts."""
  running = {}  # name of a job -> submitit's handle of the job, its group
  try:
    while groups or running:
      while groups and len(running) < at_once:
        group = groups.pop(0)
        handle = _submit_here(executor, _job(sweep_dir, group, local=True))
        _submitted(sweep_dir, group, 'local', handle)
        running[handle.job_id] = (handle, group)
        say(f'{group.workdir}: {group.label} started, job {handle.job_id}')
      time.sleep(_POLL)
      for name, (handle, group) in list(running.items()):
        if handle.done():
          del running[name]
          counts = status.counted(status.of(sweep_dir, group.cells))
          say(f'{group.workdir}: {group.label} {counts}')
  except KeyboardInterrupt:
    say('stopping; the jobs save their state first. Once more to stop at once')
    for handle, _ in running.values():
      with contextlib.suppress(ProcessLookupError):  # the job has just ended
        os.kill(int(handle.job_id), signal.SIGTERM)
    while not all(handle.done() for handle, _ in running.values()):
      time.sleep(_POLL)


def to_slurm(
  sweep_dir: str,
  groups: Sequence[sweep.Group],
  *,
  at_once: int | None,
  options: dict[str, str],
) -> None:
  """Submits groups to SLURM, as one job array.

  Raises:
    ConfigError: sbatch refuses the groups, or submitit is missing.
    StorageError: the working directory cannot be written.
  """
  executor = _executor(sweep_dir, 'slurm', slurm_max_num_timeout=_AGAIN)
  executor.update_parameters(**sbatch_parameters(options, at_once))
  from submitit.core import utils

  handles = []
  try:
    # submitit also prints sbatch's message, which the ConfigError has.
    with contextlib.redirect_stderr(io.StringIO()), executor.batch():
      for group in groups:
        handles.append(executor.submit(_job(sweep_dir, group, local=False)))
  except (utils.FailedJobError, utils.FailedSubmissionError) as error:
    lines = [line for line in str(error).splitlines() if 'sbatch: ' in line]
    raise errors.ConfigError(
      f'SLURM refuses: {" ".join(lines) or error}'
    ) from error
  for group, handle in zip(groups, handles):
    _submitted(sweep_dir, group, 'slurm', handle)


def sbatch_options(words: Sequence[str]) -> dict[str, str]:
  """Splits 'KEY=VALUE' into key -> value, with keys as sbatch spells them.

  Raises:
    ConfigError: a word is no such pair, or `time` is missing or no time.
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
    # Half of the job's time at most, so that a short job trains at all.
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


def has_tasks(options: dict[str, str]) -> bool:
  """Returns whether options of sbatch make several processes of a job.

  These train one seed after the other: a job each.
  """
  return any(key in _TASKS and value != '1' for key, value in options.items())


def wait(sweep_dir: str, cells: Sequence[sweep.Cell]) -> None:
  """Waits until no cell is in SLURM's queue or being trained.

  Raises:
    ConfigError: some cells are SLURM's, which did not answer `_SILENT` checks.
  """
  silent_checks = 0
  while True:
    try:
      if not _any_alive(sweep_dir, cells):
        return
      silent_checks = 0
    except errors.ConfigError:
      # SLURM may be starting again; its jobs go on meanwhile.
      silent_checks += 1
      if silent_checks == _SILENT:
        raise
    time.sleep(_POLL_QUEUE)


def _any_alive(sweep_dir: str, cells: Sequence[sweep.Cell]) -> bool:
  """Returns whether a cell is in SLURM's queue or being trained."""
  notes = [status.Notes(sweep_dir, cell).read() for cell in cells]
  names = {note.job for note in notes if note.engine == 'slurm'}
  if names and names & status.in_queue().keys():
    return True
  return any(lock.is_held(cell.folder.path) for cell in cells)


def _executor(sweep_dir: str, engine: str, **keywords: Any) -> Any:
  """Returns submitit's executor of 'local' or 'slurm'; makes its folder."""
  try:
    import cloudpickle
    import submitit
  except ImportError as error:
    raise errors.ConfigError(
      f'--engine={engine} needs submitit (pip install submitit); or give '
      '--engine=print'
    ) from error
  # The job may start on another machine and in another working directory,
  # where bn_jax cannot be imported.
  cloudpickle.register_pickle_by_value(job)
  folder = pathlib.Path(sweep_dir) / sweep.FOLDER
  files.make_folder(folder, 'give another --workdir')
  try:
    return submitit.AutoExecutor(folder, cluster=engine, **keywords)
  except OSError as error:
    raise errors.StorageError(
      f'--workdir: cannot make {folder}: {error.strerror}'
    ) from error


def _job(sweep_dir: str, group: sweep.Group, *, local: bool) -> job.Training:
  """Returns the job of a group, whose earlier notes of an end are removed."""
  ended = []
  for cell in group.cells:
    notes = status.Notes(sweep_dir, cell)
    notes.prepare()
    ended.append(str(notes.ended.absolute()))
  visible = os.environ.get('CUDA_VISIBLE_DEVICES') if local else None
  return job.Training(command(group), ended, local=local, visible=visible)


def _submitted(
  sweep_dir: str, group: sweep.Group, engine: str, handle: Any
) -> None:
  """Notes for each cell of a group that its job was submitted."""
  for cell in group.cells:
    status.Notes(sweep_dir, cell).submitted(engine, handle.job_id)


def _submit_here(executor: Any, training: job.Training) -> Any:
  # Ctrl-C in a terminal reaches the whole process group. submitit's processes
  # would then kill their jobs a second later, so they inherit that they ignore
  # it; this process stops the jobs instead.
  old_handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
  try:
    return executor.submit(training)
  finally:
    signal.signal(signal.SIGINT, old_handler)


def _minutes(text: str) -> int:
  """Returns the whole minutes of M, M:S, H:M:S, D-H, D-H:M or D-H:M:S."""
  match = _TIME.fullmatch(text)
  if not match:
    raise errors.ConfigError(
      f'--slurm time={text}: allowed: MINUTES[:SECONDS], '
      'HOURS:MINUTES:SECONDS, DAYS-HOURS[:MINUTES[:SECONDS]]'
    )
  days, *numbers = match.groups()
  first, second, third = (int(number or 0) for number in numbers)
  if days is not None:
    minutes = (int(days) * 24 + first) * 60 + second + third / 60
  elif numbers[2] is not None:
    minutes = first * 60 + second + third / 60
  else:
    minutes = first + second / 60
  if minutes < 1:
    raise errors.ConfigError(f'--slurm time={text}: allowed: a minute or more')
  return int(minutes)
