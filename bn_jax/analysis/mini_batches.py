"""Cuts a batch into mini-batches, each with a loss and a gradient of its own.

With batch statistics each mini-batch is normalised by itself, as the batches of
training are: it is the mini-batches, not the whole, that training descends.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from bn_jax import checks, placement, types
from bn_jax.analysis import chunks, gradients
from bn_jax.analysis import kind as kind_lib

# Bytes of gradients that lie side by side in the memory of the host.
MEMORY = 4e9
_COLUMNS = 2**20  # of gradients that are converted to float64 at a time
_SHARE = 8  # of a batch: the mini-batches where no size is given


def losses(
  problem: types.Problem,
  state: types.TrainState,
  batch: types.Batch,
  batch_size: int | None,
  statistics: str,
  *,
  penalised: bool,
  least: int = 1,
  of_mean: bool = False,
) -> tuple[chunks.Loss, ...]:
  """Returns the losses of the mini-batches of a batch, in its order.

  Args:
    batch_size, least: see `checked_size`.
    penalised: whether the penalty is added to each.
    of_mean: whether a loss that is a sum over examples is scaled so that the
      mean over mini-batches is the loss of the batch.

  Raises:
    ValueError: padding, or what `checked_size` refuses.
  """
  kind_lib.check_unpadded(batch)
  count = len(batch.labels)
  group_size = problem.group_size if statistics == 'batch' else 1
  size = checked_size(batch_size, count, group_size, least)
  return tuple(
    problem.loss(
      state,
      placement.part(batch, first, first + size),
      statistics,
      penalised,
      first=first,
      share=size / count if of_mean else 1.0,
    )
    for first in range(0, count, size)
  )


def checked_size(
  batch_size: int | None, count: int, group_size: int | None, least: int = 1
) -> int:
  """Returns the examples of a mini-batch; ValueError unless it cuts a batch.

  Args:
    batch_size: as a measure has it; None is an eighth of the batch.
    count: the examples of the batch.
    group_size: examples that see each other; None where all of a batch do.
    least: how many mini-batches there must be.
  """
  size = batch_size or count / _SHARE
  if count % size or size != int(size) or count // size < least:
    given = f'{batch_size}' if batch_size else 'None (an eighth)'
    divisors = [n for n in range(1, count // least + 1) if count % n == 0]
    # The next to it on both sides, as far as there are any.
    near = [
      *[n for n in divisors if n <= size][-1:],
      *[n for n in divisors if n > size][:1],
    ]
    allowed = f'what divides them, such as {" or ".join(map(str, near))}'
    raise ValueError(
      f'batch_size is {given} of {count} examples; allowed: '
      f'{allowed if near else f"{least} examples or more"}'
    )
  size = int(size)
  if size % (group_size or size):
    raise ValueError(
      f'batch_size is {size}, statistics are over groups of {group_size}; '
      f'allowed: multiples of {group_size}'
    )
  return size


def fitted(
  section: kind_lib.Section,
  count: int,
  group_size: int | None,
  least: int = 1,
) -> kind_lib.Section:
  """Returns a section with the size of its mini-batches: `Kind.fitted`."""
  size = checked_size(section['batch_size'], count, group_size, least)
  return {**section, 'batch_size': size}


def check_losses(of: Sequence[chunks.Loss], least: int = 1) -> None:
  """Raises ValueError unless these are the losses of enough mini-batches."""
  is_list = isinstance(of, list | tuple) and not isinstance(of, chunks.Chunks)
  if not is_list or not all(map(callable, of)) or len(of) < least:
    what = f'{len(of)}' if is_list else f'a {type(of).__name__}'
    raise ValueError(
      f'losses is {what}; allowed: a list or tuple of {least} functions of the '
      'parameters or more, one a mini-batch'
    )


def inner_products(
  of: Sequence[chunks.Loss],
  params: Any,
  memory: float,
  journal: types.Journal | None = None,
) -> np.ndarray:
  """Computes the inner products of the gradients of M losses, [M, M] float64.

  As many gradients as fit into `memory` lie side by side on the host, one at
  least; where not all do, some are computed more than once (from a journal they
  are read).

  Args:
    of: params -> a real scalar, or what `chunked` returns; M of them.
    memory: bytes.
    journal: keeps each gradient, as its chunks are summed.
  """

  bytes_of_one = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
  side_by_side = max(1, int(memory // max(bytes_of_one, 1)))

  def gradient(i):
    return _flat(
      gradients.value_and_gradient(of[i], params, journal, f'gradient_{i}')[1]
    )

  count = len(of)
  product_MM = np.zeros((count, count))
  for first in range(0, count, side_by_side):
    end = min(first + side_by_side, count)
    rows = np.stack([gradient(i) for i in range(first, end)])
    product_MM[first:end, first:end] = _products(rows, rows)
    for j in range(end, count):
      product_MM[first:end, [j]] = _products(rows, gradient(j)[None])
      product_MM[j, first:end] = product_MM[first:end, j]
  return product_MM


def check(
  batch_size: int | None, statistics: str, penalised: bool, memory: float
) -> None:
  """Raises ValueError for a keyword of a measure of gradients out of its range.

  Args:
    batch_size: examples of a mini-batch; None is an eighth of all.
    memory: bytes of gradients that may lie side by side.
  """
  checks.count('batch_size', batch_size, also=(None,))
  checks.one_of('statistics', statistics, kind_lib.STATISTICS)
  checks.flag('penalised', penalised)
  check_memory(memory)


def check_memory(memory: float) -> None:
  """Raises ValueError for no number of bytes."""
  checks.number('memory', memory, least=0, any_size=True)


def _flat(gradient: Any) -> np.ndarray:
  """Returns a gradient on the host as one vector, in float32 at least."""
  leaves = [
    np.asarray(leaf) for leaf in placement.host(jax.tree.leaves(gradient))
  ]
  dtype = np.result_type(
    np.float32, *(leaf.dtype for leaf in leaves if leaf.dtype.itemsize > 4)
  )
  return np.concatenate([leaf.astype(dtype).reshape(-1) for leaf in leaves])


def _products(x: np.ndarray, y: np.ndarray) -> np.ndarray:
  """Returns the inner products of rows in float64, since small ones are left.

  Args:
    x, y: [K, n], [P, n].
  """
  with np.errstate(invalid='ignore', over='ignore'):  # infinity times 0
    return sum(  # pyright: ignore[reportReturnType]  # of one or more
      x[:, first : first + _COLUMNS].astype(np.float64)
      @ y[:, first : first + _COLUMNS].astype(np.float64).T
      for first in range(0, x.shape[1], _COLUMNS)
    )
