"""Splits a tree of parameters into layers: names in forward order, with paths.

  (('conv1', ('conv1', 'conv1_norm')), ('conv2', ('conv2', 'conv2_norm')), ...)

Paths are '/'-joined prefixes into the tree: keys of dicts, indices, names of
attributes. The caller gives the order, since JAX sorts the keys of a dict:
conv1, conv10, conv2.
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
    ValueError: no layers or no pairs, a string for paths, a name that occurs
      twice, a layer without parameters, a parameter in two layers.
  """
  try:
    layers = [(name, prefixes) for name, prefixes in layers]
  except (TypeError, ValueError):
    raise ValueError(  # 60 characters: the message is one line
      f'layers are {str(layers)[:60]}; allowed: ((name, (path, ...)), ...)'
    ) from None
  for name, prefixes in layers:
    if isinstance(prefixes, str):  # which would be a path for each letter
      raise ValueError(
        f'the paths of layer {name!r} are the string {prefixes!r}; give '
        f'({prefixes!r},)'
      )
  layers = tuple((str(name), tuple(prefixes)) for name, prefixes in layers)
  if not layers:
    raise ValueError('no layers; give ((name, (path, ...)), ...)')
  names = [name for name, _ in layers]
  for name in names:
    if names.count(name) > 1:
      raise ValueError(f'layer {name!r} is given twice; give it once')
  leaf_paths, layer_of = trees.paths(params), {}
  for name, prefixes in layers:
    paths = [path for path in leaf_paths if trees.lies_under(path, prefixes)]
    if not paths:
      message = errors.unknown('path', ', '.join(prefixes), leaf_paths)
      raise ValueError(f'layer {name!r} has no parameters: {message}')
    for path in paths:
      if path in layer_of:
        raise ValueError(
          f'parameter {path!r} is in layer {layer_of[path]!r} and in {name!r}; '
          'allowed: one'
        )
      layer_of[path] = name
  return layers


def chosen(layers: Layers, names: Sequence[str]) -> Layers:
  """Returns the layers of these names, in forward order.

  Raises:
    ValueError: a name that is no layer's.
  """
  layer_names = [name for name, _ in layers]
  for name in names:
    if name not in layer_names:
      raise ValueError(errors.unknown('layer', name, layer_names))
  return tuple(layer for layer in layers if layer[0] in names)


def norms(tree: Any, layers: Layers) -> jax.Array:
  """Returns the Euclidean norm of each layer of a tree like the params, [L]."""
  return jnp.stack([trees.norm(own(tree, prefixes)) for _, prefixes in layers])


def vdots(x: Any, y: Any, layers: Layers) -> jax.Array:
  """Returns the inner product of two trees in each layer, [L]."""
  return jnp.stack(
    [trees.vdot(own(x, prefixes), own(y, prefixes)) for _, prefixes in layers]
  )


def own(tree: Any, prefixes: Sequence[str]) -> list[Any]:
  """Returns the arrays of one layer, those under its paths."""
  return trees.leaves_under(tree, prefixes)


def moved(params: Any, new_params: Any, layers: Layers) -> Any:
  """Returns params, with the parameters of these layers from new_params."""
  prefixes = [prefix for _, prefixes in layers for prefix in prefixes]
  leaves = [
    new if trees.lies_under(path, prefixes) else old
    for path, old, new in zip(
      trees.paths(params), jax.tree.leaves(params), jax.tree.leaves(new_params)
    )
  ]
  return jax.tree.unflatten(jax.tree.structure(params), leaves)
