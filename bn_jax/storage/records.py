"""Records on disk: one JSON object a line, or a file of arrays a record.

  {"step": 40, "name": "train", "values": {"objective": 2.25, ...}}
  {"step": 40, "name": "test", "values": {"loss": 0.5, ...}, "conditions":
    {"statistics": "running", "data": "test", "examples": 355, ...}}  (one line)

Numbers are written in the fewest digits that give the same float32 again;
what JSON has no word for is written as "NaN", "Infinity", "-Infinity". A file
holds its lines in the order of steps, so a run that was stopped and went on
leaves the same bytes as one that was not.
"""

import contextlib
import errno
import io
import json
import math
import operator
import os
import pathlib
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bn_jax import errors
from bn_jax.storage import files

# What a run or a measure may be called: it becomes part of a path, and of the
# path of a key, which dots divide.
NAME = re.compile(r'[A-Za-z0-9][A-Za-z0-9_-]{0,99}')


class Record(NamedTuple):
  """One line: what was measured at one step under one name.

  Attributes:
    step: updates made before it was taken.
    name: 'train', or the key of a measure in the config.
    values: name -> number or list of numbers.
    conditions: under which a measure was taken: statistics, data, examples,
      precision; None of training.
  """

  step: int
  name: str
  values: dict[str, Any]
  conditions: Mapping[str, Any] | None = None


class Lines:
  """A file of records that grows by whole lines."""

  def __init__(self, path: pathlib.Path):
    """Of a path; the file is made with its first line."""
    self._path, self._file = path, None

  def write(self, record: Record) -> None:
    """Appends one line and hands it to the operating system."""
    line = as_line(record).encode()
    try:
      if self._file is None:
        # Unbuffered: what a full disk refused must not be tried again later.
        self._file = self._path.open('ab', buffering=0)
      if self._file.write(line) < len(line):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
      self._leave_no_empty_file()
      raise errors.StorageError(
        f'cannot write {self._path}: {errors.reason(error)}'
      ) from error

  def sync(self) -> None:
    """Waits until the disk has what was written, should the power fail."""
    if self._file is not None:
      os.fsync(self._file.fileno())

  def close(self) -> None:
    if self._file is not None:
      self._file.close()

  def _leave_no_empty_file(self) -> None:
    with contextlib.suppress(OSError):
      if not self._path.stat().st_size:
        self._path.unlink()


def as_line(record: Record) -> str:
  """The line of a record."""
  values = {name: _plain(value) for name, value in record.values.items()}
  line = {'step': int(record.step), 'name': record.name, 'values': values}
  if record.conditions is not None:
    line['conditions'] = dict(record.conditions)
  return json.dumps(line, allow_nan=False) + '\n'


class Arrays:
  """A folder of records that are too large for a line, a file each."""

  def __init__(self, directory: pathlib.Path):
    self._directory = directory

  def write(self, record: Record) -> None:
    """Writes NAME-STEP.npz, whole."""
    content = io.BytesIO()
    conditions = {}
    if record.conditions is not None:
      conditions['conditions'] = np.array(json.dumps(record.conditions))
    np.savez_compressed(content, **record.values, **conditions)
    files.make_folder(self._directory, parents=False)
    path = self._directory / f'{record.name}-{record.step}.npz'
    files.write(path, content.getvalue())


def write_all(path: pathlib.Path, records: Sequence[Record]) -> None:
  """Writes a file of records whole, in the order of steps."""
  lines = [
    as_line(record) for record in sorted(records, key=lambda one: one.step)
  ]
  files.write(path, ''.join(lines))


def read_arrays(directory: pathlib.Path, name: str) -> list[Record]:
  """The records of one name in a folder of arrays, in the order of steps."""
  found = []
  for step, path in _array_files(directory):
    if path.name == f'{name}-{step}.npz':
      values = _loaded(path)
      conditions = None
      if 'conditions' in values:
        conditions = json.loads(str(values.pop('conditions')))
      found.append(Record(step, name, values, conditions))
  return sorted(found, key=lambda record: record.step)


def _loaded(path: pathlib.Path) -> dict[str, np.ndarray]:
  try:
    with np.load(path, allow_pickle=False) as values:
      return dict(values)
  except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
    raise errors.StorageError(f'{path} is damaged: {error}') from error


def cut_arrays(directory: pathlib.Path, step: int) -> None:
  """Leaves only the arrays of steps before `step`."""
  for taken, path in _array_files(directory):
    if taken >= step:
      path.unlink()


def _array_files(
  directory: pathlib.Path,
) -> Iterator[tuple[int, pathlib.Path]]:
  for path in directory.glob('*-*.npz'):
    step = path.stem.rpartition('-')[2]
    if step.isdecimal():
      yield int(step), path


def read(path: pathlib.Path) -> Iterator[Record]:
  """The records of a file in order; an unfinished last line is left out.

  Numbers written as words become floats again.
  """
  if path.exists():
    for line in _whole_lines(path):
      yield _parsed(path, line)


def cut(path: pathlib.Path, step: int, *, and_at: Sequence[str] = ()) -> None:
  """Leaves only the records of steps before `step`, atomically.

  Args:
    path: of the file; none is no error.
    step: the first one to go.
    and_at: names whose records at `step` itself stay.
  """
  if not path.exists():
    return
  kept = []
  for line in _whole_lines(path):
    record = _parsed(path, line)
    at = record.step == step and record.name in and_at
    if record.step < step or at:
      kept.append(line)
  files.write(path, b''.join(kept))


def _whole_lines(path: pathlib.Path) -> Iterator[bytes]:
  """The lines up to one that has no end: what is torn may be no text."""
  try:
    with path.open('rb') as file:
      for line in file:
        if not line.endswith(b'\n'):
          return
        yield line
  except OSError as error:
    raise errors.StorageError(
      f'cannot read {path}: {error.strerror}'
    ) from error


def _parsed(path: pathlib.Path, line: bytes) -> Record:
  try:
    fields = json.loads(line.decode())
    values = {name: _number(value) for name, value in fields['values'].items()}
    return Record(
      operator.index(fields['step']),
      str(fields['name']),
      values,
      fields.get('conditions'),
    )
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    shown = line[:60].decode(errors='replace').strip()
    raise errors.StorageError(
      f'{path}: {shown!r} is no record ({type(error).__name__}: {error}); the '
      'file was changed after it was written'
    ) from error


def _plain(value: Any) -> Any:
  """A number or (nested) list of numbers as JSON can hold it."""
  array = np.asarray(value)
  if array.ndim:
    return [_plain(item) for item in array]
  if np.issubdtype(array.dtype, np.integer):
    return int(array)
  number = float(array)
  if math.isnan(number):
    return 'NaN'
  if math.isinf(number):
    return 'Infinity' if number > 0 else '-Infinity'
  return float(str(array)) if array.dtype == np.float32 else number


def _number(value: Any) -> Any:
  if isinstance(value, list):
    return [_number(item) for item in value]
  return float(value) if isinstance(value, str) else value
