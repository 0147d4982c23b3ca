"""Reads the images and labels in the archives of CIFAR and of MNIST.

CIFAR is a gzipped tar. Its records have one or two labels of a byte and 3,072
bytes of image, channel by channel (Krizhevsky 2009,
https://www.cs.toronto.edu/~kriz/cifar.html). MNIST is four gzipped IDX files, a
big-endian header and the bytes (LeCun, http://yann.lecun.com/exdb/mnist).
"""

import math
import pathlib
import struct
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from bn_jax import errors
from bn_jax.data.disk import archives

_CIFAR_IMAGE = (3, 32, 32)
_MNIST_IMAGE = (28, 28)
_UBYTE = 8  # the IDX code of unsigned bytes


class Labelled(NamedTuple):
  """The examples of a split, as arrays.

  Attributes:
    images: [N, H, W, C] uint8.
    labels: name of the label -> [N] uint8.
  """

  images: np.ndarray
  labels: dict[str, np.ndarray]


class Content(NamedTuple):
  """A dataset as its archives hold it.

  Attributes:
    splits: name of the split -> examples.
    class_names: name of the label -> names of its classes; {} if the archives
      have none.
  """

  splits: dict[str, Labelled]
  class_names: dict[str, tuple[str, ...]]


class Cifar(NamedTuple):
  """The layout of a CIFAR archive.

  Attributes:
    archive: its file name.
    files: split -> its files of records, of equal length.
    names: name of the label -> (file of its class names, number of classes). In
      a record the labels stand in this order, before the image.
  """

  archive: str
  files: dict[str, tuple[str, ...]]
  names: dict[str, tuple[str, int]]

  def read(
    self, paths: Mapping[str, pathlib.Path], counts: Mapping[str, int]
  ) -> Content:
    """Reads the dataset.

    Args:
      paths: name of the archive -> path.
      counts: split -> number of examples that it must have.

    Raises:
      DataError: the archive is damaged, or holds something else.
    """
    path = paths[self.archive]
    record_size = len(self.names) + math.prod(_CIFAR_IMAGE)
    sizes = {
      file: counts[split] // len(files) * record_size
      for split, files in self.files.items()
      for file in files
    }
    members = archives.members(
      path, sizes, [file for file, _ in self.names.values()]
    )
    class_names = {
      label: _names(path, file, members[file], classes)
      for label, (file, classes) in self.names.items()
    }
    splits = {}
    for split, files in self.files.items():
      data = b''.join(members.pop(file) for file in files)
      records = np.frombuffer(data, np.uint8).reshape(-1, record_size)
      splits[split] = self._labelled(path, split, records)
    return Content(splits, class_names)

  def _labelled(self, path, split, records) -> Labelled:
    labels = {label: records[:, i] for i, label in enumerate(self.names)}
    for label, (_, classes) in self.names.items():
      _check_labels(f'{path} {split} {label}', labels[label], classes)
    images = records[:, len(labels) :].reshape(-1, *_CIFAR_IMAGE)
    return Labelled(images.transpose(0, 2, 3, 1), labels)


class Mnist(NamedTuple):
  """The layout of a set in the format of MNIST.

  Attributes:
    files: split -> (file of images, file of labels).
    classes: the number of classes.
  """

  files: dict[str, tuple[str, str]]
  classes: int

  def read(
    self, paths: Mapping[str, pathlib.Path], counts: Mapping[str, int]
  ) -> Content:
    """Reads the dataset; arguments and errors as of `Cifar.read`."""
    splits = {}
    for split, (image_file, label_file) in self.files.items():
      count = counts[split]
      labels = _idx(paths[label_file], (count,))
      _check_labels(str(paths[label_file]), labels, self.classes)
      images = _idx(paths[image_file], (count, *_MNIST_IMAGE))
      splits[split] = Labelled(images[..., None], {'label': labels})
    return Content(splits, {})


CIFAR10 = Cifar(
  'cifar-10-binary.tar.gz',
  {
    'train': tuple(
      f'cifar-10-batches-bin/data_batch_{i}.bin' for i in range(1, 6)
    ),
    'test': ('cifar-10-batches-bin/test_batch.bin',),
  },
  {'label': ('cifar-10-batches-bin/batches.meta.txt', 10)},
)
CIFAR100 = Cifar(
  'cifar-100-binary.tar.gz',
  {
    'train': ('cifar-100-binary/train.bin',),
    'test': ('cifar-100-binary/test.bin',),
  },
  {
    'coarse_label': ('cifar-100-binary/coarse_label_names.txt', 20),
    'label': ('cifar-100-binary/fine_label_names.txt', 100),
  },
)
MNIST = Mnist(
  {
    'train': ('train-images-idx3-ubyte.gz', 'train-labels-idx1-ubyte.gz'),
    'test': ('t10k-images-idx3-ubyte.gz', 't10k-labels-idx1-ubyte.gz'),
  },
  10,
)


def _names(path, file, data: bytes, classes: int) -> tuple[str, ...]:
  try:
    names = tuple(line for line in data.decode().split('\n') if line)
  except UnicodeDecodeError as error:
    raise errors.DataError(f'{path}: {file} is no text: {error}') from error
  if len(names) != classes:
    raise errors.DataError(
      f'{path}: {file} has {len(names)} names; expected: {classes}'
    )
  return names


def _idx(path: pathlib.Path, shape: tuple[int, ...]) -> np.ndarray:
  """Reads the bytes of a gzipped IDX file, which must have this shape."""
  header = struct.pack(f'>BBBB{len(shape)}I', 0, 0, _UBYTE, len(shape), *shape)
  size = math.prod(shape)
  # One byte more shows whether the file is too long.
  data = archives.gunzipped(path, size=len(header) + size + 1)
  actual_header, data = data[: len(header)], data[len(header) :]
  if actual_header != header:
    raise errors.DataError(
      f'{path} is no IDX file of {" x ".join(map(str, shape))} bytes: its '
      f'header is {actual_header.hex()}; expected: {header.hex()}'
    )
  if len(data) != size:
    length = 'more' if len(data) > size else f'{len(data):,}'
    raise errors.DataError(f'{path} holds {length} bytes; expected: {size:,}')
  return np.frombuffer(data, np.uint8).reshape(shape)


def _check_labels(what: str, labels: np.ndarray, classes: int) -> None:
  if labels.size and labels.max() >= classes:
    raise errors.DataError(
      f'{what}: a label is {labels.max()}; allowed: 0 to {classes - 1}'
    )
