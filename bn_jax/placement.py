"""Spreads the examples of a batch over devices.

Example i of a batch of B lies on device i * D // B of D, whatever the layout. A
program sees either the whole batch, whose first axis is sharded (`jit`), or the
part of one device, beside which others run (`pmap`, `shard_map`).
"""

import functools
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import lax
from jax.experimental import multihost_utils

# So many more examples than channels; of 100 channels and 60 examples a
# transposed norm is slower.
_NARROW = 4


class Spread(NamedTuple):
  """How a batch is split over devices, for computations over all of it.

  Attributes:
    parts: number of equal parts of the batch, one a device.
    axis_name: the mapped axis of a program that sees one part; None if the
      program sees the whole batch.
    sharding: how the whole batch's first axis is sharded; None leaves it to
      XLA.
    channels_first: whether arrays of few channels are computed with the batch
      as their last axis: `is_narrow`. It changes no number but by rounding.
  """

  parts: int = 1
  axis_name: str | None = None
  sharding: jax.sharding.Sharding | None = None
  channels_first: bool = False

  def own(self, size: int) -> int:
    """Returns how many of `size` examples this program sees."""
    return size // self.parts if self.axis_name else size

  def is_narrow(self, examples: int, channels: int) -> bool:
    """Returns whether [N, C] is computed as [C, N].

    A processor takes 16 numbers at a time; of ten channels it would take one.
    """
    return self.channels_first and examples >= _NARROW * channels

  def first(self, size: int) -> jax.Array | int:
    """Returns the index of the first of `size` examples that it sees."""
    if self.axis_name is None:
      return 0
    return lax.axis_index(self.axis_name) * self.own(size)

  def sum(self, tree):
    """Sums over the programs; a program that sees the whole has the sum."""
    return lax.psum(tree, self.axis_name) if self.axis_name else tree

  def mean(self, tree):
    """Averages over the programs."""
    return lax.pmean(tree, self.axis_name) if self.axis_name else tree

  def gathered(self, x):
    """Stacks the programs' arrays x, [1 or parts, ...]."""
    return lax.all_gather(x, self.axis_name) if self.axis_name else x[None]

  def laid(self, batch):
    """Constrains whole arrays, [B, ...], so that each device has its part."""
    if self.sharding is None:
      return batch
    return lax.with_sharding_constraint(batch, self.sharding)


ALONE = Spread()
# Of the program of several seeds; that of one is older, and keeps its bits.
SEEDS = Spread(channels_first=True)


def put(
  tree: Any,
  sharding: jax.sharding.Sharding | None,
  *,
  may_alias: bool | None = None,
) -> Any:
  """Puts arrays on devices, those of other processes too.

  Args:
    tree: arrays of this process, the same in all processes; or arrays that are
      on devices already.
    sharding: of each array; None is the first device.
    may_alias: False if the result may not share memory with `tree`.
  """
  if sharding is None or sharding.is_fully_addressable:
    return jax.device_put(tree, sharding, may_alias=may_alias)
  return jax.tree.map(lambda leaf: _put(leaf, sharding), tree)


def _put(leaf: Any, sharding: jax.sharding.Sharding) -> jax.Array:
  if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
    return _moved(sharding)(leaf)
  array = np.asarray(leaf)
  # jax.device_put would send the array to all processes to compare it.
  return jax.make_array_from_callback(
    array.shape, sharding, lambda index: np.array(array[index])
  )


def put_parts(tree: Any, mesh: jax.sharding.Mesh) -> Any:
  """Joins the arrays of which each process has a part, whole on each device.

  Args:
    tree: this process's arrays, [N / P, ...]; those of all P processes, one
      after the other, are [N, ...].
    mesh: the devices, process after process.
  """
  devices = mesh.devices.reshape(jax.process_count(), -1)
  by_process = jax.sharding.NamedSharding(
    jax.sharding.Mesh(devices, ('process', 'device')),
    jax.sharding.PartitionSpec('process'),
  )
  join = jax.make_array_from_process_local_data
  replicated = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
  return jax.tree.map(
    lambda leaf: _moved(replicated)(join(by_process, np.asarray(leaf))), tree
  )


def part(tree: Any, first: int, end: int) -> Any:
  """Returns examples first to end of whole arrays, cut over devices as these.

  A slice of an array that is cut over devices lies whole on each of them, so
  that all would compute the same. It does here where it does not divide evenly.
  """

  def part_of(leaf):
    slice_of_leaf = leaf[first:end]
    sharding = getattr(leaf, 'sharding', None)
    if (
      sharding is None
      or sharding.is_fully_replicated
      or (end - first) % sharding.num_devices
    ):
      return slice_of_leaf
    # `device_put` knows only devices of its own process.
    return jax.jit(lambda x: x, out_shardings=sharding)(slice_of_leaf)

  return jax.tree.map(part_of, tree)


def host(tree: Any) -> Any:
  """Copies whole arrays from devices to NumPy, in every process.

  If an array is split over several processes, all of them must call this.
  """
  return jax.device_get(jax.tree.map(_readable, tree))


def _readable(leaf: Any) -> Any:
  if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
    return leaf
  if leaf.is_fully_replicated:
    return leaf
  return multihost_utils.process_allgather(leaf, tiled=True)


@functools.lru_cache
def _moved(sharding: jax.sharding.Sharding):
  return jax.jit(lambda leaf: leaf, out_shardings=sharding)
