"""Tells the sizes of datasets before their images are read."""

import os
from collections.abc import Sequence
from typing import NamedTuple

from bn_jax import errors
from bn_jax.data.disk import sets, store


class Facts(NamedTuple):
  """The sizes of a dataset.

  Attributes:
    shape: of an input: (height, width, channels) of an image, with None where
      images differ; (D,) of a vector.
    num_classes: size of the network's output: the number of classes, or the
      size of a vector target.
    num_train, num_test: numbers of examples to train and to test on.
    test_split: name of the split to test on.
    dtype: of a pixel on disk, see `levels`; of a vector, 'float32'.
    classifies: whether examples have labels; else targets, see `num_classes`.
  """

  shape: tuple[int | None, ...]
  num_classes: int
  num_train: int
  num_test: int
  test_split: str = 'test'
  dtype: str = 'uint8'
  classifies: bool = True


_PHOTOGRAPHS = (None, None, 3)
# Datasets that a config may name before they are prepared.
KNOWN = {
  'cifar10': Facts((32, 32, 3), 10, 50_000, 10_000),
  'cifar100': Facts((32, 32, 3), 100, 50_000, 10_000),
  'digits': Facts((8, 8, 1), 10, 1_442, 355),
  'fashion_mnist': Facts((28, 28, 1), 10, 60_000, 10_000),
  'imagenet2012': Facts(_PHOTOGRAPHS, 1000, 1_281_167, 50_000, 'validation'),
  'imagenette': Facts(_PHOTOGRAPHS, 10, 9_469, 3_925, 'validation'),
  'mnist': Facts((28, 28, 1), 10, 60_000, 10_000),
  'svhn_cropped': Facts((32, 32, 3), 10, 73_257, 26_032),
}


def of(name: str, data_dir: str | os.PathLike | None = None) -> Facts:
  """Returns the facts of a set: from `KNOWN`, or else from the data_dir.

  Raises:
    ValueError: the name is neither known nor in the data_dir.
    DataError: the set in the data_dir cannot be used.
  """
  if name in KNOWN:
    return KNOWN[name]
  if store.folder(name, data_dir) is None:
    if own := store.meant(name):
      raise ValueError(f'unknown dataset {name!r}; did you mean {own}?')
    names = {*KNOWN, *store.names(data_dir)}
    raise ValueError(
      f'{errors.unknown("dataset", name, names)}, any set of images that lies '
      f'in {store.data_dir(data_dir)} (python -m bn_jax data prepare NAME), or '
      'your own: folder:PATH, PATH.npz, my_module:make'
    )
  return prepared(store.opened(name, data_dir))


def prepared(
  dataset: sets.Set, test_splits: Sequence[str] = sets.TEST_SPLITS
) -> Facts:
  """Returns the facts of a set that lies on disk.

  Args:
    test_splits: the first of them that it has is the one to test on.

  Raises:
    DataError: it lacks a split to train or to test on, or one is empty; or it
      has one class.
  """
  check_classes(dataset)
  if 'train' not in dataset.splits:
    raise errors.DataError(
      f'{dataset.name} in {dataset.folder} has no split train; it has '
      f'{", ".join(dataset.splits)}'
    )
  test_split = sets.split_to_test_on(dataset, test_splits)
  if test_split is None:
    raise errors.DataError(
      f'{dataset.name} in {dataset.folder} has no split '
      f'{" or ".join(test_splits)}; it has {", ".join(dataset.splits)}'
    )
  for split in ('train', test_split):
    if not dataset.splits[split]:
      raise errors.DataError(
        f'{dataset.name} in {dataset.folder}: {split} is empty'
      )
  return Facts(
    dataset.shape,
    dataset.num_classes,
    dataset.splits['train'],
    dataset.splits[test_split],
    test_split,
    dataset.stated.dtype if dataset.stated else 'float32',
    dataset.classifies,
  )


def check_classes(dataset: sets.Set) -> None:
  """Raises DataError for one class: the loss would be 0, whatever is learnt."""
  if dataset.classifies and dataset.num_classes < 2:
    raise errors.DataError(
      f'{dataset.name} in {dataset.folder} has one class, '
      f'{dataset.class_names[0]!r}; allowed: two or more'
    )


def check(dataset: sets.Set, expected: Facts) -> None:
  """Raises DataError for a set on disk that is another than expected."""
  actual = prepared(dataset, [expected.test_split])
  if actual != expected:
    raise errors.DataError(
      f'{dataset.name} in {dataset.folder} has {_described(actual)}; expected: '
      f'{_described(expected)}'
    )


def _described(facts: Facts) -> str:
  return (
    f'{facts.num_classes} classes, {facts.num_train} examples in train and '
    f'{facts.num_test} in {facts.test_split}, of shape {facts.shape}, '
    f'{facts.dtype}'
  )
