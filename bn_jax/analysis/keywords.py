"""Keywords that measures share, checked when a measure is made."""

from collections.abc import Sequence
from typing import Any

import numpy as np

# What norms normalise with: the batch's own statistics, or those they keep.
STATISTICS = ('batch', 'running')


def check_choice(keyword: str, given: Any, allowed: Sequence[str]) -> None:
  """Raises ValueError unless a keyword is one of the allowed."""
  if given not in allowed:
    listed = ', '.join(map(repr, allowed))
    raise ValueError(f'{keyword} is {given!r}; allowed: {listed}')


def checked_chunk_size(given: Any, group_size: Any) -> int | None:
  """Examples at a time, None for all; 'auto', not yet resolved, is all.

  Chunks that are groups of batch statistics are as large as these.
  """
  check_group_size(group_size)
  if group_size is not None and given not in (None, 'auto', group_size):
    raise ValueError(
      f'chunk_size is {given!r}, group_size is {group_size}; allowed: the same'
    )
  if given in (None, 'auto'):
    return group_size
  if type(given) is not int or given < 1:
    raise ValueError(
      f"chunk_size is {given!r}; allowed: 1, 2, 3, ..., 'auto' or None"
    )
  return given


def check_group_size(given: Any) -> None:
  """Raises ValueError unless a group size is None, 1, 2, 3, ..."""
  if given is not None and (type(given) is not int or given < 1):
    raise ValueError(f'group_size is {given!r}; allowed: 1, 2, 3, ... or None')


def checked_sizes(
  given: Sequence[float], what: str = 'step sizes'
) -> tuple[float, ...]:
  """Sizes as floats; ValueError unless each is above 0 and finite."""
  try:
    sizes = tuple(float(size) for size in np.atleast_1d(given))
  except (TypeError, ValueError):
    sizes = ()
  if not sizes or not all(0 < size < float('inf') for size in sizes):
    raise ValueError(
      f'{what} are {sizes or given}; allowed: one or more, each above 0 and '
      'finite'
    )
  return sizes
