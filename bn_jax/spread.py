"""How the examples of a batch are spread over devices.

Example i of a batch of B lies on device i * D // B, whatever the layout. A
program sees either the whole batch, whose first axis is sharded (`jit`), or the
part of one device, beside which others run (`pmap`, `shard_map`).
"""

from typing import NamedTuple

import jax
from jax import lax


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
