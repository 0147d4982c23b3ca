"""Which examples batch t of a seed holds: a pure function of (seed, t).

Batch t takes positions t * B ... (t + 1) * B - 1 of the concatenated epoch
permutations, without remainder; epoch e is permuted by fold_in(key, e).
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from bn_jax import types
from bn_jax.data import augment, in_memory

_NONE = augment.Augmentation()


def sampler(
  *,
  num_examples: int,
  batch_size: int,
  augmentation: augment.Augmentation = _NONE,
) -> types.Sampler:
  """Draws the batches of a training split that lies on the device.

  Args:
    num_examples: N of the split.
    batch_size: B, at most N.
    augmentation: what is done to the images of a batch.

  Raises:
    ValueError: a batch size outside 1..N.
  """
  _check(num_examples, batch_size)
  return types.Sampler(
    init=functools.partial(_first, num_examples),
    draw=functools.partial(_draw, batch_size),
    take=functools.partial(in_memory.augmented, augmentation),
  )


def of_batches(
  *,
  num_examples: int,
  batch_size: int,
  augmentation: augment.Augmentation = _NONE,
) -> types.Sampler:
  """Takes batches that come from outside already drawn, one a step.

  Args:
    num_examples: N of the whole split, to know where an epoch ends.
    batch_size: B, all that a step is handed.
    augmentation: what is done to the images of a batch.

  Raises:
    ValueError: a batch size outside 1..N.
  """
  _check(num_examples, batch_size)
  return types.Sampler(
    init=lambda key: _first(1, key),
    draw=functools.partial(_counted, num_examples, batch_size),
    take=functools.partial(in_memory.augmented, augmentation),
  )


def _check(num_examples: int, batch_size: int) -> None:
  if not 1 <= batch_size <= num_examples:
    raise ValueError(
      f'batch_size is {batch_size}; allowed: 1 to {num_examples}, the '
      'examples to train on'
    )


def _counted(
  count: int, batch_size: int, order: types.EpochOrder, key: jax.Array
) -> tuple[jax.Array, types.EpochOrder]:
  """All of what was handed over; whoever drew it knows the order."""
  del key
  after = order.offset + batch_size
  moved = order._replace(
    epoch=order.epoch + after // count, offset=after % count
  )
  return jnp.arange(batch_size, dtype=jnp.int32), moved


def _permutation(key: jax.Array, epoch: jax.Array, count: int) -> jax.Array:
  epoch_key = jax.random.fold_in(key, epoch)
  return jax.random.permutation(epoch_key, jnp.arange(count, dtype=jnp.int32))


def _first(count: int, key: jax.Array) -> types.EpochOrder:
  zero = jnp.zeros((), jnp.int32)
  return types.EpochOrder(_permutation(key, zero, count), zero, zero)


def _draw(
  batch_size: int, order: types.EpochOrder, key: jax.Array
) -> tuple[jax.Array, types.EpochOrder]:
  """The examples of the next batch, which may reach into the next epoch."""
  count = order.permutation.shape[0]
  after = order.offset + batch_size
  ends = after >= count
  # A permutation of 50,000 costs 30 ms: once an epoch, not once a step.
  following = lax.cond(
    ends,
    lambda: _permutation(key, order.epoch + 1, count),
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
