"""Computes sums, inner products and paths of pytrees, and checks arrays."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from bn_jax import checks

# Rows of the first stage of a sum. One running float32 sum over the 2.4
# million numbers of a VGG kernel loses three digits; rows of 1024 lose none.
_ROW = 1024


def check_floating(name: str, x: Any) -> None:
  """Raises ValueError unless x is an array of real floating point.

  Args:
    name: what the message calls x.
  """
  if not (hasattr(x, 'dtype') and hasattr(x, 'shape')):
    kind = f'a {type(x).__name__}'
  elif not jnp.issubdtype(x.dtype, jnp.floating):
    kind = str(x.dtype)
  else:
    return
  raise ValueError(
    f'{name} is {kind}; allowed: an array of floating point, such as '
    f'jnp.asarray({name}, jnp.float32)'
  )


def check_examples(x: jax.Array) -> None:
  """Raises ValueError unless x, [N, ...], has an example."""
  if not x.ndim or not x.shape[0]:
    raise ValueError(
      f'x has shape {list(x.shape)}, without an example; allowed: one or more'
    )


def unpadded(x: jax.Array, mask: jax.Array | None) -> jax.Array:
  """Returns x with 0 where the mask is False, whatever x holds there.

  To select what is real after an operation is not enough: its derivative is
  then multiplied by 0, which leaves nan where it is not finite.

  Args:
    x: [N, ..., C], or [N].
    mask: bool, [N] or x's shape without channels; None: all is real.

  Raises:
    ValueError: a mask that is not bool or of another shape.
  """
  if mask is None:
    return x
  checks.mask(mask, x.shape[:1], x.shape[:-1] or x.shape)
  real = mask.reshape(*mask.shape, *(1,) * (x.ndim - mask.ndim))
  return jnp.where(real, x, 0)


def below(tree: Mapping[str, Any], path: str) -> Mapping[str, Any]:
  """Returns what is at a path of nested dicts, {} if nothing is."""
  for key in path.split('/'):
    tree = tree.get(key, {})
  return tree


def add_scaled(x: Any, scale: jax.Array | float, y: Any) -> Any:
  """Returns x + scale * y, leaf by leaf, in the dtype of x."""
  return jax.tree.map(lambda a, b: (a + scale * b).astype(a.dtype), x, y)


def subtract(x: Any, y: Any) -> Any:
  """Returns x - y, leaf by leaf."""
  return jax.tree.map(jnp.subtract, x, y)


def vdot(x: Any, y: Any) -> jax.Array:
  """Returns the Euclidean inner product of two trees of real arrays, a scalar.

  Products and sums are in float32 at least, summed in two stages; of an empty
  tree 0 in float32.
  """
  parts = jax.tree.map(lambda a, b: _sum(_at_least_float32(a) * b), x, y)
  # Zeros of the default dtype would make float32 trees float64 under x64.
  first, *others = jax.tree.leaves(parts) or [jnp.zeros((), jnp.float32)]
  return sum(others, start=first)


def norm(x: Any) -> jax.Array:
  """Returns the Euclidean norm of a tree of real arrays, a scalar."""
  return jnp.sqrt(vdot(x, x))


def ratio(x: jax.Array, y: jax.Array) -> jax.Array:
  """Returns x / y, nan where y is not above 0."""
  return jnp.where(y > 0, x / y, jnp.nan)


def cosine(inner: jax.Array, norms: jax.Array) -> jax.Array:
  """Returns inner / norms in [-1, 1]; norms is the product of the two norms."""
  return jnp.clip(ratio(inner, norms), -1, 1)


def paths(tree: Any) -> tuple[str, ...]:
  """Returns the '/'-joined path of each leaf, in `jax.tree.leaves`' order."""
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
  return tuple('/'.join(map(_word, path)) for path, _ in leaves)


def leaves_under(tree: Any, prefixes: Sequence[str]) -> list[Any]:
  """Returns the leaves at or below the paths in `prefixes`, in order.

  A prefix is whole words of a path: 'conv1' is above 'conv1/kernel', but not
  above 'conv10/kernel'.
  """
  return [
    leaf
    for path, leaf in zip(paths(tree), jax.tree.leaves(tree))
    if lies_under(path, prefixes)
  ]


def lies_under(path: str, prefixes: Sequence[str]) -> bool:
  """Returns whether a path is one of the prefixes or lies below one."""
  return any(f'{path}/'.startswith(f'{prefix}/') for prefix in prefixes)


def select(condition: jax.Array, x: Any, y: Any) -> Any:
  """Returns x where the scalar condition holds, else y, leaf by leaf."""
  return jax.tree.map(lambda a, b: jnp.where(condition, a, b), x, y)


def _word(key: Any) -> str:
  """Returns one step of a path: a dict's key, an index or an attribute."""
  for field in ('key', 'idx', 'name'):
    if hasattr(key, field):
      return str(getattr(key, field))
  return str(key)


def _at_least_float32(x: jax.Array) -> jax.Array:
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _sum(x: jax.Array) -> jax.Array:
  x = x.reshape(-1)
  if x.size <= _ROW:
    return x.sum()
  padded = jnp.pad(x, (0, -x.size % _ROW))
  return padded.reshape(-1, _ROW).sum(axis=1).sum()
