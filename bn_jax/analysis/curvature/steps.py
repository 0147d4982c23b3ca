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


class Measured(NamedTuple):
  """The outermost pair of each end, by a product of its own.

  Attributes:
    is_there: whether the steps came to their goal; the others are zeros if not.
    vectors: [E, n], of length 1.
    quotients: [E, 2], v'Av and |A v - (v'Av) v|.
    shares: [E], of |gradient|^2 along the vector.
  """

  is_there: jax.Array
  vectors: jax.Array
  quotients: jax.Array
  shares: jax.Array


@functools.partial(jax.jit, static_argnames=('goal', 'most'))
def first(
  linearise: operators.Linearise,
  start: jax.Array,
  last: int,
  *,
  goal: convergence.Goal,
  most: int,
) -> tuple[State, Measured | None]:
  """Does steps from a vector to the goal, or until there are `last`.

  Args:
    linearise: see `operators.Operator`.
    start: [n], of any length but 0.
    last: `most` at most.
    goal: of one pair at an end, which is then measured; else of more.
    most: rows of the basis.
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
) -> tuple[State, Measured | None]:
  """Does at least one step more, and goes on as `first` does.

  Args:
    is_first: whether all steps are those of one beginning, in one basis.
  """
  return _grown(linearise, state, last, goal, is_first)


def _grown(linearise, state, last, goal, is_first):
  product, gradient = linearise()

  def step(carry):
    state, *_ = carry
    k = state.size
    basis = state.basis.at[k].set(state.following)
    column, rest, following, scale = projected(
      basis, product(state.following), state.scale
    )
    state = State(
      k + 1, basis, state.matrix.at[k].set(column), state.rests.at[k].set(rest),
      following, scale,
    )  # fmt: skip
    return state, *_looked(state, goal, is_first)

  def goes_on(carry):
    state, is_done, _ = carry
    return (state.size < last) & ~is_done

  rows = jnp.zeros((len(goal.ends), len(state.basis)), state.basis.dtype)
  state, is_done, rows = jax.lax.while_loop(
    goes_on, step, (state, jnp.bool_(False), rows)
  )
  if not goal.one_will_do:
    return state, None

  def measured():
    vectors = combined((state.basis,), rows)
    quotients = jax.lax.map(lambda v: quotient(v, product(v)), vectors)
    shares = jax.lax.map(lambda v: share(v[None], gradient), vectors)
    return Measured(is_done, vectors, quotients, shares)

  nothing = functools.partial(
    jax.tree.map, lambda x: jnp.zeros(x.shape, x.dtype),
    jax.eval_shape(measured),
  )  # fmt: skip
  return state, jax.lax.cond(is_done, measured, nothing)


def _looked(state, goal, is_first):
  """Returns whether the goal is reached, and by which rows; or not yet."""
  most = len(state.basis)
  sizes = [size for size in _SIZES if size < most]
  looks = [
    functools.partial(_look, state, goal, is_first, size)
    for size in (*sizes, most)
  ]
  later = lambda: (
    ~(state.rests[state.size - 1] > 0),
    jnp.zeros((len(goal.ends), most), state.basis.dtype),
  )
  number = sum((state.size > size).astype(int) for size in sizes)
  if most > _SIZES[-1]:
    is_due = (state.size <= _SIZES[-1]) | (state.size % _STRIDE == 0)
    number = jnp.where(is_due, number, len(looks))
  return jax.lax.switch(number, [*looks, later])


def _look(state, goal, is_first, size):
  """Returns `_looked` by so many rows, `state.size` of which are there."""
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
  has_ended = ~(rests[last] > 0)
  outermost = {'largest': vectors[:, -1], 'smallest': vectors[:, 0]}
  rows = jnp.stack([outermost[end] for end in goal.ends])
  rows = jnp.pad(rows, ((0, 0), (0, len(state.basis) - size)))
  return is_done | has_ended, rows


@jax.jit
def begun(start: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Returns (the first vector, a scale of 0)."""
  return start / trees.norm(start), jnp.zeros((), start.dtype)


@jax.jit
def projected(
  basis: lanczos.Basis, image: jax.Array, scale: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
  """Returns `lanczos.orthogonal` of an image, and the scale with it."""
  scale = jnp.maximum(scale, trees.norm(image))
  return *lanczos.orthogonal(basis, image, scale), scale


@jax.jit
def combined(blocks: tuple[jax.Array, ...], rows: jax.Array) -> jax.Array:
  """Returns combinations of a basis in blocks, of length 1."""
  vectors = lanczos.combination(rows, blocks)
  norms = jnp.linalg.norm(vectors, axis=1, keepdims=True)
  return vectors / jnp.where(norms > 0, norms, 1)


@jax.jit
def quotient(vector: jax.Array, image: jax.Array) -> jax.Array:
  """Returns v'Av and |A v - (v'Av) v| of a v of length 1."""
  value = trees.vdot(vector, image)
  return jnp.stack([value, trees.norm(image - value * vector)])


@jax.jit
def share(vectors: jax.Array, gradient: jax.Array) -> jax.Array:
  """Returns |V g|^2 / |g|^2 for orthonormal rows V."""
  along = vectors @ gradient
  ratio = trees.ratio(trees.vdot(along, along), trees.vdot(gradient, gradient))
  return jnp.minimum(ratio, 1)
