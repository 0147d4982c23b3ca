"""Multiplies a Gauss-Newton matrix or a Jacobian by one vector."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from bn_jax import trees
from bn_jax.analysis import chunks, gradients
from bn_jax.analysis.curvature import operators


def gauss_newton_product(
  split: operators.Split | chunks.Chunks, params: Any, direction: Any
) -> Any:
  """Computes the Gauss-Newton matrix of a loss times a direction.

    J' C J d + (Hessian of the rest) d

  Args:
    split: a Split, outputs and a convex function of them; or Chunks of such.
    params: any tree of floating-point arrays.
    direction: a tree like params.

  Returns:
    A tree like params; zeros for a direction of zeros.

  Raises:
    ValueError: a loss that is no Split, or that JAX cannot differentiate;
      parameters that are not floating point; a direction unlike them.
  """
  params = gradients.checked(params)
  direction = gradients.checked_like(params, direction, 'direction')
  operator = operators.gauss_newton(split, params)
  return operator.unflatten(operator.product(operator.flatten(direction)))


def jacobian_product(
  outputs: Callable[[Any], jax.Array], params: Any, direction: Any
) -> jax.Array:
  """Computes the derivative of outputs along a direction, J d.

  Args:
    outputs: params -> an array of floating point; a `jax.tree_util.Partial` is
      compiled once for its function.
    params: any tree of floating-point arrays.
    direction: a tree like params.

  Returns:
    An array like the outputs.

  Raises:
    ValueError: parameters that are not floating point; a direction unlike them;
      outputs that are no such array or cannot be differentiated by JAX.
  """
  params = gradients.checked(params)
  direction = gradients.checked_like(params, direction, 'direction')
  outputs = _checked(outputs, params)
  with jax.default_matmul_precision('highest'):
    try:
      return gradients.explained(_product, outputs, params, direction)
    except TypeError as error:
      # A custom_vjp has no forward mode; J is the transpose of its J'.
      if 'custom_vjp' not in str(error):
        raise
      return gradients.explained(_product_backwards, outputs, params, direction)


def jacobian_transpose_product(
  outputs: Callable[[Any], jax.Array], params: Any, cotangent: Any
) -> Any:
  """Computes the transposed derivative of outputs times a cotangent, J' c.

  Args:
    outputs, params: see `jacobian_product`.
    cotangent: an array like the outputs.

  Returns:
    A tree like params.

  Raises:
    ValueError: as `jacobian_product`; a cotangent unlike the outputs.
  """
  params = gradients.checked(params)
  outputs = _checked(outputs, params)
  shape = jax.eval_shape(outputs, params)
  if jnp.shape(cotangent) != shape.shape:
    raise ValueError(
      f'the cotangent has shape {jnp.shape(cotangent)}; the outputs have '
      f'{shape.shape}'
    )
  cotangent = jnp.asarray(cotangent, shape.dtype)
  with jax.default_matmul_precision('highest'):
    return gradients.explained(_transposed, outputs, params, cotangent)


def _checked(outputs, params):
  """Returns outputs for jit; ValueError unless an array of floating point."""
  outputs = chunks.argument(outputs)
  value = gradients.explained(jax.eval_shape, outputs, params)
  trees.check_floating('the outputs', value)
  return outputs


@jax.jit
def _product(outputs, params, direction):
  return jax.jvp(lambda p: outputs(p), (params,), (direction,))[1]


@jax.jit
def _product_backwards(outputs, params, direction):
  value, backward = jax.vjp(lambda p: outputs(p), params)
  transpose = jax.linear_transpose(lambda c: backward(c)[0], value)
  return transpose(direction)[0]


@jax.jit
def _transposed(outputs, params, cotangent):
  return jax.vjp(lambda p: outputs(p), params)[1](cotangent)[0]
