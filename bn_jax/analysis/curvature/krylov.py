"""Grows the Krylov space of a symmetric operator, with its matrix in the space.

The basis is orthogonalised in full. When it is as large as memory should hold,
it is replaced by its best Ritz vectors and goes on from there: Wu and Simon
(2000), "Thick-restart Lanczos method for large symmetric eigenvalue problems".

Where products are small, the steps up to a goal are one program, as their
dispatch would take longer than they do. Else each product is a program, the
basis lies in blocks of a few rows, which nothing copies as it grows, and its
combinations are computed a few columns at a time: the memory is that of the
basis and three vectors.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bn_jax import types
from bn_jax.analysis.curvature import (
  convergence,
  lanczos,
  operators,
  pieces,
)
from bn_jax.analysis.curvature import steps as steps_lib

_ROWS = 8  # of a block of the basis: rows to come would cost passes
_COLUMNS = 2**14  # of the basis that are combined at a time
# Bytes of vectors that a journal keeps of one search at most.
_KEPT = 2**31


def step_name(number: int) -> str:
  """Returns under which name a journal has a step, the first being 0."""
  return f'step_{number}'


class Ritz(NamedTuple):
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


class Space:
  """Holds a basis, and the operator's matrix in it.

  Attributes:
    size: dimensions now.
    most: dimensions that memory should hold.
    steps: the products of each beginning.
  """

  def __init__(
    self,
    operator: operators.Operator,
    start: jax.Array,
    key: jax.Array,
    goal: convergence.Goal,
    most: int,
    *,
    journal: types.Journal | None = None,
  ):
    """Takes where to begin, and what for.

    Args:
      operator: symmetric, n x n.
      start: [n], not zero.
      key: of the random vectors of further beginnings.
      goal: of the steps that are one program.
      most: dimensions that memory should hold.
      journal: keeps the steps whose products are programs.
    """
    self._operator, self._key, self._goal = operator, key, goal
    self._journal = journal
    self.dtype = operator.dtype
    self.most = min(operator.size, most)
    self._is_small = operator.linearise is not None
    self._blocks: tuple[jax.Array, ...] = ()
    self._next, self._scale = start, None
    self._matrix = np.zeros((self.most, self.most))
    self._rests = np.zeros(self.most)  # of the steps, until the first restart
    self._shares = np.zeros(self.most)  # 1 for rows of this beginning
    self._is_first, self._ritz = True, None
    self.size, self.steps, self._gradient = 0, [0], None

  def is_whole(self) -> bool:
    """Returns whether the space has every dimension."""
    return self.size == self._operator.size

  def has_ended(self) -> bool:
    """Returns whether the operator maps the space into itself."""
    return self.size > 0 and not self._rest() > 0

  def may_miss(self, values: Sequence[float]) -> bool:
    """Returns whether one of these may be an eigenvalue that does not show.

    False as soon as the space was restarted or begun anew.
    """
    ritz = self.ritz()
    return self._is_first and any(
      convergence.is_likely(
        self._rests[: self.size], np.abs(value - ritz.values),
        self._operator.size, np,
      )
      for value in values
    )  # fmt: skip

  def grow(self, most: int) -> None:
    """Adds a dimension by one product, or those up to the goal by one program.

    Args:
      most: products at most.
    """
    if self.size == self.most:
      self._keep(self.ritz(), self._best())
    if self._is_small:
      self._grow_to_goal(min(self.size + most, self.most))
    else:
      self._grow_by_one()

  def _grow_by_one(self) -> None:
    if self._scale is None:
      self._next, self._scale = steps_lib.begun(self._next)
    self._add_row()
    step = pieces.piece(self._kept(), step_name(sum(self.steps)), self._step)
    self._next, self._scale = map(jnp.asarray, (step['next'], step['scale']))
    self._add(np.asarray(step['column']), float(step['rest']))

  def _step(self) -> dict[str, jax.Array]:
    image = self._operator.product(self._next)
    names = 'column', 'rest', 'next', 'scale'
    return dict(
      zip(names, steps_lib.projected(self._blocks, image, self._scale))
    )

  def _kept(self) -> types.Journal | None:
    """Returns the journal, while it does not take too much of a disk."""
    size = self._operator.size * jnp.dtype(self.dtype).itemsize
    return self._journal if (sum(self.steps) + 1) * size <= _KEPT else None

  def _add_row(self) -> None:
    number, k = divmod(self.size, _ROWS)
    blocks, self._blocks = list(self._blocks), ()  # one of them is donated
    if number == len(blocks):
      shape = min(_ROWS, self.most - self.size), self._operator.size
      blocks.append(jnp.zeros(shape, self.dtype))
    blocks[number] = _with_row(blocks[number], k, self._next)
    self._blocks = tuple(blocks)

  def _grow_to_goal(self, last: int) -> None:
    first, linearise = self.size, self._operator.linearise
    if self._scale is None:
      state, self._gradient = steps_lib.first(
        linearise, self._next, last, goal=self._goal, most=self.most
      )
    else:
      cast = functools.partial(jnp.asarray, dtype=self.dtype)
      state = steps_lib.State(
        jnp.int32(first), self._blocks[0], cast(self._matrix),
        cast(self._rests), self._next, self._scale,
      )  # fmt: skip
      self._blocks = ()
      state, self._gradient = steps_lib.further(
        linearise, state, last, goal=self._goal, is_first=self._is_first
      )
    self._blocks = (state.basis,)
    self._next, self._scale = state.following, state.scale
    columns, rests = np.asarray(state.matrix), np.asarray(state.rests)
    for k in range(first, int(state.size)):
      self._add(columns[k], float(rests[k]))

  def _add(self, coefficients: np.ndarray, rest: float) -> None:
    """Notes the operator's column of a new dimension."""
    k = self.size
    column = np.asarray(coefficients, np.float64)[: k + 1]
    self._matrix[: k + 1, k] = self._matrix[k, : k + 1] = column
    self._shares[k], self._rests[k] = 1, rest
    self.size, self._ritz = k + 1, None
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
    normal = random(self._operator, self._key, len(self.steps))
    _, _, self._next = lanczos.orthogonal(self._blocks, normal, 0.0)

  def _rest(self) -> float:
    return self._rests[self.size - 1]

  def ritz(self) -> Ritz:
    """Returns the eigenpairs in the space; nan where products are."""
    if self._ritz is None:
      self._ritz = self._pairs()
    return self._ritz

  def _pairs(self) -> Ritz:
    matrix = self._matrix[: self.size, : self.size]
    if not np.isfinite(matrix).all():
      unknown = np.full(self.size, np.nan)
      return Ritz(unknown, np.eye(self.size), unknown, unknown)
    values, columns = np.linalg.eigh(matrix)
    rows = columns.T
    return Ritz(
      values, rows, self._rest() * np.abs(rows[:, -1]),
      np.square(rows) @ self._shares[: self.size],
    )  # fmt: skip

  def gradient(self) -> jax.Array:
    """Returns the gradient of the operator, [n]."""
    if self._gradient is None:
      self._gradient = self._operator.gradient()
    return self._gradient

  def combination(
    self, numbers: Sequence[int]
  ) -> tuple[tuple[jax.Array, ...], np.ndarray]:
    """Returns (basis in blocks, rows): their products are Ritz vectors."""
    return self._blocks, self._padded(self.ritz(), numbers)

  def _best(self) -> list[int]:
    """Returns which Ritz vectors of a full basis survive: half of all.

    They are from both ends, as the largest |value| is asked for at each.
    """
    quarter = self.most // 4
    return [*range(quarter), *range(self.most - quarter, self.most)]

  def _keep(self, ritz, numbers):
    rows = self._padded(ritz, numbers)
    blocks, self._blocks = self._blocks, ()  # they are donated
    blocks = _replaced(blocks, rows)
    least = max(1, -(-len(rows) // _ROWS))
    self._blocks = blocks if self._is_small else blocks[:least]
    self._matrix[:] = 0
    np.fill_diagonal(self._matrix, [*ritz.values[numbers]] + [0] * self.most)
    self._shares[: len(numbers)] = ritz.shares[numbers]
    self._shares[len(numbers) :] = 0
    self.size, self._ritz, self._is_first = len(numbers), None, False
    self._rests[:] = 0

  def _padded(self, ritz, numbers):
    rows = np.zeros((len(numbers), sum(map(len, self._blocks))))
    rows[:, : self.size] = ritz.rows[numbers]
    return rows.astype(self.dtype)


def random(
  operator: operators.Operator, key: jax.Array, number: int
) -> jax.Array:
  """Returns a vector [n] of standard normal numbers, by a key and a number."""
  return _random(key, number, operator.size, operator.dtype)


@functools.partial(jax.jit, static_argnums=(2, 3))
def _random(key, number, size, dtype):
  return jax.random.normal(jax.random.fold_in(key, number), (size,), dtype)


@functools.partial(jax.jit, donate_argnums=0)
def _with_row(block, k, row):
  return block.at[k].set(row)


@functools.partial(jax.jit, donate_argnums=0)
def _replaced(blocks, rows):
  """Returns a basis whose first rows are `rows` times it, the others zeros."""
  size = blocks[0].shape[1]
  heights = [len(block) for block in blocks]
  rows = jnp.pad(rows, ((0, sum(heights) - len(rows)), (0, 0)))

  def on(blocks, first, width):
    parts = [
      jax.lax.dynamic_slice_in_dim(block, first, width, 1) for block in blocks
    ]
    parts = jnp.split(lanczos.combination(rows, parts), np.cumsum(heights)[:-1])
    return tuple(
      jax.lax.dynamic_update_slice_in_dim(block, part, first, 1)
      for block, part in zip(blocks, parts)
    )

  whole, rest = divmod(size, _COLUMNS)
  if whole:
    blocks = jax.lax.fori_loop(
      0, whole, lambda k, blocks: on(blocks, k * _COLUMNS, _COLUMNS), blocks
    )
  return on(blocks, whole * _COLUMNS, rest) if rest else blocks
