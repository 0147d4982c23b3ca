"""Finds eigenvalues at the ends of a spectrum by Lanczos' method, restarted.

From one start vector a value that occurs twice comes out once. So where the
Krylov space ends, and where several values are asked for and have converged,
the method begins anew from a random vector orthogonal to what it has, until
that brings up no further value at the ends asked for.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bn_jax import trees, types
from bn_jax.analysis.curvature import convergence, krylov, lanczos, operators

ENDS: dict[str, tuple[str, ...]] = {
  'largest': ('largest',),
  'smallest': ('smallest',),
  'both': ('largest', 'smallest'),
}
# Rows of the basis beyond twice the values asked for, and at least so many: 40
# vectors of a VGG-11 take 1.5 GB, and two outliers of a Hessian converge in 20.
_MORE_ROWS, _LEAST_ROWS = 10, 40


def most_rows(count: int) -> int:
  """Returns of how many vectors the basis for so many values is at most."""
  return max(2 * count + _MORE_ROWS, _LEAST_ROWS)


class Pairs(NamedTuple):
  """Eigenpairs of one end, the outermost first.

  Attributes:
    values: [k] float64.
    vectors: [k, n], of length 1.
    residuals: [k] float64, |A v - value v|.
    converged: [k] bool.
    share: [], of |gradient|^2 in the span of the vectors; nan for one of 0.
  """

  values: np.ndarray
  vectors: jax.Array
  residuals: np.ndarray
  converged: np.ndarray
  share: np.ndarray


def pairs(
  operator: operators.Operator,
  start: jax.Array,
  key: jax.Array,
  *,
  is_random: bool,
  count: int,
  ends: Sequence[str],
  tolerance: float,
  most_products: int,
  journal: types.Journal | None = None,
) -> tuple[Mapping[str, Pairs], int, int]:
  """Returns end -> its eigenpairs, steps of Lanczos' method, and products.

  A pair has converged where its residual is at most `tolerance` times the
  largest of |values| at the end (and times the largest eigenvalue, at the lower
  end), or is rounding.

  Args:
    operator: symmetric, n x n.
    start: [n], not zero.
    key: of the random vectors of further beginnings.
    is_random: whether the start is such a vector too; else it may be orthogonal
      to what is looked for, so that the method begins anew.
    count: values at each end, n at most.
    ends: of 'largest' and 'smallest'.
    most_products: above 2 count of all ends; the last are kept for residuals,
      unless one beginning says them.
    journal: keeps each step of an operator whose products are programs, up to
      2 GB of vectors, under `krylov.step_name`.
  """
  goal = convergence.Goal(
    count, tuple(ends), tolerance, count == 1 and is_random
  )
  most = most_rows(count * len(ends))
  space = krylov.Space(operator, start, key, goal, most, journal=journal)
  search = _Search(space, goal)
  # A random vector orthogonal to all before takes the place of a rest.
  is_known = goal.one_will_do and operator.is_exact
  last = 0 if is_known else count * len(ends)
  budget = most_products - last
  with jax.default_matmul_precision('highest'):
    while sum(space.steps) < budget and not search.is_done():
      space.grow(budget - sum(space.steps))
    products = sum(space.steps)
    if not np.isfinite(space.ritz().values).all():
      results = dict.fromkeys(ends, _unknown(operator, count))
    else:
      results = _results(operator, space, goal, is_known, search)
      products += last
  return results, sum(space.steps), products


def _results(operator, space, goal, is_known, search) -> dict[str, Pairs]:
  """Returns end -> the outermost pairs of the space."""
  ritz = space.ritz()
  scales = search.scales(ritz.values)
  results = {}
  for end in goal.ends:
    numbers = _outermost(ritz.values, end, goal.count)
    blocks, rows = space.combination(numbers)
    if is_known:
      vectors, share = _combined(blocks, rows, space.gradient())
      quotients = np.stack([ritz.values, ritz.residuals], 1)[numbers]
    elif operator.linearise is None:
      vectors, share = _combined(blocks, rows, space.gradient())
      quotients = [_quotient(v, operator.product(v)) for v in vectors]
    else:
      vectors, share, quotients = _multiplied(operator.linearise, blocks, rows)
    quotients, share = jax.device_get((quotients, share))
    results[end] = _ordered(vectors, quotients, share, end, scales[end])
  return results


class _Search:
  """Decides when the pairs of a space are those that are asked for."""

  def __init__(self, space: krylov.Space, goal: convergence.Goal):
    self._space, self._goal = space, goal
    self._count = goal.count
    self._largest = 0.0
    self._least = convergence.least_tolerance(space.dtype)

  def scales(self, values: np.ndarray) -> dict[str, float]:
    """Returns end -> the largest residual of a pair that has converged."""
    self._largest = max(self._largest, np.abs(values).max())
    return convergence.scales(
      self._goal, values[-1], self._largest, self._least, np
    )

  def is_done(self) -> bool:
    """Returns whether to stop; lets the space begin anew where it must."""
    space = self._space
    if not space.size:
      return False
    ritz = space.ritz()
    if space.is_whole() or not np.isfinite(ritz.values).all():
      return True
    scales = convergence.aims(
      self.scales(ritz.values), self._largest, self._least, np
    )
    if not (space.has_ended() or self._have_converged(ritz, scales)):
      return False
    # From a random start a single value shows within a few steps, unless it has
    # a share of less than rounding; its copies do not show.
    if self._goal.one_will_do or self._is_settled(ritz, scales):
      return True
    is_first = len(space.steps) == 1
    if space.has_ended() or is_first or self._has_brought_up(ritz, scales):
      space.begin_anew(max(scales.values()))
    return False

  def _have_converged(self, ritz, scales) -> bool:
    if len(ritz.values) < self._count or any(
      ritz.residuals[_outermost(ritz.values, end, self._count)].max() > scale
      for end, scale in scales.items()
    ):
      return False
    return not self._space.may_miss(
      convergence.beyond(self._goal, ritz.values, self._largest)
    )

  def _is_settled(self, ritz, scales) -> bool:
    """Returns whether the last beginning brought up nothing further out.

    Without it there are as many values as are asked for, at least as far out.
    """
    steps = self._space.steps
    if len(steps) == 1:
      return False
    for end, scale in scales.items():
      value, residual, limit = self._first_new(ritz, end, scale)
      # Copies of a value show as late as it did; half of that is a bargain.
      is_far = value + residual <= limit and 2 * steps[-1] >= steps[0]
      if not value <= limit or not (residual <= scale or is_far):
        return False
    return True

  def _has_brought_up(self, ritz, scales) -> bool:
    """Returns whether the last beginning has a value that others lack."""
    for end, scale in scales.items():
      value, residual, limit = self._first_new(ritz, end, scale)
      if value > limit and residual <= scale:
        return True
    return False

  def _first_new(self, ritz, end, scale) -> tuple[float, float, float]:
    """Returns the outermost new value, its residual, and the limit for it.

    Values are times -1 at the lower end; all nan without enough to compare.
    """
    sign = 1 if end == 'largest' else -1
    is_new = ritz.shares > 0.5
    old = np.sort(sign * ritz.values[~is_new])[::-1]
    if len(old) < self._count or not is_new.any():
      return np.nan, np.nan, np.nan
    new = np.flatnonzero(is_new)
    first = new[np.argmax(sign * ritz.values[new])]
    limit = old[self._count - 1] + scale
    return sign * ritz.values[first], ritz.residuals[first], limit


def _outermost(values: np.ndarray, end: str, count: int) -> list[int]:
  """Returns the numbers of the values at an end, the outermost first."""
  numbers = list(range(len(values)))
  return (numbers[::-1] if end == 'largest' else numbers)[:count]


def _ordered(vectors, quotients, share, end: str, most_residual: float):
  """Returns the pairs of an end, the outermost first."""
  values, residuals = np.asarray(quotients, np.float64).T
  order = np.argsort(-values if end == 'largest' else values)
  if (order[1:] < order[:-1]).any():
    vectors, values, residuals = vectors[order], values[order], residuals[order]
  return Pairs(values, vectors, residuals, residuals <= most_residual, share)


def _unknown(operator, count: int) -> Pairs:
  """Returns the pairs of a matrix that is not finite: nan."""
  nan_K = np.full(count, np.nan)
  vectors = jnp.full((count, operator.size), jnp.nan, operator.dtype)
  return Pairs(nan_K, vectors, nan_K, np.zeros(count, bool), np.array(np.nan))


@jax.jit
def _multiplied(linearise, blocks, rows):
  """Returns what `_combined` does, and (v'Av, |A v - (v'Av) v|) of each v."""
  product, gradient = linearise()
  vectors, share = _combined(blocks, rows, gradient)
  quotients = jax.lax.map(lambda v: _quotient(v, product(v)), vectors)
  return vectors, share, quotients


@jax.jit
def _combined(blocks, rows, gradient):
  """Returns combinations V of a basis, of length 1, and |V g|^2 / |g|^2."""
  vectors = lanczos.combination(rows, blocks)
  norms = jnp.linalg.norm(vectors, axis=1, keepdims=True)
  vectors = vectors / jnp.where(norms > 0, norms, 1)
  along = vectors @ gradient
  share = trees.ratio(trees.vdot(along, along), trees.vdot(gradient, gradient))
  return vectors, jnp.minimum(share, 1)


@jax.jit
def _quotient(vector, image):
  value = trees.vdot(vector, image)
  return jnp.stack([value, trees.norm(image - value * vector)])
