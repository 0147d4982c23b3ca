"""Image classification sets that fit in memory, as uint8 on the device."""

import contextlib
import functools
import io
import os
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from bn_jax import errors, types


class Facts(NamedTuple):
  """What is known of a dataset before it is read."""

  shape: tuple[int, int, int]
  num_classes: int
  num_train: int
  num_test: int


DATASETS = {
  'cifar10': Facts((32, 32, 3), 10, 50_000, 10_000),
  'cifar100': Facts((32, 32, 3), 100, 50_000, 10_000),
  'digits': Facts((8, 8, 1), 10, 1_442, 355),
  'fashion_mnist': Facts((28, 28, 1), 10, 60_000, 10_000),
  'mnist': Facts((28, 28, 1), 10, 60_000, 10_000),
  'svhn_cropped': Facts((32, 32, 3), 10, 73_257, 26_032),
}


class Dataset(NamedTuple):
  """A dataset on the device: its training and its test split."""

  train: types.Split
  test: types.Split


def facts(name: str) -> Facts:
  """What is known of the dataset called `name`, without reading it.

  Raises:
    ValueError: an unknown name.
  """
  return errors.lookup('dataset', DATASETS, name)


def image_shape(name: str, *, resolution: int | None) -> tuple[int, int, int]:
  """(height, width, channels) of the images after resizing."""
  height, width, channels = facts(name).shape
  if resolution is None:
    return height, width, channels
  return resolution, resolution, channels


def shapes(name: str, *, resolution: int | None) -> Dataset:
  """The shapes and dtypes of a dataset, without reading it."""
  known = facts(name)
  image = image_shape(name, resolution=resolution)
  channels = jax.ShapeDtypeStruct(image[-1:], jnp.float32)

  def split(count):
    return types.Split(
      images=jax.ShapeDtypeStruct((count, *image), jnp.uint8),
      labels=jax.ShapeDtypeStruct((count,), jnp.int32),
      mean=channels,
      std=channels,
    )

  return Dataset(split(known.num_train), split(known.num_test))


def load(
  name: str, *, resolution: int | None = None, data_dir: str | None = None
) -> Dataset:
  """The dataset called `name`, its images resized to squares.

  Args:
    name: a key of `DATASETS`. 'digits' is prepared on first use, offline; the
      others must have been prepared as array_record.
    resolution: pixels of a side (bilinear); None leaves the images as they are.
    data_dir: of TFDS; None is TFDS_DATA_DIR or ~/tensorflow_datasets.

  Raises:
    ValueError: an unknown name.
    DataError: the set is not there, or is not what its name promises.
  """
  known = facts(name)
  data_dir = _data_dir(data_dir)
  train = _read(name, 'train', known, known.num_train, data_dir, resolution)
  test = _read(name, 'test', known, known.num_test, data_dir, resolution)
  mean_C, std_C = _channel_moments(train[0])
  splits = [
    types.Split(jnp.asarray(images), jnp.asarray(labels), mean_C, std_C)
    for images, labels in (train, test)
  ]
  return Dataset(*splits)


def gather(
  split: types.Split, index_B: jax.Array, mask_B: jax.Array | None = None
) -> types.Batch:
  """The examples of a split at `index_B`, normalised per channel."""
  pixels = split.images[index_B].astype(jnp.float32)
  mean, std = split.mean.reshape(1, 1, 1, -1), split.std.reshape(1, 1, 1, -1)
  return types.Batch((pixels - mean) / std, split.labels[index_B], mask_B)


def first(split: types.Split, count: int) -> types.Batch:
  """The first `count` examples of a split, as one batch."""
  return gather(split, jnp.arange(count))


def padded_batches(
  split: types.Split, *, batch_size: int
) -> Iterator[types.Batch]:
  """A whole split in order, each example once; the last batch is padded."""
  for start in range(0, split.labels.shape[0], batch_size):
    yield _padded(split, start, batch_size)


@functools.partial(jax.jit, static_argnums=2)
def _padded(split, start, batch_size):
  count = split.labels.shape[0]
  index_B = start + jnp.arange(batch_size)
  return gather(split, jnp.minimum(index_B, count - 1), index_B < count)


def _data_dir(given: str | None) -> pathlib.Path:
  """Where TFDS keeps its data: given, TFDS_DATA_DIR, or its own default."""
  default = os.environ.get('TFDS_DATA_DIR') or '~/tensorflow_datasets'
  return pathlib.Path(given or default).expanduser()


def _read(name, split, known, count, data_dir, resolution):
  """(images [N, H, W, C] uint8, labels [N] int32) of a split."""
  # Imported late: it takes a second, and only reading needs it.
  import tensorflow_datasets as tfds

  from bn_jax.data import digits

  keywords = {'data_dir': str(data_dir), 'file_format': 'array_record'}
  if name == 'digits':
    builder = digits.Digits(**keywords)
    _prepare(builder, tfds)
  else:
    with _blaming(name, data_dir):
      builder = tfds.builder(name, **keywords)
  if not builder.data_path.exists():
    raise errors.DataError(
      f'{name} is not in {data_dir}; give its folder with --data_dir=DIR or '
      'TFDS_DATA_DIR, or prepare it where TensorFlow is installed: '
      f'tfds build {name} --file_format=array_record --data_dir=DIR'
    )
  skip = {'image': tfds.decode.SkipDecoding()}
  with _blaming(name, data_dir):
    source = builder.as_data_source(split=split, decoders=skip)
    records = source.__getitems__(range(len(source)))
    images = np.stack([_decode(r['image'], known, resolution) for r in records])
    labels = np.array([r['label'] for r in records], np.int32)
  _check(name, split, labels, known, count)
  return images, labels


@contextlib.contextmanager
def _blaming(name: str, data_dir: pathlib.Path):
  """Says of what TFDS and array_record raise which data it is about."""
  try:
    yield
  except (OSError, RuntimeError, ValueError, KeyError) as error:
    first = str(error).strip().split('\n')[0]
    raise errors.DataError(
      f'cannot read {name} in {data_dir}: {first}; it must be whole, and '
      f'prepared with --file_format=array_record'
    ) from error


def _prepare(builder, tfds) -> None:
  """Writes the digits into the data_dir, once."""
  if builder.data_path.exists():
    return
  tfds.disable_progress_bar()
  try:
    # TFDS prints that it downloads, which here it does not.
    with contextlib.redirect_stdout(io.StringIO()):
      builder.download_and_prepare(file_format='array_record')
  except OSError as error:
    raise errors.DataError(
      f'cannot prepare digits in {builder.data_path}: {error}; '
      'give a writable folder with --data_dir=DIR'
    ) from error


def _decode(encoded: bytes, known: Facts, resolution: int | None) -> np.ndarray:
  image = Image.open(io.BytesIO(encoded))
  image = image.convert('L' if known.shape[-1] == 1 else 'RGB')
  if resolution is not None and image.size != (resolution, resolution):
    bilinear = Image.Resampling.BILINEAR
    image = image.resize((resolution, resolution), bilinear)
  return np.asarray(image, np.uint8).reshape(*image.size[::-1], -1)


def _check(name, split, labels, known, count) -> None:
  if len(labels) != count:
    raise errors.DataError(
      f'{name} {split} holds {len(labels)} examples, expected {count}'
    )
  if labels.min() < 0 or labels.max() >= known.num_classes:
    raise errors.DataError(
      f'{name} {split} has labels {labels.min()} to {labels.max()}, '
      f'expected 0 to {known.num_classes - 1}'
    )


def _channel_moments(images: np.ndarray) -> tuple[jax.Array, jax.Array]:
  """Mean and standard deviation per channel, exact; a constant has std 1."""
  channels = images.shape[-1]
  levels = np.arange(256, dtype=np.float64)
  moments = []
  for channel in range(channels):
    counts = np.bincount(images[..., channel].reshape(-1), minlength=256)
    mean = counts @ levels / counts.sum()
    std = np.sqrt(counts @ (levels - mean) ** 2 / counts.sum())
    moments.append((mean, std or 1.0))
  mean_C, std_C = np.array(moments, np.float32).T
  return jnp.asarray(mean_C), jnp.asarray(std_C)
