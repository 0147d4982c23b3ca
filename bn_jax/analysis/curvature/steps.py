"""Does the steps of Lanczos' method up to a goal in one program.

For products that are small: a program of one, and a look at what has come of
it, would take several times as long as they do. The looks are inside, too.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bn_jax import trees
from bn_jax.analysis.curvature import convergence, lanczos, operators

# The eigenvectors of 8 and of 16 dimensions take 4 and 16 us, those of 40 take
# 83: nearly as long as a product of the smallest networks. So there they are
# looked at after some steps only.
_SIZES, _STRIDE = (8, 16), 4


class State(NamedTuple):
  """How far the method is.

  Attributes:
    size: steps, or dimensions of the space.
    basis: [m, n]; zeros from row `size` on.
    matrix: [m, m], of the operator; what is above its diagonal does not count.
    rests: [m], of each step.
    following: [n], the next row.
    scale: the largest |A v| so far.
  """

  size: jax.Array
  basis: jax.Array
  matrix: jax.Array
  rests: jax.Array
  following: jax.Array
  scale: jax.Array


@functools.partial(jax.jit, static_argnames=('goal', 'most'))
def first(
  linearise: operators.Linearise,
  start: jax.Array,
  last: int,
  *,
  goal: convergence.Goal,
  most: int,
) -> tuple[State, jax.Array]:
  """Does steps from a vector to the goal, or until there are `last`.

  Args:
    linearise: see `operators.Operator`.
    start: [n], of any length but 0.
    last: `most` at most.
    most: rows of the basis.

  Returns:
    (how far it is, the gradient [n]).
  """
  zeros = functools.partial(jnp.zeros, dtype=start.dtype)
  unit, scale = begun(start)
  state = State(
    jnp.int32(0), zeros((most, len(start))), zeros((most, most)), zeros(most),
    unit, scale,
  )  # fmt: skip
  return _grown(linearise, state, last, goal, True)


@functools.partial(
  jax.jit, static_argnames=('goal', 'is_first'), donate_argnames='state'
)
def further(
  linearise: operators.Linearise,
  state: State,
  last: int,
  *,
  goal: convergence.Goal,
  is_first: bool,
) -> tuple[State, jax.Array]:
  """Does at least one step more, and goes on as `first` does.

  Args:
    is_first: whether all steps are those of one beginning, in one basis.
  """
  return _grown(linearise, state, last, goal, is_first)


def _grown(linearise, state, last, goal, is_first):
  product, gradient = linearise()

  def step(carry):
    state, _ = carry
    k = state.size
    basis = state.basis.at[k].set(state.following)
    column, rest, following, scale = projected(
      basis, product(state.following), state.scale
    )
    state = State(
      k + 1, basis, state.matrix.at[k].set(column), state.rests.at[k].set(rest),
      following, scale,
    )  # fmt: skip
    return state, _is_done(state, goal, is_first)

  def goes_on(carry):
    state, is_done = carry
    return (state.size < last) & ~is_done

  state, _ = jax.lax.while_loop(goes_on, step, (state, jnp.bool_(False)))
  return state, gradient


def _is_done(state, goal, is_first):
  """Returns whether the goal is reached; False where it is not looked at."""
  sizes = [size for size in _SIZES if size < len(state.basis)]
  looks = [
    functools.partial(_look, state, goal, is_first, size)
    for size in (*sizes, len(state.basis))
  ]
  number = sum((state.size > size).astype(int) for size in sizes)
  if len(looks) > len(_SIZES):
    is_due = (state.size <= _SIZES[-1]) | (state.size % _STRIDE == 0)
    number = jnp.where(is_due, number, len(looks))
  has_ended = ~(state.rests[state.size - 1] > 0)
  return has_ended | jax.lax.switch(number, [*looks, lambda: jnp.bool_(False)])


def _look(state, goal, is_first, size):
  """Returns `_is_done` by so many rows, `state.size` of which are there."""
  matrix, rests = state.matrix[:size, :size], state.rests[:size]
  is_there = jnp.arange(size) < state.size
  # A mean of values is not the outermost of them: so the rows to come are not.
  mean = jnp.sum(jnp.diagonal(matrix)) / state.size
  padded = matrix + jnp.diag(jnp.where(is_there, 0, mean))
  values, vectors = jnp.linalg.eigh(padded, symmetrize_input=False)
  is_pair = is_there @ jnp.square(vectors) > 0.5
  last = state.size - 1
  residuals = jnp.where(is_pair, rests[last] * jnp.abs(vectors[last]), jnp.inf)
  largest = jnp.abs(values).max()
  least = convergence.least_tolerance(state.basis.dtype)
  aims = convergence.aims(
    convergence.scales(goal, values[-1], largest, least, jnp), largest, least,
    jnp,
  )  # fmt: skip
  is_done = jnp.bool_(True)
  for end, aim in aims.items():
    outermost = residuals[::-1] if end == 'largest' else residuals
    is_done &= outermost[: goal.count].max() <= aim
  if is_first:
    for value in convergence.beyond(goal, values, largest):
      distances = jnp.where(is_pair, jnp.abs(value - values), 1)
      is_done &= ~convergence.is_likely(
        jnp.where(is_there, rests, 1), distances, len(state.following), jnp
      )
  return is_done


@jax.jit
def begun(start: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Returns (the first vector, a scale of 0)."""
  return start / trees.norm(start), jnp.zeros((), start.dtype)


@jax.jit
def projected(
  basis: lanczos.Basis, image: jax.Array, scale: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
  """Returns `lanczos.orthogonal` of an image, and the scale with it.

  The rest is nan, so that nothing has converged, where a norm overflows.
  """
  scale = jnp.maximum(scale, trees.norm(image))
  column, rest, following = lanczos.orthogonal(basis, image, scale)
  rest = jnp.where(jnp.isfinite(scale), rest, jnp.nan)
  return column, rest, following, scale
