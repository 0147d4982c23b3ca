"""The two sides of a statement, and whether it holds in floating point."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from bn_jax import trees


class Equality(NamedTuple):
  """Two sides that a statement says are equal.

  Attributes:
    left: [] or [m].
    right: like left.
    size: [], how large the terms are that both are sums of. Rounding errors are
      in proportion to it, and not to the sides, where the terms cancel.
  """

  left: jax.Array
  right: jax.Array
  size: jax.Array
  relation = '='

  def difference(self) -> jax.Array:
    """|left - right| / size, []; 0 where nothing differs."""
    gap = trees.norm(self.left - self.right)
    return jnp.where(gap == 0, 0, gap / self.size)

  def holds(self, tolerance: float = 1e-9) -> jax.Array:
    """Whether they are equal but for rounding, in float64; [] bool."""
    return self.difference() <= tolerance


class AtMost(NamedTuple):
  """Two sides, [], of which a statement says that left <= right.

  Attributes:
    left: [].
    right: [].
    size: [], as of `Equality`.
  """

  left: jax.Array
  right: jax.Array
  size: jax.Array
  relation = '<='

  def difference(self) -> jax.Array:
    """(left - right) / size, []: below 0 where there is room between them."""
    gap = self.left - self.right
    return jnp.where(gap == 0, 0, gap / self.size)

  def holds(self, tolerance: float = 1e-9) -> jax.Array:
    """Whether left is the smaller but for rounding, in float64; [] bool."""
    return self.difference() <= tolerance


class Conditional(NamedTuple):
  """A bound that is true under a condition.

  Attributes:
    bound: the statement.
    condition: what it needs.
    improvement: where the bound is smaller than without its last term.
  """

  bound: AtMost
  condition: AtMost
  improvement: AtMost


class Ray(NamedTuple):
  """How much nearer a start is to the ray of an optimum.

  Attributes:
    closer: both sides of the difference of squared distances.
    factor: k, []: k times the optimum is the nearest point of its line. The
      network is the same there if k > 0.
  """

  closer: Equality
  factor: jax.Array
