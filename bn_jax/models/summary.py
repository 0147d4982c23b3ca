"""What each layer of a network makes and costs, without running it."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import traverse_util


class Layer(NamedTuple):
  """A layer of a network, for one example.

  Attributes:
    name: as records and figures have it.
    shape: of its output, without the batch.
    kernel: shape of its kernel; of the last, where it has two.
    weights: numbers in its kernels.
    parameters: those, its biases and what its norm has.
    multiply_adds: of its products, at the border of a map as everywhere:
      weights of an output, times outputs.
  """

  name: str
  shape: tuple[int, ...]
  kernel: tuple[int, ...]
  weights: int
  parameters: int
  multiply_adds: int


def of(module: nn.Module, shape: Sequence[int]) -> tuple[Layer, ...]:
  """The layers of a network in forward order.

  Args:
    module: a network of `bn_jax.models`.
    shape: of one example of its input, such as (224, 224, 3).

  Raises:
    ValueError: an input that the network refuses.
  """
  outputs, params = _traced(module, shape)
  return tuple(
    _layer(name, [tuple(path.split('/')) for path in paths], outputs, params)
    for name, paths in module.layer_paths()
  )


def _traced(module, shape) -> tuple[dict, dict]:
  """path -> shape of what a module with a kernel makes; path -> parameter."""
  outputs = {}

  def record(call, args, keywords, context):
    y = call(*args, **keywords)
    if context.module.has_variable('params', 'kernel'):
      outputs[context.module.path] = y.shape[1:]
    return y

  def init(x):
    with nn.intercept_methods(record):
      return module.init(jax.random.key(0), x, mode='running')

  x = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
  params = jax.eval_shape(init, x)['params']
  return outputs, traverse_util.flatten_dict(params)


def _layer(name, paths, outputs, params) -> Layer:
  own = {
    key: leaf
    for key, leaf in params.items()
    if any(key[: len(path)] == path for path in paths)
  }
  kernels = [params[*path, 'kernel'].shape for path in paths if path in outputs]
  shapes = [outputs[path] for path in paths if path in outputs]
  return Layer(
    name,
    shapes[-1],
    kernels[-1],
    sum(map(math.prod, kernels)),
    sum(leaf.size for leaf in own.values()),
    sum(
      math.prod(kernel[:-1]) * math.prod(shape)
      for kernel, shape in zip(kernels, shapes)
    ),
  )
