"""Says whether a statement about two sides holds in floating point.

The tolerances are for float64, which rounds single operations by 1e-16: 1e-9
leaves room for sums over a batch and second derivatives.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from bn_jax import trees


class Equality(NamedTuple):
  """Two sides that a statement says are equal.

  Attributes:
    left, right: [] or [m].
    size: [], the size of the terms that both sides are sums of. If terms
      cancel, rounding errors are in proportion to it and not to the sides.
  """

  left: jax.Array
  right: jax.Array
  size: jax.Array
  relation = '='

  def difference(self) -> jax.Array:
    """Returns |left - right| / size, []; 0 where the sides are equal."""
    gap = trees.norm(self.left - self.right)
    return jnp.where(gap == 0, 0, gap / self.size)

  def holds(self, tolerance: float = 1e-9) -> jax.Array:
    """Returns whether the sides are equal up to rounding, [] bool."""
    return self.difference() <= tolerance


class AtMost(NamedTuple):
  """Two sides, [], of which a statement says that left <= right.

  Attributes:
    left, right: [].
    size: [], see `Equality`.
  """

  left: jax.Array
  right: jax.Array
  size: jax.Array
  relation = '<='

  def difference(self) -> jax.Array:
    """Returns (left - right) / size, []: below 0 where left is smaller."""
    gap = self.left - self.right
    return jnp.where(gap == 0, 0, gap / self.size)

  def holds(self, tolerance: float = 1e-9) -> jax.Array:
    """Returns whether left <= right up to rounding, [] bool."""
    return self.difference() <= tolerance


class Conditional(NamedTuple):
  """A bound that is true under a condition.

  Attributes:
    bound: the statement.
    condition: implies the bound, if epsilon = 0.
    improvement: implies that the last term does not make the bound larger.
  """

  bound: AtMost
  condition: AtMost
  improvement: AtMost


class Ray(NamedTuple):
  """The distances of a start to an optimum and to the optimum's line.

  Attributes:
    closer: both sides of the difference of the squared distances.
    factor: k, []: k times the optimum is the nearest point of its line. The
      network is the same there if k > 0.
  """

  closer: Equality
  factor: jax.Array
