"""Computes what `along_gradient` says of one step, and its direction."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bn_jax import checks, trees
from bn_jax.analysis import by_layer, gradients

DIRECTIONS = ('descent', 'ascent', 'random')


def direct(params, direction, key) -> Callable[[Any], Any]:
  """Returns gradient -> direction; ValueError for what is no direction."""
  if direction is None or isinstance(direction, str):
    name = direction or 'descent'
    checks.one_of('direction', name, DIRECTIONS)
    if name == 'random' and key is None:
      raise ValueError("direction is 'random'; give a key too")
    return {
      'descent': lambda gradient: gradient,
      'ascent': lambda gradient: jax.tree.map(jnp.negative, gradient),
      'random': lambda gradient: _random(key, gradient),
    }[name]
  if gradients.is_function(direction, params):
    return direction
  gradients.check_like(params, direction, 'direction')
  return lambda gradient: direction


@jax.jit
def _random(key, gradient):
  """Draws a normal vector of the length of the gradient."""
  leaves, structure = jax.tree.flatten(gradient)
  normal = [
    jax.random.normal(jax.random.fold_in(key, i), leaf.shape, leaf.dtype)
    for i, leaf in enumerate(leaves)
  ]
  scale = trees.norm(leaves) / trees.norm(normal)
  return jax.tree.unflatten(
    structure, [(scale * leaf).astype(leaf.dtype) for leaf in normal]
  )


def without_steps(step: dict[str, np.ndarray], count: int):
  """Returns curves of nan for `count` steps of size 0, from those of a step."""
  at_0 = ('loss_0', 'gradient_norm_0', 'layer_gradient_norm_0')
  curves = {}
  for name, value in step.items():
    shape = value.shape if not value.ndim else (count, *value.shape[1:])
    empty = np.full(shape, np.nan, value.dtype)
    curves[name] = value if name in at_0 else empty
  return curves | {'step_size': np.zeros(count, step['step_size'].dtype)}


@jax.jit
def descended(params, size, direction):
  """Returns params - size * direction."""
  return trees.add_scaled(params, -size, direction)


@functools.partial(jax.jit, static_argnums=2)
def lengths(gradient_0, direction, layers):
  """Returns the norms of gradient and direction, of the whole and by layer."""
  vectors = {'gradient': gradient_0, 'direction': direction}
  lengths = {name: trees.norm(tree) for name, tree in vectors.items()}
  if not layers:
    return lengths
  return lengths | {
    f'layer_{name}': by_layer.norms(tree, layers)
    for name, tree in vectors.items()
  }


@functools.partial(jax.jit, static_argnums=6)
def compared(value, gradient, loss_0, gradient_0, lengths, size, layers):
  """Returns the quantities of one point, scalars; of its layers, [L]."""
  norm, norm_0 = trees.norm(gradient), lengths['gradient']
  difference = trees.subtract(gradient, gradient_0)
  change, distance = trees.norm(difference), size * lengths['direction']
  row = {
    'loss': value,
    'gradient_norm': norm,
    'gradient_change': change,
    'gradient_cosine': trees.cosine(
      trees.vdot(gradient, gradient_0), norm * norm_0
    ),
    'beta': trees.ratio(change, distance),
    'lipschitz': trees.ratio(jnp.abs(value - loss_0), distance),
  }
  if not layers:
    return row
  norm_L, change_L = (
    by_layer.norms(tree, layers) for tree in (gradient, difference)
  )
  inner_L = by_layer.vdots(gradient, gradient_0, layers)
  return row | {
    'layer_gradient_norm': norm_L,
    'layer_gradient_change': change_L,
    'layer_gradient_cosine': trees.cosine(
      inner_L, norm_L * lengths['layer_gradient']
    ),
    'layer_beta': trees.ratio(change_L, size * lengths['layer_direction']),
  }


@jax.jit
def curvature(product, direction):
  """Returns d'H d / |d|^2 and |H d| / |d|, from the product H d."""
  square_norm = trees.vdot(direction, direction)
  return {
    'curvature': trees.ratio(trees.vdot(direction, product), square_norm),
    'beta_0': trees.ratio(trees.norm(product), jnp.sqrt(square_norm)),
  }
