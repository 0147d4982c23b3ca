"""Chooses the matrices that a measure looks at, and draws vectors for them."""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from bn_jax import checks, types
from bn_jax.analysis import by_layer, chunks
from bn_jax.analysis import kind as kind_lib
from bn_jax.analysis.curvature import blocks as blocks_lib
from bn_jax.analysis.curvature import operators

_MAKERS = {
  'hessian': operators.hessian,
  'gauss_newton': operators.gauss_newton,
}
NAMES = tuple(_MAKERS)


def operator(
  matrix: str, loss: chunks.Loss, params: Any, block: blocks_lib.Block | None
) -> operators.Operator:
  """Returns the matrix of a name, of a loss at params; see `operators`.

  Raises:
    ValueError: another name; see `operators.hessian`.
  """
  checks.one_of('matrix', matrix, NAMES)
  return _MAKERS[matrix](loss, params, block)


@dataclasses.dataclass(frozen=True)
class Options:
  """Says of which matrices a measure is; the keywords of its constructor.

  Raises:
    ValueError: a keyword out of its range.
  """

  matrix: str
  blocks: Sequence[str]
  layers: Sequence[str]
  penalised: bool
  statistics: str
  chunk_size: Any  # int or None, once it is checked
  group_size: int | None

  def __post_init__(self):
    checks.one_of('matrix', self.matrix, NAMES)
    blocks_lib.check(self.blocks)
    checks.names('layers', self.layers, 'layers')
    if not self.blocks and not self.layers:
      raise checks.Refused(
        'blocks', self.blocks, 'one or more of all, norms, others, or layers'
      )
    checks.flag('penalised', self.penalised)
    checks.one_of('statistics', self.statistics, kind_lib.STATISTICS)
    size = kind_lib.checked_chunk_size(self.chunk_size, self.group_size)
    object.__setattr__(self, 'chunk_size', size)

  def operators(
    self, problem: types.Problem, state: types.TrainState, batch: types.Batch
  ) -> Iterator[tuple[blocks_lib.Block, operators.Operator]]:
    """Yields (block, its matrix) of the loss over a batch, one by one."""
    loss = self.loss(problem, state, batch)
    for block in self.blocks_of(problem, state):
      yield block, operator(self.matrix, loss, state.params, block)

  def blocks_of(
    self, problem: types.Problem, state: types.TrainState
  ) -> tuple[blocks_lib.Block, ...]:
    """Returns the blocks by name, then the layers."""
    layers = self.layers_of(problem, state)
    return blocks_lib.of(state.params, layers, self.blocks)

  def loss(
    self, problem: types.Problem, state: types.TrainState, batch: types.Batch
  ) -> chunks.Loss:
    """Returns the loss over a batch, split where the matrix needs it."""
    is_hessian = self.matrix == 'hessian'
    of_problem = chunks.of_problem if is_hessian else chunks.split_of_problem
    return of_problem(
      problem, state, batch, self.statistics, penalised=self.penalised,
      chunk_size=self.chunk_size, group_size=self.group_size,
    )  # fmt: skip

  def layers_of(
    self, problem: types.Problem, state: types.TrainState, every: bool = False
  ) -> by_layer.Layers:
    """Returns the chosen layers with their paths; for none () or every one."""
    if not self.layers:
      return problem.layers(state) if every else ()
    return by_layer.chosen(problem.layers(state), tuple(self.layers))


def signs(
  operator: operators.Operator,
  key: jax.Array,
  numbers: Sequence[int] | np.ndarray,
) -> jax.Array:
  """Returns vectors [P, n] of random signs, each by the key and its number."""
  return _drawn(
    jax.random.rademacher, operator.size, operator.dtype, key,
    np.asarray(numbers),
  )  # fmt: skip


def normals(
  operator: operators.Operator,
  key: jax.Array,
  numbers: Sequence[int] | np.ndarray,
) -> jax.Array:
  """Returns vectors [P, n] of standard normal numbers, likewise."""
  return _drawn(
    jax.random.normal, operator.size, operator.dtype, key, np.asarray(numbers)
  )


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _drawn(draw, size, dtype, key, numbers):
  keys = jax.vmap(jax.random.fold_in, (None, 0))(key, numbers)
  return jax.vmap(lambda k: draw(k, (size,), dtype))(keys)
