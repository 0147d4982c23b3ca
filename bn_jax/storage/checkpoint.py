"""Checkpoints of a training state, through orbax, each with its digests.

  checkpoints/500/state/...       what orbax writes
  checkpoints/500/digests.json    what must be there; see `digests`

A checkpoint is made under another name, `500.new`, and renamed when it is
whole; one that goes is renamed to `500.old` first. So a step's folder is whole,
or was damaged later: what a killed process leaves has another name. Of a
damaged one nothing is used, and it is kept aside as `500.damaged`.

The state is always read into a tree that our own network made: what does not
fit is refused, never cast or left out.
"""

import concurrent.futures
import contextlib
import errno
import logging
import os
import pathlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from bn_jax import errors, trees
from bn_jax.storage import digests

_log = logging.getLogger('bn_jax')
_OVERHEAD = 2**18  # bytes of files beside the arrays
_MARGIN = 1.2  # times the arrays must be free, for what is beside them
_FEW = 3  # differences that a message names


class Checkpoints:
  """The checkpoints of one run, the newest few of them.

  Saving goes on behind the training: `save` returns when it has a copy of the
  state. One process writes, see `lock`; any may read.
  """

  def __init__(
    self,
    directory: pathlib.Path,
    *,
    keep: int = 2,
    about: Mapping[str, Any] | None = None,
    differs: Callable[[Mapping[str, Any]], str | None] = lambda about: None,
  ):
    """Opens a directory; nothing is made or changed.

    Args:
      directory: of the checkpoints, absolute or not.
      keep: how many stay.
      about: what each is to say of itself, of JSON; the config, say.
      differs: what one says of itself -> why it is another experiment's, or
        None.
    """
    self._directory = directory
    self._keep = keep
    self._about = dict(about or {})
    self._differs = differs
    self._writer = concurrent.futures.ThreadPoolExecutor(max_workers=1)
    self._saving: concurrent.futures.Future | None = None
    self._newest: int | None = None
    self._copies: list[np.ndarray] = []

  def steps(self) -> tuple[int, ...]:
    """The steps of all checkpoints, in order, damaged ones too."""
    if not self._directory.is_dir():
      return ()
    found = (path.name for path in self._directory.iterdir() if path.is_dir())
    return tuple(sorted(int(name) for name in found if name.isdecimal()))

  def latest(self) -> int | None:
    """The step of the newest checkpoint, None where there is none."""
    return max(self.steps(), default=None)

  def clean(self) -> None:
    """Removes what interrupted saves and removals have left."""
    if self._directory.is_dir():
      for path in self._directory.iterdir():
        if path.suffix in ('.new', '.old'):
          shutil.rmtree(path, ignore_errors=True)

  def save(self, step: int, state: Any) -> None:
    """Begins to write the state of a step; `wait` waits for it.

    A step that is there already is left alone.

    Raises:
      StorageError: this one is earlier than what is there, or the save before
        it could not be written.
    """
    self.wait()
    newest = self.latest() if self._newest is None else self._newest
    if newest is not None and step < newest:
      raise errors.StorageError(
        f'checkpoint {step} in {self._directory} was refused: {newest} is '
        'there already'
      )
    # Also of one that is there: the memory of the next copy is then ready.
    copy = self._copied(state)
    if step != newest:
      self._newest = step
      self._saving = self._writer.submit(self._write, step, copy)

  def check(self) -> None:
    """Raises StorageError if a save has failed; waits for none."""
    if self._saving is not None and self._saving.done():
      self.wait()

  def wait(self) -> None:
    """Waits for the save that goes on.

    Raises:
      StorageError: it could not be written.
    """
    saving, self._saving = self._saving, None
    if saving is not None:
      try:
        saving.result()
      except BaseException:
        self._newest = None
        raise

  def restore(self, step: int, like: Any) -> Any:
    """The state of a step, as NumPy arrays.

    Args:
      step: one of `steps`.
      like: a state of the same network, or its shapes; shapes and dtypes must
        agree.

    Raises:
      CheckpointError: it is absent or damaged, of another network or of another
        experiment.
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
    """The newest state that is whole, as NumPy arrays; None without any.

    Says which were damaged.

    Args:
      like: as for `restore`.
      set_aside: whether damaged ones are renamed, to make room for new ones of
        their steps.

    Raises:
      CheckpointError: none of those there is whole, or the newest that is does
        not fit.
    """
    damaged, looked_at = {}, set()
    while left := [s for s in self.steps() if s not in looked_at]:
      # Looked for anew each time: training may let one go while it is read.
      step = left[-1]
      looked_at.add(step)
      try:
        found = self._restored(step, like)
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
        for late in damaged:
          self._rename(late, 'damaged')
      return found
    if damaged:
      step, why = next(iter(damaged.items()))
      raise errors.CheckpointError(
        f'no checkpoint in {self._directory} is whole: {len(damaged)} tried, '
        f'the newest, {step}: {why}; restore the folder from a copy, or give '
        'another --workdir to begin again'
      )
    return None

  def close(self) -> None:
    """Waits for the save that goes on, whether it succeeds or not."""
    self._writer.shutdown(wait=True)

  def _restored(self, step: int, like: Any) -> Any:
    folder = self._directory / str(step)
    said = digests.read(folder)
    self._check(step, said, _arrays(like))
    digests.verify(folder)
    return _read_tree(folder / 'state', like)

  def _check(self, step: int, said: Mapping, wanted: Mapping) -> None:
    """Config, shapes and dtypes first: orbax casts a dtype silently."""
    where = f'checkpoint {step} in {self._directory}'
    why = self._differs(said['about'])
    if why is not None:
      raise errors.CheckpointError(f'{where} is of another experiment: {why}')
    stored = said['arrays']
    different = sorted(
      path
      for path in stored.keys() | wanted.keys()
      if stored.get(path) != wanted.get(path)
    )
    if different:
      listed = '; '.join(
        f'{path} is {_told(stored.get(path))} there, {_told(wanted.get(path))} '
        'here'
        for path in different[:_FEW]
      )
      what = 'network'
      if all(path.startswith('opt_state') for path in different):
        what = 'optimizer (config.init_from takes the parameters alone)'
      raise errors.CheckpointError(
        f'{where} is of another {what}: {len(different)} arrays differ: '
        f'{listed}'
      )

  def _copied(self, state: Any) -> Any:
    """The state on the host, in memory that the next save uses again.

    The step consumes the state, and the CPU's arrays would be seen, not copied.
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

  def _write(self, step: int, state: Any) -> None:
    """Writes one checkpoint whole, then lets the oldest go."""
    new = self._directory / f'{step}.new'
    try:
      shutil.rmtree(new, ignore_errors=True)
      # The folder above is the run's: where it was removed, so is the run.
      self._directory.mkdir(exist_ok=True)
      new.mkdir()
      # Before orbax begins: what fails in it is told by its threads.
      if self._free() < _MARGIN * bytes_of(state) + _OVERHEAD:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
      _write_tree(new / 'state', state)
      digests.write(
        new, {'step': step, 'about': self._about, 'arrays': _arrays(state)}
      )
      new.rename(self._directory / str(step))
      for old in self.steps()[: -self._keep]:
        self._rename(old, 'old')
        # What somebody still reads may stay on some file systems: see `clean`.
        shutil.rmtree(self._directory / f'{old}.old', ignore_errors=True)
    # orbax says ValueError where a disk is full.
    except (OSError, ValueError, errors.StorageError) as error:
      shutil.rmtree(new, ignore_errors=True)
      raise errors.StorageError(self._failed(step, state, error)) from error

  def _free(self) -> int:
    return shutil.disk_usage(self._directory).free

  def _failed(self, step: int, state: Any, error: Exception) -> str:
    size = bytes_of(state) + _OVERHEAD
    if not self._directory.is_dir():
      return f'{self._directory} is gone: somebody removed it'
    good = [f'that of step {there}' for there in self.steps()[-1:]]
    return (
      f'cannot write checkpoint {step} in {self._directory}, of {_mb(size)} '
      f'with {_mb(self._free())} left on the disk: {_reason(error)}; the '
      f'newest whole one is {"".join(good) or "none"}; make room, and the same '
      'command goes on from there'
    )

  def _rename(self, step: int, suffix: str) -> None:
    """Gives a step's folder a name that is no step's."""
    other = self._directory / f'{step}.{suffix}'
    shutil.rmtree(other, ignore_errors=True)
    (self._directory / str(step)).rename(other)


def bytes_of(state: Any) -> int:
  """The size of a state's arrays, or of their shapes."""
  return sum(
    leaf.size * np.dtype(leaf.dtype).itemsize for leaf in jax.tree.leaves(state)
  )


def check_space(folder: pathlib.Path, needed: int) -> None:
  """Refuses a folder with too little room, before anything is begun.

  Args:
    folder: to be written to; it may not exist yet.
    needed: bytes.

  Raises:
    StorageError: less than 1.2 times as much is free.
  """
  there = folder.absolute()
  while not there.exists():
    there = there.parent
  free = shutil.disk_usage(there).free
  if free < _MARGIN * needed:
    raise errors.StorageError(
      f'{folder} needs {_MARGIN * needed / 1e6:,.1f} MB for its checkpoints, '
      f'{free / 1e6:,.1f} MB are free; make room, give another --workdir, or a '
      'smaller config.checkpoint.keep'
    )


def _arrays(tree: Any) -> dict[str, list]:
  """path -> [dtype, [sizes]] of each array, of JSON."""
  return {
    path: [str(leaf.dtype), list(leaf.shape)]
    for path, leaf in zip(trees.paths(tree), jax.tree.leaves(tree))
  }


def _told(array: list | None) -> str:
  return 'nothing' if array is None else f'{array[0]}{array[1]}'


def _listed(steps: Iterable[int]) -> str:
  return ', '.join(map(str, steps)) or 'none'


def _mb(size: int) -> str:
  return f'{size / 1e6:,.3f} MB'


def _write_tree(folder: pathlib.Path, tree: Any) -> None:
  """Writes a tree of NumPy arrays; the folder appears when it is whole.

  Raises:
    OSError, ValueError: it cannot be written; see `_reason`.
  """
  with _orbax() as orbax:
    orbax.save(folder.absolute(), args=ocp.args.StandardSave(tree))


def _read_tree(folder: pathlib.Path, like: Any) -> Any:
  """Returns a tree as it was written, of NumPy arrays.

  orbax casts dtypes, and does not see flipped bits: compare before.

  Raises:
    Damaged: it cannot be read.
  """
  shape_of = lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
  wanted = ocp.args.StandardRestore(jax.tree.map(shape_of, like))
  try:
    with _orbax() as orbax:
      return orbax.restore(folder.absolute(), args=wanted)
  except Exception as error:  # orbax raises bare Exception for damaged data
    raise digests.Damaged(_reason(error)) from error


def _reason(error: Exception) -> str:
  """Returns the line that says why, of orbax's many."""
  full = os.strerror(errno.ENOSPC)
  if full in str(error):
    return full
  return errors.first_line(error)


@contextlib.contextmanager
def _orbax() -> Iterator[ocp.Checkpointer]:
  """Opens orbax, and keeps the tracebacks of its threads from users.

  What is wrong we say ourselves.
  """
  # One process alone writes and reads: no other is to be waited for.
  alone = ocp.options.MultiprocessingOptions(
    primary_host=jax.process_index(),
    active_processes={jax.process_index()},
    barrier_sync_key_prefix='bn_jax',
  )
  handler = ocp.StandardCheckpointHandler(multiprocessing_options=alone)
  is_no_error = lambda record: record.levelno < logging.ERROR
  logger = logging.getLogger('absl')
  logger.addFilter(is_no_error)
  try:
    yield ocp.Checkpointer(handler, multiprocessing_options=alone)
  finally:
    logger.removeFilter(is_no_error)
