"""Layers of a tree of parameters: names in forward order, with their paths.

  (('conv1', ('conv1', 'conv1_norm')), ('conv2', ('conv2', 'conv2_norm')), ...)

Paths are '/'-joined prefixes into the tree: keys of dicts, indices, names of
attributes. The order is the caller's: that of a dict is conv1, conv10, conv2.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from bn_jax import errors, trees

Layers = tuple[tuple[str, tuple[str, ...]], ...]


def checked(params: Any, layers: Sequence[tuple[str, Sequence[str]]]) -> Layers:
  """Returns the layers as tuples; each must have parameters of its own.

  Raises:
    ValueError: no layers, a string for paths, a name that occurs twice, a layer
      without parameters, a parameter in two layers.
  """
  try:
    layers = [(name, paths) for name, paths in layers]
  except (TypeError, ValueError):
    raise ValueError(
      f'layers are {str(layers)[:60]}; allowed: ((name, (path, ...)), ...)'
    ) from None
  for name, paths in layers:
    if isinstance(paths, str):  # which would be a path for each letter
      raise ValueError(f'layer {name!r} has {paths!r}; give ({paths!r},)')
  layers = tuple((str(name), tuple(paths)) for name, paths in layers)
  if not layers:
    raise ValueError('no layers; give ((name, (path, ...)), ...)')
  names = [name for name, _ in layers]
  for name in names:
    if names.count(name) > 1:
      raise ValueError(f'layer {name!r} is given twice')
  parameters, owner = trees.paths(params), {}
  for name, prefixes in layers:
    own = [path for path in parameters if trees.lies_under(path, prefixes)]
    if not own:
      message = errors.unknown('path', ', '.join(prefixes), parameters)
      raise ValueError(f'layer {name!r} has no parameters: {message}')
    for path in own:
      if path in owner:
        raise ValueError(
          f'parameter {path!r} is in layer {owner[path]!r} and in {name!r}'
        )
      owner[path] = name
  return layers


def chosen(layers: Layers, names: Sequence[str]) -> Layers:
  """Returns the layers of these names, in forward order.

  Raises:
    ValueError: a name that is no layer's.
  """
  allowed = [name for name, _ in layers]
  for name in names:
    if name not in allowed:
      raise ValueError(errors.unknown('layer', name, allowed))
  return tuple(layer for layer in layers if layer[0] in names)


def norms(tree: Any, layers: Layers) -> jax.Array:
  """Returns the Euclidean norm of each layer of a tree like the params, [L]."""
  return jnp.stack([trees.norm(own(tree, paths)) for _, paths in layers])


def vdots(x: Any, y: Any, layers: Layers) -> jax.Array:
  """Returns the inner product of two trees in each layer, [L]."""
  return jnp.stack(
    [trees.vdot(own(x, paths), own(y, paths)) for _, paths in layers]
  )


def own(tree: Any, paths: Sequence[str]) -> list[Any]:
  """Returns the arrays of one layer."""
  return trees.leaves_under(tree, paths)


def moved(params: Any, new_params: Any, layers: Layers) -> Any:
  """Returns the parameters, with those of these layers from new_params."""
  prefixes = [path for _, paths in layers for path in paths]
  leaves = [
    new if trees.lies_under(path, prefixes) else old
    for path, old, new in zip(
      trees.paths(params), jax.tree.leaves(params), jax.tree.leaves(new_params)
    )
  ]
  return jax.tree.unflatten(jax.tree.structure(params), leaves)
