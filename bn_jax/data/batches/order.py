"""Orders the examples: those of batch t are a pure function of (seed, t).

Batch t takes positions t * B ... (t + 1) * B - 1 of the concatenated epoch
permutations. A batch may thus reach into the next epoch, and no example is left
over.

Fixed batches are those of the first epoch in every epoch: the same examples
always share a batch. Later epochs permute the batches, and nothing within them.
The N mod B examples after the last whole batch are never used.

Batches of a split on the device are drawn within the step (`sampler`), which
permutes epoch e by fold_in(key, e). Those of a stream are drawn on the host
(`Drawn`, `Fixed`), where grain permutes epoch e by a hash of the seed, plus e.
"""

import functools
import math
from collections.abc import Callable

import grain
import jax
import jax.numpy as jnp
import numpy as np
from jax import custom_batching, lax

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
    augmentation: random changes of the images of a batch.
    fixed_batches: whether every epoch has the batches of the first.

  Raises:
    ValueError: a batch size outside 1..N.
  """
  _check(num_examples, batch_size)
  if fixed_batches:
    order_of = functools.partial(_of_fixed_batches, num_examples, batch_size)
  else:
    order_of = functools.partial(_permutation, num_examples)
  return types.Sampler(
    init=functools.partial(_first, order_of),
    draw=functools.partial(_draw, batch_size, order_of),
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
    num_examples: N of the whole split; the counted epoch ends after N examples,
      also with fixed batches, whose own epochs leave out N mod B.
    batch_size: B, the number of examples that a step gets.
    augmentation: random changes of the images of a batch.

  Raises:
    ValueError: a batch size outside 1..N.
  """
  _check(num_examples, batch_size)
  return types.Sampler(
    # The host has permuted the examples: the permutation here is unused.
    init=functools.partial(_first, functools.partial(_permutation, 1)),
    draw=functools.partial(_counted, num_examples, batch_size),
    take=functools.partial(in_memory.augmented, augmentation),
  )


class Drawn:
  """The batches of a stream that permutes every epoch anew.

  Args:
    count: N, the number of records.
    size: records in the part of a batch that one process reads.
    parts: processes that read a part each; B is parts * size.
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
    self._num_batches = count // (parts * size)
    self._first_epoch = _shuffled(count, seed, 0)
    self._later_batches = _shuffled(self._num_batches, seed, 1).repeat()

  def examples(self, step: int, part: int) -> np.ndarray:
    """Returns the numbers of the records in a part of batch `step`, [size]."""
    batch = step if step < self._num_batches else self._later_batches[step]
    start = (batch * self._parts + part) * self._size
    return np.array([self._first_epoch[start + i] for i in range(self._size)])


def _check(num_examples: int, batch_size: int) -> None:
  if not 1 <= batch_size <= num_examples:
    raise ValueError(
      f'batch_size is {batch_size}; allowed: 1 to {num_examples}, the '
      'examples to train on'
    )


def _counted(
  count: int, batch_size: int, order: types.EpochOrder, key: jax.Array
) -> tuple[jax.Array, types.EpochOrder]:
  """Returns (all examples of the batch, [B]; the order after it)."""
  del key  # the host has drawn the batch
  end = order.offset + batch_size
  next_order = order._replace(
    epoch=order.epoch + end // count, offset=end % count
  )
  return jnp.arange(batch_size, dtype=jnp.int32), next_order


def _permutation(count: int, key: jax.Array, epoch: jax.Array) -> jax.Array:
  epoch_key = jax.random.fold_in(key, epoch)
  return lax.platform_dependent(
    epoch_key,
    cpu=functools.partial(permutation, count),
    default=lambda key: jax.random.permutation(
      key, jnp.arange(count, dtype=jnp.int32)
    ),
  )


def permutation(count: int, key: jax.Array) -> jax.Array:
  """Returns the bits of `jax.random.permutation(key, arange(count))`, [count].

  JAX sorts positions by 32 random bits each, as often as makes equal ones rare.
  XLA sorts one array on a CPU four times as fast as one by another: so a number
  has its bits above its position. (1,000 numbers: 30 us, 112; 2026-11-30.)
  """
  order = jnp.arange(count, dtype=jnp.int32)
  # The rounds of JAX, for up to 2^32 numbers.
  rounds = math.ceil(3 * math.log(max(1, count)) / math.log(2**32 - 1))
  for _ in range(rounds):
    key, own = jax.random.split(key)
    bits = jax.random.bits(own, (count,), jnp.uint32)
    with jax.enable_x64(True):
      both = bits.astype(jnp.uint64) << np.uint64(32)
      both = lax.sort(both | lax.iota(jnp.uint64, count), is_stable=False)
      positions = (both & np.uint64(2**32 - 1)).astype(jnp.int32)
    order = order[positions]
  return order


def _of_fixed_batches(
  count: int, batch_size: int, key: jax.Array, epoch: jax.Array
) -> jax.Array:
  """Returns the order of an epoch of K = N // B fixed batches, [K * B]."""
  num_batches = count // batch_size
  first = _permutation(count, key, jnp.zeros((), jnp.int32))
  batches_KB = first[: num_batches * batch_size].reshape(
    num_batches, batch_size
  )
  permuted_K = _permutation(num_batches, key, epoch)
  batch_K = jnp.where(
    epoch > 0, permuted_K, jnp.arange(num_batches, dtype=jnp.int32)
  )
  return batches_KB[batch_K].reshape(-1)


def _first(
  order_of: Callable[[jax.Array, jax.Array], jax.Array], key: jax.Array
) -> types.EpochOrder:
  zero = jnp.zeros((), jnp.int32)
  return types.EpochOrder(order_of(key, zero), zero, zero)


def _draw(
  batch_size: int,
  order_of: Callable[[jax.Array, jax.Array], jax.Array],
  order: types.EpochOrder,
  key: jax.Array,
) -> tuple[jax.Array, types.EpochOrder]:
  """Returns (examples of the next batch, [B]; the order after it)."""
  count = order.permutation.shape[0]
  end = order.offset + batch_size
  epoch_ends = end >= count
  next_permutation = _redrawn_if(order_of)(
    epoch_ends, key, order.epoch + 1, order.permutation
  )
  position = order.offset + jnp.arange(batch_size, dtype=jnp.int32)
  index = jnp.where(
    position < count,
    order.permutation[position % count],
    next_permutation[position % count],
  )
  next_order = types.EpochOrder(
    permutation=next_permutation,
    epoch=order.epoch + epoch_ends,
    offset=jnp.where(epoch_ends, end - count, end),
  )
  return index, next_order


def _redrawn_if(order_of: Callable[[jax.Array, jax.Array], jax.Array]):
  """Returns (is_due, key, epoch, permutation) -> the permutation to use.

  Permuting 50,000 examples takes 20 to 30 ms on a CPU: once an epoch, not once
  a step. `vmap` over seeds would make the condition a choice between both
  sides, so that each step of each seed permutes; here it stays a condition:
  whether any seed is due.
  """

  @custom_batching.custom_vmap
  def redrawn(is_due, key, epoch, permutation):
    return lax.cond(is_due, lambda: order_of(key, epoch), lambda: permutation)

  @redrawn.def_vmap
  def of_seeds(size, is_mapped, *arguments):
    is_due, key, epoch, permutation = (
      x if mapped else jnp.broadcast_to(x, (size, *x.shape))
      for x, mapped in zip(arguments, is_mapped)
    )

    def of_those_due():
      drawn = jax.vmap(order_of)(key, epoch)
      return jnp.where(is_due[:, None], drawn, permutation)

    return lax.cond(is_due.any(), of_those_due, lambda: permutation), True

  return redrawn


def _shuffled(count: int, seed: int, purpose: int) -> grain.MapDataset:
  """Returns range(count), shuffled; repeated, each epoch is shuffled anew."""
  # The seed is hashed, as grain adds the epoch to it: epoch 1 of seed 0 would
  # be epoch 0 of seed 1. Purpose 0 orders examples, 1 batches.
  words = np.random.SeedSequence(seed).generate_state(purpose + 1)
  return grain.MapDataset.range(count).shuffle(seed=int(words[purpose]))
