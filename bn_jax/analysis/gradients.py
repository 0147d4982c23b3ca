"""Computes values, gradients and Hessian products, by one program each.

A loss is any function of a tree of parameters that JAX can differentiate. The
loop over chunks is in Python: in a loop of XLA's, convolution gradients are 12
to 30 times slower on the CPU (jax#12868).
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bn_jax import checks, trees, types
from bn_jax.analysis import chunks

Loss = chunks.Loss

_NO_SCALAR = 'it must be a real scalar'


def checked(params: Any) -> Any:
  """Returns the parameters as arrays; ValueError unless floating point.

  JAX gives Python's numbers, and arrays filled with one, a "weak" type; with it
  every program would be compiled once more.
  """
  check(params)
  return jax.tree.map(
    lambda x: (
      x
      if isinstance(x, jax.Array) and not x.weak_type
      else jnp.asarray(x, jnp.result_type(x))
    ),
    params,
  )


def check(params: Any, name: str = 'parameter') -> None:
  """Raises ValueError unless all parameters are real floating-point arrays.

  Args:
    name: what the message calls one of them.
  """
  if _is_of(params, 'flax.nnx'):
    raise ValueError(
      f'the {name}s are a module of NNX, {type(params).__name__}, which has '
      'more than them; allowed: a tree of arrays, as by graph, params, rest = '
      'nnx.split(net, nnx.Param, ...), with nnx.merge(graph, params, rest, '
      'copy=True) in the loss'
    )
  leaves = jax.tree.leaves(params)
  if not leaves:
    raise ValueError('there are no parameters; give a tree of arrays')
  # The words for an error take as long as a product of a small network.
  if all(
    isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jnp.floating)
    for leaf in leaves
  ):
    return
  not_trained = (
    'by params, rest = eqx.partition(model, eqx.is_inexact_array)'
    if _is_of(params, 'equinox')
    else 'close over what is not trained'
  )
  for path, leaf in zip(trees.paths(params), leaves):
    try:
      # JAX reads a string or a class as a dtype, but neither is an array.
      is_name = isinstance(leaf, str | type | np.dtype)
      dtype = None if is_name else jnp.result_type(leaf)
    except TypeError:
      dtype = None
    if dtype is None:
      raise ValueError(
        f'{name} {path!r} is a {type(leaf).__name__}; allowed: arrays of '
        f'floating point ({not_trained})'
      )
    if not jnp.issubdtype(dtype, jnp.floating):
      raise ValueError(
        f'{name} {path!r} is {dtype}; allowed: floating point ({not_trained})'
      )


def _is_of(params: Any, library: str) -> bool:
  """Returns whether params are a `Module` of a library, as 'flax.nnx'."""
  return any(
    kind.__name__ == 'Module'
    and f'{kind.__module__}.'.startswith(f'{library}.')
    for kind in type(params).__mro__
  )


def check_like(params: Any, tree: Any, what: str) -> None:
  """Raises ValueError unless a tree is real and has the shapes of params."""
  if jax.tree.structure(tree) != jax.tree.structure(params):
    raise ValueError(
      f'the {what} is another tree than the parameters'
      f'{_difference(params, tree)}; give one like them'
    )
  for path, leaf, other in zip(
    trees.paths(params), jax.tree.leaves(params), jax.tree.leaves(tree)
  ):
    if jnp.shape(leaf) != jnp.shape(other):
      raise ValueError(
        f'the {what} of {path!r} has shape {jnp.shape(other)}; the parameter '
        f'has {jnp.shape(leaf)}'
      )
    if jnp.issubdtype(jnp.result_type(other), jnp.complexfloating):
      raise ValueError(
        f'the {what} of {path!r} is {jnp.result_type(other)}; allowed: real'
      )


def _difference(params: Any, tree: Any) -> str:
  """Returns ', without ...' or ', with ...': the first path that one lacks."""
  wanted, others = map(dict.fromkeys, map(trees.paths, (params, tree)))
  for word, paths, present in (
    ('without', wanted, others), ('with', others, wanted),
  ):  # fmt: skip
    for path in paths:
      if path not in present:
        return f', {word} {path!r}'
  return ''


def checked_like(params: Any, tree: Any, what: str) -> Any:
  """Returns a tree in the dtypes of params; raises as `check_like`."""
  check_like(params, tree, what)
  return jax.tree.map(lambda p, x: jnp.asarray(x, p.dtype), params, tree)


def is_function(direction: Any, params: Any) -> bool:
  """Returns whether a direction is a function of the gradient, not a tree.

  A tree of parameters may be callable too, as modules of some libraries are.
  """
  structure = jax.tree.structure(direction)
  is_tree = structure == jax.tree.structure(params)
  return callable(direction) and (
    not is_tree or jax.tree_util.treedef_is_leaf(structure)
  )


def real_scalar(value: Any, name: str = 'the loss') -> jax.Array:
  """Returns a loss's value as an array; ValueError unless it is one number.

  Args:
    name: what the message calls it.
  """
  try:
    # jnp.asarray would accept a tuple or a list of numbers.
    array = None if isinstance(value, tuple | list) else jnp.asarray(value)
  except (TypeError, ValueError):
    array = None
  if array is None:
    kind = f'a {type(value).__name__}'
  elif array.shape or not jnp.issubdtype(array.dtype, jnp.floating):
    kind = f'{array.dtype}{list(array.shape)}'
  else:
    return array
  raise ValueError(f'{name} is {kind}; {_NO_SCALAR}')


def real_scalars(values: Any) -> dict[str, jax.Array]:
  """Returns a loss, or a dict of it and others, as a dict of real scalars.

  Raises:
    ValueError: one that is no real scalar, or a dict without 'loss'.
  """
  if not isinstance(values, Mapping):
    return {'loss': real_scalar(values)}
  if 'loss' not in values:
    raise ValueError(
      f'the dict has {", ".join(map(repr, values)) or "nothing"}; it must have '
      "the 'loss'"
    )
  return {
    name: real_scalar(value, f'the {name}') for name, value in values.items()
  }


def value(
  loss: Loss,
  params: Any,
  journal: types.Journal | None = None,
  name: str = 'value',
) -> jax.Array:
  """Computes the loss; chunks that the journal has are not computed again."""
  return _summed(_value, loss, params, (), None, journal, name)


def value_and_gradient(
  loss: Loss,
  params: Any,
  journal: types.Journal | None = None,
  name: str = 'gradient',
) -> tuple[jax.Array, Any]:
  """Computes the loss and its gradient, a tree like params.

  Args:
    loss: params -> a real scalar, or what `chunked` returns.
    journal: keeps the sum over chunks, under `name`, after each chunk.

  Raises:
    ValueError: a loss that is not a real scalar, or cannot be differentiated.
  """
  check(params)
  return _summed(_value_and_gradient, loss, params, (), params, journal, name)


def hessian_product(
  loss: Loss,
  params: Any,
  direction: Any,
  journal: types.Journal | None = None,
  name: str = 'product',
) -> Any:
  """Computes the Hessian of the loss times a direction, a tree like params.

  Args:
    loss: params -> a real scalar, or what `chunked` returns.
    direction: a tree like params; one of zeros gives zeros.
    journal: keeps the sum over chunks, under `name`, after each chunk.

  Raises:
    ValueError: parameters that are not floating point; a direction unlike them;
      a loss that is no real scalar, or that JAX cannot differentiate twice.
  """
  params = checked(params)
  direction = checked_like(params, direction, 'direction')
  arguments = loss, params, (direction,), params, journal, name
  try:
    return _summed(_product, *arguments)[1]
  except TypeError as error:
    # A custom_vjp has no forward mode; reverse over reverse needs none.
    if 'custom_vjp' not in str(error):
      raise
    return _summed(_product_backwards, *arguments)[1]


def updates(
  problem: types.Problem,
  state: types.TrainState,
  loss: Loss,
  journal: types.Journal | None,
) -> Any:
  """Returns what the optimizer adds to the parameters for a loss's gradient.

  Args:
    journal: keeps the gradient, under 'step'.
  """
  _, gradient = value_and_gradient(loss, state.params, journal, 'step')
  look = functools.partial(value_and_gradient, loss)
  return problem.updates(state, gradient, look)


def memory(loss: Loss, params: Any) -> int:
  """Returns the bytes that a loss's gradient needs beside its arguments.

  The gradient is compiled, not run; of a loss in chunks, that of the first.
  """
  return _memory(chunks.parts_of(loss)[0][0], params)


def _memory(part: Loss, params: Any) -> int:
  with jax.default_matmul_precision('highest'):
    program = _value_and_gradient.lower(part, params).compile()
  sizes: Any = program.memory_analysis()  # CPUs, GPUs and TPUs tell
  return sizes.temp_size_in_bytes + sizes.output_size_in_bytes


def fitting_chunk_size(
  loss: Callable[[Any, Any], jax.Array],
  params: Any,
  batch: Any,
  *,
  memory: float,
  group_size: int = 1,
) -> int:
  """Returns how many examples of a batch `chunked` may take at a time.

  Gradients over about 32 and 64 examples are compiled for this, but not run.

  Args:
    loss: (batch, params) -> the mean over the examples of that batch.
    batch: a tree of arrays, [N, ...] each, or of their shapes.
    memory: bytes that a gradient may need, say half of what the device has.
    group_size: see `chunked`; the result is a multiple of it, unless all fit.

  Returns:
    N if all fit; else one group at least, even if it does not fit.
  """
  checks.number('memory', memory, least=0, any_size=True)
  checks.count('group_size', group_size)
  leaves = jax.tree.leaves(batch)

  def bytes_of(size):
    part = jax.tree.map(
      lambda leaf: jax.ShapeDtypeStruct((size, *leaf.shape[1:]), leaf.dtype),
      batch,
    )
    return _memory(jax.tree_util.Partial(loss, part), params)

  return chunks.fitting(bytes_of, leaves[0].shape[0], memory, group_size)


def _summed(function, loss, params, extras, like, journal, name) -> Any:
  """Returns the sum over parts of share * function(part, params, *extras).

  The function returns a scalar, or, unless `like` is None, (a scalar, a tree
  like `like`). The journal keeps the sum under `name`.
  """
  parts, shares = chunks.parts_of(loss)
  start, total = _resumed(journal, name, like)
  for k in range(start, len(parts)):
    prior = total
    with jax.default_matmul_precision('highest'):
      term = explained(function, parts[k], params, *extras)
    if len(parts) == 1:
      total = term
    else:
      total = (
        _scaled(term, shares[k]) if k == 0 else _added(prior, term, shares[k])
      )
      # Else Python runs ahead of the device, with a gradient for each chunk.
      jax.block_until_ready(prior)
    if journal is not None:
      leaves = map(np.asarray, jax.tree.leaves(total))
      arrays = {f'{i}': leaf for i, leaf in enumerate(leaves)}
      journal.keep(name, {**arrays, 'chunks': np.array(k + 1)})
  if len(parts) == 1 or like is None:
    return total
  return total[0], jax.tree.map(lambda p, x: x.astype(p.dtype), like, total[1])


def _resumed(journal, name, like) -> tuple[int, Any]:
  """Returns how many chunks a journal has summed, and their sum."""
  arrays = None if journal is None else journal.kept(name)
  if arrays is None:
    return 0, None
  count = int(arrays['chunks'])
  scalar, *rest = (arrays[f'{i}'] for i in range(len(arrays) - 1))
  scalar = jnp.asarray(scalar)
  if like is None:
    return count, scalar
  leaves = map(jnp.asarray, rest)
  return count, (scalar, jax.tree.unflatten(jax.tree.structure(like), leaves))


def explained(function: Callable, part: Callable, *arguments: Any) -> Any:
  """Returns function(part, *arguments); explains why a loss has no gradient."""
  try:
    return function(part, *arguments)
  except (TypeError, ValueError, NotImplementedError) as error:
    reason = _reason(part, arguments[0], error)
    if reason is None:
      raise
    raise ValueError(reason) from error


def _reason(part, params, error: Exception) -> str | None:
  """Returns why a loss has no derivative; None for an error of another kind."""
  message = str(error)
  # The first is of real_scalars; hessian_product sees to the second.
  if _NO_SCALAR in message or 'custom_vjp' in message:
    return None
  if 'has been deleted' in message:  # parameters that a step has consumed
    return None
  lines = message.strip().splitlines()  # the first may be long: cut at 200
  if isinstance(error, jax.errors.JAXTypeError):
    return (
      'the loss cannot be traced by JAX: it may not turn what it computes into '
      f'numbers of Python or NumPy, nor branch on it ({lines[0][:200]})'
    )
  try:
    jax.eval_shape(part, params)
  except Exception:
    return None  # the loss itself fails; its own message says more
  return (
    'the loss cannot be differentiated by JAX '
    f'({lines[0][:200] if lines else type(error).__name__})'
  )


def _checked(loss):
  """Returns the loss; it raises ValueError if its value is no real scalar."""

  return lambda params: real_scalar(loss(params))


@jax.jit
def _value(loss: Loss, params: Any):
  return _checked(loss)(params)


@jax.jit
def _value_and_gradient(loss: Loss, params: Any):
  return jax.value_and_grad(_checked(loss))(params)


@jax.jit
def _product(loss: Loss, params: Any, direction: Any):
  """Returns (0 for `_summed`, H d), by the gradient's derivative along d."""
  gradient = jax.grad(_checked(loss))
  tangent = _like(direction, params)
  return jnp.zeros(()), jax.jvp(gradient, (params,), (tangent,))[1]


@jax.jit
def _product_backwards(loss: Loss, params: Any, direction: Any):
  """Returns (0 for `_summed`, H d), by the gradient of <gradient, d>."""
  tangent = _like(direction, params)

  def inner(params):
    gradient = jax.grad(_checked(loss))(params)
    return trees.vdot(gradient, tangent)

  return jnp.zeros(()), jax.grad(inner)(params)


def _like(direction, params):
  """Returns the direction in the dtypes of the parameters."""
  return jax.tree.map(lambda d, p: d.astype(p.dtype), direction, params)


@jax.jit
def _scaled(part, share):
  """Returns share * part, in float32 at least, so that sums keep digits."""
  return jax.tree.map(
    lambda x: share * x.astype(jnp.promote_types(x.dtype, jnp.float32)), part
  )


@jax.jit
def _added(total, part, share):
  return trees.add_scaled(total, share, part)
