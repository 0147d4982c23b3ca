"""A normalization taken out of a network: what comes in, what is made of it.

It is found in any flax linen network, by stepping in where the module is
called; the network itself knows nothing of it.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from bn_jax.analysis.theory import unit as unit_lib

Loss = Callable[[Any], jax.Array]


class Layer(NamedTuple):
  """A batch normalization as one forward pass met it.

  Attributes:
    loss: [N, ..., C] -> [], the network's loss as a function of the output.
    input: [N, ..., C].
    output: [N, ..., C].
    scale: [C].
    bias: [C].
    epsilon: of the layer.
    group_size: examples that share statistics; None is the whole batch.
  """

  loss: Callable[[jax.Array], jax.Array]
  input: jax.Array
  output: jax.Array
  scale: jax.Array
  bias: jax.Array
  epsilon: float
  group_size: int | None

  def unit(self, index: jax.Array | int) -> unit_lib.Unit:
    """Unit `index`, over the first statistics group, with this epsilon."""
    first = slice(self.group_size)
    y = self.input[first, ..., index]

    def loss(z_M):
      channel = z_M.reshape(y.shape).astype(self.output.dtype)
      return self.loss(self.output.at[first, ..., index].set(channel))

    return unit_lib.Unit(
      loss=loss,
      y=y.reshape(-1),
      scale=self.scale[index],
      bias=self.bias[index],
      epsilon=self.epsilon,
    )

  def made(self, index: jax.Array | int) -> jax.Array:
    """What unit `index` made of its y in that forward pass, [m]."""
    return self.output[: self.group_size, ..., index].reshape(-1)


def of(loss: Loss, params: Mapping[str, Any], path: str) -> Layer:
  """The normalization at a path of a network.

  Args:
    loss: params -> a real scalar; it applies a linen network, normalised by the
      statistics of the batch, to this batch. Not itself jitted: a compiled
      function does not call its modules again. All of this may stand in `jit`,
      which leaves out the layers below where only `Layer.loss` is asked for.
    params: the collection `params` of that network.
    path: of the module, '/'-joined, such as 'norm3'; it owns the parameters
      scale and bias, and has the attributes `epsilon`, `axis` and perhaps
      `group_size`, as `bn_jax.norms.BatchNorm` and `flax.linen.BatchNorm` do.

  Raises:
    ValueError: no module with a scale and a bias has this path, its channels
      are not the last axis, or the loss does not call it exactly once.
  """
  own = _owned(params, path, ('scale', 'bias'))
  module, x, y = _met(loss, params, path)
  if module.axis not in (-1, x.ndim - 1):
    raise ValueError(
      f'{path!r} normalises axis {module.axis} of {x.ndim}; allowed: the last'
    )
  return Layer(
    loss=lambda output: _stepped_in(loss, params, path, lambda *_: output),
    input=x,
    output=y,
    scale=own['scale'],
    bias=own['bias'],
    epsilon=module.epsilon,
    # flax's own normalization knows no groups.
    group_size=getattr(module, 'group_size', None),
  )


def inputs(
  loss: Loss, params: Mapping[str, Any], path: str, *, examples: int | None
) -> jax.Array:
  """X, [m, d]: what enters a dense or convolutional layer.

  Unit j of the layer makes y = X w, but for a bias, where w is kernel[..., j]
  as one vector of d numbers; the m rows are ordered as in `Unit.y`.

  Args:
    loss: as of `of`.
    params: likewise.
    path: of a module with a parameter `kernel` [..., I, O] and the attributes
      `features` and `use_bias`, such as `flax.linen.Dense` and `Conv`, its
      features in one group.
    examples: how many, the first ones; None is all of them.

  Raises:
    ValueError: no module with a kernel has this path, or the loss does not call
      it exactly once.
  """
  shape = _owned(params, path, ('kernel',))['kernel'].shape[:-1]
  module, x, _ = _met(loss, params, path)
  size = math.prod(shape)
  # With the identity for its kernel the layer puts out what each weight sees.
  plain = module.clone(parent=None, name=None, features=size, use_bias=False)
  kernel = jnp.eye(size, dtype=x.dtype).reshape(*shape, size)
  seen = plain.apply({'params': {'kernel': kernel}}, x[:examples])
  return seen.reshape(-1, size)


def _met(loss, params, path) -> tuple[nn.Module, jax.Array, jax.Array]:
  """The module at a path, its input and its output in one forward pass."""
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

  _stepped_in(loss, params, path, record)
  if len(calls) != 1:
    raise ValueError(
      f'the loss calls {path!r} {len(calls)} times; allowed: once (a jitted '
      'loss does not call its modules again: give the plain function)'
    )
  return calls[0]


def _stepped_in(loss, params, path, instead) -> jax.Array:
  """loss(params), with `instead` called for the module at a path."""

  def interceptor(call, args, keywords, context):
    here = '/'.join(context.module.path) == path
    if not here or context.method_name != '__call__':
      return call(*args, **keywords)
    return instead(call, context.module, args, keywords)

  with nn.intercept_methods(interceptor):
    return loss(params)


def _owned(
  params: Mapping[str, Any], path: str, names: tuple[str, ...]
) -> Mapping[str, Any]:
  """The parameters of the module at a path, which has all of these names."""
  owners = dict(_modules(params))
  known = [
    module for module, own in owners.items() if all(n in own for n in names)
  ]
  if path not in known:
    raise ValueError(
      f'no module at {path!r} has parameters {" and ".join(names)}; those that '
      f'have: {", ".join(known) or "none"}'
    )
  return owners[path]


def _modules(params: Mapping[str, Any], above: str = ''):
  """(path, parameters) of every module, at any depth."""
  for key, value in params.items():
    if isinstance(value, Mapping):
      yield f'{above}{key}', value
      yield from _modules(value, f'{above}{key}/')
