"""Reads and writes files of weights: safetensors, and nothing else.

A safetensors file is JSON that says name, dtype and place of each array, and
then the arrays. The files of PyTorch (.pth, .pt, .bin) hold a pickle, which may
run any code when it is read, and those of Keras HDF5; both are refused with the
lines that make a safetensors file of them.
"""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from bn_jax import errors
from bn_jax.storage import files

# Bytes read at a time. The file is mapped into memory, where its pages stay
# until it is closed: so it is opened anew for each part.
_PART = 2**26
_FLOATS = ('F64', 'F32', 'F16', 'BF16')
_COUNTS = ('I64', 'I32')
# Beginnings of other files: zip archives (PyTorch's), pickles, HDF5 (Keras').
_PICKLES = (b'PK\x03\x04', b'\x80\x02', b'\x80\x03', b'\x80\x04', b'\x80\x05')
_HDF5 = b'\x89HDF'
_KERAS = 'docs/models.md#other-peoples-weights has five lines that convert it'


class Header(NamedTuple):
  """What the beginning of a file says.

  Attributes:
    dtypes: name -> dtype as safetensors calls it, 'F32'.
    shapes: name -> shape.
    metadata: of whoever wrote it, texts.
  """

  dtypes: Mapping[str, str]
  shapes: Mapping[str, tuple[int, ...]]
  metadata: Mapping[str, str]


def header(path: pathlib.Path) -> Header:
  """Reads what a file says of its arrays.

  Raises:
    DataError: no such file, or one of another kind, or a damaged one; arrays
      that are neither floating point nor counts.
  """
  _check_kind(path)
  with _opened(path) as file:
    slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
    dtypes = {name: part.get_dtype() for name, part in slices.items()}
    shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
    metadata = dict(file.metadata() or {})
  for name, dtype in dtypes.items():
    if dtype not in (*_FLOATS, *_COUNTS):
      raise errors.DataError(
        f'{path}: {name} is {dtype}; allowed: {", ".join(_FLOATS)}, and '
        f'{" or ".join(_COUNTS)} of a count'
      )
  return Header(dtypes, shapes, metadata)


def read(
  path: pathlib.Path,
  name: str,
  rows: int,
  put: Callable[[slice, np.ndarray], None],
) -> None:
  """Reads an array part by part, so that no second one of its size is there.

  Args:
    rows: the length of its first axis; 0 for an array without axes.
    put: takes the rows that a part has, and the part: floating point as
      float32, counts as int32.

  Raises:
    DataError: values that are not finite, or a file that cannot be read.
  """
  start = 0
  while start < max(1, rows):
    with _opened(path) as file:
      if not rows:
        part, end = file.get_tensor(name), 1
      else:
        entry = file.get_slice(name)
        size = int(np.prod(entry.get_shape()[1:], dtype=np.int64)) * 8
        end = min(rows, start + max(1, _PART // size))
        part = entry[start:end]
    kind = np.int32 if part.dtype.kind in 'iu' else np.float32
    part = part.astype(kind, copy=False)
    if not np.isfinite(part).all():
      raise errors.DataError(
        f'{path}: {name} has values that are not finite in float32'
      )
    put(slice(start, end), part)
    start = end


def write(
  path: pathlib.Path, arrays: Mapping[str, np.ndarray], metadata: dict[str, str]
) -> None:
  """Writes a file whole.

  Raises:
    StorageError: it cannot be written.
  """
  from safetensors import SafetensorError
  from safetensors.numpy import save_file

  # Version 0.8.0 writes the order of memory, whatever the strides say:
  # findings/safetensors_transposed.sh. (ascontiguousarray does the same, but
  # gives an array without axes one of length 1.)
  arrays = {name: np.asarray(x, order='C') for name, x in arrays.items()}
  try:
    files.write(path, lambda file: save_file(arrays, file.name, metadata))
  except SafetensorError as error:
    raise errors.StorageError(
      f'cannot write {path}: {errors.first_line(error)}'
    ) from error


class _opened:
  """Opens a file of safetensors; what it raises becomes a DataError."""

  def __init__(self, path: pathlib.Path):
    self._path = path

  def __enter__(self) -> Any:
    # Imported late: a command that reads no weights need not have it.
    from safetensors import SafetensorError, safe_open

    try:
      self._file = safe_open(self._path, framework='numpy')
      return self._file.__enter__()
    except (SafetensorError, OSError) as error:
      raise errors.DataError(
        f'{self._path} is no whole file of safetensors: '
        f'{errors.first_line(error)}'
      ) from error

  def __exit__(self, *failure) -> None:
    self._file.__exit__(*failure)


def _check_kind(path: pathlib.Path) -> None:
  """Raises DataError for what is no file, or is a pickle or HDF5."""
  if not path.exists():
    raise errors.DataError(f'{path} does not exist; give a file of safetensors')
  if not path.is_file():
    raise errors.DataError(f'{path} is no file; give one of safetensors')
  try:
    with path.open('rb') as file:
      beginning = file.read(4)
  except OSError as error:
    raise errors.DataError(
      f'cannot read {path}: {errors.reason(error)}'
    ) from error
  suffix = path.suffix.lower()
  if beginning == _HDF5 or suffix in ('.h5', '.hdf5', '.keras'):
    raise errors.DataError(f'{path} is no file of safetensors; {_KERAS}')
  if beginning.startswith(_PICKLES) or suffix in ('.pth', '.pt', '.bin'):
    new = path.with_suffix('.safetensors').name
    raise errors.DataError(
      f'{path} holds a pickle, which may run any code, and is not read; where '
      'PyTorch is installed: python -c "import torch, safetensors.torch as s; '
      f"s.save_file({{k: x.contiguous() for k, x in torch.load('{path.name}', "
      f"map_location='cpu', weights_only=True).items()}}, '{new}')\""
    )
