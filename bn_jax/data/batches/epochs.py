"""Which records batch t of a stream holds: a pure function of (seed, t).

The seed of an order is mixed: grain permutes epoch e by its seed + e, so that
of neighbours the epochs of one would be those of the other, an epoch later.
"""

import grain
import numpy as np


class Drawn:
  """Every epoch is permuted anew; batches are cut without remainder.

  Args:
    count: N records.
    size: of the part of a batch that a process reads.
    parts: of a batch, which is parts * size records.
    seed: of the order.
  """

  def __init__(self, count: int, size: int, parts: int, *, seed: int):
    self._parts = parts
    self._order = _shuffled(count, seed, 0).repeat().batch(size)

  def examples(self, step: int, part: int) -> np.ndarray:
    """The records of one part of batch `step`, [size]."""
    return self._order[step * self._parts + part]


class Fixed:
  """The batches of the first epoch, again in every epoch, in a new order.

  The first epoch is that of `Drawn`. The N mod B records that are left over
  make no batch, and are never read. Arguments as of `Drawn`.
  """

  def __init__(self, count: int, size: int, parts: int, *, seed: int):
    self._size, self._parts = size, parts
    self._number = count // (parts * size)
    self._first = _shuffled(count, seed, 0)
    self._moved = _shuffled(self._number, seed, 1).repeat()

  def examples(self, step: int, part: int) -> np.ndarray:
    """The records of one part of batch `step`, [size]."""
    batch = step if step < self._number else self._moved[step]
    start = (batch * self._parts + part) * self._size
    return np.array([self._first[start + i] for i in range(self._size)])


def _shuffled(count: int, seed: int, purpose: int) -> grain.MapDataset:
  words = np.random.SeedSequence(seed).generate_state(purpose + 1)
  return grain.MapDataset.range(count).shuffle(seed=int(words[purpose]))
