"""One unit of a batch normalization, and the loss as a function of it.

The setting of Santurkar et al. (2018), "How Does Batch Normalization Help
Optimization?", arXiv:1805.11604, section 4: all is held fixed but the inputs y
of one unit over the batch.

  s = sqrt(var(y) + epsilon)   yhat = (y - mean(y)) / s   z = scale yhat + bias
  P = I - 1 1'/m - yhat yhat'/m
  g, H: gradient and Hessian of the loss L(z), at z
  q, G: gradient and Hessian of L(z(y)), at y

At epsilon = 0, |yhat|^2 = m, and P is the projector orthogonal to 1 and yhat.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bn_jax import trees

Loss = Callable[[jax.Array], jax.Array]


class Unit(NamedTuple):
  """A unit of a normalization, and the network as a function of it.

  m is the number of its values in a batch: examples times positions.

  Attributes:
    loss: [m] -> [], the network's loss as a function of what the unit makes, z,
      all else fixed.
    y: [m], floating point, what comes in.
    scale: [], gamma of the paper.
    bias: [], beta of the paper.
    epsilon: added to the variance, [] or a number; the paper's theory has 0.
  """

  loss: Loss
  y: jax.Array
  scale: jax.Array
  bias: jax.Array
  epsilon: jax.Array | float = 0.0


class Point(NamedTuple):
  """Where a unit stands, in the notation above: what statements are made of."""

  unit: Unit
  m: int
  yhat: jax.Array
  s: jax.Array
  z: jax.Array
  g: jax.Array
  q: jax.Array

  def projected(self, v_M: jax.Array) -> jax.Array:
    """P v, [m]."""
    along = trees.vdot(self.yhat, v_M) / self.m
    return v_M - v_M.mean() - along * self.yhat


def normalized(
  y_M: jax.Array, epsilon: jax.Array | float
) -> tuple[jax.Array, jax.Array]:
  """(yhat, s), [m] and []: Algorithm 1 of Batch Normalization, written out."""
  centred_M = y_M - y_M.mean()
  s = jnp.sqrt((centred_M * centred_M).mean() + epsilon)
  return centred_M / s, s


def through(unit: Unit) -> Loss:
  """y -> L(z(y)): the loss through the normalization."""

  def loss(y_M):
    yhat_M, _ = normalized(y_M, unit.epsilon)
    return unit.loss(unit.scale * yhat_M + unit.bias)

  return loss


def point(unit: Unit | Point) -> Point:
  """Where a unit stands, which costs two gradients; of a point, that point.

  q is differentiated as `through` is written.

  Raises:
    ValueError: y is not floating point or has more than one axis.
  """
  if isinstance(unit, Point):
    return unit
  if unit.y.ndim != 1 or not jnp.issubdtype(unit.y.dtype, jnp.floating):
    raise ValueError(
      f'y is {unit.y.dtype}{list(unit.y.shape)}; allowed: floating point, [m]'
    )
  yhat_M, s = normalized(unit.y, unit.epsilon)
  z_M = unit.scale * yhat_M + unit.bias
  return Point(
    unit=unit,
    m=unit.y.shape[0],
    yhat=yhat_M,
    s=s,
    z=z_M,
    g=jax.grad(unit.loss)(z_M),
    q=jax.grad(through(unit))(unit.y),
  )


def hessian_times(loss: Loss, at_M: jax.Array, v_M: jax.Array) -> jax.Array:
  """The Hessian of a loss times v, [m], which costs two gradients."""
  return jax.jvp(jax.grad(loss), (at_M,), (v_M,))[1]
