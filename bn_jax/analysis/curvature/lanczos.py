"""Reduces a symmetric operator to tridiagonal form by Lanczos' method.

Lanczos (1950); Golub and Van Loan, "Matrix Computations", chapter 10. Rounding
costs the plain recursion its orthogonality as soon as an eigenvalue has
converged, and copies of it appear. Here every new vector is orthogonalised
against all earlier ones, twice, which is enough (Parlett, "The Symmetric
Eigenvalue Problem", section 6.9).

The loop is in Python: in a loop of XLA's, convolutions are many times slower on
the CPU (jax#12868). An operator without them whose vectors are short gets one
program for all steps, since there dispatch takes most of the time.
"""

import functools
from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jax.extend import core

from bn_jax import checks

# The Krylov space ends where a new vector is this small, in units of the
# rounding of its dtype and of the largest |A v|. What is left then is rounding
# of the product, which was 1 to 8 units for networks in float32.
_ROUNDING = 32
# One program does all steps where a product computes at most so many numbers:
# then its dispatch takes much of the time. Above, a loop of XLA's loses more by
# running its operations one by one on the CPU.
_NUMBERS = 2**20
# And at most so many of all vectors side by side. On networks of 1,084 and of
# 9,108 parameters, up to here, 10 probes took 0.4 to 1.0 of the loop's time.
_SIDE_BY_SIDE = 2**22
_SLOW = ('conv_general_dilated', 'scan', 'while')  # in another loop of XLA's
# Numbers of all bases of one program; more take memory.
_BASES = 2**22


class Operator(Protocol):
  """Describes what is asked of an operator: `operators.Operator` has it.

  Attributes:
    size: n.
    product: [n] -> [n], linear and symmetric.
    products: [p, n] -> [p, n], the same of p vectors side by side. One program
      for all steps needs a `jax.tree_util.Partial`, whose function is the same
      object for all operators that are to share that program.
  """

  size: int
  product: Any
  products: Any


class Tridiagonal(NamedTuple):
  """The tridiagonal matrix T = Q A Q' of an operator A, and its basis Q.

  With A Q' = Q' T + residual * following e_m', a pair (theta, y) of T gives a
  pair (theta, Q' y) of A whose residual has the norm residual * |y_m|.

  Attributes:
    alphas: [m] float64, the diagonal; m is smaller than the steps asked for
      where the Krylov space ends before.
    betas: [m - 1] float64, beside the diagonal, above 0.
    basis: [m, n], orthonormal rows, the start vector's direction first.
    residual: the next beta; 0 where the Krylov space has ended.
    following: [n], the next vector of the basis; zeros where it has ended.
  """

  alphas: np.ndarray
  betas: np.ndarray
  basis: jax.Array
  residual: float
  following: jax.Array


def tridiagonal(
  operator: Operator, start: jax.Array, steps: int
) -> Tridiagonal:
  """Computes at most so many steps of Lanczos' method from one vector.

  Args:
    operator: symmetric, n x n.
    start: [n], of any length but 0.
    steps: products of A and a vector at most; more than n are n.

  Raises:
    ValueError: steps below 1; a start vector of another shape, zero or not
      finite.
  """
  return tridiagonals(operator, start[None], steps)[0]


def tridiagonals(
  operator: Operator, starts: jax.Array, steps: int
) -> list[Tridiagonal]:
  """Computes `tridiagonal` of each start vector, [p, n], side by side.

  Where one program does all steps, it does so for all start vectors; else one
  comes after the other, in the memory of one.
  """
  checks.count('steps', steps)
  _check_starts(operator, starts)
  steps = min(steps, operator.size)
  with jax.default_matmul_precision('highest'):
    if len(starts) <= fitting(operator, starts[0], steps) and (
      _numbers(operator, starts[0], steps) <= _NUMBERS
    ):
      *numbers, bases, rests = _of_program(operator.products, starts, steps)
      return list(map(_cut, *jax.device_get(numbers), bases, rests))
    return [_of_loop(operator, start, steps) for start in starts]


def fitting(operator: Operator, start: jax.Array, steps: int) -> int:
  """Returns how many start vectors `tridiagonals` takes side by side."""
  numbers = _numbers(operator, start, steps)
  if numbers > _NUMBERS:
    return 1
  rows = _BASES // (steps * operator.size)
  return max(1, min(int(_SIDE_BY_SIDE // max(numbers, 1)), rows))


def is_one_program(operator: Operator, start: jax.Array, steps: int) -> bool:
  """Returns whether one program does all steps from one start vector."""
  return _numbers(operator, start, steps) <= _NUMBERS


def primitives(jaxpr: core.Jaxpr) -> set[str]:
  """Returns the names of all operations of a jaxpr, and of those inside it."""
  names = set()
  for equation in jaxpr.eqns:
    names.add(equation.primitive.name)
    for inner in _inner(equation.params.values()):
      names |= primitives(inner)
  return names


def _numbers(operator: Operator, start: jax.Array, steps: int) -> float:
  """Returns the numbers that a product computes; inf forbids one program."""
  if not (
    steps * operator.size <= _BASES
    and isinstance(operator.products, jax.tree_util.Partial)
  ):
    return float('inf')
  return _computed(jax.make_jaxpr(operator.product)(start).jaxpr)


@jax.jit
def orthogonal(
  basis: jax.Array, vector: jax.Array, scale: jax.Array | float
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Returns what is left of a vector that is orthogonal to a basis.

  Args:
    basis: [m, n], orthonormal rows, or zeros for those that are still to come.
    vector: [n].
    scale: the largest |A v| up to now, by which the end is told.

  Returns:
    (coefficients [m] of the vector in the basis; the norm of the rest, and its
    direction [n], both 0 where the rest is but rounding).
  """
  coefficients = basis @ vector
  once = vector - coefficients @ basis
  again = basis @ once
  rest = once - again @ basis
  norm, before = jnp.linalg.norm(rest), jnp.linalg.norm(once)
  least = _ROUNDING * jnp.finfo(vector.dtype).eps * scale
  # What the second pass still changes was in the span: there is no rest.
  is_rest = (norm > least) & (norm > before / 2)
  norm = jnp.where(is_rest, norm, 0)
  unit = jnp.where(is_rest, rest / jnp.where(is_rest, norm, 1), 0)
  return coefficients + again, norm, unit


def nodes_and_weights(
  matrix: Tridiagonal, count: int
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the Gauss quadrature of the start vector's spectral measure.

  Nodes are the eigenvalues of T, weights the squared first components of its
  eigenvectors (Golub and Welsch, 1969).

  Args:
    matrix: of m steps.
    count: the length of the results.

  Returns:
    (nodes, weights), [count] float64, the nodes in increasing order; from m on
    nan and 0. All nodes are nan where the operator is not finite.
  """
  nodes, weights = np.full(count, np.nan), np.zeros(count)
  size = len(matrix.alphas)
  if np.isfinite(matrix.alphas).all() and np.isfinite(matrix.betas).all():
    values, vectors = scipy.linalg.eigh_tridiagonal(matrix.alphas, matrix.betas)
    nodes[:size], weights[:size] = values, np.square(vectors[0])
  return nodes, weights


def _check_starts(operator: Operator, starts: jax.Array) -> None:
  """Raises ValueError for start vectors of another shape, or of no length."""
  if starts.ndim != 2 or starts.shape[1] != operator.size:
    raise ValueError(
      f'the start vector has shape {starts.shape[1:]}; the operator takes '
      f'({operator.size},)'
    )
  norms = np.asarray(jnp.linalg.norm(starts, axis=1))
  if not (np.isfinite(norms) & (norms > 0)).all():
    raise ValueError(
      f'the start vector has norm {norms.min():g}; allowed: above 0 and finite'
    )


def _cut(
  alphas: np.ndarray, betas: np.ndarray, basis: jax.Array, following: jax.Array
) -> Tridiagonal:
  """Returns the matrix up to where the Krylov space ends: the first beta of 0.

  Args:
    alphas, betas: [m]; beta k is what is left after step k.
  """
  ends = np.flatnonzero(~(betas > 0))
  size = int(ends[0]) + 1 if len(ends) else len(betas)
  alphas, betas = (np.asarray(x[:size], np.float64) for x in (alphas, betas))
  return Tridiagonal(
    alphas, betas[:-1], basis[:size], float(betas[-1]), jnp.asarray(following)
  )


def _of_loop(operator: Operator, start: jax.Array, steps: int) -> Tridiagonal:
  """Computes the steps by a loop in Python; returns where the space ends."""
  vector = start / jnp.linalg.norm(start)
  basis = jnp.zeros((steps, operator.size), vector.dtype)
  scale = jnp.zeros((), vector.dtype)
  alphas, betas = [], []
  for k in range(steps):
    basis = _with_row(basis, k, vector)
    alpha, beta, vector, scale = _step(
      basis, k, operator.product(vector), scale
    )
    alphas.append(alpha)
    betas.append(beta)
    # The step before is done while this one runs, so nothing waits; and Python
    # stays at most one product ahead of the device.
    if k and not float(betas[-2]) > 0:
      break
  alphas, betas = np.array(jax.device_get((alphas, betas)))
  return _cut(alphas, betas, basis, vector)


@functools.partial(jax.jit, donate_argnums=0)
def _with_row(basis, k, row):
  return basis.at[k].set(row)


@jax.jit
def _step(basis, k, image, scale):
  """Returns (alpha, beta, the next vector, scale) from A times row k."""
  scale = jnp.maximum(scale, jnp.linalg.norm(image))
  coefficients, beta, following = orthogonal(basis, image, scale)
  return coefficients[k], beta, following, scale


@functools.partial(jax.jit, static_argnums=2)
def _of_program(products, starts, steps):
  """Returns alphas and betas [p, m], bases [p, m, n] and following [p, n]."""
  vectors = starts / jnp.linalg.norm(starts, axis=1, keepdims=True)
  bases = jnp.zeros((len(starts), steps, starts.shape[1]), starts.dtype)

  def step(carry, k):
    bases, vectors, scales = carry
    bases = bases.at[:, k].set(vectors)
    alphas, betas, vectors, scales = jax.vmap(_step, (0, None, 0, 0))(
      bases, k, products(vectors), scales
    )
    return (bases, vectors, scales), (alphas, betas)

  first = bases, vectors, jnp.zeros(len(starts), starts.dtype)
  (bases, vectors, _), (alphas, betas) = jax.lax.scan(
    step, first, jnp.arange(steps)
  )
  return alphas.T, betas.T, bases, vectors


def _computed(jaxpr: core.Jaxpr) -> float:
  """Returns how many numbers a jaxpr computes; inf with a convolution or loop.

  Both are slower inside another loop of XLA's.
  """
  total = 0.0
  for equation in jaxpr.eqns:
    if equation.primitive.name in _SLOW:
      return float('inf')
    inner = _inner(equation.params.values())
    total += (
      sum(map(_computed, inner))
      if inner
      else sum(variable.aval.size for variable in equation.outvars)
    )
  return total


def _inner(values: Iterable[Any]) -> list[core.Jaxpr]:
  """Returns the jaxprs among the parameters of an equation."""
  kinds = core.Jaxpr | core.ClosedJaxpr
  flat = jax.tree.leaves(list(values), is_leaf=lambda x: isinstance(x, kinds))
  return [
    x.jaxpr if isinstance(x, core.ClosedJaxpr) else x
    for x in flat
    if isinstance(x, kinds)
  ]
