"""Reads arrays as a set: of an .npz, of .npy files, or of a function.

Pickled objects are never read. `RULES` says which arrays are taken.
"""

import hashlib
import json
import pathlib
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bn_jax import errors
from bn_jax.data.disk import labels as labels_lib
from bn_jax.data.disk import levels, sets, store

# Names of the arrays -> (inputs, labels or targets) by split.
_NAMES = (
  {'train': ('x', 'y'), 'test': ('x_test', 'y_test')},
  {'train': ('x_train', 'y_train'), 'test': ('x_test', 'y_test')},
)
RULES = (
  ('arrays', 'x and y, or x_train and y_train, and x_test and y_test if there '
             'is a test split; no pickled objects'),
  ('x', '[N, H, W, C] or [N, H, W]: images, read by their dtype; [N, D]: '
        'vectors, taken as they are, as float32'),
  ('vectors', 'of each feature the mean of train is subtracted, and the rest '
              'divided by its standard deviation'),
  ('y', '[N] or [N, 1] of whole numbers, bool or text: labels; [N] or [N, K] '
        'of floating point: targets'),
)  # fmt: skip


# First bytes of an .npy, and of a zip, as which an .npz is written.
_MAGIC = {'.npy': b'\x93NUMPY', '.npz': b'PK'}
_AT_ONCE = (
  2**22
)  # numbers of which it is asked at a time whether they are finite


class Split(NamedTuple):
  """Inputs [N, ...] and labels [N] int32 or targets [N, K] float32."""

  inputs: np.ndarray
  labels: np.ndarray


class Arrays(NamedTuple):
  """Arrays in memory, see `sets.Set`.

  Attributes:
    name: the file or the function.
    folder: of the file or of the function's module.
    arrays: split -> inputs and labels.
    class_names: by label; () where there are targets.
    stated: what is known of each image; None of vectors.
  """

  name: str
  folder: pathlib.Path
  arrays: dict[str, Split]
  class_names: tuple[str, ...]
  stated: levels.Stated | None

  @property
  def shape(self) -> tuple[int, ...]:
    if self.stated is None:
      return self.arrays['train'].inputs.shape[1:]
    return self.stated.shape

  @property
  def classifies(self) -> bool:
    return bool(self.class_names)

  @property
  def num_classes(self) -> int:
    if self.classifies:
      return len(self.class_names)
    return self.arrays['train'].labels.shape[1]

  @property
  def splits(self) -> dict[str, int]:
    return {split: len(labels) for split, (_, labels) in self.arrays.items()}

  def records(self, split: str) -> '_Rows':
    if split not in self.arrays:
      message = errors.unknown('split', split, self.splits)
      raise errors.DataError(f'{self.name}: {message}')
    return _Rows(*self.arrays[split])

  def known_labels(self, split: str) -> np.ndarray:
    return self.arrays[split].labels

  def place_of(self, split: str, number: int) -> str:
    return f'example {number} of {split}'

  def size_on_disk(self, split: str) -> int:
    return sum(values.nbytes for values in self.arrays[split])

  def made_of(self, split: str) -> str:
    return json.dumps([store.CACHE_VERSION, self.digest(), split])

  def cache_file(self, split: str, resolution: int | None) -> None:
    """Returns None: they are arrays already."""

  def digest(self) -> str:
    """Returns a sha256 of shapes, dtypes and the CRC-32 of all arrays."""
    facts = [
      (split, name, values.shape, values.dtype.str, _crc(values))
      for split, both in self.arrays.items()
      for name, values in zip(Split._fields, both)
    ]
    content = json.dumps([facts, self.class_names])
    return hashlib.sha256(content.encode()).hexdigest()


class _Rows(NamedTuple):
  """The examples of a split, see `sets.Records`."""

  inputs: np.ndarray
  labels: np.ndarray

  def __len__(self) -> int:
    return len(self.labels)

  def read(self, numbers: Sequence[int]) -> list[sets.Example]:
    return [(self.inputs[n], self.labels[n]) for n in numbers]


def of_files(paths: Sequence[pathlib.Path]) -> Arrays:
  """Reads the arrays of an .npz, or of two or four .npy files.

  Args:
    paths: one .npz; or the .npy files of x and y, and of x_test and y_test.

  Raises:
    DataError: a file is absent, damaged or holds objects; or see `of`.
  """
  name = ','.join(path.name for path in paths)
  if len(paths) > 1:
    names = ('x', 'y', 'x_test', 'y_test')
    arrays = {key: _read(path) for key, path in zip(names, paths)}
  else:
    arrays = _read(paths[0])
  return of(name, paths[0].parent, arrays)


def _read(path: pathlib.Path) -> Any:
  """Returns the array of an .npy, or name -> array of an .npz."""
  if not path.is_file():
    raise errors.DataError(f'{path}: there is no such file')
  suffix = path.suffix.lower()
  what = 'array' if suffix == '.npy' else 'arrays'
  try:
    with path.open('rb') as file:
      magic = file.read(len(_MAGIC['.npy']))
      if not magic.startswith(_MAGIC[suffix]):
        raise errors.DataError(
          f'{path} is no {suffix} file; write it by '
          f'{"numpy.save" if suffix == ".npy" else "numpy.savez"}'
        )
      file.seek(0)
      content = np.load(file, allow_pickle=False)
      if suffix == '.npy':
        return content
      return {name: content[name] for name in content.files}
  except (
    OSError,
    ValueError,
    EOFError,
    zipfile.BadZipFile,
    zlib.error,
  ) as error:
    reason = errors.first_line(error)
    if 'allow_pickle' in reason:
      reason = 'it holds pickled objects, which are never read; save numbers'
    raise errors.DataError(
      f'cannot read the {what} of {path}: {reason}'
    ) from error


def of(name: str, folder: pathlib.Path, arrays: Mapping[str, Any]) -> Arrays:
  """Returns arrays as a set.

  Args:
    name: of where they are from, for messages.
    folder: likewise.
    arrays: 'x', 'y' and so on -> array, see `RULES`.

  Raises:
    DataError: an array is missing, of another shape, length or dtype, or holds
      a number that is not finite.
  """
  try:
    named = _named(arrays)
    splits = {
      split: Split(_array(x, arrays[x]), _labels(y, _array(y, arrays[y])))
      for split, (x, y) in named.items()
    }
    for split, names in named.items():
      _check(splits[split], names, splits['train'], named['train'])
    labels, class_names = _numbered(splits)
    train = splits['train'].inputs
    if train.ndim == 2:
      stated = None
      inputs = {
        split: _vectors(named[split][0], x) for split, (x, _) in splits.items()
      }
    else:
      inputs = {
        split: x[..., None] if x.ndim == 3 else x
        for split, (x, _) in splits.items()
      }
      stated = levels.Stated(inputs['train'].shape[1:], train.dtype.name)
      levels.check(stated)
  except ValueError as error:
    raise errors.DataError(f'{name}: {error}') from error
  both = {split: Split(inputs[split], labels[split]) for split in splits}
  return Arrays(name, folder, both, class_names, stated)


def _named(arrays: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
  """Returns split -> the names of its inputs and its labels."""
  has = ', '.join(map(str, arrays)) or 'nothing'
  for names in _NAMES:
    if set(names['train']) <= set(arrays):
      there = [name in arrays for name in names['test']]
      if any(there) and not all(there):
        raise ValueError(
          f'it has {has}; needed for a test split: x_test and y_test'
        )
      unknown = set(arrays) - {*names['train'], *names['test']}
      if unknown:
        raise ValueError(
          f'it has {has}; allowed: {", ".join(names["train"])}, x_test, y_test'
        )
      return names if all(there) else {'train': names['train']}
  raise ValueError(f'it has {has}; needed: x and y, or x_train and y_train')


def _array(name: str, value: Any) -> np.ndarray:
  try:
    return np.asarray(value)
  except ValueError as error:  # of a list of lists
    raise ValueError(
      f'{name} is no array: {errors.first_line(error)}; allowed: rows of one '
      'length'
    ) from error


def _labels(name: str, y: np.ndarray) -> np.ndarray:
  """Returns labels [N] of whole numbers or text, or targets [N, K] float32."""
  kind = y.dtype.kind
  is_target = kind == 'f' or y.dtype.name == 'bfloat16'
  if not is_target and kind not in 'biuU':
    raise ValueError(
      f'{name} is {y.dtype}; allowed: whole numbers, bool or text as labels, '
      'floating point as targets'
    )
  if y.ndim == 2 and y.shape[1] == 1 and not is_target:
    y = y[:, 0]
  if y.ndim not in ((1, 2) if is_target else (1,)):
    allowed = '[N] or [N, K]' if is_target else '[N] or [N, 1]'
    hint = '' if is_target else ', or floating point as targets'
    raise ValueError(
      f'{name} has the shape {y.shape} of {y.dtype}; allowed: {allowed}{hint}'
    )
  if not y.size:
    raise ValueError(
      f'{name} is empty, of shape {y.shape}; allowed: a label, or a target, '
      'for each example'
    )
  if is_target:
    y = _finite(name, y.reshape(len(y), -1))
  return y.astype(np.int64) if kind == 'b' else y


def _check(both, names, train, train_names) -> None:
  """Raises ValueError for inputs that do not fit their labels, or training."""
  x, y = both
  if x.ndim not in (2, 3, 4) or 0 in x.shape[1:]:
    raise ValueError(
      f'{names[0]} has the shape {x.shape}; allowed: images [N, H, W, C] or '
      '[N, H, W], vectors [N, D]'
    )
  if len(x) != len(y):
    raise ValueError(
      f'{names[0]} has {len(x)} examples, {names[1]} has {len(y)}'
    )
  if not len(x):
    raise ValueError(f'{names[0]} is empty')
  for place, (a, b) in enumerate(zip(both, train)):
    if a.shape[1:] != b.shape[1:] or _kind(a, place) != _kind(b, place):
      raise ValueError(
        f'{names[place]} is {a.dtype} of shape {a.shape}, '
        f'{train_names[place]} {b.dtype} of shape {b.shape}; allowed: one kind '
        'of examples'
      )
  if x.dtype.name not in levels.WHITES:
    raise ValueError(
      f'{names[0]} is {x.dtype}; allowed: {", ".join(sorted(levels.WHITES))}'
    )
  _check_finite(names[0], x)


def _kind(values: np.ndarray, place: int) -> str:
  """Returns what arrays of two splits have to share, beside their shape."""
  if place == 0:  # the dtype of images says what is white
    return '' if values.ndim == 2 else values.dtype.name
  return values.dtype.kind.replace('u', 'i')


def _numbered(splits: Mapping[str, Split]):
  """Returns (split -> labels or targets, names of the classes)."""
  labels = {split: y for split, (_, y) in splits.items()}
  if labels['train'].ndim == 2:
    return labels, ()
  return labels_lib.numbered(labels)


def _vectors(name: str, x: np.ndarray) -> np.ndarray:
  """Returns vectors, [N, D] float32."""
  if x.dtype.kind in 'iu' and max(-int(x.min()), int(x.max())) > 2**24:
    raise ValueError(
      f'vectors of {name} are {x.min()} to {x.max()}; allowed of whole '
      'numbers: -2^24 to 2^24, which float32 holds exactly'
    )
  return _finite(name, x)


def _finite(name: str, values: np.ndarray) -> np.ndarray:
  """Returns values as float32; ValueError for one that this cannot hold."""
  with np.errstate(over='ignore'):
    small = values.astype(np.float32)
  _check_finite(name, small)
  return small


def _check_finite(name: str, values: np.ndarray) -> None:
  if values.dtype.kind in 'biu':
    return
  size = max(1, _AT_ONCE // values[0].size)
  for start in range(0, len(values), size):
    part = values[start : start + size]
    wrong = ~np.isfinite(part)
    if wrong.any():
      number = start + int(np.argwhere(wrong)[0][0])
      shown = float(part[wrong][0])
      raise ValueError(
        f'example {number} of {name} has a {shown:g}; allowed: finite float32'
      )


def _crc(values: np.ndarray) -> int:
  return zlib.crc32(np.ascontiguousarray(values).view(np.uint8).reshape(-1))
