"""Holds out a share of the examples where a set has no test split."""

from typing import NoReturn

import numpy as np

from bn_jax import errors
from bn_jax.data.disk import sets

SHARE = 0.1  # of the examples, where none is given
RULES = (
  ('no test split', 'test_share of the examples (0.1) are held out, drawn by '
                    'seed: of each class its share, and never its last one; '
                    'of a set of tensorflow-datasets, whose labels lie among '
                    'the images, all examples alike'),
)  # fmt: skip


def of(base: sets.Set, share: float | None, seed: int) -> sets.Set:
  """Returns a set with a test split: its own, or a share of its examples.

  Args:
    base: a set with a split `train`.
    share: of the examples, above 0 and below 1; None is `SHARE`.
    seed: of the draw.

  Raises:
    ValueError: a share of a set that has a test split.
    DataError: too few examples.
  """
  if sets.split_to_test_on(base) is not None:
    if share is not None:
      refuse(base.name, share, sets.split_to_test_on(base))
    return base
  share = SHARE if share is None else share
  test = _drawn(_labels(base), share, seed)
  train = np.setdiff1d(np.arange(base.splits['train']), test)
  if not (test.size and train.size):
    raise errors.DataError(
      f'{base.name} in {base.folder} has {base.splits["train"]} examples of '
      f'{base.num_classes} classes and no test split: a share of {share:g} '
      'cannot be held out; give more examples, a larger test_share, or a test '
      'split'
    )
  parts = {'train': ('train', train), 'test': ('train', test)}
  return sets.Parted(base, parts)


def refuse(name: str, share: float, split: str) -> NoReturn:
  """Raises ValueError for a share of a set that has a test split."""
  raise ValueError(
    f'test_share is {share:g}, and {name} has the split {split} to test on; '
    'allowed: None'
  )


def _labels(base: sets.Set) -> np.ndarray:
  """Returns the labels of the examples to draw from; 0 where all are alike."""
  labels = base.known_labels('train') if base.classifies else None
  if labels is None:
    return np.zeros(base.splits['train'], np.int32)
  return labels


def _drawn(labels: np.ndarray, share: float, seed: int) -> np.ndarray:
  """Draws the numbers of the examples that are held out, ascending.

  Of a class of n examples it is share * n, rounded down; then the classes
  with the largest remainders give one more, until round(share * N), or one,
  are held out. The last example of a class is never taken.
  """
  counts = np.bincount(labels)
  exact = share * counts
  quota = np.floor(exact).astype(int)
  wanted = max(1, round(share * len(labels)))
  for label in np.argsort(quota - exact, kind='stable'):
    has_more = quota[label] < min(exact[label], counts[label] - 1)
    if quota.sum() < wanted and has_more:
      quota[label] += 1
  generator = np.random.default_rng(seed)
  numbers = [
    generator.permutation(np.flatnonzero(labels == label))[:count]
    for label, count in enumerate(quota)
  ]
  return np.sort(np.concatenate(numbers))
