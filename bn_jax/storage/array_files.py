"""Writes and reads records that are too large for a line, one file each.

arrays/NAME-STEP.npz      the values of a measure, and its conditions as JSON
"""

import io
import json
import pathlib
import re
import zipfile
from collections.abc import Iterator

import numpy as np

from bn_jax import errors
from bn_jax.storage import files
from bn_jax.storage.files import Digest
from bn_jax.storage.records import NAME, Record

_FILE = re.compile(rf'{NAME.pattern}-(0|[1-9][0-9]*)[.]npz')


class Arrays:
  """A folder of records, one file each."""

  def __init__(self, directory: pathlib.Path):
    self._directory = directory
    self._digests = digests(directory)

  def digests(self, step: int | None = None) -> dict[str, Digest]:
    """Returns file name -> digest of the records before a step, or of all."""
    return {
      name: digest
      for name, digest in self._digests.items()
      if step is None or _step_of(name) < step
    }

  def write(self, record: Record) -> None:
    """Writes the file NAME-STEP.npz, whole."""
    content = io.BytesIO()
    conditions = {}
    if record.conditions is not None:
      conditions['conditions'] = np.array(json.dumps(record.conditions))
    np.savez_compressed(content, **record.values, **conditions)
    files.make_folder(self._directory, parents=False)
    name = f'{record.name}-{record.step}.npz'
    files.write(self._directory / name, content.getvalue())
    self._digests[name] = files.digest_of(content.getvalue())


def digests(directory: pathlib.Path) -> dict[str, Digest]:
  """Returns file name -> digest of each record in a folder of arrays.

  Raises:
    StorageError: a file cannot be read.
  """
  return {
    path.name: files.digest_of(files.read(path))
    for _, path in files_of(directory)
  }


def read(directory: pathlib.Path, name: str) -> list[Record]:
  """Returns the records of one name in a folder of arrays, ordered by step."""
  records = []
  for step, path in files_of(directory):
    if path.name == f'{name}-{step}.npz':
      values = load(path)
      conditions = None
      if 'conditions' in values:
        conditions = json.loads(str(values.pop('conditions')))
      records.append(Record(step, name, values, conditions))
  return sorted(records, key=lambda record: record.step)


def load(path: pathlib.Path) -> dict[str, np.ndarray]:
  """Returns the arrays of a .npz file.

  Raises:
    StorageError: the file is damaged.
  """
  try:
    # Each is read whole, which compares its checksum: NumPy's own reading stops
    # where a header says, which a flipped bit may have made less (2.4.6).
    with zipfile.ZipFile(path) as archive:
      return {
        name.removesuffix('.npy'): np.lib.format.read_array(
          io.BytesIO(archive.read(name)), allow_pickle=False
        )
        for name in archive.namelist()
      }
  # Of zlib, of a tokenizer, of memory: whatever the parsers meet.
  except Exception as error:
    raise errors.StorageError(
      f'{path} is damaged: {errors.first_line(error)}'
    ) from error


def cut(directory: pathlib.Path, step: int) -> None:
  """Removes the arrays of `step` and later steps."""
  for file_step, path in files_of(directory):
    if file_step >= step:
      path.unlink()


def files_of(
  directory: pathlib.Path,
) -> Iterator[tuple[int, pathlib.Path]]:
  """Yields (step, path) of each record in a folder."""
  for path in sorted(directory.glob('*.npz')):
    step = _step_of(path.name)
    if step is not None:
      yield step, path


def _step_of(name: str) -> int | None:
  """Returns the step of a file of arrays; None for the name of another file."""
  match = _FILE.fullmatch(name)
  return int(match[1]) if match else None
