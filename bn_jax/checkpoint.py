"""Checkpoints of a training state, through orbax.

A checkpoint is the state, and it is always read into a state that our own
network made: what does not fit is refused, never cast or left out.
"""

import pathlib
from typing import Any

import jax
import orbax.checkpoint as ocp

from bn_jax import errors


class Checkpoints:
  """The checkpoints of one run, the newest few of them."""

  def __init__(self, directory: pathlib.Path, *, keep: int = 2):
    """Opens a directory, absolute or not, and makes it where it is missing."""
    self._directory = directory
    self._manager = ocp.CheckpointManager(
      directory.absolute(),
      item_handlers=ocp.StandardCheckpointHandler(),
      options=ocp.CheckpointManagerOptions(
        max_to_keep=keep,
        enable_async_checkpointing=False,
        cleanup_tmp_directories=True,
      ),
    )

  def latest(self) -> int | None:
    """The step of the newest checkpoint, None where there is none."""
    return self._manager.latest_step()

  def steps(self) -> tuple[int, ...]:
    """The steps of all checkpoints, in order."""
    return tuple(sorted(self._manager.all_steps()))

  def save(self, step: int, state: Any) -> None:
    """Writes the state of a step; a step that is there already is left alone.

    Raises:
      StorageError: it could not be written.
    """
    if step == self.latest():
      return
    try:
      saved = self._manager.save(step, args=ocp.args.StandardSave(state))
    except (OSError, ValueError) as error:
      raise errors.StorageError(
        f'cannot write checkpoint {step} in {self._directory}: {_first(error)}'
      ) from error
    if not saved:  # orbax skips an earlier step without a word
      raise errors.StorageError(
        f'checkpoint {step} in {self._directory} was refused: '
        f'{self.latest()} is there already'
      )

  def restore(self, step: int, like: Any) -> Any:
    """The state of a step.

    Args:
      step: as `latest` says.
      like: a state of the same network; shapes and dtypes must agree.

    Raises:
      CheckpointError: it is damaged, or of another network.
    """
    target = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
    try:
      self._check(step, target)
      return self._manager.restore(step, args=ocp.args.StandardRestore(target))
    except errors.CheckpointError:
      raise
    except Exception as error:  # orbax raises bare Exception for damaged data
      raise errors.CheckpointError(
        f'cannot restore checkpoint {step} in {self._directory}: '
        f'{_first(error)}'
      ) from error

  def close(self) -> None:
    self._manager.close()

  def _check(self, step: int, target: Any) -> None:
    """Shapes and dtypes first: orbax casts a foreign dtype silently."""
    stored = _by_path(self._manager.item_metadata(step).tree)
    wanted = _by_path(target)
    different = sorted(
      path
      for path in stored.keys() | wanted.keys()
      if stored.get(path) != wanted.get(path)
    )
    if different:
      path = different[0]
      raise errors.CheckpointError(
        f'checkpoint {step} in {self._directory} is of another network: '
        f'{len(different)} arrays differ, the first is {path}: stored '
        f'{stored.get(path)}, expected {wanted.get(path)}'
      )


def _by_path(tree: Any) -> dict[str, tuple]:
  """path -> (shape, dtype) of each array."""
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {
    '/'.join(_word(key) for key in path): (tuple(leaf.shape), str(leaf.dtype))
    for path, leaf in leaves
  }


def _word(key: Any) -> str:
  for field in ('key', 'name', 'idx'):
    if hasattr(key, field):
      return str(getattr(key, field))
  return str(key)


def _first(error: Exception) -> str:
  return str(error).splitlines()[0][:200] if str(error) else repr(error)
