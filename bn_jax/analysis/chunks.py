"""Splits losses over more examples than fit into memory into chunks.

The mean over N examples is the sum over chunks of n_k / N times the mean over
the n_k examples of chunk k, and so is its gradient, up to rounding. This does
not hold where the loss of an example depends on other examples, as with the
batch statistics of Batch Normalization. Then statistics must be taken over
groups of examples, and chunks must be whole groups.
"""

import dataclasses
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bn_jax import checks, placement, types
from bn_jax.analysis import kind

Loss = Callable[[Any], jax.Array]

# The memory of gradients over this many examples and over twice as many is read
# from their compiled programs; a line through both predicts other numbers.
_SAMPLE = 32


class Chunks(NamedTuple):
  """A loss that is a weighted sum: params -> sum of share_k * part_k(params).

  It can be called like any loss. `gradients` takes one part after the other, in
  the memory of one.

  Attributes:
    parts: losses of the chunks, `jax.tree_util.Partial`s of one function.
    shares: the weights of the parts, which sum up to 1.
  """

  parts: tuple[Loss, ...]
  shares: tuple[float, ...]

  def __call__(self, params: Any) -> jax.Array:
    return sum(  # pyright: ignore[reportReturnType]  # of one part or more
      share * part(params) for part, share in zip(self.parts, self.shares)
    )


@dataclasses.dataclass(frozen=True)
class Objective:
  """Says of which loss a measure is; the keywords of its constructor.

  Raises:
    ValueError: a keyword out of its range.
  """

  statistics: str
  chunk_size: Any  # int or None, once it is checked
  group_size: int | None
  penalised: bool = True

  def __post_init__(self):
    checks.one_of('statistics', self.statistics, kind.STATISTICS)
    checks.flag('penalised', self.penalised)
    size = kind.checked_chunk_size(self.chunk_size, self.group_size)
    object.__setattr__(self, 'chunk_size', size)

  def of(
    self, problem: types.Problem, state: types.TrainState, batch: types.Batch
  ) -> Loss:
    """Returns the loss over a batch; see `of_problem`."""
    return of_problem(
      problem, state, batch, self.statistics, penalised=self.penalised,
      chunk_size=self.chunk_size, group_size=self.group_size,
    )  # fmt: skip

  def scores(
    self, problem: types.Problem, state: types.TrainState, batch: types.Batch
  ) -> Loss:
    """Returns it as `problem.scores`: a dict with the accuracy beside it."""
    return _of_function(
      problem, problem.scores, state, batch, self.statistics, self.penalised,
      self.chunk_size, self.group_size,
    )  # fmt: skip

  def of_data(self, *arguments: Any) -> Loss:
    """Returns that loss without the penalty."""
    return dataclasses.replace(self, penalised=False).of(*arguments)


def chunked(
  loss: Callable[[Any, Any], jax.Array],
  batch: Any,
  *,
  chunk_size: int,
  group_size: int | None,
) -> Loss:
  """Returns a loss over a batch, as a function of params alone, in chunks.

  Args:
    loss: (batch, params) -> the mean over the examples of that batch.
    batch: a tree of arrays, [N, ...] each.
    chunk_size: examples at a time, see `fitting_chunk_size`. The last chunk may
      have fewer, and is then compiled too.
    group_size: on how many examples, itself included, the loss of an example
      depends: 1, or None for the whole batch, as with batch statistics. JAX
      cannot find this out. Chunks must be whole groups. If `loss` takes batch
      statistics, group_size=chunk_size takes them over each chunk, which is
      another function than the loss over the whole batch.

  Returns:
    A loss that every analysis accepts.

  Raises:
    ValueError: chunks that would change the function, a chunk or group size out
      of its range, arrays that do not have the same number of examples.
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
  """Returns the loss of a Problem over a batch, in chunks of `chunk_size`.

  Args:
    state: has the running statistics, and the key of the noise.
    batch: in chunks, one without padding.
    statistics: whose mean and variance the norms use, 'batch' or 'running'.
    penalised: whether the penalty is added.
    chunk_size: examples at a time; None is all.
    group_size: chunk_size, if batch statistics are to be over each chunk where
      the network has them over the whole batch; None leaves them as they are.

  Raises:
    ValueError: chunks that would change the function, or of padding.
  """
  return _of_function(
    problem, problem.loss, state, batch, statistics, penalised,
    chunk_size, group_size,
  )  # fmt: skip


def split_of_problem(
  problem: types.Problem,
  state: types.TrainState,
  batch: types.Batch,
  statistics: str,
  *,
  penalised: bool = True,
  chunk_size: int | None = None,
  group_size: int | None = None,
) -> Loss:
  """Returns `of_problem` as a `types.SplitLoss`, or chunks of such."""
  return _of_function(
    problem, problem.split, state, batch, statistics, penalised,
    chunk_size, group_size,
  )  # fmt: skip


def _of_function(
  problem, function, state, batch, statistics, penalised, chunk_size, group_size
):
  """Returns problem.loss or problem.split over a batch, in chunks."""
  count = len(batch.labels)
  if chunk_size is None or chunk_size >= count:
    return function(state, batch, statistics, penalised)
  _check_batch(problem, batch, statistics, chunk_size, group_size)
  return _of_parts(
    count,
    chunk_size,
    lambda first, end: function(
      state,
      placement.part(batch, first, end),
      statistics,
      penalised,
      first=first,
      share=(end - first) / count,
    ),
  )


def batches_of(
  problem: types.Problem,
  batch: types.Batch,
  statistics: str,
  *,
  chunk_size: int | None = None,
  group_size: int | None = None,
) -> tuple[types.Batch, ...]:
  """Returns a batch in chunks, or whole; arguments and errors: `of_problem`."""
  count = len(batch.labels)
  if chunk_size is None or chunk_size >= count:
    return (batch,)
  _check_batch(problem, batch, statistics, chunk_size, group_size)
  chunks = (slice(*bounds) for bounds in _bounds(count, chunk_size))
  return tuple(
    jax.tree.map(operator.itemgetter(chunk), batch) for chunk in chunks
  )


def check(count: int, chunk_size: int, group_size: int | None) -> None:
  """Raises ValueError where chunks would change a loss.

  Args:
    count: the number of examples of the batch.
    chunk_size, group_size: see `chunked`.
  """
  checks.count('chunk_size', chunk_size)
  checks.count('group_size', group_size, also=(None,))
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
  """Returns how many examples of a batch can be taken at a time.

  Args:
    bytes_of: number of examples -> bytes that a gradient over them needs.
    count: the number of examples of the batch.
    memory: bytes that a gradient may need.
    group_size: the result is a multiple of it, unless all fit.

  Returns:
    count if all fit; else one group at least, even if it does not fit.
  """
  sample = min(count, -(-_SAMPLE // group_size) * group_size)
  sample_bytes = bytes_of(sample)
  if sample == count and sample_bytes <= memory:
    return count
  # The gradient itself does not grow with the examples, the rest does.
  slope = max(bytes_of(2 * sample) - sample_bytes, 1) / sample
  estimate = int((memory - sample_bytes) / slope) + sample
  if estimate >= count:
    return count
  return max(1, estimate // group_size) * group_size


def parts_of(loss: Loss) -> tuple[tuple[Loss, ...], tuple[float, ...]]:
  """Returns (parts, shares) of a loss; a loss not in chunks is one part."""
  if isinstance(loss, Chunks):
    return tuple(map(argument, loss.parts)), loss.shares
  return (argument(loss),), (1.0,)


def argument(loss: Loss) -> Loss:
  """Returns a loss that can be an argument of jit: once compiled a function."""
  if isinstance(loss, types.SplitLoss):
    rest = None if loss.rest is None else argument(loss.rest)
    return types.SplitLoss(argument(loss.outputs), argument(loss.convex), rest)
  if isinstance(loss, jax.tree_util.Partial):
    return loss
  return jax.tree_util.Partial(loss)


def _check_batch(problem, batch, statistics, chunk_size, group_size) -> None:
  """Raises ValueError where chunks would change a loss, or of padding."""
  kind.check_unpadded(batch)
  count = len(batch.labels)
  own_size = problem.group_size if statistics == 'batch' else 1
  # A chunk is normalised by its own statistics, so it is a group of that size.
  if not (
    own_size is None and group_size == chunk_size and not count % chunk_size
  ):
    check(count, chunk_size, own_size)


def _bounds(count: int, chunk_size: int) -> list[tuple[int, int]]:
  """Returns (first example, end) of each chunk."""
  return [
    (first, min(first + chunk_size, count))
    for first in range(0, count, chunk_size)
  ]


def _of_parts(count, chunk_size, part: Callable[[int, int], Loss]) -> Loss:
  if chunk_size >= count:
    return part(0, count)
  bounds = _bounds(count, chunk_size)
  return Chunks(
    tuple(part(first, end) for first, end in bounds),
    tuple((end - first) / count for first, end in bounds),
  )
