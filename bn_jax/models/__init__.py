"""Makes the networks of the papers, residual ones and a transformer."""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import traverse_util

from bn_jax import checks, errors, norms, plugins
from bn_jax.models import deep_linear, inception, mlp, resnet, vgg, vit
from bn_jax.models.adapted import adapt, check_call, for_shape, traits
from bn_jax.models.found import Traits, with_norm
from bn_jax.models.lowering import LOWERINGS
from bn_jax.models.swapped import replace_norms

# Name in a config -> a constructor of the network.
MODELS = {
  'bn_inception': inception.make_bn_inception,
  'deep_linear': deep_linear.make,
  'inception': inception.make_inception,
  'mlp': mlp.make,
  'resnet18': functools.partial(resnet.make_imagenet, depth=18),
  'resnet20': functools.partial(resnet.make_cifar, depth=20),
  'resnet34': functools.partial(resnet.make_imagenet, depth=34),
  'resnet50': resnet.make_bottlenecks,
  'resnet56': functools.partial(resnet.make_cifar, depth=56),
  'vgg11': functools.partial(vgg.make, depth=11),
  'vgg13': functools.partial(vgg.make, depth=13),
  'vgg16': functools.partial(vgg.make, depth=16),
  'vgg19': functools.partial(vgg.make, depth=19),
  'vit_tiny': vit.make,
}

__all__ = [
  'LOWERINGS',
  'MODELS',
  'Layer',
  'Traits',
  'adapt',
  'for_shape',
  'layers',
  'make',
  'replace_norms',
  'summarize',
  'taps',
  'traits',
  'with_norm',
]


class Layer(NamedTuple):
  """A layer of a network, for one example.

  Attributes:
    name: its name in records and figures.
    shape: of its output, without the batch.
    kernel: shape of its kernel; of the last, where it has two.
    weights: how many numbers its kernels have.
    parameters: the weights, biases and parameters of its norm, counted.
    multiply_adds: weights of an output, times outputs; zeros of the padding
      count too.
  """

  name: str
  shape: tuple[int, ...]
  kernel: tuple[int, ...]
  weights: int
  parameters: int
  multiply_adds: int


def make(
  name: str,
  *,
  num_classes: int,
  norm: str | norms.Norm = 'none',
  **keywords: Any,
) -> nn.Module:
  """Returns the network called `name`.

  Its call is `module(x, statistics=..., mask=None, first=0)` and returns
  [N, num_classes]. x is [N, H, W, C]; all products are computed in its dtype.
  Statistics 'batch' normalises by those of the batch, 'running' by those of the
  collection batch_stats. mask, [N] bool, is False for padding, which is left
  out of the statistics. first is the index of x[0] in the batch of the step;
  random streams depend on it.

  Args:
    name: a key of `MODELS`, or a reference to a user's function, as
      'my_module:make', which returns a network, adapted if it is called in
      another way; it need not have the keywords num_classes and norm.
    num_classes: size of the output.
    norm: a key of `norms.NORMS`, or what `norms.make` returns.
    **keywords: of its constructor, such as `width` and `head` of a VGG.

  Raises:
    ValueError: an unknown name, or a keyword out of its range; the call raises
      it for images that are too small and for unknown statistics.
  """
  norm = norms.make(norm) if isinstance(norm, str) else norm
  if not isinstance(norm, norms.Norm):
    raise checks.Refused('norm', norm, 'a name, or what norms.make returns')
  keywords |= {'num_classes': num_classes, 'norm': norm}
  if not plugins.is_reference(name):
    return errors.lookup('model', MODELS, name)(**keywords)
  module = plugins.made(
    name,
    keywords,
    lambda module: isinstance(module, nn.Module),
    'a flax.linen.Module',
    optional=('num_classes', 'norm'),
  )
  check_call(name, module)
  return for_shape(module, None)


def layers(
  module: nn.Module, variables: Mapping[str, Any]
) -> tuple[tuple[str, tuple[str, ...]], ...]:
  """Returns the layers of a network in forward order: ((name, paths), ...).

  A layer is its kernel, its bias and the parameters of its norm. Paths are
  '/'-joined prefixes into variables['params']; those not in it are left out.
  """
  params = variables['params']
  return tuple(
    (name, tuple(path for path in paths if _contains(params, path)))
    for name, paths in _named(module).layer_paths()
  )


def taps(module: nn.Module) -> tuple[tuple[str, str], ...]:
  """Returns ((layer, path), ...) of what enters nonlinearities, in order.

  The path is that of the module whose output enters: the norm, which exists
  even where it is the identity.
  """
  return _named(module).tap_paths()


def summarize(module: nn.Module, shape: Sequence[int]) -> tuple[Layer, ...]:
  """Computes the shapes and costs of a network's layers, without running it.

  Args:
    shape: of one example of the input, such as (224, 224, 3).

  Raises:
    ValueError: an input that the network refuses; a layer that does not return
      one array.
  """
  module = for_shape(module, shape)
  output_shapes, params = _traced(module, shape)
  return tuple(
    _summary(
      name, [tuple(path.split('/')) for path in paths], output_shapes, params
    )
    for name, paths in module.layer_paths()
  )


def _named(module: nn.Module) -> nn.Module:
  """Returns a network that names its layers; raises ValueError for others."""
  if hasattr(module, 'layer_paths'):
    return module
  raise ValueError(
    f'{type(module).__name__} does not name its layers; give '
    'models.adapt(module, shape=...)'
  )


def _traced(module, shape) -> tuple[dict, dict]:
  """Returns {path: output's shape} of layers, and {path: parameter}."""
  output_shapes = {}

  def record(call, args, keywords, context):
    y = call(*args, **keywords)
    if context.module.has_variable('params', 'kernel'):
      if not hasattr(y, 'shape'):  # as parts of flax's OptimizedLSTMCell
        raise ValueError(
          f'the layer {"/".join(context.module.path)} returns a '
          f'{type(y).__name__}; allowed: an array, whose shape is counted'
        )
      output_shapes[context.module.path] = y.shape[1:]
    return y

  def init(x):
    with nn.intercept_methods(record):
      return module.init(jax.random.key(0), x, statistics='running')

  x = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
  params = jax.eval_shape(init, x)['params']
  return output_shapes, traverse_util.flatten_dict(params)


def _summary(name, paths, output_shapes, params) -> Layer:
  leaves = [
    leaf
    for key, leaf in params.items()
    if any(key[: len(path)] == path for path in paths)
  ]
  paths = [path for path in paths if path in output_shapes]
  kernels = [params[*path, 'kernel'].shape for path in paths]
  shapes = [output_shapes[path] for path in paths]
  return Layer(
    name,
    shapes[-1],
    kernels[-1],
    sum(map(math.prod, kernels)),
    sum(leaf.size for leaf in leaves),
    sum(
      math.prod(kernel[:-1]) * math.prod(shape)
      for kernel, shape in zip(kernels, shapes)
    ),
  )


def _contains(params: Mapping[str, Any], path: str) -> bool:
  for key in path.split('/'):
    if key not in params:
      return False
    params = params[key]
  return True
