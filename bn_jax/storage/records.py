"""Writes and reads records: lines of JSON; for larger ones see `arrays`.

  {"step": 40, "name": "train", "values": {"objective": 2.25, ...}}
  {"step": 40, "name": "test", "values": {"loss": 0.5, ...}, "conditions":
    {"statistics": "running", "data": "test", "examples": 355, ...}}  (one line)

A float is written in the fewest digits that give it again in its own precision,
or as "NaN", "Infinity" or "-Infinity", which JSON lacks. Lines are in the order
of steps; `cut` removes those that a resumed run writes again, so that the file
ends with the same bytes as without interruption.
"""

import contextlib
import errno
import hashlib
import json
import operator
import os
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bn_jax import errors
from bn_jax.storage import files

# Allowed names of runs and measures: parts of paths, and of config keys, which
# are separated by dots. 100 characters leave room for what is added to them in
# a file's name, which may have 255 bytes.
NAME = re.compile(r'[A-Za-z0-9][A-Za-z0-9_-]{0,99}')
_NUMBER = re.compile(rb'(?<=: )(?:-?[0-9][0-9.e+-]*|"(?:NaN|-?Infinity)")')
_DIGITS = b'0123456789.e+-NAIF'  # of numbers, NAN and INF
_LETTERS = bytes(set(range(128, 256)))  # in no line of JSON, which is ASCII


class Record(NamedTuple):
  """The values that one measure has at one step.

  Attributes:
    step: number of updates before the values were computed.
    name: 'train', or the key of a measure in the config.
    values: quantity -> number, list of numbers or array.
    conditions: how a measure was taken: statistics, data, examples, precision;
      None for training.
  """

  step: int
  name: str
  values: dict[str, Any]
  conditions: Mapping[str, Any] | None = None


class Rows(NamedTuple):
  """Records of one name that have no conditions, and differ in numbers alone.

  Attributes:
    step: [T].
    values: quantity -> [T].
  """

  step: np.ndarray
  values: dict[str, np.ndarray]


class Lines:
  """A file of records that is appended to, line by line."""

  def __init__(self, path: pathlib.Path):
    """Takes the file's path; the first line creates the file."""
    self._path, self._file = path, None
    content = files.read(path) if path.exists() else b''
    self._size, self._hash = len(content), hashlib.sha256(content)
    # The newest step written, and what came before its first record.
    self._newest, self._before = -1, (self._size, self._hash.copy())

  def digest(self, step: int | None = None) -> files.Digest:
    """Returns the digest of the records before a step, or of all.

    Args:
      step: the newest that was written, or a later one.
    """
    is_newest = step is not None and step <= self._newest
    size, content = self._before if is_newest else (self._size, self._hash)
    return size, content.hexdigest()

  def write(self, record: Record) -> None:
    """Appends one line and hands it to the operating system."""
    line = as_line(record).encode()
    if record.step > self._newest:
      self._newest = record.step
      self._before = (self._size, self._hash.copy())
    self._size += len(line)
    self._hash.update(line)
    try:
      if self._file is None:
        # Unbuffered, so that closing does not retry what a full disk refused.
        self._file = self._path.open('ab', buffering=0)
      if self._file.write(line) < len(line):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
      self._leave_no_empty_file()
      raise errors.StorageError(
        f'cannot write {self._path}: {errors.reason(error)}'
      ) from error

  def sync(self) -> None:
    """Waits until the lines are on the disk, in case the power fails."""
    if self._file is not None:
      try:
        os.fsync(self._file.fileno())
      except OSError as error:
        raise errors.StorageError(
          f'cannot write {self._path}: {errors.reason(error)}'
        ) from error

  def close(self) -> None:
    if self._file is not None:
      self._file.close()

  def _leave_no_empty_file(self) -> None:
    with contextlib.suppress(OSError):
      if not self._path.stat().st_size:
        self._path.unlink()


def as_line(record: Record) -> str:
  """Formats a record as a line of JSON."""
  values = {name: _plain(value) for name, value in record.values.items()}
  fields = {'step': int(record.step), 'name': record.name, 'values': values}
  if record.conditions is not None:
    fields['conditions'] = dict(record.conditions)
  return json.dumps(fields, allow_nan=False) + '\n'


def write_all(path: pathlib.Path, records: Sequence[Record]) -> None:
  """Writes a whole file of records, in the order of steps."""
  by_step = sorted(records, key=lambda record: record.step)
  files.write(path, ''.join(map(as_line, by_step)))


def read(path: pathlib.Path, *, strict: bool = True) -> Iterator[Record]:
  """Yields the records of a file, none if there is no file.

  An unfinished last line is left out. "NaN", "Infinity" and "-Infinity" become
  floats again.

  Args:
    strict: whether a line that is no record is refused; else it is left out.

  Raises:
    StorageError: the file cannot be read, or a line is no record.
  """
  for _, record in parsed_lines(path, strict):
    yield record


def cut(
  path: pathlib.Path,
  step: int,
  *,
  and_at: Sequence[str] = (),
  strict: bool = True,
) -> None:
  """Removes the records of `step` and later steps, atomically.

  Args:
    path: of a file of records, which need not exist.
    step: the first step that is removed.
    and_at: names whose records at `step` itself stay.
    strict: as of `read`.
  """
  if not path.exists():
    return
  lines = []
  for line, record in parsed_lines(path, strict):
    is_exempt = record.step == step and record.name in and_at
    if record.step < step or is_exempt:
      lines.append(line)
  files.write(path, b''.join(lines))


def parsed_lines(
  path: pathlib.Path, strict: bool = True
) -> Iterator[tuple[bytes, Record]]:
  """Yields each line of a file with the record that it is; see `read`."""
  if path.exists():
    for line in _whole_lines(path):
      try:
        record = _parsed(path, line)
      except errors.StorageError:
        if strict:
          raise
        continue
      yield line, record


def read_apart(
  path: pathlib.Path, name: str
) -> tuple[Rows | None, Iterator[Record]]:
  """Returns the records of one name as arrays, and those of all other names.

  Six times as fast as `read`, where each step has a record of that name. Where
  they are not alike, there are no rows, and all records.

  Raises:
    StorageError: as of `read`.
  """
  lines = list(_whole_lines(path)) if path.exists() else []
  named = f'"name": {json.dumps(name)}'.encode()
  alike = [line for line in lines if named in line]
  rows = _rows(path, alike) if alike else None
  if rows is not None:
    lines = [line for line in lines if named not in line]
  return rows, (_parsed(path, line) for line in lines)


def _rows(path: pathlib.Path, lines: Sequence[bytes]) -> Rows | None:
  """Returns what lines hold that differ in numbers alone; None of others."""
  first, parts = _parsed(path, lines[0]), _NUMBER.split(lines[0])
  letters = _LETTERS[: len(parts)]
  if first.conditions or len(letters) != len(first.values) + 2:
    return None
  text = b''.join(lines)
  for word, short in ((b'NaN', b'NAN'), (b'Infinity', b'INF')):
    text = text.replace(b'"%s"' % word, short)
    text = text.replace(b'"-%s"' % word, b'-' + short)
  for part, letter in zip(parts, letters):
    text = text.replace(part, bytes([letter]))
  if text.translate(None, _DIGITS) != letters * len(lines):
    return None
  text = text.replace(letters[-1:] + letters[:1], b',').strip(letters)
  text = text.translate(bytes.maketrans(letters, b',' * len(letters)))
  try:
    table = np.fromstring(text, sep=',')
  except ValueError:
    return None
  if table.size != (len(parts) - 1) * len(lines):
    return None
  steps, *columns = table.reshape(len(lines), -1).T
  return Rows(
    steps.astype(int), dict(zip(first.values, map(np.array, columns)))
  )


def _whole_lines(path: pathlib.Path) -> Iterator[bytes]:
  """Yields the lines before one without an end, which may be no text."""
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
  except (
    ValueError, KeyError, TypeError, AttributeError, RecursionError,
  ) as error:  # fmt: skip
    start = line[:60].decode(errors='replace').strip()
    raise errors.StorageError(
      f'{path}: {start!r} is no record ({type(error).__name__}: {error}); the '
      'file was changed after it was written: restore it'
    ) from error


def shortest(value: Any) -> float:
  """Returns the number of fewest digits that is `value` in its precision."""
  array = np.asarray(value)
  return float(str(array) if array.dtype == np.float32 else array)


def _plain(value: Any) -> Any:
  """Converts a number or array of numbers to what JSON can hold."""
  array = np.asarray(value)
  if array.ndim:
    return [_plain(item) for item in array]
  if np.issubdtype(array.dtype, np.integer):
    return int(array)
  number = files.storable(float(array))
  if isinstance(number, str):
    return number
  return shortest(array)


def _number(value: Any) -> Any:
  """Converts a number or list of numbers of JSON; `_plain` writes them."""
  if isinstance(value, list):
    return [_number(item) for item in value]
  return float(value) if isinstance(value, str) else value
