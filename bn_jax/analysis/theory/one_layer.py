"""Reads one batch normalization of a network, and one unit of it.

`of` reads a layer of any flax linen network, by intercepting the call of its
module; the network needs no code for this.

A unit is the setting of Santurkar et al. (2018), "How Does Batch Normalization
Help Optimization?", arXiv:1805.11604, section 4: all is fixed but the inputs y
of one unit over the batch.

  s = sqrt(var(y) + epsilon)   yhat = (y - mean(y)) / s   z = scale yhat + bias
  P = I - 1 1'/m - yhat yhat'/m
  g, H: gradient and Hessian of the loss L(z), at z
  q, G: gradient and Hessian of L(z(y)), at y

At epsilon = 0, |yhat|^2 = m, and P is the projector orthogonal to 1 and yhat.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from flax import linen as nn

from bn_jax import trees

Loss = Callable[[Any], jax.Array]


class Unit(NamedTuple):
  """A unit of a normalization, and the network as a function of it.

  m is the number of its values over the examples that share statistics: their
  number times that of positions.

  Attributes:
    loss: [m] -> [], the network's loss as a function of the unit's output z.
    y: [m], floating point, the unit's input.
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
  """The quantities of a unit at its y, in the notation above."""

  unit: Unit
  m: int
  yhat: jax.Array
  s: jax.Array
  z: jax.Array
  g: jax.Array
  q: jax.Array

  def projected(self, v_M: jax.Array) -> jax.Array:
    """Returns P v, [m]."""
    along = trees.vdot(self.yhat, v_M) / self.m
    return v_M - v_M.mean() - along * self.yhat


class Layer(NamedTuple):
  """A batch normalization in one forward pass.

  Attributes:
    loss: [N, ..., C] -> [], the network's loss as a function of the output.
    input, output: [N, ..., C].
    scale, bias: [C].
    epsilon: a number.
    group_size: examples that share statistics; None is the whole batch.
  """

  loss: Callable[[jax.Array], jax.Array]
  input: jax.Array
  output: jax.Array
  scale: jax.Array
  bias: jax.Array
  epsilon: float
  group_size: int | None

  def unit(self, index: jax.Array | int) -> Unit:
    """Returns unit `index`, over the first statistics group."""
    first = slice(self.group_size)
    y = self.input[first, ..., index]

    def loss(z_M):
      channel = z_M.reshape(y.shape).astype(self.output.dtype)
      return self.loss(self.output.at[first, ..., index].set(channel))

    return Unit(
      loss=loss,
      y=y.reshape(-1),
      scale=self.scale[index],
      bias=self.bias[index],
      epsilon=self.epsilon,
    )

  def output_of(self, index: jax.Array | int) -> jax.Array:
    """Returns the output of unit `index` for its y, [m]."""
    return self.output[: self.group_size, ..., index].reshape(-1)


def of(loss: Loss, params: Mapping[str, Any], path: str) -> Layer:
  """Returns the normalization at a path of a network.

  Args:
    loss: params -> a real scalar; it applies a linen network, with statistics
      of the batch, to a batch. It must not be jitted, since a compiled function
      does not call its modules again. This function may be called inside `jit`,
      which removes the layers below if only `Layer.loss` is used.
    params: the collection `params` of that network.
    path: the path of the module, '/'-joined, such as 'conv3_norm'. The module
      has the parameters scale and bias, and the attributes `epsilon`, `axis`
      and perhaps `group_size`, like `bn_jax.norms.BatchNorm` and
      `flax.linen.BatchNorm`.

  Raises:
    ValueError: no module with a scale and a bias has this path, its channels
      are not the last axis, or the loss does not call it exactly once.
  """
  parameters = _owned(params, path, ('scale', 'bias'))
  module, x, y = _call(loss, params, path)
  if module.axis not in (-1, x.ndim - 1):
    raise ValueError(
      f'{path!r} normalises axis {module.axis} of {x.ndim}; allowed: the last'
    )
  return Layer(
    loss=lambda output: _intercepted(loss, params, path, lambda *_: output),
    input=x,
    output=y,
    scale=parameters['scale'],
    bias=parameters['bias'],
    epsilon=module.epsilon,
    # flax's BatchNorm has no groups.
    group_size=getattr(module, 'group_size', None),
  )


def inputs(
  loss: Loss, params: Mapping[str, Any], path: str, *, examples: int | None
) -> jax.Array:
  """Returns X, [m, d], the inputs of a dense or convolutional layer.

  The output of unit j, without bias, is y = X w, where w is kernel[..., j] as
  one vector of d numbers. The m rows are ordered as in `Unit.y`.

  Args:
    loss, params: see `of`.
    path: the path of a module with a parameter `kernel` [..., I, O] and the
      attributes `features` and `use_bias`, such as `flax.linen.Dense` and
      `Conv`, without groups of features.
    examples: how many of the first examples to use; None is all.

  Raises:
    ValueError: no module with a kernel has this path, or the loss does not call
      it exactly once.
  """
  shape = _owned(params, path, ('kernel',))['kernel'].shape[:-1]
  module, x, _ = _call(loss, params, path)
  size = math.prod(shape)
  # With the identity as its kernel the layer returns the input of each weight.
  plain = module.clone(parent=None, name=None, features=size, use_bias=False)
  kernel = jnp.eye(size, dtype=x.dtype).reshape(*shape, size)
  rows = plain.apply({'params': {'kernel': kernel}}, x[:examples])
  return cast(jax.Array, rows).reshape(-1, size)


def normalized(
  y_M: jax.Array, epsilon: jax.Array | float
) -> tuple[jax.Array, jax.Array]:
  """Returns (yhat, s), [m] and []: Algorithm 1 of Batch Normalization."""
  centred_M = y_M - y_M.mean()
  s = jnp.sqrt((centred_M * centred_M).mean() + epsilon)
  return centred_M / s, s


def through(unit: Unit) -> Loss:
  """Returns y -> L(z(y)), the loss through the normalization."""

  def loss(y_M):
    yhat_M, _ = normalized(y_M, unit.epsilon)
    return unit.loss(unit.scale * yhat_M + unit.bias)

  return loss


def point(unit: Unit | Point) -> Point:
  """Returns the point of a unit, by two gradients; returns a point as it is.

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
  """Returns the Hessian of a loss times v, [m]; it costs two gradients."""
  return jax.jvp(jax.grad(loss), (at_M,), (v_M,))[1]


def _call(loss, params, path) -> tuple[nn.Module, jax.Array, jax.Array]:
  """Returns the module at a path, its input and its output."""
  calls, inside = [], False

  def record(call, module, args, keywords):
    nonlocal inside
    if inside:  # the same method of a parent class, called by this one
      return call(*args, **keywords)
    inside = True
    y = call(*args, **keywords)
    inside = False
    calls.append((module, args[0], y))
    return y

  _intercepted(loss, params, path, record)
  if len(calls) != 1:
    raise ValueError(
      f'the loss calls {path!r} {len(calls)} times; allowed: once (a jitted '
      'loss does not call its modules again: give the plain function)'
    )
  return calls[0]


def _intercepted(loss, params, path, instead) -> jax.Array:
  """Returns loss(params), with `instead` called for the module at a path."""

  def interceptor(call, args, keywords, context):
    is_at_path = '/'.join(context.module.path) == path
    if not is_at_path or context.method_name != '__call__':
      return call(*args, **keywords)
    return instead(call, context.module, args, keywords)

  with nn.intercept_methods(interceptor):
    return loss(params)


def _owned(
  params: Mapping[str, Any], path: str, names: tuple[str, ...]
) -> Mapping[str, Any]:
  """Returns the parameters of the module at a path; it must have `names`."""
  owners = dict(_modules(params))
  allowed = [
    module
    for module, parameters in owners.items()
    if all(name in parameters for name in names)
  ]
  if path not in allowed:
    raise ValueError(
      f'no module at {path!r} has parameters {" and ".join(names)}; allowed: '
      f'{", ".join(allowed) or "none"}'
    )
  return owners[path]


def _modules(params: Mapping[str, Any], above: str = ''):
  """Yields (path, parameters) of every module, at any depth."""
  for key, value in params.items():
    if isinstance(value, Mapping):
      yield f'{above}{key}', value
      yield from _modules(value, f'{above}{key}/')
