"""Reads sets of images from disk into memory, as arrays."""

import concurrent.futures
import contextlib
import functools
import math
import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from PIL import Image

from bn_jax import errors, types
from bn_jax.data import selection
from bn_jax.data.batches import crops, in_memory
from bn_jax.data.disk import facts as facts_lib
from bn_jax.data.disk import levels, pixels, prepare, sets, store

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
  white_for: str | None = None,
) -> Splits:
  """Returns the arrays of the dataset called `name`.

  Args:
    name: a set that lies in the data_dir as array_record; 'digits' is
      prepared on first use, offline.
    resolution: pixels of a side, to which the middle square of an image is
      resized, bilinearly; None leaves the images as they are.
    data_dir: of TFDS; None is TFDS_DATA_DIR or ~/tensorflow_datasets.
    choice: of examples and labels; None takes all as they are.
    binarize: share of white above which a pixel is 1, else 0;
      None keeps the grey levels. The mean and standard deviation of binary
      images are given as 0 and 1, so that normalising changes nothing.
    white_for: the keyword for which all pixels have to lie between black and
      white; None: floating point may lie beyond.

  Raises:
    ValueError: an unknown name, or a subset larger than the split.
    DataError: the set is absent or damaged, or has other sizes than its name in
      `facts.KNOWN`, or an image than its features.
  """
  expected = facts_lib.of(name, data_dir)  # raises for an unknown name
  return read(
    opened(name, data_dir),
    expected,
    resolution=resolution,
    choice=choice,
    binarize=binarize,
    white_for=white_for,
  )


def read(
  prepared: sets.Set,
  expected: facts_lib.Facts,
  *,
  resolution: int | None = None,
  choice: selection.Selection | None = None,
  binarize: float | None = None,
  white_for: str | None = None,
) -> Splits:
  """Returns the arrays of a set; see `load` for the keywords and errors.

  Args:
    prepared: the set.
    expected: what it has to be.
  """
  choice = choice or selection.NONE
  name = prepared.name
  facts_lib.check(prepared, expected)
  take = functools.partial(_taken, prepared, resolution)
  images, train_labels = take('train', _of_training(choice))
  test_images, test_labels = take(
    expected.test_split, functools.partial(selection.of_classes, choice)
  )
  num_classes = len(choice.classes) or expected.num_classes
  train_labels = selection.with_noise(choice, train_labels, num_classes)
  if white_for is not None:
    for split, x in (('train', images), (expected.test_split, test_images)):
      with _blaming(lambda split=split: f'{name} {split}'):
        levels.check_brightness(x, white_for)
  if binarize is not None:
    images, test_images = (
      (x > levels.WHITE * binarize).astype(np.uint8)
      for x in (images, test_images)
    )
    channels = images.shape[-1]
    moments = jnp.zeros(channels), jnp.ones(channels)
  elif images.ndim == 2:
    moments = in_memory.feature_moments(images)
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
  """Reads the labels of a split, [N] int32, without decoding its images.

  Raises:
    DataError: a label is no class of the set.
  """
  known = prepared.known_labels(split)
  if known is not None:
    return known
  values = [
    label
    for part in _parts(prepared.splits[split])
    for _, label in _fetched(prepared, split, part)
  ]
  return _checked(prepared, split, values)


def _of_training(choice: selection.Selection):
  """Returns labels -> (numbers of the examples to train on, their labels)."""

  def choose(all_labels):
    numbers, new_labels = selection.of_classes(choice, all_labels)
    subset = selection.of_subset(choice, len(new_labels))
    return np.arange(len(all_labels))[numbers][subset], new_labels[subset]

  return choose


def _taken(prepared, resolution, split, choose) -> store.Arrays:
  """Returns (images, labels) of the examples that `choose` picks by label."""
  count, stated = prepared.splits[split], prepared.stated
  if stated is None:
    numbers, new_labels = choose(labels(prepared, split))
    numbers = np.arange(count)[numbers]
    vectors = prepared.records(split).read(numbers)
    return np.stack([vector for vector, _ in vectors]), new_labels
  size = count * math.prod(_image_shape(stated.shape, resolution))
  if size * stated.levels.itemsize <= _LARGEST:
    images, all_labels = store.arrays(
      prepared,
      split,
      resolution,
      lambda: _decoded(prepared, split, resolution, np.arange(count)),
    )
    numbers, new_labels = choose(all_labels)
    return images[numbers], new_labels
  # Of a large split only the chosen examples are decoded.
  all_labels = labels(prepared, split)
  numbers, new_labels = choose(all_labels)
  numbers = np.arange(count)[numbers]
  images, _ = _decoded(prepared, split, resolution, numbers)
  return images, new_labels


def _decoded(prepared, split, resolution, numbers) -> store.Arrays:
  """Decodes the records `numbers`, in as many threads as there are cores."""
  records = prepared.records(split)
  if len(records) <= numbers[-1]:
    raise errors.DataError(
      f'{prepared.name} {split} holds {len(records)} examples, expected '
      f'{numbers[-1] + 1}'
    )
  stated = prepared.stated
  shape = _image_shape(stated.shape, resolution)
  images = np.empty((len(numbers), *shape), stated.levels)
  record_labels = np.empty(len(numbers), np.int64)
  if not prepared.classifies:
    record_labels = np.empty((len(numbers), prepared.num_classes), np.float32)

  def decode(part: range) -> None:
    examples = _fetched(prepared, split, numbers[part.start : part.stop])
    for index, (raw, label) in zip(part, examples):
      with _blaming_record(prepared, split, int(numbers[index])):
        images[index] = _decode(raw, stated, shape)
      record_labels[index] = label

  # Threads suffice: Pillow releases Python's lock while it decodes.
  with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as threads:
    list(threads.map(decode, _parts(len(numbers))))
  return images, _checked(prepared, split, record_labels)


def _parts(count: int) -> list[range]:
  return [
    range(start, min(start + _AT_ONCE, count))
    for start in range(0, count, _AT_ONCE)
  ]


def _fetched(prepared, split, numbers: Sequence[int]) -> list[sets.Example]:
  """Returns (image's file or array, label) of records.

  An error names the record that cannot be read.
  """
  records = prepared.records(split)
  numbers = [int(number) for number in numbers]
  try:
    return records.read(numbers)
  except Exception:  # array_record and protobuf have exceptions of their own
    for number in numbers:
      with _blaming_record(prepared, split, number):
        records.read([number])
    raise


@contextlib.contextmanager
def _blaming(what: Callable[[], str]):
  """Turns any error of reading into a DataError about what `what` returns."""
  try:
    yield
  except errors.Failure:
    raise
  except Exception as error:  # as in `_fetched`
    raise errors.DataError(
      f'{what()} cannot be used: {errors.first_line(error)}'
    ) from error


def _blaming_record(prepared, split, number):
  return _blaming(
    lambda: (
      f'{prepared.name} {split}: {prepared.place_of(split, number)} in '
      f'{prepared.folder}'
    )
  )


def _image_shape(shape, resolution) -> tuple[int, int, int]:
  height, width, channels = shape
  if resolution is None:
    return height, width, channels
  return resolution, resolution, channels


def _decode(raw, stated: levels.Stated, shape: tuple[int, int, int]):
  height, width, _ = shape
  if isinstance(raw, np.ndarray) and raw.shape[:2] == (height, width):
    return levels.of(raw.reshape(shape))
  image = pixels.decoded(raw, stated)
  if image.size != (width, height):
    # The whole middle square of a photograph; a square image is resized.
    if image.width != image.height:
      return crops.center(image, height, share=1.0)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
  return pixels.as_array(image)


def _checked(prepared, split, all_labels: Sequence[int]) -> np.ndarray:
  """Returns labels, [N], as int32, if they are classes of the set."""
  if not prepared.classifies:
    return all_labels
  all_labels = np.array(all_labels, np.int64)
  smallest, largest = all_labels.min(), all_labels.max()
  if smallest < 0 or largest >= prepared.num_classes:
    raise errors.DataError(
      f'{prepared.name} {split} has labels {smallest} to {largest}, expected 0 '
      f'to {prepared.num_classes - 1}'
    )
  return all_labels.astype(np.int32)
