"""Turns what a user calls the classes into labels.

Labels are numbers from 0 on; a user's are names, numbers from 1, numbers with
gaps. `RULES` says what becomes of them.
"""

from collections.abc import Mapping

import numpy as np

# What `data info` prints of a set that is no set of TFDS.
RULES = (
  ('labels', 'the different ones of train in ascending order, numbers as '
             'numbers, become 0, 1, 2, ...'),
  ('targets', 'floating-point numbers are no labels: they are what a '
              'regression learns (loss squared_error)'),
)  # fmt: skip
_SHOWN = 5  # labels that a message names


def numbered(
  values: Mapping[str, np.ndarray], train: str = 'train'
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
  """Returns (split -> labels, [N] int32; names of the classes).

  Args:
    values: split -> numbers or names, [N].
    train: the split that has every class.

  Raises:
    ValueError: a class of another split that `train` does not have.
  """
  classes = np.unique(values[train])
  labels = {}
  for split, names in values.items():
    missing = np.setdiff1d(names, classes)
    if missing.size:
      some = ', '.join(map(str, missing[:_SHOWN]))
      raise ValueError(
        f'{split} has examples of class {some}, of which {train} has none'
      )
    labels[split] = np.searchsorted(classes, names).astype(np.int32)
  return labels, tuple(map(str, classes))
