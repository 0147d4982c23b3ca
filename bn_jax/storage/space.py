"""Whether a disk has room, before anything is begun."""

import pathlib
import shutil

from bn_jax import errors

MARGIN = 1.2  # for what is written beside the arrays


def check(folder: pathlib.Path, needed: int) -> None:
  """Refuses a folder with too little room; it may not exist yet.

  Args:
    folder: to be written to.
    needed: bytes.

  Raises:
    StorageError: less than 1.2 times as much is free.
  """
  there = folder.absolute()
  while not there.exists():
    there = there.parent
  free = shutil.disk_usage(there).free
  if free < MARGIN * needed:
    raise errors.StorageError(
      f'{folder} needs {MARGIN * needed / 1e6:,.1f} MB for its checkpoints, '
      f'{free / 1e6:,.1f} MB are free; make room, give another --workdir, or a '
      'smaller config.checkpoint.keep'
    )
