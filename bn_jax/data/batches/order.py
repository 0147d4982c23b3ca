"""The examples of batch t of a seed: a pure function of (seed, t).

Batch t takes positions t * B ... (t + 1) * B - 1 of the concatenated epoch
permutations. A batch may thus reach into the next epoch, and no example is left
over.

Fixed batches are those of the first epoch in every epoch: the same examples
always share a batch. Later epochs permute the batches, and nothing within them.
The N mod B examples after the last whole batch are never used.

Batches of a split on the device are drawn within the step (`sampler`), where
epoch e is permuted by fold_in(key, e). Those of a stream are drawn on the host
(`Drawn`, `Fixed`), where grain permutes epoch e by its seed + e.
"""

import functools
from collections.abc import Callable

import grain
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from bn_jax import types
from bn_jax.data.batches import augment, in_memory

_NONE = augment.Augmentation()


def sampler(
  *,
  num_examples: int,
  batch_size: int,
  augmentation: augment.Augmentation = _NONE,
  fixed_batches: bool = False,
) -> types.Sampler:
  """Returns the sampler of a training split that lies on the device.

  Args:
    num_examples: N of the split.
    batch_size: B, at most N.
    augmentation: of the images of a batch.
    fixed_batches: whether every epoch has the batches of the first.

  Raises:
    ValueError: a batch size outside 1..N.
  """
  _check(num_examples, batch_size)
  if fixed_batches:
    arranged = functools.partial(_of_fixed_batches, num_examples, batch_size)
  else:
    arranged = functools.partial(_permutation, num_examples)
  return types.Sampler(
    init=functools.partial(_first, arranged),
    draw=functools.partial(_draw, batch_size, arranged),
    take=functools.partial(in_memory.augmented, augmentation),
  )


def of_batches(
  *,
  num_examples: int,
  batch_size: int,
  augmentation: augment.Augmentation = _NONE,
) -> types.Sampler:
  """Returns the sampler of a stream: a step gets its batch already drawn.

  Args:
    num_examples: N of the whole split, which says where an epoch ends.
    batch_size: B, the number of examples that a step gets.
    augmentation: of the images of a batch.

  Raises:
    ValueError: a batch size outside 1..N.
  """
  _check(num_examples, batch_size)
  return types.Sampler(
    init=functools.partial(_first, functools.partial(_permutation, 1)),
    draw=functools.partial(_counted, num_examples, batch_size),
    take=functools.partial(in_memory.augmented, augmentation),
  )


class Drawn:
  """The batches of a stream that permutes every epoch anew.

  Args:
    count: N, the number of records.
    size: records in the part of a batch that one process reads.
    parts: parts of a batch; B is parts * size.
  """

  def __init__(self, count: int, size: int, parts: int, *, seed: int):
    self._parts = parts
    self._order = _shuffled(count, seed, 0).repeat().batch(size)

  def examples(self, step: int, part: int) -> np.ndarray:
    """Returns the numbers of the records in a part of batch `step`, [size]."""
    return self._order[step * self._parts + part]


class Fixed:
  """The batches of a stream that repeats those of its first epoch.

  The first epoch and the arguments are those of `Drawn`.
  """

  def __init__(self, count: int, size: int, parts: int, *, seed: int):
    self._size, self._parts = size, parts
    self._number = count // (parts * size)
    self._first = _shuffled(count, seed, 0)
    self._moved = _shuffled(self._number, seed, 1).repeat()

  def examples(self, step: int, part: int) -> np.ndarray:
    """Returns the numbers of the records in a part of batch `step`, [size]."""
    batch = step if step < self._number else self._moved[step]
    start = (batch * self._parts + part) * self._size
    return np.array([self._first[start + i] for i in range(self._size)])


def _check(num_examples: int, batch_size: int) -> None:
  if not 1 <= batch_size <= num_examples:
    raise ValueError(
      f'batch_size is {batch_size}; allowed: 1 to {num_examples}, the '
      'examples to train on'
    )


def _counted(
  count: int, batch_size: int, order: types.EpochOrder, key: jax.Array
) -> tuple[jax.Array, types.EpochOrder]:
  """Returns all examples of the batch that was handed in, and counts them."""
  del key  # the host has drawn them
  after = order.offset + batch_size
  moved = order._replace(
    epoch=order.epoch + after // count, offset=after % count
  )
  return jnp.arange(batch_size, dtype=jnp.int32), moved


def _permutation(count: int, key: jax.Array, epoch: jax.Array) -> jax.Array:
  epoch_key = jax.random.fold_in(key, epoch)
  return jax.random.permutation(epoch_key, jnp.arange(count, dtype=jnp.int32))


def _of_fixed_batches(
  count: int, batch_size: int, key: jax.Array, epoch: jax.Array
) -> jax.Array:
  """Returns the order of an epoch of fixed batches, [N - N mod B]."""
  number = count // batch_size
  first = _permutation(count, key, jnp.zeros((), jnp.int32))
  batches_NB = first[: number * batch_size].reshape(number, batch_size)
  moved_N = _permutation(number, key, epoch)
  batch_N = jnp.where(epoch > 0, moved_N, jnp.arange(number, dtype=jnp.int32))
  return batches_NB[batch_N].reshape(-1)


def _first(
  arranged: Callable[[jax.Array, jax.Array], jax.Array], key: jax.Array
) -> types.EpochOrder:
  zero = jnp.zeros((), jnp.int32)
  return types.EpochOrder(arranged(key, zero), zero, zero)


def _draw(
  batch_size: int,
  arranged: Callable[[jax.Array, jax.Array], jax.Array],
  order: types.EpochOrder,
  key: jax.Array,
) -> tuple[jax.Array, types.EpochOrder]:
  """Returns (examples of the next batch, [B]; the order after it)."""
  count = order.permutation.shape[0]
  after = order.offset + batch_size
  ends = after >= count
  # A permutation of 50,000 costs 30 ms: once an epoch, not once a step.
  following = lax.cond(
    ends,
    lambda: arranged(key, order.epoch + 1),
    lambda: order.permutation,
  )
  position = order.offset + jnp.arange(batch_size, dtype=jnp.int32)
  index = jnp.where(
    position < count,
    order.permutation[position % count],
    following[position % count],
  )
  moved = types.EpochOrder(
    permutation=following,
    epoch=order.epoch + ends,
    offset=jnp.where(ends, after - count, after),
  )
  return index, moved


def _shuffled(count: int, seed: int, purpose: int) -> grain.MapDataset:
  """Returns a shuffled range; repeated, each epoch is shuffled anew."""
  # The seed is hashed, as grain adds the epoch to it: epoch 1 of seed 0 would
  # be epoch 0 of seed 1.
  words = np.random.SeedSequence(seed).generate_state(purpose + 1)
  return grain.MapDataset.range(count).shuffle(seed=int(words[purpose]))
