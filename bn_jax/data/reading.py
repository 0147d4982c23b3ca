"""Image sets read from disk into memory, as arrays."""

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

_AT_ONCE = 512  # records a thread decodes at a time
_LARGEST = 2**31  # bytes of a split that is decoded as a whole


class Splits(NamedTuple):
  """The arrays of a dataset: its training and its test split."""

  train: types.Split
  test: types.Split


def load(
  name: str,
  *,
  resolution: int | None = None,
  data_dir: str | os.PathLike | None = None,
  chosen: selection.Selection | None = None,
  binarize: float | None = None,
) -> Splits:
  """The dataset called `name`, its images resized to squares.

  Args:
    name: of a set that lies in the data_dir as array_record; 'digits' is
      prepared on first use, offline.
    resolution: pixels of a side (bilinear); None leaves the images as they are.
    data_dir: of TFDS; None is TFDS_DATA_DIR or ~/tensorflow_datasets.
    chosen: which examples, with which labels; None takes all as they are.
    binarize: brightness in [0, 1] above which a pixel is 1, else 0; None keeps
      the grey levels. Such images are not normalised further.

  Raises:
    ValueError: an unknown name, or more examples than there are.
    DataError: the set is not there, or is not what its name promises.
  """
  known = facts_lib.of(name, data_dir)
  chosen = chosen or selection.Selection()
  prepared = opened(name, data_dir)
  take = functools.partial(_taken, prepared, known, resolution)
  images, labels = take('train', known.num_train, _of_training(chosen))
  test = take(
    known.test_split,
    known.num_test,
    functools.partial(selection.of_classes, chosen),
  )
  num_classes = len(chosen.classes) or known.num_classes
  labels = selection.with_noise(chosen, labels, num_classes)
  if binarize is not None:
    images, test_images = (_binary(x, binarize) for x in (images, test[0]))
    channels = images.shape[-1]
    moments = jnp.zeros(channels), jnp.ones(channels)
    test = test_images, test[1]
  else:
    moments = in_memory.channel_moments(images)
  return Splits(
    *(
      types.Split(jnp.asarray(x), jnp.asarray(y), *moments)
      for x, y in ((images, labels), test)
    )
  )


def opened(name: str, data_dir: str | os.PathLike | None) -> store.Prepared:
  """The set called `name` on disk; the digits are prepared where they lack."""
  if name == 'digits' and store.folder(name, data_dir) is None:
    prepare.prepare('digits', data_dir=data_dir)
  return store.opened(name, data_dir)


def labels(prepared: store.Prepared, split: str) -> np.ndarray:
  """[N] int32, the labels of a split; its images are not decoded."""
  found = [
    [record[prepared.label_key] for record in _fetched(prepared, split, part)]
    for part in _parts(prepared.splits[split])
  ]
  return np.array([label for part in found for label in part], np.int32)


def _of_training(chosen: selection.Selection):
  """labels -> (numbers of the examples to train on, their labels)."""

  def choose(labels):
    kept, of_kept = selection.of_classes(chosen, labels)
    some = selection.of_subset(chosen, len(of_kept))
    return np.arange(len(labels))[kept][some], of_kept[some]

  return choose


def _taken(
  prepared, known, resolution, split, count, choose
) -> store.Arrays:  # fmt: skip
  """(images, labels) of the examples that are chosen by their labels."""
  size = count * math.prod(_image_shape(known.shape, resolution))
  if size <= _LARGEST:
    images, all_labels = _arrays(prepared, split, known, count, resolution)
    kept, chosen_labels = choose(all_labels)
    return images[kept], chosen_labels
  # Of a large set, what is not chosen is not decoded.
  all_labels = labels(prepared, split)
  _check(f'{prepared.name} {split}', all_labels, known, count)
  kept, chosen_labels = choose(all_labels)
  numbers = np.arange(count)[kept]
  images, _ = _decoded(prepared, split, known, resolution, numbers)
  return images, chosen_labels


def _binary(images: np.ndarray, threshold: float) -> np.ndarray:
  return (images > 255 * threshold).astype(np.uint8)


def _arrays(prepared, split, known, count, resolution) -> store.Arrays:
  """(images [N, H, W, C] uint8, labels [N] int32) of a split, checked."""
  found = store.arrays(
    prepared,
    split,
    resolution,
    lambda: _decoded(prepared, split, known, resolution, np.arange(count)),
  )
  _check(f'{prepared.name} {split}', found[1], known, count)
  return found


def _decoded(prepared, split, known, resolution, numbers) -> store.Arrays:
  """Decodes records of a split, in as many threads as there are cores."""
  source = store.source(prepared, split)
  if len(source) <= numbers[-1]:
    raise errors.DataError(
      f'{prepared.name} {split} holds {len(source)} examples, expected '
      f'{numbers[-1] + 1}'
    )
  shape = _image_shape(known.shape, resolution)
  images = np.empty((len(numbers), *shape), np.uint8)
  labels = np.empty(len(numbers), np.int32)

  def decode(part: range) -> None:
    records = _fetched(prepared, split, numbers[part.start : part.stop])
    for place, record in zip(part, records):
      with _blaming_record(prepared, split, int(numbers[place])):
        images[place] = _decode(record[prepared.image_key], shape)
      labels[place] = record[prepared.label_key]

  # Pillow lets other threads run while it decodes.
  with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as threads:
    list(threads.map(decode, _parts(len(numbers))))
  return images, labels


def _parts(count: int) -> list[range]:
  return [
    range(start, min(start + _AT_ONCE, count))
    for start in range(0, count, _AT_ONCE)
  ]


def _fetched(prepared, split, numbers: Sequence[int]) -> list[dict]:
  """Records; where one cannot be read, an error that names it."""
  source = store.source(prepared, split)
  numbers = [int(number) for number in numbers]
  try:
    return source.__getitems__(numbers)
  except Exception:  # array_record and protobuf have their own
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
  except Exception as error:  # array_record and protobuf have their own
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
  if not encoded:  # what array_record gives of a file that was cut off
    raise ValueError('it holds no image')
  image = pixels.decoded(encoded, channels)
  if image.size != (width, height):
    # A photograph is cropped; an image of a set of equals is resized.
    if image.width != image.height:
      return crops.center(image, height, share=1.0)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
  return np.asarray(image, np.uint8).reshape(shape)


def _check(what, labels, known, count) -> None:
  if len(labels) != count:
    raise errors.DataError(
      f'{what} holds {len(labels)} examples, expected {count}'
    )
  if labels.min() < 0 or labels.max() >= known.num_classes:
    raise errors.DataError(
      f'{what} has labels {labels.min()} to {labels.max()}, '
      f'expected 0 to {known.num_classes - 1}'
    )
