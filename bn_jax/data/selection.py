"""Selects examples of a split, and makes labels wrong if wanted.

Experiments on optimization use fewer examples or classes, or labels that are
wrong on purpose (Zhang et al. 2017, "Understanding deep learning requires
rethinking generalization").
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bn_jax import checks


class Selection(NamedTuple):
  """A choice of examples and labels.

  Attributes:
    classes: numbers of the classes that are kept, in their new order; () keeps
      all.
    subset: number of training examples, drawn at random; None keeps all.
    label_noise: share of the training labels that become another class.
    seed: of the draws of subset and label_noise, apart from the runs' seeds.
  """

  classes: tuple[int, ...] = ()
  subset: int | None = None
  label_noise: float = 0.0
  seed: int = 0


def make(
  *,
  num_classes: int,
  classes: Sequence[int] = (),
  subset: int | None = None,
  label_noise: float = 0.0,
  seed: int = 0,
) -> Selection:
  """Returns a selection from a set of `num_classes` classes.

  Raises:
    ValueError: an unknown or repeated class, or a number out of its range.
  """
  checks.sequence(
    'classes', classes, checks.is_whole, 'a list or tuple of whole numbers'
  )
  classes = tuple(classes)
  for label in classes:
    if not 0 <= label < num_classes:
      raise ValueError(
        f'classes names {label!r}; allowed: 0 to {num_classes - 1}, each once'
      )
  if len(set(classes)) < len(classes) or len(classes) == 1:
    raise ValueError(
      f'classes is {list(classes)}; allowed: two classes or more, each once'
    )
  checks.count('subset', subset, also=(None,))
  checks.number('label_noise', label_noise, least=0, most=1)
  checks.whole('selection_seed', seed)
  return Selection(classes, subset, label_noise, seed)


def of_classes(
  selection: Selection, labels: np.ndarray
) -> tuple[np.ndarray | slice, np.ndarray]:
  """Returns (which examples are of the classes, their labels from 0 on).

  The first is [M] or, for all classes, the slice of all N.

  Args:
    labels: [N], of a whole split.
  """
  if not selection.classes:
    return slice(None), labels
  renumbered = np.full(labels.max(initial=0) + 1, -1, labels.dtype)
  for new_label, label in enumerate(selection.classes):
    if label < len(renumbered):
      renumbered[label] = new_label
  new_labels = renumbered[labels]
  numbers = np.flatnonzero(new_labels >= 0)
  return numbers, new_labels[numbers]


def of_subset(selection: Selection, count: int) -> np.ndarray | slice:
  """Returns which of `count` training examples are in the subset, in order.

  Raises:
    ValueError: the subset is larger than `count`.
  """
  if selection.subset is None:
    return slice(None)
  if selection.subset > count:
    raise ValueError(
      f'subset is {selection.subset}; allowed: 1 to {count}, the examples to '
      'train on'
    )
  order = _generator(selection, 0).permutation(count)
  return np.sort(order[: selection.subset])


def with_noise(
  selection: Selection, labels: np.ndarray, num_classes: int
) -> np.ndarray:
  """Returns labels, [N], with round(label_noise * N) of them wrong, at random.

  A wrong label is any of the other classes, with equal probability.
  """
  count = round(selection.label_noise * len(labels))
  if not count:
    return labels
  generator = _generator(selection, 1)
  numbers = generator.permutation(len(labels))[:count]
  shift = generator.integers(1, num_classes, size=count)
  noisy_labels = labels.copy()
  noisy_labels[numbers] = (labels[numbers] + shift) % num_classes
  return noisy_labels


def _generator(selection: Selection, purpose: int) -> np.random.Generator:
  """Returns the generator of the subset, purpose 0, or of the noise, 1."""
  return np.random.default_rng([selection.seed, purpose])


NONE = Selection()
