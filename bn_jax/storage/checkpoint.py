"""Saves and restores states of training, by orbax, each with its digests.

  checkpoints/500/state/...       what orbax writes
  checkpoints/500/digests.json    what must be there; see `digests`

A checkpoint is written as `500.new` and renamed when it is complete; before it
is removed it is renamed to `500.old`. Thus a folder named by a step alone is
complete, even if a process is killed, unless it was damaged later. Nothing of a
damaged checkpoint is used; it is set aside as `500.damaged`.

A state is read into the tree of the caller's network. A checkpoint with other
arrays is refused; nothing is cast or left out.
"""

import concurrent.futures
import contextlib
import errno
import hashlib
import logging
import os
import pathlib
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from bn_jax import checks, errors, trees
from bn_jax.storage import digests, files

_log = logging.getLogger('bn_jax')
# Bytes allowed for a checkpoint's files beside the arrays: metadata of orbax
# and digests. Too few let a save begin that fills the disk, too many refuse it.
_OVERHEAD = 2**18
# Free space that a save requires, as a multiple of the arrays' size: records
# and other programs need some of it too.
_MARGIN = 1.2
_LEFT = re.compile('[0-9]+[.](new|old)')  # what a killed save left
_FEW = 3  # differences that a message lists; more would not be read


class Checkpoints:
  """The newest few checkpoints of one run.

  `save` returns when it has copied the state; a thread then writes it while
  training continues. One process writes, see `lock`; any may read.
  """

  def __init__(
    self,
    directory: pathlib.Path,
    *,
    keep: int = 2,
    about: Mapping[str, Any] | None = None,
    differs: Callable[[Mapping[str, Any]], str | None] = lambda about: None,
  ):
    """Opens a directory, without creating or changing anything.

    Args:
      directory: of the checkpoints, absolute or not.
      keep: how many of the newest stay on the disk; two leave one to restore
        if the newest is damaged.
      about: JSON that is stored with each checkpoint, such as the config.
      differs: returns why a stored `about` is another experiment's, or None.

    Raises:
      ValueError: `keep` is not 1, 2, 3, ...
    """
    checks.count('keep', keep)
    self._directory = directory
    self._keep = keep
    self._about = dict(about or {})
    self._differs = differs
    self._writer = concurrent.futures.ThreadPoolExecutor(max_workers=1)
    self._saving: concurrent.futures.Future | None = None
    self._newest: int | None = None
    self._copies: list[np.ndarray] = []

  def steps(self) -> tuple[int, ...]:
    """Returns the steps of all checkpoints, in order, damaged ones too."""
    return digests.steps(self._directory)

  def latest(self) -> int | None:
    """Returns the step of the newest checkpoint, None where there is none."""
    return max(self.steps(), default=None)

  def clean(self) -> None:
    """Removes what interrupted saves and removals have left."""
    if self._directory.is_dir():
      for path in self._directory.iterdir():
        if _LEFT.fullmatch(path.name):
          shutil.rmtree(path, ignore_errors=True)

  def about(self, step: int) -> dict[str, Any]:
    """Returns the JSON that is stored with a checkpoint that was restored."""
    return digests.read_of(self._directory, step)['about']

  def save(
    self,
    step: int,
    state: Any,
    about: Mapping[str, Any] | None = None,
    *,
    copied: bool = True,
  ) -> None:
    """Begins to write the state of a step, once the save before is finished.

    If the newest checkpoint is of this step, that stays as it is.

    Args:
      about: JSON that is stored with this one, beside that of all.
      copied: False for a state that nobody changes until `wait` has returned.

    Raises:
      StorageError: the step is earlier than the newest checkpoint's, or the
        save before failed.
    """
    self.wait()
    newest_step = self.latest() if self._newest is None else self._newest
    if newest_step is not None and step < newest_step:
      raise errors.StorageError(
        f'checkpoint {step} in {self._directory} was refused: {newest_step} is '
        f'there already; allowed: {newest_step} or later'
      )
    # Copied even if the checkpoint exists: this allocates the memory of copies.
    copy = self._copied(state) if copied else jax.tree.map(np.asarray, state)
    if step != newest_step:
      self._newest = step
      self._saving = self._writer.submit(self._write, step, copy, about)

  def check(self) -> None:
    """Raises StorageError if the last save has failed; does not wait for it."""
    if self._saving is not None and self._saving.done():
      self.wait()

  def wait(self) -> None:
    """Waits until the current save is finished.

    Raises:
      StorageError: the save has failed.
    """
    saving, self._saving = self._saving, None
    if saving is not None:
      try:
        saving.result()
      except BaseException:
        self._newest = None
        raise

  def restore(self, step: int, like: Any) -> Any:
    """Reads the state of a step, as NumPy arrays.

    Args:
      like: a state of the same network, or its shapes; shapes and dtypes must
        agree.

    Raises:
      CheckpointError: the checkpoint is absent, damaged or unreadable, or of
        another network, optimizer, experiment or version.
    """
    try:
      return self._restored(step, like)
    except digests.Damaged as error:
      if step not in self.steps():
        raise errors.CheckpointError(
          f'checkpoint {step} in {self._directory} is not there (training '
          f'keeps the newest few); there are: {_listed(self.steps())}'
        ) from error
      raise errors.CheckpointError(
        f'checkpoint {step} in {self._directory} is damaged: {error}; there '
        f'are: {_listed(self.steps())}'
      ) from error

  def newest(self, like: Any, *, set_aside: bool = False) -> Any | None:
    """Reads the newest undamaged state, as NumPy arrays, or None without any.

    Warns of each damaged checkpoint.

    Args:
      like: a state of the same network, or its shapes.
      set_aside: whether damaged checkpoints are renamed, so that their steps
        can be saved again.

    Raises:
      CheckpointError: all are damaged, or `restore` refuses the newest other.
    """
    damaged, tried = {}, set()
    # Steps are listed anew each time: training may remove one meanwhile.
    while untried := [step for step in self.steps() if step not in tried]:
      step = untried[-1]
      tried.add(step)
      try:
        state = self._restored(step, like)
      except digests.Damaged as error:
        if step not in self.steps():
          continue
        _log.warning(
          'checkpoint %d in %s is damaged: %s; trying the one before it',
          step, self._directory, error,
        )  # fmt: skip
        damaged[step] = str(error)
        continue
      if set_aside:
        for damaged_step in damaged:
          self._rename(damaged_step, 'damaged')
      return state
    if damaged:
      raise digests.none_is_whole(self._directory, damaged)
    return None

  def close(self) -> None:
    """Waits until the current save is finished, whether it succeeds or not."""
    self._writer.shutdown(wait=True)

  def _restored(self, step: int, like: Any) -> Any:
    folder = self._directory / str(step)
    facts = digests.read_of(self._directory, step)
    self._check(step, facts, _arrays(like))
    digests.verify(folder, facts)
    return _read_tree(folder / 'state', like)

  def _check(self, step: int, facts: Mapping, wanted: Mapping) -> None:
    """Raises CheckpointError for another experiment, other shapes or dtypes.

    orbax itself would cast a dtype silently.
    """
    where = f'checkpoint {step} in {self._directory}'
    why = self._differs(facts['about'])
    if why is not None:
      raise errors.CheckpointError(f'{where} is of another experiment: {why}')
    stored = facts['arrays']
    paths = sorted(
      path
      for path in stored.keys() | wanted.keys()
      if stored.get(path) != wanted.get(path)
    )
    if paths:
      differences = '; '.join(
        f'{path} is {_type(stored.get(path))} there, {_type(wanted.get(path))} '
        'here'
        for path in paths[:_FEW]
      )
      what = 'network'
      if all(path.startswith('opt_state') for path in paths):
        what = 'optimizer (config.init_from takes the parameters alone)'
      raise errors.CheckpointError(
        f'{where} is of another {what}: {len(paths)} arrays differ: '
        f'{differences}'
      )

  def _copied(self, state: Any) -> Any:
    """Copies the state to the host, into memory that the next save reuses.

    A view would not do: the next step donates the state's buffers, and on a CPU
    `np.asarray` returns a view of them.
    """
    leaves, tree = jax.tree.flatten(state)
    for leaf in leaves:
      if isinstance(leaf, jax.Array):
        leaf.copy_to_host_async()
    if not self._copies:
      self._copies = [np.empty(leaf.shape, leaf.dtype) for leaf in leaves]
    for copy, leaf in zip(self._copies, leaves, strict=True):
      np.copyto(copy, np.asarray(leaf), casting='no')
    return jax.tree.unflatten(tree, self._copies)

  def _write(self, step: int, state: Any, about: Mapping | None) -> None:
    """Writes one checkpoint, then removes the oldest."""
    new = self._directory / f'{step}.new'
    try:
      shutil.rmtree(new, ignore_errors=True)
      # Without parents: if somebody removed the run's folder, saving fails.
      self._directory.mkdir(exist_ok=True)
      new.mkdir()
      # Checked before orbax begins: its threads print their errors themselves.
      if self._free() < _MARGIN * bytes_of(state) + _OVERHEAD:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
      _write_tree(new / 'state', state)
      facts = {
        'step': step,
        'about': {**self._about, **(about or {})},
        'arrays': _arrays(state),
        'state': _digest(state),
      }
      digests.write(new, facts)
      new.rename(self._directory / str(step))
      for old in self.steps()[: -self._keep]:
        self._rename(old, 'old')
        # Some file systems keep a file that is being read; see `clean`.
        shutil.rmtree(self._directory / f'{old}.old', ignore_errors=True)
    # orbax raises ValueError if the disk is full.
    except (OSError, ValueError, errors.StorageError) as error:
      shutil.rmtree(new, ignore_errors=True)
      raise errors.StorageError(self._failed(step, state, error)) from error

  def _free(self) -> int:
    return shutil.disk_usage(self._directory).free

  def _failed(self, step: int, state: Any, error: Exception) -> str:
    """Returns the message of a save that failed."""
    size = bytes_of(state) + _OVERHEAD
    if not self._directory.is_dir():
      return f'{self._directory} is gone: somebody removed it'
    newest_step = self.latest()
    good = 'none' if newest_step is None else f'that of step {newest_step}'
    return (
      f'cannot write checkpoint {step} in {self._directory}, of {_mb(size)} '
      f'with {_mb(self._free())} left on the disk: {_reason(error)}; the '
      f'newest whole one is {good}; make room, and the same command goes on '
      'from there'
    )

  def _rename(self, step: int, suffix: str) -> None:
    """Renames a step's folder to STEP.SUFFIX, which is replaced."""
    new_path = self._directory / f'{step}.{suffix}'
    shutil.rmtree(new_path, ignore_errors=True)
    (self._directory / str(step)).rename(new_path)


def bytes_of(state: Any) -> int:
  """Returns the bytes of a state's arrays, or of arrays of these shapes."""
  return sum(
    leaf.size * np.dtype(leaf.dtype).itemsize for leaf in jax.tree.leaves(state)
  )


def check_space(folder: pathlib.Path, checkpoints: int, records: int) -> None:
  """Refuses a folder with too little room, before training begins.

  Args:
    folder: of the checkpoints; it need not exist yet.
    checkpoints: bytes that all of them will take.
    records: bytes that these will take at least.

  Raises:
    StorageError: less than `_MARGIN` times their sum is free.
  """
  existing = folder.absolute()
  while not existing.exists():
    existing = existing.parent
  free = shutil.disk_usage(existing).free
  if free < _MARGIN * (checkpoints + records):
    smaller = (
      'config.checkpoint.keep' if checkpoints > records else 'config.steps'
    )
    raise errors.StorageError(
      f'{folder} needs {_MARGIN * checkpoints / 1e6:,.1f} MB for its '
      f'checkpoints and {_MARGIN * records / 1e6:,.1f} MB for its records, '
      f'{free / 1e6:,.1f} MB are free; make room, give another --workdir, or a '
      f'smaller {smaller}'
    )


def _arrays(tree: Any) -> dict[str, list]:
  """Returns path -> [dtype, shape] of each array, in types of JSON."""
  return {
    path: [str(leaf.dtype), list(leaf.shape)]
    for path, leaf in zip(trees.paths(tree), jax.tree.leaves(tree))
  }


def _digest(tree: Any) -> str:
  """Returns one SHA-256 of all arrays: the same whenever they are saved.

  The files of orbax differ from save to save.
  """
  content = hashlib.sha256()
  for leaf in jax.tree.leaves(tree):
    content.update(np.ascontiguousarray(leaf).view(np.uint8).data)
  return content.hexdigest()


def _type(array: list | None) -> str:
  return 'nothing' if array is None else f'{array[0]}{array[1]}'


def _listed(steps: Iterable[int]) -> str:
  return ', '.join(map(str, steps)) or 'none'


def _mb(size: int) -> str:
  return f'{size / 1e6:,.3f} MB'


def _write_tree(folder: pathlib.Path, tree: Any) -> None:
  """Writes a tree of NumPy arrays; the folder appears when it is complete.

  Raises:
    OSError, ValueError: it cannot be written; see `_reason`.
  """
  held = jax.tree.map(lambda x: np.asarray(x).view(_Held), _fields(tree))
  with _orbax() as orbax, files.plain(folder) as path:
    orbax.save(path, args=ocp.args.StandardSave(held))


class _Held(np.ndarray):
  """An array that orbax does not copy once more: nobody changes it."""

  def __deepcopy__(self, memo):
    return self


def _read_tree(folder: pathlib.Path, like: Any) -> Any:
  """Reads a tree of NumPy arrays whose dtypes and digests were checked.

  orbax would cast dtypes, and does not notice flipped bits.

  Raises:
    Damaged: orbax cannot read the tree.
  """
  shape_of = lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
  fields = _fields(jax.tree.map(shape_of, like))
  wanted = ocp.args.StandardRestore(fields)
  with _orbax() as orbax, files.plain(folder) as path:
    try:
      restored = orbax.restore(path, args=wanted)
    except Exception as error:  # orbax raises plain Exception for damaged data
      raise digests.Damaged(_reason(error)) from error
  return like._replace(**restored) if hasattr(like, '_fields') else restored


def _fields(tree: Any) -> Any:
  """Returns a state as a dict of its fields, without those that are ().

  Checkpoints that are older than such a field lack it. Any other tree stays as
  it is.
  """
  if not hasattr(tree, '_fields'):
    return tree
  return {
    name: field
    for name, field in zip(tree._fields, tree)
    if type(field) is not tuple or field
  }


def _reason(error: Exception) -> str:
  """Returns the reason of an error of orbax, in one line."""
  full = os.strerror(errno.ENOSPC)
  if full in str(error):
    return full
  return errors.first_line(error)


@contextlib.contextmanager
def _orbax() -> Iterator[ocp.Checkpointer]:
  """Opens orbax, and drops the tracebacks that its threads log.

  The errors of this module say what is wrong.
  """
  # Only this process writes or reads: orbax must not wait for others.
  one_process = ocp.options.MultiprocessingOptions(
    primary_host=jax.process_index(),
    active_processes={jax.process_index()},
    barrier_sync_key_prefix='bn_jax',
  )
  handler = ocp.StandardCheckpointHandler(multiprocessing_options=one_process)
  is_no_error = lambda record: record.levelno < logging.ERROR
  logger = logging.getLogger('absl')
  logger.addFilter(is_no_error)
  try:
    yield ocp.Checkpointer(handler, multiprocessing_options=one_process)
  finally:
    logger.removeFilter(is_no_error)
