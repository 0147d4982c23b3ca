"""Losses over more examples than fit: a weighted sum over chunks of them.

The mean over N examples is the sum over chunks of n_k / N times the mean over
the n_k of chunk k, and so is its gradient: exact, but for rounding. It is not
where examples see each other, as the batch statistics of Batch Normalization
have it: statistics of chunks are other statistics, unless they are taken over
groups of examples, and chunks are whole groups.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bn_jax import types
from bn_jax.analysis import kind

Loss = Callable[[Any], jax.Array]

_TRIED = 32  # examples, and twice as many, by whose memory others' is found


class Chunks(NamedTuple):
  """A loss that is a weighted sum: params -> sum of share_k * part_k(params).

  It can be called as any loss can; what knows it takes one part at a time, and
  so needs the memory of one.

  Attributes:
    parts: losses of the chunks, `jax.tree_util.Partial`s of one function.
    shares: their weights.
  """

  parts: tuple[Loss, ...]
  shares: tuple[float, ...]

  def __call__(self, params: Any) -> jax.Array:
    return sum(
      share * part(params) for part, share in zip(self.parts, self.shares)
    )


def chunked(
  loss: Callable[[Any, Any], jax.Array],
  batch: Any,
  *,
  chunk_size: int,
  group_size: int | None,
) -> Loss:
  """A loss over a batch, as a function of params alone, in chunks.

  Args:
    loss: (batch, params) -> the mean over the examples of that batch.
    batch: a tree of arrays, [N, ...] each.
    chunk_size: examples at a time, see `fitting_chunk_size`; the last chunk has
      what is left (and is compiled once more where that is fewer).
    group_size: how many examples see each other in the loss, which JAX cannot
      tell: 1 where none do, None where all of a batch do, as with batch
      statistics. With chunk_size, of such a loss, the statistics are over
      groups of so many: another function than the loss over the whole batch.

  Returns:
    What every analysis takes as its loss.

  Raises:
    ValueError: chunks that would change the function, no chunk or group size,
      arrays that do not have the same number of examples.
  """
  sizes = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(batch)}
  if len(sizes) != 1 or sizes == {()} or sizes == {(0,)}:
    raise ValueError(
      'the arrays of the batch begin with '
      f'{[size[0] if size else "no axis" for size in sorted(sizes)]}; '
      'allowed: one number of examples for all'
    )
  ((count,),) = sizes
  check(count, chunk_size, group_size)
  if not isinstance(loss, jax.tree_util.Partial):
    loss = jax.tree_util.Partial(loss)
  return _of_parts(
    count,
    chunk_size,
    # A Partial of a Partial would be a new function at each call.
    lambda first, end: jax.tree_util.Partial(
      loss.func,
      *loss.args,
      jax.tree.map(lambda leaf: leaf[first:end], batch),
      **loss.keywords,
    ),
  )


def of_problem(
  problem: types.Problem,
  state: types.TrainState,
  batch: types.Batch,
  statistics: str,
  *,
  penalised: bool = True,
  chunk_size: int | None = None,
  group_size: int | None = None,
) -> Loss:
  """The loss of a Problem over a batch, in chunks where it is larger.

  Args:
    problem: whose.
    state: its statistics, and the key of its noise.
    batch: without padding.
    statistics: 'batch' or 'running'.
    penalised: whether the penalty is in it.
    chunk_size: examples at a time; None is all.
    group_size: takes batch statistics over groups of so many examples, the
      chunks; None leaves them as the network has them.

  Raises:
    ValueError: chunks that would change the function.
  """
  count = len(batch.labels)
  if chunk_size is None or chunk_size >= count:
    return problem.loss(state, batch, statistics, penalised)
  seen = problem.group_size if statistics == 'batch' else 1
  # A batch of a chunk's size is normalised by itself: a group of that size.
  if not (seen is None and group_size == chunk_size and not count % chunk_size):
    check(count, chunk_size, seen)
  return _of_parts(
    count,
    chunk_size,
    lambda first, end: problem.loss(
      state,
      jax.tree.map(lambda leaf: leaf[first:end], batch),
      statistics,
      penalised,
      first=first,
      share=(end - first) / count,
    ),
  )


def check(count: int, chunk_size: int, group_size: int | None) -> None:
  """Raises ValueError where chunks would change a loss.

  Args:
    count: examples of the batch.
    chunk_size: examples at a time.
    group_size: examples that see each other, None: all of a batch.
  """
  if type(chunk_size) is not int or chunk_size < 1:
    raise ValueError(f'chunk_size is {chunk_size!r}; allowed: 1, 2, 3, ...')
  kind.check_group_size(group_size)
  if chunk_size >= count:
    return
  if group_size is None:
    raise ValueError(
      f'chunk_size is {chunk_size}: batch statistics are over all '
      f'{count} examples, and over chunks the loss would be another function; '
      f'allowed: group_size={chunk_size} (statistics over groups of so many, '
      "which must divide the examples), or statistics='running'"
    )
  if chunk_size % group_size or count % group_size:
    raise ValueError(
      f'chunk_size is {chunk_size} of {count} examples, statistics are over '
      f'groups of {group_size}; allowed: whole groups, multiples of '
      f'{group_size}, of both'
    )


def fitting(
  bytes_of: Callable[[int], int],
  count: int,
  memory: float,
  group_size: int = 1,
) -> int:
  """How many of so many examples can be taken at a time.

  Args:
    bytes_of: examples -> bytes that a gradient over them takes.
    count: examples of the batch.
    memory: bytes that it may take.
    group_size: chunks are whole groups of so many.

  Returns:
    count where all fit; else whole groups, and one group at least.
  """
  tried = min(count, -(-_TRIED // group_size) * group_size)
  needed = bytes_of(tried)
  if tried == count and needed <= memory:
    return count
  # The gradient itself does not grow with the examples, the rest does.
  slope = max(bytes_of(2 * tried) - needed, 1) / tried
  fits = int((memory - needed) / slope) + tried
  if fits >= count:
    return count
  return max(1, fits // group_size) * group_size


def parts_of(loss: Loss) -> tuple[tuple[Loss, ...], tuple[float, ...]]:
  """(parts, shares) of any loss; one that is no sum is a part of its own."""
  if isinstance(loss, Chunks):
    return loss.parts, loss.shares
  # A plain function is a leafless Partial; jit then keys on the function.
  if not isinstance(loss, jax.tree_util.Partial):
    loss = jax.tree_util.Partial(loss)
  return (loss,), (1.0,)


def _of_parts(count, chunk_size, part: Callable[[int, int], Loss]) -> Loss:
  if chunk_size >= count:
    return part(0, count)
  ends = [
    (first, min(first + chunk_size, count))
    for first in range(0, count, chunk_size)
  ]
  return Chunks(
    tuple(part(*both) for both in ends),
    tuple((end - first) / count for first, end in ends),
  )
