"""Reads what the features of a set say of its records, and the records.

An image is left as it lies there: TFDS would decode it by OpenCV or by Pillow,
whichever is installed, to different pixels; see `pixels`.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from bn_jax import errors
from bn_jax.data.disk import levels


def of(name: str, info: Any) -> tuple:
  """Returns (image_key, label_key, stated, class_names) of a set.

  Args:
    name: of the set, for messages.
    info: of its builder.

  Raises:
    DataError: it is no set of images with one label each that can be read.
  """
  features = dict(info.features)
  pairs = dict.fromkeys([tuple(info.supervised_keys or ()), ('image', 'label')])
  reasons = []
  for pair in pairs:
    if len(pair) != 2 or not set(pair) <= features.keys():
      continue
    try:
      stated = _stated(features[pair[0]])
      return *pair, stated, _class_names(features[pair[1]])
    except ValueError as error:
      reasons.append(f'{" and ".join(pair)}: {error}')
  raise errors.DataError(
    f'{name} is no set of images with one label each; it has '
    f'{"; ".join([", ".join(features), *reasons])}'
  )


def _stated(feature: Any) -> levels.Stated:
  """Returns what the feature of an image says; ValueError if it is none."""
  import tensorflow_datasets as tfds

  kinds = tfds.features.Image, tfds.features.Tensor
  if not isinstance(feature, kinds):
    raise ValueError(
      f'a {type(feature).__name__}; allowed: an Image, or a Tensor'
    )
  shape = tuple(feature.shape)
  if len(shape) == 2 and isinstance(feature, tfds.features.Tensor):
    shape = (*shape, 1)
  stated = levels.Stated(shape, np.dtype(feature.np_dtype).name)
  levels.check(stated)
  return stated


def _class_names(feature: Any) -> tuple[str, ...]:
  """Returns the names of a label's classes; ValueError if it has none."""
  import tensorflow_datasets as tfds

  if not isinstance(feature, tfds.features.ClassLabel):
    raise ValueError(
      f'its label is a {type(feature).__name__}; allowed: a ClassLabel'
    )
  if not feature.num_classes:
    raise ValueError(
      'its label has no number of classes; write it into features.json'
    )
  return tuple(map(str, feature.names or range(feature.num_classes)))


def reader(
  features: Any, image_key: str, label_key: str
) -> Callable[[bytes], tuple[bytes | np.ndarray, int]]:
  """Returns bytes of a record -> (the image's file or array, the label).

  What it returns raises a ValueError for a record that lacks either.
  """
  import tensorflow_datasets as tfds
  from tensorflow_datasets.proto import tf_example_pb2

  parse = tf_example_pb2.Example.FromString
  image = features[image_key]
  is_file = isinstance(image, tfds.features.Image)
  deserialize = tfds.features.FeaturesDict(
    {image_key: image}
  ).deserialize_example_np

  def read(record: bytes) -> tuple[bytes | np.ndarray, int]:
    # TFDS would give the same two, in twice the time.
    values = parse(record).features.feature
    files = values[image_key].bytes_list.value if is_file else ()
    labels = values[label_key].int64_list.value
    if is_file and not files:  # as of the empty records of a truncated shard
      raise ValueError('it holds no image')
    if not labels:
      raise ValueError('it holds no label')
    if is_file:
      return files[0], labels[0]
    array = deserialize(record)[image_key]
    _check_numbers(values[image_key], array)
    return array, labels[0]

  return read


def _check_numbers(feature: Any, array: np.ndarray) -> None:
  """Raises ValueError if a record holds other numbers than the array has.

  TFDS wraps what does not fit into the dtype of the features, without a word.
  """
  numbers = np.array(feature.int64_list.value or feature.float_list.value)
  values = array.view(np.int64) if array.dtype == np.uint64 else array
  if numbers.size and not np.array_equal(
    numbers, values.astype(numbers.dtype).ravel(), equal_nan=True
  ):
    raise ValueError(
      f'its pixels are {numbers.min()} to {numbers.max()}, which are no '
      f'{array.dtype}, as the features of the set say'
    )
