"""The networks of the papers; which normalization they have is an argument."""

import functools
from collections.abc import Mapping
from typing import Any

from flax import linen as nn

from bn_jax import errors, norms
from bn_jax.models import deep_linear, inception, mlp, resnet, summary, vgg
from bn_jax.models.lowering import LOWERINGS

MODELS = {
  'bn_inception': inception.make_bn_inception,
  'deep_linear': deep_linear.make,
  'inception': inception.make_inception,
  'mlp': mlp.make,
  'resnet20': functools.partial(resnet.make_cifar, depth=20),
  'resnet50': resnet.make_imagenet,
  'resnet56': functools.partial(resnet.make_cifar, depth=56),
  'vgg11': functools.partial(vgg.make, depth=11),
  'vgg13': functools.partial(vgg.make, depth=13),
  'vgg16': functools.partial(vgg.make, depth=16),
  'vgg19': functools.partial(vgg.make, depth=19),
}

Layer = summary.Layer
summarize = summary.of

__all__ = [
  'LOWERINGS',
  'MODELS',
  'Layer',
  'layers',
  'make',
  'summarize',
  'taps',
]


def make(
  name: str,
  *,
  num_classes: int,
  norm: str | norms.Norm = 'none',
  **keywords: Any,
) -> nn.Module:
  """The network called `name`.

  Its call is `module(x, mode=..., mask=None, first=0)`: x is [N, H, W, C]; mode
  'batch' normalises with the batch's statistics, 'running' with those of the
  collection batch_stats; mask, [N] bool, keeps padding out of the statistics;
  first is the index of x[0] in its batch, where x is a part of it.

  Args:
    name: a key of `MODELS`.
    num_classes: size of the output.
    norm: a key of `norms.NORMS`, or what `norms.make` returns.
    **keywords: of that model, such as `width` and `head` of a VGG.

  Raises:
    ValueError: an unknown name, or a keyword out of its range.
  """
  factory = errors.lookup('model', MODELS, name)
  norm = norms.make(norm) if isinstance(norm, str) else norm
  return factory(num_classes=num_classes, norm=norm, **keywords)


def layers(
  module: nn.Module, variables: Mapping[str, Any]
) -> tuple[tuple[str, tuple[str, ...]], ...]:
  """The layers of a network in forward order: ((name, paths), ...).

  A layer is its kernel, its bias and the parameters of its norm; paths are
  '/'-joined prefixes into variables['params'], those that are there.
  """
  params = variables['params']
  return tuple(
    (name, tuple(path for path in paths if _contains(params, path)))
    for name, paths in module.layer_paths()
  )


def taps(module: nn.Module) -> tuple[tuple[str, str], ...]:
  """What enters the nonlinearities, in forward order: ((layer, path), ...).

  path is that of the module whose output it is: the norm, which is there even
  where it is the identity.
  """
  return module.tap_paths()


def _contains(params: Mapping[str, Any], path: str) -> bool:
  for key in path.split('/'):
    if key not in params:
      return False
    params = params[key]
  return True
