"""Reads sets of images from disk into memory, as arrays."""

import concurrent.futures
import contextlib
import functools
import math
import os
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from PIL import Image

from bn_jax import errors, types
from bn_jax.data import selection
from bn_jax.data.batches import crops, in_memory
from bn_jax.data.disk import facts as facts_lib
from bn_jax.data.disk import pixels, prepare, store

# Records that a thread fetches and decodes at a time: few calls, but 50,000
# images are still 98 parts for the cores.
_AT_ONCE = 512
# Bytes of decoded images up to which a whole split is decoded and cached, even
# if a selection needs a part of it: 2 GiB fit into the memory of most machines.
_LARGEST = 2**31


class Splits(NamedTuple):
  """The arrays of a dataset: its training and its test split."""

  train: types.Split
  test: types.Split


def load(
  name: str,
  *,
  resolution: int | None = None,
  data_dir: str | os.PathLike | None = None,
  choice: selection.Selection | None = None,
  binarize: float | None = None,
) -> Splits:
  """Returns the arrays of the dataset called `name`.

  Args:
    name: a set that lies in the data_dir as array_record; 'digits' is
      prepared on first use, offline.
    resolution: pixels of a side, to which the middle square of an image is
      resized, bilinearly; None leaves the images as they are.
    data_dir: of TFDS; None is TFDS_DATA_DIR or ~/tensorflow_datasets.
    choice: of examples and labels; None takes all as they are.
    binarize: share of the full brightness above which a pixel is 1, else 0;
      None keeps the grey levels. The mean and standard deviation of binary
      images are given as 0 and 1, so that normalising changes nothing.

  Raises:
    ValueError: an unknown name, or a subset larger than the split.
    DataError: the set is absent or damaged, or has other sizes than its name in
      `facts.KNOWN`.
  """
  expected = facts_lib.of(name, data_dir)
  choice = choice or selection.Selection()
  prepared = opened(name, data_dir)
  take = functools.partial(_taken, prepared, expected, resolution)
  images, train_labels = take('train', expected.num_train, _of_training(choice))
  test_images, test_labels = take(
    expected.test_split,
    expected.num_test,
    functools.partial(selection.of_classes, choice),
  )
  num_classes = len(choice.classes) or expected.num_classes
  train_labels = selection.with_noise(choice, train_labels, num_classes)
  if binarize is not None:
    images, test_images = (
      (x > 255 * binarize).astype(np.uint8) for x in (images, test_images)
    )
    channels = images.shape[-1]
    moments = jnp.zeros(channels), jnp.ones(channels)
  else:
    moments = in_memory.channel_moments(images)
  return Splits(
    *(
      types.Split(jnp.asarray(x), jnp.asarray(y), *moments)
      for x, y in ((images, train_labels), (test_images, test_labels))
    )
  )


def opened(name: str, data_dir: str | os.PathLike | None) -> store.Prepared:
  """Opens the set called `name`, and prepares the digits if they are absent."""
  if name == 'digits' and store.folder(name, data_dir) is None:
    prepare.prepare('digits', data_dir=data_dir)
  return store.opened(name, data_dir)


def labels(prepared: store.Prepared, split: str) -> np.ndarray:
  """Reads the labels of a split, [N] int32, without decoding its images."""
  values = [
    record[prepared.label_key]
    for part in _parts(prepared.splits[split])
    for record in _fetched(prepared, split, part)
  ]
  return np.array(values, np.int32)


def _of_training(choice: selection.Selection):
  """Returns labels -> (numbers of the examples to train on, their labels)."""

  def choose(all_labels):
    numbers, new_labels = selection.of_classes(choice, all_labels)
    subset = selection.of_subset(choice, len(new_labels))
    return np.arange(len(all_labels))[numbers][subset], new_labels[subset]

  return choose


def _taken(
  prepared, expected, resolution, split, count, choose
) -> store.Arrays:  # fmt: skip
  """Returns (images, labels) of the examples that `choose` picks by label."""
  size = count * math.prod(_image_shape(expected.shape, resolution))
  if size <= _LARGEST:
    images, all_labels = _arrays(prepared, split, expected, count, resolution)
    numbers, new_labels = choose(all_labels)
    return images[numbers], new_labels
  # Of a large split only the chosen examples are decoded.
  all_labels = labels(prepared, split)
  _check(f'{prepared.name} {split}', all_labels, expected, count)
  numbers, new_labels = choose(all_labels)
  numbers = np.arange(count)[numbers]
  images, _ = _decoded(prepared, split, expected, resolution, numbers)
  return images, new_labels


def _arrays(prepared, split, expected, count, resolution) -> store.Arrays:
  """Returns (images [N, H, W, C] uint8, labels [N] int32) of a whole split."""
  arrays = store.arrays(
    prepared,
    split,
    resolution,
    lambda: _decoded(prepared, split, expected, resolution, np.arange(count)),
  )
  _check(f'{prepared.name} {split}', arrays[1], expected, count)
  return arrays


def _decoded(prepared, split, expected, resolution, numbers) -> store.Arrays:
  """Decodes the records `numbers`, in as many threads as there are cores."""
  source = store.source(prepared, split)
  if len(source) <= numbers[-1]:
    raise errors.DataError(
      f'{prepared.name} {split} holds {len(source)} examples, expected '
      f'{numbers[-1] + 1}'
    )
  shape = _image_shape(expected.shape, resolution)
  images = np.empty((len(numbers), *shape), np.uint8)
  record_labels = np.empty(len(numbers), np.int32)

  def decode(part: range) -> None:
    records = _fetched(prepared, split, numbers[part.start : part.stop])
    for index, record in zip(part, records):
      with _blaming_record(prepared, split, int(numbers[index])):
        images[index] = _decode(record[prepared.image_key], shape)
      record_labels[index] = record[prepared.label_key]

  # Threads suffice: Pillow releases Python's lock while it decodes.
  with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as threads:
    list(threads.map(decode, _parts(len(numbers))))
  return images, record_labels


def _parts(count: int) -> list[range]:
  return [
    range(start, min(start + _AT_ONCE, count))
    for start in range(0, count, _AT_ONCE)
  ]


def _fetched(prepared, split, numbers: Sequence[int]) -> list[dict]:
  """Reads records; an error names the record that cannot be read."""
  source = store.source(prepared, split)
  numbers = [int(number) for number in numbers]
  try:
    return source.__getitems__(numbers)
  except Exception:  # array_record and protobuf have exceptions of their own
    for number in numbers:
      with _blaming_record(prepared, split, number):
        source.__getitems__([number])
    raise


@contextlib.contextmanager
def _blaming_record(prepared, split, number):
  try:
    yield
  except errors.Failure:
    raise
  except Exception as error:  # as in `_fetched`
    raise errors.DataError(
      f'{prepared.name} {split}: {store.place_of(prepared, split, number)} in '
      f'{prepared.folder} cannot be used: {errors.first_line(error)}'
    ) from error


def _image_shape(shape, resolution) -> tuple[int, int, int]:
  height, width, channels = shape
  if resolution is None:
    return height, width, channels
  return resolution, resolution, channels


def _decode(encoded: bytes, shape: tuple[int, int, int]) -> np.ndarray:
  height, width, channels = shape
  if not encoded:  # array_record returns this from a truncated file
    raise ValueError('it holds no image')
  image = pixels.decoded(encoded, channels)
  if image.size != (width, height):
    # The whole middle square of a photograph; a square image is resized.
    if image.width != image.height:
      return crops.center(image, height, share=1.0)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
  return np.asarray(image, np.uint8).reshape(shape)


def _check(what, all_labels, expected, count) -> None:
  if len(all_labels) != count:
    raise errors.DataError(
      f'{what} holds {len(all_labels)} examples, expected {count}'
    )
  smallest, largest = all_labels.min(), all_labels.max()
  if smallest < 0 or largest >= expected.num_classes:
    raise errors.DataError(
      f'{what} has labels {smallest} to {largest}, '
      f'expected 0 to {expected.num_classes - 1}'
    )
