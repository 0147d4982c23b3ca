"""Values, gradients and Hessian products of a loss, one compiled program each.

A loss is any function of a tree of parameters that JAX can differentiate. One
in chunks is taken chunk by chunk, on the host: XLA's CPU convolution gradients
are 12 to 30 times slower inside a loop of its own (jax#12868).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bn_jax import trees, types
from bn_jax.analysis import chunks

Loss = chunks.Loss


def check_params(params: Any) -> None:
  """Raises ValueError unless all parameters are real floating-point arrays."""
  leaves = jax.tree.leaves(params)
  if not leaves:
    raise ValueError('there are no parameters; give a tree of arrays')
  for path, leaf in zip(trees.paths(params), leaves):
    try:
      dtype = jnp.result_type(leaf)
    except TypeError:
      raise ValueError(
        f'parameter {path!r} is a {type(leaf).__name__}; allowed: arrays of '
        'floating point (close over what is not trained)'
      ) from None
    if not jnp.issubdtype(dtype, jnp.floating):
      raise ValueError(
        f'parameter {path!r} is {dtype}; allowed: floating point (close over '
        'what is not trained)'
      )


def check_like(params: Any, tree: Any, what: str) -> None:
  """Raises ValueError unless a tree has the structure and shapes of params."""
  if jax.tree.structure(tree) != jax.tree.structure(params):
    raise ValueError(f'the {what} is another tree than the parameters')
  for path, leaf, other in zip(
    trees.paths(params), jax.tree.leaves(params), jax.tree.leaves(tree)
  ):
    if jnp.shape(leaf) != jnp.shape(other):
      raise ValueError(
        f'the {what} of {path!r} has shape {jnp.shape(other)}; the parameter '
        f'has {jnp.shape(leaf)}'
      )


def value(
  loss: Loss,
  params: Any,
  journal: types.Journal | None = None,
  name: str = 'value',
) -> jax.Array:
  """The loss, a scalar; chunks that the journal has are not taken again."""
  return _summed(_value, loss, params, (), None, journal, name)


def value_and_gradient(
  loss: Loss,
  params: Any,
  journal: types.Journal | None = None,
  name: str = 'gradient',
) -> tuple[jax.Array, Any]:
  """(the loss, its gradient, a tree like params).

  Args:
    loss: whole, or in chunks.
    params: where.
    journal: keeps the sum over chunks, under `name`, after each of them.
    name: of it.

  Raises:
    ValueError: a loss that is not a real scalar, or cannot be differentiated.
  """
  return _summed(_value_and_gradient, loss, params, (), params, journal, name)


def hessian_product(
  loss: Loss,
  params: Any,
  direction: Any,
  journal: types.Journal | None = None,
  name: str = 'product',
) -> Any:
  """The Hessian of the loss times a direction, a tree like params."""
  try:
    return _summed(_product, loss, params, (direction,), params, journal, name)[
      1
    ]
  except TypeError as error:
    # A custom_vjp knows no forward mode; reverse over reverse needs none.
    if 'custom_vjp' not in str(error):
      raise
    return _summed(
      _product_backwards, loss, params, (direction,), params, journal, name
    )[1]


def memory(loss: Loss, params: Any) -> int:
  """Bytes that the value and gradient of a loss need, beside its arguments.

  Of a loss in chunks, of its first part. It is compiled for this.
  """
  part = chunks.parts_of(loss)[0][0]
  with jax.default_matmul_precision('highest'):
    found = _value_and_gradient.lower(part, params).compile().memory_analysis()
  return found.temp_size_in_bytes + found.output_size_in_bytes


def _summed(function, loss, params, more, like, journal, name):
  """The sum over parts of share * function(part, params, *more).

  The function gives a scalar, or (a scalar, a tree like `like`).
  """
  parts, shares = chunks.parts_of(loss)
  done, total = _taken_up(journal, name, like)
  for k in range(done, len(parts)):
    before = total
    with jax.default_matmul_precision('highest'):
      part = _explained(function, parts[k], params, *more)
    if len(parts) == 1:
      total = part
    else:
      total = (
        _scaled(part, shares[k]) if k == 0 else _added(before, part, shares[k])
      )
      # Else the host runs ahead, and holds a gradient for each chunk.
      jax.block_until_ready(before)
    if journal is not None:
      arrays = map(np.asarray, jax.tree.leaves(total))
      kept = {f'{i}': array for i, array in enumerate(arrays)}
      journal.keep(name, {**kept, 'chunks': np.array(k + 1)})
  return total


def _taken_up(journal, name, like) -> tuple[int, Any]:
  """How many chunks were taken, and their sum."""
  kept = None if journal is None else journal.kept(name)
  if kept is None:
    return 0, None
  done = int(kept['chunks'])
  scalar, *rest = (jnp.asarray(kept[f'{i}']) for i in range(len(kept) - 1))
  if like is None:
    return done, scalar
  return done, (scalar, jax.tree.unflatten(jax.tree.structure(like), rest))


def _explained(function, part, *arguments):
  """function(part, *arguments), or one line on why the loss has no gradient."""
  try:
    return function(part, *arguments)
  except (TypeError, ValueError, NotImplementedError) as error:
    why = _why(part, arguments[0], error)
    if why is None:
      raise
    raise ValueError(why) from error


def _why(part, params, error: Exception) -> str | None:
  """Why a loss has no derivative; None where that is not what went wrong."""
  said = str(error)
  if said.startswith('the loss ') or 'custom_vjp' in said:
    return None
  try:
    jax.eval_shape(part, params)
  except Exception:
    return None  # the loss itself fails: its own message says more
  line = said.strip().splitlines()
  return (
    'the loss cannot be differentiated by JAX '
    f'({line[0][:200] if line else type(error).__name__})'
  )


def _checked(loss):
  """The loss, refused where it is no real scalar, before it is compiled."""

  def checked(params):
    value = jnp.asarray(loss(params))
    if jnp.shape(value) or not jnp.issubdtype(value.dtype, jnp.floating):
      raise ValueError(
        f'the loss is {value.dtype}{list(jnp.shape(value))}; it must be a real '
        'scalar'
      )
    return value

  return checked


@jax.jit
def _value(loss: Loss, params: Any):
  return _checked(loss)(params)


@jax.jit
def _value_and_gradient(loss: Loss, params: Any):
  return jax.value_and_grad(_checked(loss))(params)


@jax.jit
def _product(loss: Loss, params: Any, direction: Any):
  """(0, H d): the derivative of the gradient along d."""
  gradient = jax.grad(_checked(loss))
  along = _like(direction, params)
  return jnp.zeros(()), jax.jvp(gradient, (params,), (along,))[1]


@jax.jit
def _product_backwards(loss: Loss, params: Any, direction: Any):
  """(0, H d): the gradient of <gradient, d>."""
  along = _like(direction, params)

  def inner(params):
    gradient = jax.grad(_checked(loss))(params)
    return trees.vdot(gradient, along)

  return jnp.zeros(()), jax.grad(inner)(params)


def _like(direction, params):
  """The direction in the dtypes of the parameters."""
  return jax.tree.map(lambda d, p: d.astype(p.dtype), direction, params)


@jax.jit
def _scaled(part, share):
  return jax.tree.map(lambda x: (share * x).astype(x.dtype), part)


@jax.jit
def _added(total, part, share):
  return trees.add_scaled(total, share, part)
