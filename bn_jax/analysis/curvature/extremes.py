"""Finds eigenvalues at the ends of a spectrum by Lanczos' method, restarted.

The basis is orthogonalised in full. When it is as large as memory should hold,
it is replaced by its best Ritz vectors and goes on from there: Wu and Simon
(2000), "Thick-restart Lanczos method for large symmetric eigenvalue problems".

From one start vector a value that occurs twice comes out once. So where the
Krylov space ends, and where several values are asked for and have converged,
the method begins anew from a random vector orthogonal to what it has, until
that brings up no further value at the ends asked for.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bn_jax import trees
from bn_jax.analysis.curvature import lanczos, operators

ENDS = {'largest': ('largest',), 'smallest': ('smallest',)}
ENDS['both'] = ENDS['largest'] + ENDS['smallest']
# Rows of the basis beyond twice the values asked for, and at least so many: 40
# vectors of a VGG-11 take 1.5 GB, and two outliers of a Hessian converge in 20.
_MORE_ROWS, _LEAST_ROWS = 10, 40
# Steps of one program between two looks at residuals, where products are small:
# half of them are too many on average. Hardly a value converges in fewer than
# the first ones.
_FIRST_STRIDE, _STRIDE = 10, 5
_ROWS = 8  # by which a basis grows else: rows to come would cost passes too
# Residuals of products stall at so many units of rounding times the largest
# eigenvalue: in float32 at 2 to 5 for perceptrons with Batch Normalization of
# 714 and 9,098 parameters, at 41 to 53 for a VGG-11 of an eighth of its width.
_ROUNDING = 64


def most_rows(count: int) -> int:
  """Returns of how many vectors the basis for so many values is at most."""
  return max(2 * count + _MORE_ROWS, _LEAST_ROWS)


class Pairs(NamedTuple):
  """Eigenpairs of one end, the outermost first.

  Attributes:
    values: [k] float64.
    vectors: [k, n], of length 1.
    residuals: [k] float64, |A v - value v|, by a product of each v.
    converged: [k] bool.
    share: [], of |gradient|^2 in the span of the vectors; nan for one of 0.
  """

  values: np.ndarray
  vectors: jax.Array
  residuals: np.ndarray
  converged: np.ndarray
  share: np.ndarray


def least_tolerance(dtype: jnp.dtype) -> float:
  """Returns the smallest tolerance that products of a dtype allow."""
  return _ROUNDING * float(jnp.finfo(dtype).eps)


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
    most_products: above 2 count of all ends; the last are kept for residuals.
  """
  space = _Space(operator, start, key, count * len(ends))
  search = _Search(space, count, ends, tolerance, count == 1 and is_random)
  budget = most_products - count * len(ends)
  with jax.default_matmul_precision('highest'):
    while sum(space.steps) < budget and not search.is_done():
      space.grow(budget - sum(space.steps))
    ritz = space.ritz()
    steps = sum(space.steps)
    if not np.isfinite(ritz.values).all():
      return dict.fromkeys(ends, _unknown(operator, count)), steps, steps
    scales = search.scales(ritz.values)
    results = {
      end: _measured(
        operator,
        *space.combination(_outermost(ritz.values, end, count)),
        end,
        scales[end],
      )
      for end in ends
    }
  return results, steps, steps + count * len(ends)


class _Ritz(NamedTuple):
  """Eigenpairs of an operator within a space, in increasing order.

  Attributes:
    values: [m].
    rows: [m, m], the coefficients of each vector in the basis.
    residuals: [m], by the rest of the last step.
    shares: [m], of each vector in what has been added since the space ended.
  """

  values: np.ndarray
  rows: np.ndarray
  residuals: np.ndarray
  shares: np.ndarray


class _Space:
  """Grows a Krylov space step by step; holds the operator's matrix in it.

  Attributes:
    size: dimensions now.
    most: dimensions that memory should hold.
    steps: the products of each beginning.
  """

  def __init__(self, operator, start, key, count):
    self._operator, self._key = operator, key
    self.most = min(operator.size, most_rows(count))
    rows = 0 if operator.linearise is None else self.most
    self._basis, self._next, self._scale = _begun(start, rows)
    self._matrix = np.zeros((self.most, self.most))
    self._shares = np.zeros(self.most)  # 1 for rows of this beginning
    self._rest, self._ritz = 0.0, None
    self.dtype = operator.dtype
    self.size, self.steps = 0, [0]

  def is_whole(self) -> bool:
    """Returns whether the space has every dimension."""
    return self.size == self._operator.size

  def has_ended(self) -> bool:
    """Returns whether the operator maps the space into itself."""
    return self.size > 0 and not self._rest > 0

  def grow(self, most: int) -> None:
    """Adds a dimension by one product, or several by one program.

    Args:
      most: products at most.
    """
    if self.size == self.most:
      self._keep(self.ritz(), self._best())
    if self._operator.linearise is None:
      if self.size == len(self._basis):
        more = min(_ROWS, self.most - self.size)
        zeros = jnp.zeros((more, self._operator.size), self.dtype)
        self._basis = jnp.concatenate([self._basis, zeros])
      self._basis = _with_row(self._basis, self.size, self._next)
      image = self._operator.product(self._next)
      coefficients, rest, self._next, self._scale = _projected(
        self._basis, image, self._scale
      )
      self._add(np.asarray(coefficients), float(rest))
      return
    stride = _STRIDE if self.size else _FIRST_STRIDE
    last = min(self.size + min(stride, most), self.most)
    self._basis, columns, rests, self._next, self._scale = _grown(
      self._operator.linearise, self._basis, self._next, self._scale,
      self.size, last,
    )  # fmt: skip
    columns, rests = jax.device_get((columns, rests))
    for k in range(self.size, last):
      self._add(columns[k], float(rests[k]))
      if self.has_ended():
        break

  def _add(self, coefficients: np.ndarray, rest: float) -> None:
    """Notes the operator's column of a new dimension."""
    k = self.size
    column = np.float64(coefficients)[: k + 1]
    self._matrix[: k + 1, k] = self._matrix[k, : k + 1] = column
    self._shares[k] = 1
    self._rest, self.size, self._ritz = rest, k + 1, None
    self.steps[-1] += 1

  def begin_anew(self, most_residual: float) -> None:
    """Goes on from a random vector orthogonal to what is kept.

    These are the Ritz vectors with at most this residual: all of a space that
    has ended. Of others the rest would be lost, by which residuals are known.
    """
    ritz = self.ritz()
    kept = np.flatnonzero(ritz.residuals <= most_residual)
    if len(kept) == self.most:
      kept = kept[self._best()]
    self._keep(ritz, kept)
    self.steps.append(0)
    self._shares[:] = 0
    self._rest, self._ritz = 0.0, None
    normal = random(self._operator, self._key, len(self.steps))
    _, _, self._next = lanczos.orthogonal(self._basis, normal, 0.0)

  def ritz(self) -> _Ritz:
    """Returns the eigenpairs in the space; nan where products are."""
    if self._ritz is None:
      self._ritz = self._pairs()
    return self._ritz

  def _pairs(self) -> _Ritz:
    matrix = self._matrix[: self.size, : self.size]
    if not np.isfinite(matrix).all():
      unknown = np.full(self.size, np.nan)
      return _Ritz(unknown, np.eye(self.size), unknown, unknown)
    values, columns = np.linalg.eigh(matrix)
    rows = columns.T
    return _Ritz(
      values, rows, self._rest * np.abs(rows[:, -1]),
      np.square(rows) @ self._shares[: self.size],
    )  # fmt: skip

  def combination(self, numbers: Sequence[int]) -> tuple[jax.Array, np.ndarray]:
    """Returns (basis, rows): rows @ basis are Ritz vectors of these numbers."""
    return self._basis, self._padded(self.ritz(), numbers)[: len(numbers)]

  def _best(self) -> list[int]:
    """Returns which Ritz vectors of a full basis survive: half of all.

    They are from both ends, as the largest |value| is asked for at each.
    """
    quarter = self.most // 4
    return [*range(quarter), *range(self.most - quarter, self.most)]

  def _keep(self, ritz, numbers):
    self._basis = _combined(self._basis, self._padded(ritz, numbers))
    self._matrix[:] = 0
    np.fill_diagonal(self._matrix, [*ritz.values[numbers]] + [0] * self.most)
    self._shares[: len(numbers)] = ritz.shares[numbers]
    self._shares[len(numbers) :] = 0
    self.size, self._ritz = len(numbers), None

  def _padded(self, ritz, numbers):
    rows = np.zeros((len(self._basis), len(self._basis)))
    rows[: len(numbers), : self.size] = ritz.rows[numbers]
    return rows.astype(self._basis.dtype)


class _Search:
  """Decides when the pairs of a space are those that are asked for."""

  def __init__(self, space, count, ends, tolerance, one_will_do):
    self._space, self._count, self._ends = space, count, ends
    self._tolerance, self._largest = tolerance, 0.0
    self._one_will_do = one_will_do  # beginning

  def scales(self, values: np.ndarray) -> dict[str, float]:
    """Returns end -> the largest residual of a pair that has converged."""
    self._largest = max(self._largest, np.abs(values).max())
    sizes = {'largest': abs(values[-1]), 'smallest': self._largest}
    least = least_tolerance(self._space.dtype) * self._largest
    return {end: max(self._tolerance * sizes[end], least) for end in self._ends}

  def aims(self, scales: Mapping[str, float]) -> dict[str, float]:
    """Returns scales without what rounding adds to residuals: half, if more."""
    rounding = least_tolerance(self._space.dtype) * self._largest
    return {
      end: max(scale / 2, np.sqrt(max(scale**2 - rounding**2, 0)))
      for end, scale in scales.items()
    }

  def is_done(self) -> bool:
    """Returns whether to stop; lets the space begin anew where it must."""
    space = self._space
    if not space.size:
      return False
    ritz = space.ritz()
    if space.is_whole() or not np.isfinite(ritz.values).all():
      return True
    scales = self.aims(self.scales(ritz.values))
    if not (space.has_ended() or self._have_converged(ritz, scales)):
      return False
    # From a random start a single value shows within a few steps, unless it has
    # a share of less than rounding; its copies do not show.
    if self._one_will_do or self._is_settled(ritz, scales):
      return True
    is_first = len(space.steps) == 1
    if space.has_ended() or is_first or self._has_brought_up(ritz, scales):
      space.begin_anew(max(scales.values()))
    return False

  def _have_converged(self, ritz, scales) -> bool:
    # A vector of a few dimensions in a space of many looks converged too soon.
    enough = max(self._count, min(_FIRST_STRIDE, self._space.most))
    return len(ritz.values) >= enough and all(
      ritz.residuals[_outermost(ritz.values, end, self._count)].max() <= scale
      for end, scale in scales.items()
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


def random(
  operator: operators.Operator, key: jax.Array, number: int
) -> jax.Array:
  """Returns a vector [n] of standard normal numbers, by a key and a number."""
  return _random(key, number, operator.size, operator.dtype)


@functools.partial(jax.jit, static_argnums=(2, 3))
def _random(key, number, size, dtype):
  return jax.random.normal(jax.random.fold_in(key, number), (size,), dtype)


def _measured(operator, basis, rows, end: str, most_residual: float) -> Pairs:
  """Returns pairs with v'Av and |A v - (v'Av) v|, the outermost first."""
  if operator.linearise is None:
    vectors = _vectors(basis, rows)
    quotients = [_quotient(v, operator.product(v)) for v in vectors]
    share = _share(vectors, operator.gradient())
  else:
    vectors, quotients, share = _finished(operator.linearise, basis, rows)
  quotients, share = jax.device_get((quotients, share))
  values, residuals = np.float64(quotients).T
  order = np.argsort(-values if end == 'largest' else values)
  if (order[1:] < order[:-1]).any():
    vectors, values, residuals = vectors[order], values[order], residuals[order]
  return Pairs(values, vectors, residuals, residuals <= most_residual, share)


def _unknown(operator, count: int) -> Pairs:
  """Returns the pairs of a matrix that is not finite: nan."""
  nan_K = np.full(count, np.nan)
  vectors = jnp.full((count, operator.size), jnp.nan, operator.dtype)
  return Pairs(nan_K, vectors, nan_K, np.zeros(count, bool), np.float64(np.nan))


@jax.jit
def _quotient(vector, image):
  value = trees.vdot(vector, image)
  return jnp.stack([value, trees.norm(image - value * vector)])


@jax.jit
def _finished(linearise, basis, rows):
  """Returns (vectors, their quotients, the gradient's share in their span)."""
  product, gradient = linearise()
  vectors = _vectors(basis, rows)
  quotients = jax.lax.map(lambda v: _quotient(v, product(v)), vectors)
  return vectors, quotients, _share(vectors, gradient)


@jax.jit
def _share(vectors, gradient):
  """Returns |V g|^2 / |g|^2 for orthonormal rows V."""
  along = vectors @ gradient
  share = trees.ratio(trees.vdot(along, along), trees.vdot(gradient, gradient))
  return jnp.minimum(share, 1)


@functools.partial(jax.jit, static_argnums=1)
def _begun(start, rows):
  """Returns (a basis without a row, the first vector, scale)."""
  basis = jnp.zeros((rows, len(start)), start.dtype)
  return basis, start / trees.norm(start), jnp.zeros((), start.dtype)


@functools.partial(jax.jit, donate_argnums=1)
def _grown(linearise, basis, following, scale, first, last):
  """Does the steps from first to last; returns all that they change.

  Returns:
    (basis [m, n]; columns [m, m], of step k in row k; rests [m]; the vector
    that follows; scale).
  """
  product, _ = linearise()

  def step(k, carry):
    basis, columns, rests, vector, scale = carry
    basis = basis.at[k].set(vector)
    column, rest, vector, scale = _projected(basis, product(vector), scale)
    columns, rests = columns.at[k].set(column), rests.at[k].set(rest)
    return basis, columns, rests, vector, scale

  size = len(basis)
  empty = jnp.zeros((size, size), basis.dtype), jnp.zeros(size, basis.dtype)
  return jax.lax.fori_loop(first, last, step, (basis, *empty, following, scale))


@functools.partial(jax.jit, donate_argnums=0)
def _with_row(basis, k, row):
  return basis.at[k].set(row)


@jax.jit
def _projected(basis, image, scale):
  scale = jnp.maximum(scale, jnp.linalg.norm(image))
  return *lanczos.orthogonal(basis, image, scale), scale


@jax.jit
def _combined(basis, rows):
  return rows @ basis


@jax.jit
def _vectors(basis, rows):
  """Returns combinations of a basis, of length 1."""
  vectors = rows @ basis
  norms = jnp.linalg.norm(vectors, axis=1, keepdims=True)
  return vectors / jnp.where(norms > 0, norms, 1)
