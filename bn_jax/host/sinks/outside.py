"""Sends records to a service outside of the run's folder, each of them once.

  sinks/NAME.json    the run's id there, and the newest step sent of each record

What is sent is written down before it is sent, so that after a kill nothing is
there twice; the seconds before a kill may be lacking there. What the service
lacks is sent when training goes on: `scalars.jsonl` has it.
"""

import logging
import pathlib
import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

from bn_jax import errors
from bn_jax.host.sinks import about
from bn_jax.storage import files
from bn_jax.storage.records import Record

_log = logging.getLogger('bn_jax')
# Of numbers that wait: fewer are more requests, more fall behind the training.
_SECONDS_BETWEEN_SENDINGS = 5
_MOST_STEPS = 500
# The end of a run waits so long for a service that does not answer.
_PATIENCE = 120.0
_STATE = {'id': str, 'sent': {...: int}}


class _Row(NamedTuple):
  """The numbers of a step, and the names of their records."""

  step: int
  numbers: dict[str, float]
  names: list[str]


class Client(Protocol):
  """A run of a service, made by (`about.Run`, id of an older one or None).

  Attributes:
    id: by which the service knows the run.
  """

  id: str

  def send(self, rows: Sequence[tuple[int, dict[str, float]]]) -> None:
    """Takes (step, tag -> number), in the order of steps."""

  def send_images(self, paths: Sequence[pathlib.Path], step: int) -> None:
    """Takes PNGs, which it shows under the names of their files."""

  def finish(self, status: str) -> None:
    """Ends with 'done', 'diverged', 'interrupted' or 'failed'."""


class Outside:
  """A sink whose service is told by a thread of its own.

  Training neither waits for the service nor ends with it: one that fails is
  told about in a line, and gets no more.
  """

  def __init__(
    self,
    name: str,
    make: Callable[[about.Run, str | None], Client],
    run: about.Run,
    state: pathlib.Path,
    recorded: Iterable[Record],
  ):
    """Begins a run there, or goes on with the one of the state.

    Args:
      name: of the service.
      make: its `Client`.
      state: the file of what was sent.
      recorded: what the run's folder has; what of it was not sent is sent.

    Raises:
      StorageError: the service refuses; or the state cannot be read.
    """
    self._label, self._state = f'{run.name}: {name}', state
    old = files.read_json(state, _STATE) or {'id': None, 'sent': {}}
    self._client = begun(name, make, run, old['id'])
    self._sent, self._had = old['sent'], dict(old['sent'])
    self._waiting: list[_Row] = []
    self._last_sending = time.monotonic()
    files.make_folder(state.parent)
    self._keep()
    self._jobs = queue.SimpleQueue()
    self._has_failed = False
    # A daemon: a service that never answers does not keep the command alive.
    self._thread = threading.Thread(target=self._work, daemon=True)
    self._thread.start()
    for record in recorded:
      self.write(record)

  def write(self, record: Record) -> None:
    """Takes a record, unless the service had it when this was opened."""
    if record.name in self._had and record.step <= self._had[record.name]:
      return
    if not self._waiting or self._waiting[-1].step != record.step:
      self._waiting.append(_Row(int(record.step), {}, []))
    self._waiting[-1].numbers.update(about.numbers(record))
    self._waiting[-1].names.append(record.name)
    is_due = time.monotonic() - self._last_sending > _SECONDS_BETWEEN_SENDINGS
    if is_due or len(self._waiting) > _MOST_STEPS:
      # The newest step may get more; wandb takes none for a step after a later
      # start, so each is sent whole.
      self._hand_over(self._waiting[:-1])
      self._waiting = self._waiting[-1:]

  def write_arrays(self, record: Record) -> None:
    """Drops what is too large for a line."""

  def close(self, status: str) -> None:
    """Sends the rest and the status, and waits until that is done."""
    # Where the same command goes on, it writes the newest step again.
    is_end = status in ('done', 'diverged')
    self._hand_over(self._waiting if is_end else self._waiting[:-1])
    self._jobs.put(lambda: self._client.finish(status))
    self._jobs.put(None)
    self._thread.join(_PATIENCE)
    if self._thread.is_alive():
      _log.warning(
        '%s has not answered for %.0f s; it may lack the last records, which '
        'scalars.jsonl has', self._label, _PATIENCE,
      )  # fmt: skip

  def _hand_over(self, rows: Sequence[_Row]) -> None:
    self._last_sending = time.monotonic()
    if rows:
      self._jobs.put(lambda: self._send(rows))

  def _send(self, rows: Sequence[_Row]) -> None:
    before = self._sent
    newest = {name: row.step for row in rows for name in row.names}
    self._sent = {**before, **newest}
    self._keep()
    try:
      self._client.send([(row.step, row.numbers) for row in rows])
    except Exception:
      self._sent = before  # sent again when training goes on
      self._keep()
      raise

  def _keep(self) -> None:
    files.write_json(self._state, {'id': self._client.id, 'sent': self._sent})

  def _work(self) -> None:
    while (job := self._jobs.get()) is not None:
      if self._has_failed:
        continue
      try:
        job()
      except Exception as error:  # whatever a service and its network raise
        self._has_failed = True
        _log.warning(
          '%s takes no more records (%s); training goes on, and scalars.jsonl '
          'has them', self._label, errors.first_line(error),
        )  # fmt: skip


def begun(name: str, make: Any, run: about.Run, old_id: str | None) -> Client:
  """Returns a run of a service, which may refuse it.

  Raises:
    StorageError: it does.
  """
  try:
    return make(run, old_id)
  except Exception as error:  # whatever a service and its network raise
    raise errors.StorageError(
      f'{run.name}: {name} refuses ({errors.first_line(error)}); mend that, or '
      f'leave {name} out of config.sinks'
    ) from error


def send_figures(
  name: str,
  make: Callable[[about.Run, str | None], Client],
  run: about.Run,
  state: pathlib.Path,
  paths: Sequence[pathlib.Path],
  step: int,
) -> None:
  """Sends the figures that have changed since they were sent.

  Raises:
    StorageError: the service refuses.
  """
  shape = {'id': str, 'figures': {...: str}}
  old = files.read_json(state, shape) or {'id': None, 'figures': {}}
  digests = {path.name: files.digest_of(files.read(path))[1] for path in paths}
  changed = [
    path
    for path in paths
    if digests[path.name] != old['figures'].get(path.name)
  ]
  if not changed:
    return
  client = begun(name, make, run, old['id'])
  try:
    client.send_images(changed, step)
    client.finish('done')
  except Exception as error:  # whatever a service and its network raise
    raise errors.StorageError(
      f'{name} takes no figures ({errors.first_line(error)})'
    ) from error
  files.make_folder(state.parent)
  files.write_json(state, {'id': client.id, 'figures': digests})
