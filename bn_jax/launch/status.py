"""Tells the progress of a sweep's cells, by files, jobs and SLURM's queue."""

import collections
import getpass
import os
import pathlib
import re
import shutil
import subprocess
import textwrap
from collections.abc import Sequence
from typing import NamedTuple

from bn_jax import errors
from bn_jax.experiment import divergence
from bn_jax.launch import sweep
from bn_jax.storage import files, lock

# SLURM's states of a job that does not run; in all others it counts as running.
_QUEUED = ('PENDING', 'CONFIGURING', 'REQUEUED', 'REQUEUE_HOLD', 'SUSPENDED')
_EXPECTED = 'diverged, expected'
_SECOND_SIGNAL = 130  # the exit code of `host.signals`
# A sweep exits with the code of these if all its failed cells have that code.
_FAILURES = (
  errors.ConfigError,
  errors.DataError,
  errors.CheckpointError,
  errors.Diverged,
  errors.StorageError,
)
# Bytes at the end of a file that are searched for its last lines. The longest
# record, `signal` of the 69 layers of BN-Inception, has about 12,500.
_TAIL = 1 << 14
# Seconds for one answer of SLURM: a busy controller needs a minute or more.
_PATIENCE = 120
_WIDTH = 80  # columns of the table
_INDENT = 6 * ' '  # of a command's error, below its row of the table
_HEAD = ('run', 'status', 'steps', 'job')


class Note(NamedTuple):
  """The last job of a cell.

  Attributes:
    engine: 'local' or 'slurm'; None if there never was a job.
    job: the engine's name of the job.
    exit_code: of the command, negative for a signal; None before its end.
  """

  engine: str | None
  job: str | None
  exit_code: int | None


class Notes:
  """The files about the last job of a cell: notes and log, in WORKDIR/launch.

  Attributes:
    ended: path of the file that the job writes at its end, see `job.Training`.
  """

  def __init__(self, workdir: str, cell: sweep.Cell):
    launch = pathlib.Path(workdir) / sweep.FOLDER
    self._launch = launch
    self._folder = launch / 'jobs' / cell.folder.path.relative_to(workdir)
    self.ended = self._folder / 'ended.json'

  def prepare(self) -> None:
    """Removes the note of an earlier job's end, before a new job starts."""
    files.make_folder(self._folder)
    try:
      self.ended.unlink(missing_ok=True)
    except OSError as error:
      raise errors.StorageError(
        f'cannot write {self._folder}: {error.strerror}'
      ) from error

  def submitted(self, engine: str, job: str) -> None:
    """Notes that a job of the cell was submitted."""
    note = {'engine': engine, 'job': job}
    files.write_json(self._folder / 'submitted.json', note)

  def read(self) -> Note:
    """Returns the note of the last job; all fields are None without a job."""
    shape = {'engine': str, 'job': str}
    note = files.read_json(self._folder / 'submitted.json', shape)
    if note is None:
      return Note(None, None, None)
    end = files.read_json(self.ended, {'job': str, 'exit_code': int})
    code = end['exit_code'] if end and end['job'] == note['job'] else None
    return Note(note['engine'], note['job'], code)

  def error(self, job: str) -> str | None:
    """Returns the last message after 'error:' in the job's log, or None."""
    log = self._launch / f'{job}_0_log.err'
    lines = re.findall(r'^error: (.*)$', _tail(log), flags=re.MULTILINE)
    return lines[-1].strip() if lines else None


class Standing(NamedTuple):
  """The progress of a cell.

  Attributes:
    status: 'done', 'diverged', 'diverged, expected', 'queued', 'running',
      'interrupted', 'killed', 'failed', 'unfinished', 'not started'.
    step: of the last record or checkpoint, whichever is later; a record of
      training has the number of updates before it. None before training begins.
    job: the name of the cell's last job; None if there never was one.
    exit_code: of a command that failed or was killed, negative for a signal.
    error: the message of a command that failed, without 'error:'.
  """

  status: str
  step: int | None = None
  job: str | None = None
  exit_code: int | None = None
  error: str | None = None

  @property
  def is_over(self) -> bool:
    """Returns whether nothing is left to do for the cell."""
    return self.status in ('done', 'diverged', _EXPECTED)

  @property
  def is_alive(self) -> bool:
    return self.status in ('queued', 'running')

  @property
  def is_to_start(self) -> bool:
    return not (self.is_over or self.is_alive)


def of(workdir: str, cells: Sequence[sweep.Cell]) -> list[Standing]:
  """Returns the progress of each cell of a sweep.

  Raises:
    ConfigError: some cells are SLURM's, which does not answer.
    StorageError: a manifest, a note or a file of records is damaged.
  """
  all_notes = [Notes(workdir, cell) for cell in cells]
  last_notes = [notes.read() for notes in all_notes]
  states = {}
  if any(note.engine == 'slurm' for note in last_notes):
    states = in_queue()
  standings = []
  for cell, notes, note in zip(cells, all_notes, last_notes):
    state = states.get(note.job)
    if state is None and lock.is_held(cell.folder.path):
      state = 'RUNNING'
    standing = _standing(cell, state, note.exit_code)._replace(job=note.job)
    if standing.status == 'failed':
      standing = standing._replace(error=notes.error(note.job))
    standings.append(standing)
  return standings


def exit_code(standings: Sequence[Standing]) -> int:
  """Returns the exit code of a sweep; 0 if all cells are done as expected.

  A failure counts most: its code if all failures have the same one of
  `_FAILURES`, else 1. Then comes a cell that is not over, then a divergence
  that was not expected.
  """
  codes = {
    standing.exit_code for standing in standings if standing.status == 'failed'
  }
  if codes:
    passed_on = {kind.exit_code for kind in _FAILURES}
    return codes.pop() if len(codes) == 1 and codes <= passed_on else 1
  if not all(standing.is_over for standing in standings):
    return errors.Interrupted.exit_code
  if any(standing.status == 'diverged' for standing in standings):
    return errors.Diverged.exit_code
  return 0


def table(cells: Sequence[sweep.Cell], standings: Sequence[Standing]) -> str:
  """Returns a table for each working directory, and a line of counts."""
  rows = [_row(cell, standing) for cell, standing in zip(cells, standings)]
  widths = [max(map(len, column)) for column in zip(_HEAD, *rows)]
  lines, workdir, told = [], None, None
  for cell, standing, row in zip(cells, standings, rows):
    if cell.workdir != workdir:
      workdir = cell.workdir
      lines += [str(workdir), _line(_HEAD, widths)]
    lines.append(_line(row, widths))
    # The cells of one job have one error.
    error = (standing.job, standing.error)
    if standing.error and error != told:
      lines += textwrap.wrap(
        standing.error,
        _WIDTH,
        initial_indent=_INDENT,
        subsequent_indent=_INDENT,
      )
    told = error
  lines.append(counted(standings))
  return ''.join(f'{line}\n' for line in lines)


def counted(standings: Sequence[Standing]) -> str:
  """Returns how many cells have each status: '31 done, 1 diverged'."""
  counts = collections.Counter(standing.status for standing in standings)
  return ', '.join(f'{count} {key}' for key, count in counts.items())


def in_queue() -> dict[str, str]:
  """Returns job -> state of the user's jobs in SLURM's queue; {} without SLURM.

  Raises:
    ConfigError: SLURM does not answer, or with an error.
  """
  if shutil.which('squeue') is None:
    return {}
  command = ['squeue', '--noheader', '--array', '--format=%i %T',
             f'--user={getpass.getuser()}']  # fmt: skip
  problem = 'SLURM does not say which jobs are alive'
  try:
    queue = subprocess.run(
      command, capture_output=True, text=True, timeout=_PATIENCE
    )
  except subprocess.TimeoutExpired as error:
    raise errors.ConfigError(
      f'{problem}: no answer of squeue in {_PATIENCE} s; try again later'
    ) from error
  if queue.returncode:
    raise errors.ConfigError(f'{problem}: {queue.stderr.strip()}')
  return dict(line.split(None, 1) for line in queue.stdout.splitlines())


def _standing(
  cell: sweep.Cell, state: str | None, code: int | None
) -> Standing:
  """Returns the progress of a cell, without its job and error.

  Args:
    state: of a job that is alive, as SLURM calls it, else None.
    code: the exit code of a job that has ended, else None.
  """
  folder = cell.folder.again()
  manifest, status, step = folder.manifest, folder.status, folder.step
  goes_on = status == 'diverged' and divergence.goes_on(
    manifest['config'], cell.config.max_skips
  )
  if status == 'diverged' and not goes_on:
    return Standing(_EXPECTED if cell.may_diverge else status, step)
  if status == 'done' and step >= cell.steps:
    return Standing(status, step)
  step = max(step, _recorded(folder.scalars)) if manifest else None
  if state is not None:
    return Standing('queued' if state in _QUEUED else 'running', step)
  if code is not None and (code < 0 or code == _SECOND_SIGNAL):
    return Standing('killed', step, exit_code=code)
  if goes_on and code in (None, 0, errors.Diverged.exit_code):
    return Standing('unfinished', step)  # the config now skips more updates
  if code not in (None, 0, errors.Interrupted.exit_code):
    return Standing('failed', step, exit_code=code)
  if status == 'running':
    return Standing('killed', step)
  if status == 'done':  # of fewer steps
    return Standing('unfinished', step)
  if manifest or code == errors.Interrupted.exit_code:
    return Standing('interrupted', step)
  return Standing('not started')


def _recorded(scalars: pathlib.Path) -> int:
  """Returns the step of the last whole record; 0 if there is none."""
  steps = re.findall(r'^{"step": (\d+).*\n', _tail(scalars), re.MULTILINE)
  return int(steps[-1]) if steps else 0


def _tail(path: pathlib.Path) -> str:
  """Returns the end of a text file; '' if it cannot be read."""
  try:
    with path.open('rb') as file:
      file.seek(0, os.SEEK_END)
      file.seek(max(0, file.tell() - _TAIL))
      return file.read().decode(errors='replace')
  except OSError:
    return ''


def _row(cell: sweep.Cell, standing: Standing) -> tuple[str, ...]:
  status, code = standing.status, standing.exit_code
  if code is not None:
    status += f', exit {code}' if code > 0 else f', signal {-code}'
  steps = f'{standing.step or 0} of {cell.steps}'
  return cell.label, status, steps, standing.job or '-'


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
  words = (f'{word:{width}}' for word, width in zip(row, widths))
  return f'  {"  ".join(words)}'.rstrip()
