"""Computes what is costly in pieces, or takes them from a journal."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from bn_jax import placement, types


def piece(
  journal: types.Journal | None,
  name: str,
  compute: Callable[[], Mapping[str, Any]],
) -> Mapping[str, Any]:
  """Returns what the journal has under a name, or what compute() returns.

  With a journal as arrays of NumPy, which it then keeps.
  """
  if journal is None:
    return compute()
  arrays = journal.kept(name)
  if arrays is None:
    arrays = placement.host(compute())
    journal.keep(name, arrays)
  return arrays


def of_vectors(
  journal: types.Journal | None,
  name: str,
  count: int,
  group: int,
  compute: Callable[[np.ndarray], Mapping[str, Any]],
) -> dict[str, np.ndarray]:
  """Returns arrays [count, ...] of vectors, several of which are a piece.

  Args:
    journal: keeps each piece, as NAME_0, NAME_4 and so on by its first vector.
    name: of the pieces.
    count: vectors.
    group: how many of them are taken side by side.
    compute: the numbers of some vectors -> arrays, the first axis theirs.
  """
  groups = [
    piece(
      journal,
      f'{name}_{numbers[0]}',
      lambda numbers=numbers: placement.host(compute(numbers)),
    )
    for numbers in np.split(np.arange(count), range(group, count, group))
  ]
  return {
    array: np.concatenate([one[array] for one in groups]) for array in groups[0]
  }


class Under:
  """Puts a word before the name of each piece of a journal."""

  def __init__(self, journal: types.Journal, word: str):
    self._journal, self._word = journal, word

  def kept(self, name: str) -> dict[str, np.ndarray] | None:
    return self._journal.kept(self._word + name)

  def keep(self, name: str, arrays: Mapping[str, Any]) -> None:
    self._journal.keep(self._word + name, arrays)

  def drop(self, name: str) -> None:
    self._journal.drop(self._word + name)
