"""Reduces a symmetric operator to tridiagonal form by Lanczos' method.

Lanczos (1950); Golub and Van Loan, "Matrix Computations", chapter 10. Rounding
costs the plain recursion its orthogonality as soon as an eigenvalue has
converged, and copies of it appear. Here every new vector is orthogonalised
against all earlier ones, twice, which is enough (Parlett, "The Symmetric
Eigenvalue Problem", section 6.9).

The loop is in Python, but for small products without convolutions: in a loop of
XLA's, convolutions are many times slower on the CPU (jax#12868). What else
saves time on small networks is several start vectors side by side: they share
the dispatch of each operation.

SciPy solves the small matrices, since it gives their eigenvectors, which
jax.scipy does not. matfree 0.6's `tridiag_sym` goes on where the space has
ended, and divides by rounding.
"""

import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from bn_jax import checks, trees

# The Krylov space ends where a new vector is this small, in units of the
# rounding of its dtype and of the largest |A v|. What is left then is rounding
# of the product, which was 0.1 to 0.3 units for two small networks with Batch
# Normalization in float32; deeper ones have more.
_ROUNDING = 32
# Numbers that a product with all vectors side by side computes at most. Of
# perceptrons with Batch Normalization of 922 and 9,098 parameters 10 vectors
# took 0.2 to 0.8 of the time of one after the other with up to 2^21.6 numbers,
# and 1.1 to 1.6 with 2^24.8.
_NUMBERS = 2**22
_BASES = 2**22  # numbers of all their bases
# A convolution with a kernel for each vector is one of many groups, which XLA's
# CPU takes one by one.
_ALONE = ('conv_general_dilated',)


# [m, n], or blocks of its rows.
Basis = jax.Array | tuple[jax.Array, ...]


class Operator(Protocol):
  """Describes what is asked of an operator: `operators.Operator` has it.

  Attributes:
    size: n.
    product: [n] -> [n], linear and symmetric.
    products: [p, n] -> [p, n], the same of p vectors side by side.
    numbers: how many a product computes; inf with a convolution.
    linearise: None, or () -> (product, anything), to be called in a program.
  """

  size: int
  product: Any
  products: Any
  numbers: float
  linearise: Any


class Tridiagonal(NamedTuple):
  """The tridiagonal matrix T = Q A Q' of an operator A, and its basis Q.

  With A Q' = Q' T + residual * following e_m', a pair (theta, y) of T gives a
  pair (theta, Q' y) of A whose residual has the norm residual * |y_m|.

  Attributes:
    alphas: [m] float64, the diagonal; m is smaller than the steps asked for
      where the Krylov space ends before. Rounding may lead out of a space that
      has ended: an eigenvalue of the matrix that is double then comes twice.
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

  `fitting` says how many at a time are fast.
  """
  checks.count('steps', steps)
  _check_starts(operator, starts)
  with jax.default_matmul_precision('highest'):
    return _steps(operator, starts, min(steps, operator.size))


def fitting(operator: Operator, steps: int = 1) -> int:
  """Returns how many vectors may be taken side by side: 1 with convolutions.

  Args:
    steps: how many rows the basis of each has.
  """
  most = _BASES // (min(steps, operator.size) * operator.size)
  return max(1, min(most, int(_NUMBERS // max(operator.numbers, 1))))


def primitives(jaxpr: core.Jaxpr) -> set[str]:
  """Returns the names of all operations of a jaxpr, and of those inside it."""
  return {equation.primitive.name for equation in _equations(jaxpr)}


def rounding(jaxpr: core.Jaxpr) -> float:
  """Returns the largest unit of rounding of what operations of it compute."""
  dtypes = {
    dtype
    for equation in _equations(jaxpr)
    for variable in equation.outvars
    if (dtype := getattr(variable.aval, 'dtype', None)) is not None
  }
  return max(
    (
      float(jnp.finfo(dtype).eps)
      for dtype in dtypes
      if jnp.issubdtype(dtype, jnp.floating)
    ),
    default=0.0,
  )


@jax.jit
def orthogonal(
  basis: Basis, vector: jax.Array, scale: jax.Array | float
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Returns what is left of a vector that is orthogonal to a basis.

  Args:
    basis: [m, n], orthonormal rows, or zeros for those that are still to come;
      or blocks of such.
    vector: [n].
    scale: the largest |A v| up to now, by which the end is told.

  Returns:
    (coefficients [m] of the vector in the basis; the norm of the rest, and its
    direction [n], both 0 where the rest is but rounding).
  """
  blocks = basis if isinstance(basis, tuple) else (basis,)
  coefficients = _along(blocks, vector)
  once = vector - combination(coefficients, blocks)
  again = _along(blocks, once)
  rest = once - combination(again, blocks)
  norm, before = trees.norm(rest), trees.norm(once)
  least = _ROUNDING * jnp.finfo(vector.dtype).eps * scale
  # What the second pass still changes was in the span: there is no rest.
  is_rest = (norm > least) & (norm > before / 2)
  norm = jnp.where(is_rest, norm, 0)
  unit = jnp.where(is_rest, rest / jnp.where(is_rest, norm, 1), 0)
  return coefficients + again, norm, unit


def _along(blocks, vector):
  parts = [block @ vector for block in blocks]
  return parts[0] if len(parts) == 1 else jnp.concatenate(parts)


def combination(rows: jax.Array, blocks: Sequence[jax.Array]) -> jax.Array:
  """Returns rows, [m] or [p, m], times a basis [m, n] that lies in blocks."""
  ends = np.cumsum([len(block) for block in blocks])
  parts = jnp.split(rows, ends[:-1], axis=-1) if len(blocks) > 1 else [rows]
  return sum(part @ block for part, block in zip(parts, blocks))  # pyright: ignore[reportReturnType]  # of one or more


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
    # Imported late: a start of training need not wait a half second for it.
    from scipy import linalg

    values, vectors = linalg.eigh_tridiagonal(matrix.alphas, matrix.betas)
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
  basis = basis if size == len(basis) else basis[:size]
  return Tridiagonal(alphas, betas[:-1], basis, float(betas[-1]), following)


def _steps(
  operator: Operator, starts: jax.Array, steps: int
) -> list[Tridiagonal]:
  """Computes the steps from each start vector, to where the last space ends."""
  do = _in_python if operator.linearise is None else _in_a_program
  alphas, betas, bases, vectors = do(operator, starts, steps)
  alphas, betas = map(np.array, jax.device_get((alphas, betas)))
  if len(starts) > 1:
    return list(map(_cut, alphas.T, betas.T, bases, vectors))
  return [_cut(alphas, betas, bases, vectors)]


def _in_python(operator, starts, steps):
  """Returns (alphas, betas, bases, the next vectors)."""
  product = operator.products if len(starts) > 1 else operator.product
  bases, vectors, scales = _begun(starts, steps)
  alphas, betas = [], []
  for k in range(steps):
    bases = _with_row(bases, k, vectors)
    alpha, beta, vectors, scales = _step(bases, k, product(vectors), scales)
    alphas.append(alpha)
    betas.append(beta)
    # The step before is done while this one runs, so nothing waits; and Python
    # stays at most one product ahead of the device.
    if k and not (np.asarray(betas[-2]) > 0).any():
      break
  return alphas, betas, bases, vectors


def _in_a_program(operator, starts, steps):
  return _all_steps(operator.linearise, starts, steps)


@functools.partial(jax.jit, static_argnums=2)
def _all_steps(linearise, starts, steps):
  """Does what `_in_python` does; steps beyond the end of a space are zeros."""
  product, _ = linearise()
  products = jax.vmap(product) if len(starts) > 1 else product

  def step(k, carry):
    alphas, betas, bases, vectors, scales = carry
    bases = _with_row(bases, k, vectors)
    alpha, beta, vectors, scales = _step(bases, k, products(vectors), scales)
    return (
      alphas.at[k].set(alpha),
      betas.at[k].set(beta),
      bases,
      vectors,
      scales,
    )

  bases, vectors, scales = _begun(starts, steps)
  empty = jnp.zeros((steps, *scales.shape), scales.dtype)
  return jax.lax.fori_loop(
    0, steps, step, (empty, empty, bases, vectors, scales)
  )[:4]


@functools.partial(jax.jit, static_argnums=1)
def _begun(starts, steps):
  """Returns (bases without a row, vectors of length 1, scales)."""
  vectors = starts / jax.vmap(trees.norm)(starts)[:, None]
  # One vector has no axis of vectors: matrix products are slower with it.
  vectors = vectors if len(starts) > 1 else vectors[0]
  *several, size = vectors.shape
  bases = jnp.zeros((*several, steps, size), vectors.dtype)
  return bases, vectors, jnp.zeros(several, vectors.dtype)


@functools.partial(jax.jit, donate_argnums=0)
def _with_row(bases, k, rows):
  return bases.at[..., k, :].set(rows)


@jax.jit
def _step(bases, k, images, scales):
  """Returns (alphas, betas, the next vectors, scales) from A times rows k."""

  def of_one(basis, image, scale):
    scale = jnp.maximum(scale, trees.norm(image))
    coefficients, beta, following = orthogonal(basis, image, scale)
    return coefficients[k], beta, following, scale

  of_all = jax.vmap(of_one) if bases.ndim == 3 else of_one
  return of_all(bases, images, scales)


def computed(jaxpr: core.Jaxpr) -> float:
  """Returns how many numbers a jaxpr computes; inf with a convolution."""
  total = 0.0
  for equation in jaxpr.eqns:
    if equation.primitive.name in _ALONE:
      return float('inf')
    inner = _inner(equation.params.values())
    total += (
      sum(map(computed, inner))
      if inner
      else sum(getattr(v.aval, 'size', 0) for v in equation.outvars)
    )
  return total


def _equations(jaxpr: core.Jaxpr) -> Iterator[core.JaxprEqn]:
  """Yields the equations of a jaxpr, and of those inside it."""
  for equation in jaxpr.eqns:
    yield equation
    for inner in _inner(equation.params.values()):
      yield from _equations(inner)


def _inner(values: Iterable[Any]) -> list[core.Jaxpr]:
  """Returns the jaxprs among the parameters of an equation."""
  closed = core.ClosedJaxpr  # pyright: ignore[reportPrivateImportUsage]  # jax 0.12 forgot it
  kinds = core.Jaxpr | closed
  flat = jax.tree.leaves(list(values), is_leaf=lambda x: isinstance(x, kinds))
  return [
    x.jaxpr if isinstance(x, closed) else x
    for x in flat
    if isinstance(x, kinds)
  ]
