"""A tree of arrays in a folder, through orbax, by this process alone."""

import contextlib
import errno
import logging
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import orbax.checkpoint as ocp

from bn_jax import errors


class Unreadable(Exception):
  """What lies there is not what was written, or of another form."""


def write(folder: pathlib.Path, tree: Any) -> None:
  """Writes a tree of NumPy arrays; the folder appears when it is whole.

  Raises:
    OSError, ValueError: it cannot be written; see `reason`.
  """
  with _quiet():
    _orbax().save(folder.absolute(), args=ocp.args.StandardSave(tree))


def read(folder: pathlib.Path, like: Any) -> Any:
  """A tree as it was written, of NumPy arrays.

  orbax casts dtypes, and does not see flipped bits: compare before.

  Args:
    folder: of `write`.
    like: a tree of the same form, of arrays or shapes.

  Raises:
    Unreadable: it cannot be read.
  """
  target = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), like
  )
  try:
    with _quiet():
      return _orbax().restore(
        folder.absolute(), args=ocp.args.StandardRestore(target)
      )
  except Exception as error:  # orbax raises bare Exception for damaged data
    raise Unreadable(reason(error)) from error


def reason(error: Exception) -> str:
  """The line that says why, of orbax's many."""
  full = os.strerror(errno.ENOSPC)
  if full in str(error):
    return full
  return errors.first_line(error)


def _orbax() -> ocp.Checkpointer:
  # One process alone writes and reads: no other is to be waited for.
  here = ocp.options.MultiprocessingOptions(
    primary_host=jax.process_index(),
    active_processes={jax.process_index()},
    barrier_sync_key_prefix='bn_jax',
  )
  return ocp.Checkpointer(
    ocp.StandardCheckpointHandler(multiprocessing_options=here),
    multiprocessing_options=here,
  )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
  """Keeps the tracebacks of orbax's threads from users: we say what it is."""
  logger = logging.getLogger('absl')
  logger.addFilter(_is_no_error)
  try:
    yield
  finally:
    logger.removeFilter(_is_no_error)


def _is_no_error(record: logging.LogRecord) -> bool:
  return record.levelno < logging.ERROR
