"""How far the cells of a sweep are: read from their files."""

import pathlib
import re
from collections.abc import Sequence
from typing import NamedTuple

from bn_jax import errors
from bn_jax.experiment import divergence
from bn_jax.launch import notes, sweep
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
  noted = [notes.Notes(workdir, cell) for cell in cells]
  found = [one.read() for one in noted]
  states = {}
  if any(note.engine == 'slurm' for note in found):
    states = notes.in_queue()
  standings = []
  for cell, one, note in zip(cells, noted, found):
    state = states.get(note.job)
    if state is None and lock.is_held(cell.place):
      state = 'RUNNING'
    now = _one(cell, state, note.exit_code)._replace(job=note.job)
    if now.status == 'failed':
      now = now._replace(said=one.error(note.job))
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


def _one(cell: sweep.Cell, state: str | None, code: int | None) -> Standing:
  """How far a cell is, by its manifest, the state of its job and its end."""
  shape = {'status': str, 'step': int | None, 'config': dict}
  manifest = files.read_json(cell.place / 'manifest.json', shape)
  status = manifest['status'] if manifest else None
  step = manifest['step'] if manifest else None
  goes_on = status == 'diverged' and divergence.goes_on(
    manifest['config'], cell.config
  )
  if status == 'diverged' and not goes_on:
    return Standing(_EXPECTED if cell.may_diverge else status, step)
  if status == 'done' and (step or 0) >= cell.steps:
    return Standing(status, step)
  step = max(step or 0, _recorded(cell.place)) if manifest else None
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


def _recorded(place: pathlib.Path) -> int:
  """The step of the last whole record."""
  end = notes.tail(place / 'scalars.jsonl')
  steps = re.findall(r'^{"step": (\d+).*\n', end, re.MULTILINE)
  return int(steps[-1]) if steps else 0
