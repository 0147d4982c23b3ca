"""Tells how other frameworks name and lay out the weights of networks here.

A `Foreign` is a network of torchvision (0.28), timm (1.0) or Keras (3.15): the
keywords of ours that make it the same function, and for each layer its names
there. `tensors` says of every array where it lies in both, and how; `to_ours`
and `to_theirs` move the axes. What they do otherwise than ours by default:

  PyTorch   kernels are [out, in, height, width] and [out, in]; a flatten has
            the channels first; padding at stride 2 is symmetric; the running
            variance is unbiased. torchvision's VGG has biases before its norms,
            none of them in the head, and averages the last maps to 7 x 7. In
            timm's VGG the two hidden dense layers are convolutions.
  Keras     kernels are as here; the first convolution takes blue, green and
            red; convolutions before norms have biases; a ResNet has the stride
            in the first convolution of a bottleneck, and epsilon 1.001e-5.
"""

import functools
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from bn_jax import errors
from bn_jax.models import resnet, vgg

# In grey levels, 0 to 255: red, green, blue. Keras' are of its mode 'caffe'.
_IMAGENET = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
_CAFFE = (123.68, 116.779, 103.939), (1.0, 1.0, 1.0)
HEAD_POOL = 7  # pixels of a side of the last maps of an original VGG


class Layout(NamedTuple):
  """How an array lies there, in terms of ours.

  Attributes:
    outputs_first: whether the axis of outputs is the first, and the others in
      reverse groups, as PyTorch has kernels.
    window: of a dense layer that is a convolution there, its side; 0: none.
  """

  outputs_first: bool = False
  window: int = 0


_AS_OURS, _OUTPUTS_FIRST = Layout(), Layout(True)


class Names(NamedTuple):
  """How a framework calls what a layer has, behind the layer's own name."""

  kernel: str
  bias: str
  scale: str
  shift: str
  mean: str
  var: str
  # Of updates of the running statistics.
  count: str | None  # pyright: ignore[reportIncompatibleMethodOverride]  # nobody counts in it


_PYTORCH = Names(
  '.weight', '.bias', '.weight', '.bias', '.running_mean', '.running_var',
  '.num_batches_tracked',
)  # fmt: skip
_KERAS = Names(
  '/kernel', '/bias', '/gamma', '/beta', '/moving_mean', '/moving_variance',
  None,
)  # fmt: skip


class Layer(NamedTuple):
  """A layer of a network.

  Attributes:
    ours: its path here.
    theirs: its name there.
    norm: the name of its norm there; None: it has none.
    layout: of its kernel.
  """

  ours: str
  theirs: str
  norm: str | None
  layout: Layout


class Foreign(NamedTuple):
  """A network of another framework.

  Attributes:
    name: such as 'torchvision:vgg16_bn'.
    model, norm: the keywords of `models.make` and `norms.make` that make it the
      same function, with their names.
    names: of the framework.
    layers: in forward order.
    mean, std: by which its weights' inputs are normalised, in grey levels.
    reversed_colours: whether the first kernel takes blue, green and red.
  """

  name: str
  model: Mapping[str, Any]
  norm: Mapping[str, Any]
  names: Names
  layers: tuple[Layer, ...]
  mean: tuple[float, ...]
  std: tuple[float, ...]
  reversed_colours: bool = False


class Tensor(NamedTuple):
  """An array of a network.

  Attributes:
    theirs: its name there.
    path: of ours: 'params/conv1/kernel'.
    shape: of ours.
    layout: of theirs.
    reversed_colours: whether the inputs of the kernel are in reverse order.
  """

  theirs: str
  path: str
  shape: tuple[int, ...]
  layout: Layout = _AS_OURS
  reversed_colours: bool = False

  @property
  def their_shape(self) -> tuple[int, ...]:
    """Returns the shape of the array there."""
    if not self.layout.outputs_first:
      return self.shape
    *rest, outputs = self.shape
    if len(rest) == 2 + 1:
      height, width, inputs = rest
      return outputs, inputs, height, width
    (inputs,), side = rest, self.layout.window
    return (
      (outputs, inputs // side**2, side, side) if side else (outputs, *rest)
    )


def names() -> list[str]:
  """Returns the names of all networks of other frameworks."""
  return sorted(_NETWORKS)


def network(name: str) -> Foreign:
  """Returns the network of this name.

  Raises:
    ValueError: an unknown one.
  """
  return errors.lookup('network', _NETWORKS, name)()


def tensors(
  foreign: Foreign, shapes: Mapping[str, tuple[int, ...]]
) -> Iterator[Tensor]:
  """Yields the arrays of a network that both frameworks have.

  Args:
    shapes: path -> shape of all of ours: 'params/conv1/kernel',
      'batch_stats/conv1_norm/mean'.
  """
  own = foreign.names
  for layer in foreign.layers:
    first = layer is foreign.layers[0] and foreign.reversed_colours
    path = f'params/{layer.ours}/kernel'
    yield Tensor(
      layer.theirs + own.kernel, path, shapes[path], layer.layout, first
    )
    rows = [(layer.theirs, own.bias, f'params/{layer.ours}/bias')]
    if layer.norm is not None:
      params, stats = (
        f'{collection}/{layer.ours}_norm'
        for collection in ('params', 'batch_stats')
      )
      rows += [
        (layer.norm, own.scale, f'{params}/scale'),
        (layer.norm, own.shift, f'{params}/bias'),
        (layer.norm, own.mean, f'{stats}/mean'),
        (layer.norm, own.var, f'{stats}/var'),
        (layer.norm, own.count, f'{stats}/count'),
      ]
    for prefix, suffix, path in rows:
      if path in shapes and suffix is not None:
        yield Tensor(prefix + suffix, path, shapes[path])


def uncounted(foreign: Foreign) -> set[str]:
  """Returns the names of counts, which a file may have or lack."""
  suffix = foreign.names.count
  return {
    layer.norm + suffix
    for layer in foreign.layers
    if layer.norm is not None and suffix is not None
  }


def to_ours(tensor: Tensor, array: np.ndarray) -> np.ndarray:
  """Returns an array of theirs, or some of its outputs, with our axes.

  It may be a view: what is stored has to be made contiguous.
  """
  if tensor.layout.outputs_first:
    if len(tensor.shape) == 2:
      array = array.reshape(len(array), -1).T
    else:
      array = array.transpose(2, 3, 1, 0)
  return array[:, :, ::-1] if tensor.reversed_colours else array


def to_theirs(tensor: Tensor, array: np.ndarray) -> np.ndarray:
  """Returns an array of ours with their axes, contiguous.

  safetensors 0.8.0 writes another in the order of its memory, without a word
  (findings/safetensors_transposed.sh).
  """
  array = array[:, :, ::-1] if tensor.reversed_colours else array
  if tensor.layout.outputs_first:
    array = array.T if array.ndim == 2 else array.transpose(3, 2, 0, 1)
  # ascontiguousarray would give an array without axes one of length 1.
  return np.asarray(array, order='C').reshape(tensor.their_shape)


def channels_first(kernel: np.ndarray, side: int) -> np.ndarray:
  """Returns a dense kernel behind a flatten, its inputs with channels first.

  Args:
    kernel: [side * side * channels, out], inputs in the order of our maps.
  """
  maps = kernel.reshape(side, side, -1, kernel.shape[-1])
  return maps.transpose(2, 0, 1, 3).reshape(kernel.shape)


def width(foreign: Foreign, shapes: Mapping[str, tuple[int, ...]]) -> float:
  """Returns the width by the first kernel's outputs; 1 where it lacks.

  Args:
    shapes: name there -> shape there.
  """
  first = foreign.layers[0]
  shape = shapes.get(first.theirs + foreign.names.kernel)
  if shape is None or len(shape) != 4:
    return 1.0
  return shape[0 if first.layout.outputs_first else -1] / 64


def outputs(foreign: Foreign, shapes: Mapping[str, tuple[int, ...]]) -> list:
  """Returns the widths of the dense layers by their biases, None for lacking.

  Args:
    shapes: name there -> shape there.
  """
  dense = [
    layer for layer in foreign.layers
    if re.fullmatch(r'dense\d+|logits', layer.ours)
  ]  # fmt: skip
  sizes = [shapes.get(layer.theirs + foreign.names.bias) for layer in dense]
  return [size[0] if size and len(size) == 1 else None for size in sizes]


def _torch_norm(**keywords: Any) -> dict[str, Any]:
  """Returns BatchNorm2d as ours; its momentum, 0.1, is the share of the new."""
  return {
    'name': 'batch', 'momentum': 0.9, 'epsilon': 1e-5,
    'running_variance': 'unbiased', **keywords,
  }  # fmt: skip


def _torch_vgg(library: str, depth: int, has_norm: bool) -> Foreign:
  layers, index, number = [], 0, 0
  for count in vgg.BLOCKS[depth]:
    for _ in range(count):
      number += 1
      norm = f'features.{index + 1}' if has_norm else None
      layers.append(
        Layer(f'conv{number}', f'features.{index}', norm, _OUTPUTS_FIRST)
      )
      index += 3 if has_norm else 2
    index += 1  # the pool
  rows = ('classifier.0', 0), ('classifier.3', 0), ('classifier.6', 0)
  if library == 'timm':
    rows = ('pre_logits.fc1', HEAD_POOL), ('pre_logits.fc2', 1), ('head.fc', 0)
  for ours, (theirs, window) in zip(('dense1', 'dense2', 'logits'), rows):
    layers.append(Layer(ours, theirs, None, Layout(True, window)))
  return Foreign(
    f'{library}:vgg{depth}{"_bn" * has_norm}',
    {
      'name': f'vgg{depth}', 'head': (4096, 4096), 'head_norm': False,
      'head_pool': HEAD_POOL, 'flatten': 'channels_first',
      # timm's have a rate of 0 unless one is given.
      'dropout': 0.5 if library == 'torchvision' else 0.0,
    },
    _torch_norm(bias_before=True) if has_norm else {'name': 'none'},
    _PYTORCH, tuple(layers), *_IMAGENET,
  )  # fmt: skip


def _blocks(depth: int) -> Iterator[tuple[str, int, int, int, bool]]:
  """Yields (our block, stage, block, convolutions, whether it projects)."""
  count = 3 if depth == 50 else 2
  for stage, blocks in enumerate(resnet.BLOCKS[depth], start=1):
    for block in range(1, blocks + 1):
      projects = block == 1 and (stage > 1 or depth == 50)
      yield f'stage{stage}_block{block}', stage, block, count, projects


def _torch_resnet(library: str, depth: int) -> Foreign:
  layers = [Layer('conv1', 'conv1', 'bn1', _OUTPUTS_FIRST)]
  for ours, stage, block, count, projects in _blocks(depth):
    theirs = f'layer{stage}.{block - 1}'
    names = [(f'conv{k}', f'conv{k}', f'bn{k}') for k in range(1, count + 1)]
    if projects:
      names.append(('projection', 'downsample.0', 'downsample.1'))
    layers += [
      Layer(f'{ours}/{own}', f'{theirs}.{conv}', f'{theirs}.{norm}',
            _OUTPUTS_FIRST)
      for own, conv, norm in names
    ]  # fmt: skip
  layers.append(Layer('logits', 'fc', None, _OUTPUTS_FIRST))
  model = {'name': f'resnet{depth}', 'padding': 'symmetric', 'skip': True}
  if depth == 50:
    model['stride_in'] = '3x3'
  return Foreign(
    f'{library}:resnet{depth}', model, _torch_norm(), _PYTORCH, tuple(layers),
    *_IMAGENET,
  )  # fmt: skip


def _keras_vgg(depth: int) -> Foreign:
  layers, number = [], 0
  for block, count in enumerate(vgg.BLOCKS[depth], start=1):
    for index in range(1, count + 1):
      number += 1
      layers.append(
        Layer(f'conv{number}', f'block{block}_conv{index}', None, _AS_OURS)
      )
  for ours, theirs in (
    ('dense1', 'fc1'), ('dense2', 'fc2'), ('logits', 'predictions')
  ):  # fmt: skip
    layers.append(Layer(ours, theirs, None, _AS_OURS))
  model = {
    'name': f'vgg{depth}', 'head': (4096, 4096), 'head_norm': False,
    'head_pool': None, 'flatten': 'channels_last', 'dropout': 0.0,
  }  # fmt: skip
  return Foreign(
    f'keras:vgg{depth}', model, {'name': 'none'}, _KERAS, tuple(layers),
    *_CAFFE, reversed_colours=True,
  )  # fmt: skip


def _keras_resnet50() -> Foreign:
  layers = [Layer('conv1', 'conv1_conv', 'conv1_bn', _AS_OURS)]
  for ours, stage, block, count, projects in _blocks(50):
    own = [*range(1, count + 1), *([0] if projects else [])]
    layers += [
      Layer(
        f'{ours}/conv{k}' if k else f'{ours}/projection',
        f'conv{stage + 1}_block{block}_{k}_conv',
        f'conv{stage + 1}_block{block}_{k}_bn',
        _AS_OURS,
      )
      for k in own
    ]
  layers.append(Layer('logits', 'predictions', None, _AS_OURS))
  model = {
    'name': 'resnet50', 'padding': 'symmetric', 'stride_in': '1x1',
    'skip': True,
  }  # fmt: skip
  norm = {
    'name': 'batch', 'momentum': 0.99, 'epsilon': 1.001e-5,
    'running_variance': 'biased', 'bias_before': True,
  }  # fmt: skip
  return Foreign(
    'keras:resnet50', model, norm, _KERAS, tuple(layers), *_CAFFE,
    reversed_colours=True,
  )  # fmt: skip


_NETWORKS = {
  **{
    f'{library}:vgg{depth}{"_bn" * has_norm}': functools.partial(
      _torch_vgg, library, depth, has_norm
    )
    for library in ('torchvision', 'timm')
    for depth in vgg.BLOCKS
    for has_norm in (False, True)
  },
  **{
    f'{library}:resnet{depth}': functools.partial(_torch_resnet, library, depth)
    for library in ('torchvision', 'timm')
    for depth in resnet.BLOCKS
  },
  **{
    f'keras:vgg{depth}': functools.partial(_keras_vgg, depth)
    for depth in (16, 19)
  },
  'keras:resnet50': _keras_resnet50,
}
