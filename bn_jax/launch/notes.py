"""What is noted about the job of a cell: which it is, and how it ended."""

import getpass
import os
import pathlib
import re
import shutil
import subprocess
from typing import NamedTuple

from bn_jax import errors
from bn_jax.launch import sweep
from bn_jax.storage import files

_TAIL = 1 << 14  # bytes
_PATIENCE = 120  # seconds that SLURM has for an answer


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
    self._folder = launch / 'jobs' / cell.place.relative_to(workdir)
    self.ended = self._folder / 'ended.json'

  def prepare(self) -> None:
    """Before a job is started: nothing of an earlier one is left."""
    try:
      self._folder.mkdir(parents=True, exist_ok=True)
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
    found = re.findall(r'^error: (.*)$', tail(log), flags=re.MULTILINE)
    return found[-1].strip() if found else None


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


def tail(path: pathlib.Path) -> str:
  """The end of a text file; nothing of one that is not there."""
  try:
    with path.open('rb') as file:
      file.seek(0, os.SEEK_END)
      file.seek(max(0, file.tell() - _TAIL))
      return file.read().decode(errors='replace')
  except OSError:
    return ''
