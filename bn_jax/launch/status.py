"""How far the cells of a sweep are: from their files, the queue, their jobs."""

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

_QUEUED = ('PENDING', 'CONFIGURING', 'REQUEUED', 'REQUEUE_HOLD', 'SUSPENDED')
_EXPECTED = 'diverged, expected'
_SECOND_SIGNAL = 130
_FAILURES = (
  errors.ConfigError,
  errors.DataError,
  errors.CheckpointError,
  errors.Diverged,
  errors.StorageError,
)
_TAIL = 1 << 14  # bytes of a file in which its last lines are looked for
_PATIENCE = 120  # seconds that SLURM has for an answer
_WIDTH = 80  # of the table
_INDENT = 6 * ' '  # of what a command said
_HEAD = ('run', 'status', 'steps', 'job')


class Note(NamedTuple):
  """What is known of the last job of a cell.

  Attributes:
    engine: that it was given to; None if it never was.
    job: its name there.
    exit_code: of its command, negative for a signal; None before its end.
  """

  engine: str | None
  job: str | None
  exit_code: int | None


class Notes:
  """What is noted about the job of a cell, below WORKDIR/launch/jobs.

  Attributes:
    ended: the file that the job writes at its end.
  """

  def __init__(self, workdir: str, cell: sweep.Cell):
    launch = pathlib.Path(workdir) / sweep.FOLDER
    self._launch = launch
    self._folder = launch / 'jobs' / cell.folder.path.relative_to(workdir)
    self.ended = self._folder / 'ended.json'

  def prepare(self) -> None:
    """Before a job is started: nothing of an earlier one is left."""
    files.make_folder(self._folder)
    try:
      self.ended.unlink(missing_ok=True)
    except OSError as error:
      raise errors.StorageError(
        f'cannot write {self._folder}: {error.strerror}'
      ) from error

  def submitted(self, engine: str, job: str) -> None:
    note = {'engine': engine, 'job': job}
    files.write_json(self._folder / 'submitted.json', note)

  def read(self) -> Note:
    shape = {'engine': str, 'job': str}
    note = files.read_json(self._folder / 'submitted.json', shape)
    if note is None:
      return Note(None, None, None)
    end = files.read_json(self.ended, {'job': str, 'exit_code': int})
    code = end['exit_code'] if end and end['job'] == note['job'] else None
    return Note(note['engine'], note['job'], code)

  def error(self, job: str) -> str | None:
    """The last line that begins with 'error:' of what the job wrote."""
    log = self._launch / f'{job}_0_log.err'
    lines = re.findall(r'^error: (.*)$', _tail(log), flags=re.MULTILINE)
    return lines[-1].strip() if lines else None


class Standing(NamedTuple):
  """How far a cell is.

  Attributes:
    status: 'done', 'diverged', 'diverged, expected', 'queued', 'running',
      'interrupted', 'killed', 'failed', 'unfinished', 'not started'.
    step: the last that is recorded or saved; None before the first.
    job: the last that it was given to; None if it never was.
    exit_code: of a command that failed, negative for a signal.
    said: the last line of it that begins with 'error:'.
  """

  status: str
  step: int | None = None
  job: str | None = None
  exit_code: int | None = None
  said: str | None = None

  @property
  def is_over(self) -> bool:
    """Whether there is nothing left to do."""
    return self.status in ('done', 'diverged', _EXPECTED)

  @property
  def is_alive(self) -> bool:
    return self.status in ('queued', 'running')

  @property
  def is_to_start(self) -> bool:
    return not (self.is_over or self.is_alive)


def of(workdir: str, cells: Sequence[sweep.Cell]) -> list[Standing]:
  """How far each cell of a sweep is.

  Raises:
    ConfigError: SLURM has some of them and does not say which are alive.
    StorageError: a manifest that is damaged.
  """
  notes = [Notes(workdir, cell) for cell in cells]
  last = [of_cell.read() for of_cell in notes]
  states = {}
  if any(note.engine == 'slurm' for note in last):
    states = in_queue()
  standings = []
  for cell, of_cell, note in zip(cells, notes, last):
    state = states.get(note.job)
    if state is None and lock.is_held(cell.folder.path):
      state = 'RUNNING'
    now = _standing(cell, state, note.exit_code)._replace(job=note.job)
    if now.status == 'failed':
      now = now._replace(said=of_cell.error(note.job))
    standings.append(now)
  return standings


def exit_code(standings: Sequence[Standing]) -> int:
  """What a sweep that was waited for ends with; 0 if all are done.

  Failures come first, then what is to be started again, then divergence that
  nobody expected.
  """
  failed = {one.exit_code for one in standings if one.status == 'failed'}
  if failed:
    known = {kind.exit_code for kind in _FAILURES}
    return failed.pop() if len(failed) == 1 and failed <= known else 1
  if not all(one.is_over for one in standings):
    return errors.Interrupted.exit_code
  if any(one.status == 'diverged' for one in standings):
    return errors.Diverged.exit_code
  return 0


def table(cells: Sequence[sweep.Cell], standings: Sequence[Standing]) -> str:
  """The table, working directory by working directory, and a line of sums."""
  rows = [_row(cell, now) for cell, now in zip(cells, standings)]
  widths = [max(map(len, column)) for column in zip(_HEAD, *rows)]
  lines, above = [], None
  for cell, now, row in zip(cells, standings, rows):
    if cell.workdir != above:
      above = cell.workdir
      lines += [str(above), _line(_HEAD, widths)]
    lines.append(_line(row, widths))
    if now.said:
      lines += textwrap.wrap(
        now.said, _WIDTH, initial_indent=_INDENT, subsequent_indent=_INDENT
      )
  counts = collections.Counter(now.status for now in standings)
  lines.append(', '.join(f'{n} {status}' for status, n in counts.items()))
  return ''.join(f'{line}\n' for line in lines)


def in_queue() -> dict[str, str]:
  """job -> its state, of one's jobs in SLURM's queue; none without a SLURM.

  Raises:
    ConfigError: SLURM does not answer.
  """
  if shutil.which('squeue') is None:
    return {}
  command = ['squeue', '--noheader', '--array', '--format=%i %T',
             f'--user={getpass.getuser()}']  # fmt: skip
  silent = 'SLURM does not say which jobs are alive'
  try:
    done = subprocess.run(
      command, capture_output=True, text=True, timeout=_PATIENCE
    )
  except subprocess.TimeoutExpired as error:
    raise errors.ConfigError(
      f'{silent}: no answer of squeue in {_PATIENCE} s'
    ) from error
  if done.returncode:
    raise errors.ConfigError(f'{silent}: {done.stderr.strip()}')
  return dict(line.split(None, 1) for line in done.stdout.splitlines())


def _standing(
  cell: sweep.Cell, state: str | None, code: int | None
) -> Standing:
  """How far a cell is, by its manifest, the state of its job and its end."""
  folder = cell.folder.again()
  manifest, status, step = folder.manifest, folder.status, folder.step
  goes_on = status == 'diverged' and divergence.goes_on(
    manifest['config'], cell.config
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
    return Standing('unfinished', step)  # more updates may be left out now
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
  """The step of the last whole record."""
  end = _tail(scalars)
  steps = re.findall(r'^{"step": (\d+).*\n', end, re.MULTILINE)
  return int(steps[-1]) if steps else 0


def _tail(path: pathlib.Path) -> str:
  """The end of a text file; nothing of one that is not there."""
  try:
    with path.open('rb') as file:
      file.seek(0, os.SEEK_END)
      file.seek(max(0, file.tell() - _TAIL))
      return file.read().decode(errors='replace')
  except OSError:
    return ''


def _row(cell: sweep.Cell, now: Standing) -> tuple[str, ...]:
  status, code = now.status, now.exit_code
  if code is not None:
    status += f', exit {code}' if code > 0 else f', signal {-code}'
  return cell.label, status, f'{now.step or 0} of {cell.steps}', now.job or '-'


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
  words = (f'{word:{width}}' for word, width in zip(row, widths))
  return f'  {"  ".join(words)}'.rstrip()
