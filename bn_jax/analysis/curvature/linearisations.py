"""Linearises a loss, and multiplies what comes of it by a vector.

A `Kind` is one way to do so. Of each matrix there are two: forward over reverse
mode, and, for functions that have no forward mode, reverse over reverse. The
parameters of a block are given by the numbers of their leaves, `own`.

Pearlmutter (1994), "Fast exact multiplication by the Hessian"; Schraudolph
(2002), "Fast curvature matrix-vector products".
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bn_jax.analysis import gradients


class Kind(NamedTuple):
  """How products of one matrix are computed.

  Attributes:
    linearise: (part, params, indices) -> what products need, a pytree.
    apply: (linear, part, params, indices, vector) -> product.
    gradient: (linear, part, params, indices) -> that of the loss, the leaves.
  """

  linearise: Callable
  apply: Callable
  gradient: Callable


@functools.partial(jax.jit, static_argnums=1)
def flat(leaves, dtype):
  """Returns arrays as one vector of a dtype."""
  return jnp.concatenate([leaf.astype(dtype).reshape(-1) for leaf in leaves])


@jax.jit
def pieces(leaves, vector):
  """Returns a flat vector in pieces of the shapes and dtypes of leaves."""
  parts, start = [], 0
  for leaf in leaves:
    part = vector[start : start + leaf.size]
    parts.append(part.reshape(leaf.shape).astype(leaf.dtype))
    start += leaf.size
  return parts


def _restricted(function, params, own):
  """Returns a function of params as one of the leaves `own`, and these."""
  leaves, structure = jax.tree.flatten(params)

  def of_own(own_leaves):
    new = list(leaves)
    for i, leaf in zip(own, own_leaves):
      new[i] = leaf
    return function(jax.tree.unflatten(structure, new))

  return of_own, [leaves[i] for i in own]


def _gradient(loss, params, own):
  """Returns the gradient by the leaves `own` as a function of them."""
  of_own, leaves = _restricted(loss, params, own)
  return jax.grad(lambda x: gradients.real_scalar(of_own(x))), leaves


def _like_own(params, own, vector):
  leaves = jax.tree.leaves(params)
  return pieces([leaves[i] for i in own], vector)


def _hessian_linearise(part, params, own):
  gradient, leaves = _gradient(part, params, own)
  return jax.linearize(gradient, leaves)


def _hessian_apply(linear, part, params, own, vector):
  del part
  _, forward = linear
  return flat(forward(_like_own(params, own, vector)), vector.dtype)


def _hessian_linearise_backwards(part, params, own):
  gradient, leaves = _gradient(part, params, own)
  return jax.vjp(gradient, leaves)


def _hessian_apply_backwards(linear, part, params, own, vector):
  """Multiplies by the transpose, which is the Hessian itself."""
  del part
  _, backward = linear
  return flat(backward(_like_own(params, own, vector))[0], vector.dtype)


def _hessian_gradient(linear, part, params, own):
  del part, params, own
  return linear[0]


def _outputs_linearise(part, params, own):
  outputs, leaves = _restricted(part.outputs, params, own)
  return jax.linearize(outputs, leaves)


def _gauss_newton_apply(linear, part, params, own, vector):
  outputs, forward = linear
  leaves = _like_own(params, own, vector)
  (product,) = jax.linear_transpose(forward, leaves)(
    _curved(part, outputs, forward(leaves))
  )
  return flat(product, vector.dtype) + _of_rest(part, params, own, vector)


def _outputs_linearise_backwards(part, params, own):
  outputs, leaves = _restricted(part.outputs, params, own)
  return jax.vjp(outputs, leaves)


def _gauss_newton_apply_backwards(linear, part, params, own, vector):
  """Multiplies by J as the transpose of J', which needs no forward mode."""
  outputs, backward = linear
  leaves = _like_own(params, own, vector)
  (tangent,) = jax.linear_transpose(lambda c: backward(c)[0], outputs)(leaves)
  (product,) = backward(_curved(part, outputs, tangent))
  return flat(product, vector.dtype) + _of_rest(part, params, own, vector)


def _curved(part, outputs, tangent):
  """Returns the Hessian of the convex part times a tangent of the outputs."""
  slope = jax.grad(lambda z: gradients.real_scalar(part.convex(z)))
  return jax.jvp(slope, (outputs,), (tangent,))[1]


def _of_rest(part, params, own, vector):
  """Returns the Hessian of the rest times a vector; 0 without a rest."""
  if part.rest is None:
    return jnp.zeros_like(vector)
  linear = _hessian_linearise(part.rest, params, own)
  return _hessian_apply(linear, part, params, own, vector)


def _gradient_beside(linear, part, params, own):
  del linear
  gradient, leaves = _gradient(part, params, own)
  return gradient(leaves)


HESSIAN = (
  Kind(_hessian_linearise, _hessian_apply, _hessian_gradient),
  Kind(
    _hessian_linearise_backwards, _hessian_apply_backwards, _hessian_gradient
  ),
)
GAUSS_NEWTON = (
  Kind(_outputs_linearise, _gauss_newton_apply, _gradient_beside),
  Kind(
    _outputs_linearise_backwards,
    _gauss_newton_apply_backwards,
    _gradient_beside,
  ),
)
