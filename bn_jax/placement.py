"""How the examples of a batch are spread over devices.

Example i of a batch of B lies on device i * D // B, whatever the layout. A
program sees either the whole batch, whose first axis is sharded (`jit`), or the
part of one device, beside which others run (`pmap`, `shard_map`).
"""

import functools
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import lax
from jax.experimental import multihost_utils


class Spread(NamedTuple):
  """How a batch lies on devices, for what is computed over all of it.

  Attributes:
    parts: into how many equal parts the batch is cut, one a device.
    axis_name: of the mapped axis, where a program sees its own part alone; None
      where it sees the whole batch.
    sharding: of the whole batch's first axis; None where it is left open.
  """

  parts: int = 1
  axis_name: str | None = None
  sharding: jax.sharding.Sharding | None = None

  def own(self, size: int) -> int:
    """How many of so many examples this program sees."""
    return size // self.parts if self.axis_name else size

  def first(self, size: int) -> jax.Array | int:
    """The index of the first example it sees, of so many."""
    if self.axis_name is None:
      return 0
    return lax.axis_index(self.axis_name) * self.own(size)

  def sum(self, tree):
    """Sums of what each program has: of a part, or of the whole already."""
    return lax.psum(tree, self.axis_name) if self.axis_name else tree

  def mean(self, tree):
    """Means of what each program has."""
    return lax.pmean(tree, self.axis_name) if self.axis_name else tree

  def gathered(self, x):
    """What each program has of an array, side by side, [1 or D, ...]."""
    return lax.all_gather(x, self.axis_name) if self.axis_name else x[None]

  def laid(self, batch):
    """A tree of whole arrays, [B, ...], each device holding its part."""
    if self.sharding is None:
      return batch
    return lax.with_sharding_constraint(batch, self.sharding)


ALONE = Spread()


def put(
  tree: Any,
  sharding: jax.sharding.Sharding | None,
  *,
  may_alias: bool | None = None,
) -> Any:
  """Arrays on devices, those of other processes too.

  Args:
    tree: of arrays of this process, the same in all; or of arrays on devices.
    sharding: where each is to lie; None is the first device.
    may_alias: False if they may not lie in the given arrays.
  """
  if sharding is None or sharding.is_fully_addressable:
    return jax.device_put(tree, sharding, may_alias=may_alias)
  return jax.tree.map(lambda leaf: _put(leaf, sharding), tree)


def _put(leaf: Any, sharding: jax.sharding.Sharding) -> jax.Array:
  if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
    return _moved(sharding)(leaf)
  host = np.asarray(leaf)
  # jax's own device_put sends all of it around, to see whether it is the same.
  return jax.make_array_from_callback(
    host.shape, sharding, lambda index: np.array(host[index])
  )


def put_parts(tree: Any, mesh: jax.sharding.Mesh) -> Any:
  """Arrays of which each process has a part, whole on each device.

  Args:
    tree: of arrays [N / P, ...] of this process; in the order of processes they
      are [N, ...].
    mesh: the devices, process after process.
  """
  rows = mesh.devices.reshape(jax.process_count(), -1)
  by_process = jax.sharding.NamedSharding(
    jax.sharding.Mesh(rows, ('process', 'device')),
    jax.sharding.PartitionSpec('process'),
  )
  parts = jax.make_array_from_process_local_data
  whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
  return jax.tree.map(
    lambda leaf: _moved(whole)(parts(by_process, np.asarray(leaf))), tree
  )


def host(tree: Any) -> Any:
  """Arrays on devices as NumPy arrays, all of each in every process.

  Where an array is cut over several processes, all of them must call it.
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
