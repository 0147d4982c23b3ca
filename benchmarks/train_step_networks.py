"""Writes the networks of `train_step` once, for every peer that has the layers.

They are written from the papers and share no code with bn_jax: VGG-11 and
VGG-16 (Simonyan and Zisserman, 2015, arXiv:1409.1556, Table 1, columns A and D,
with one dense layer), ResNet-20 (He et al., 2016, arXiv:1512.03385, section
4.2, shortcuts of option A) and BN-Inception (Ioffe and Szegedy, 2015,
arXiv:1502.03167, Figure 5). Layers have bn_jax's names, so that parameters can
be handed over: the kernel of 'mixed_3a/b1x1' is 'mixed_3a/b1x1/kernel', its
norm has 'mixed_3a/b1x1_norm/scale'.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

_VGG = {
  'vgg11': ((64,), (128,), (256,) * 2, (512,) * 2, (512,) * 2),
  'vgg16': ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3),
}
# 1 x 1; reduction, 3 x 3; reduction, twice 3 x 3; pool, its projection.
_INCEPTION = {
  'mixed_3a': (64, 64, 64, 64, 96, 'average', 32),
  'mixed_3b': (64, 64, 96, 64, 96, 'average', 64),
  'mixed_3c': (0, 128, 160, 64, 96, 'max', 0),
  'mixed_4a': (224, 64, 96, 96, 128, 'average', 128),
  'mixed_4b': (192, 96, 128, 96, 128, 'average', 128),
  'mixed_4c': (160, 128, 160, 128, 160, 'average', 128),
  'mixed_4d': (96, 128, 192, 160, 192, 'average', 128),
  'mixed_4e': (0, 128, 192, 192, 256, 'max', 0),
  'mixed_5a': (352, 192, 320, 160, 224, 'average', 128),
  'mixed_5b': (352, 192, 320, 192, 224, 'max', 128),
}


class Layers(Protocol):
  """What a library computes; x is whatever it takes for a batch of maps.

  Windows are padded as 'SAME' does it, but for the pool of 2 x 2 at stride 2.
  """

  def normalised(self, x, name: str, features: int, size: int, stride: int):
    """Returns BN(convolution(x)), without a bias between them."""

  def relu(self, x):
    """Returns max(x, 0)."""

  def add(self, x, y):
    """Returns x + y."""

  def shortcut(self, x, features: int):
    """Returns every second pixel of x, filled up with channels of zeros."""

  def max_pool(self, x, size: int, stride: int):
    """Returns the maximum of each window."""

  def average_pool(self, x):
    """Returns the mean of 3 x 3 windows at stride 1, padding not counted."""

  def concatenate(self, maps: list):
    """Returns maps side by side, by channels."""

  def logits(self, x, classes: int):
    """Returns a dense layer, with a bias, of the mean of each map."""


class Case(NamedTuple):
  """A network, and the batch with which it is trained.

  Attributes:
    forward: (layers, x) -> logits.
    model: name and keywords of ours.
    batch_size, side: of the batch: examples, pixels of a side.
    classes: number of them.
  """

  forward: Callable[[Layers, Any], Any]
  model: dict[str, Any]
  batch_size: int
  side: int
  classes: int


def _activated(layers, x, name, features, size=3, stride=1):
  return layers.relu(layers.normalised(x, name, features, size, stride))


def _vgg(layers: Layers, x, name: str):
  index = 0
  for block in _VGG[name]:
    for features in block:
      index += 1
      x = _activated(layers, x, f'conv{index}', features)
    x = layers.max_pool(x, 2, 2)
  return layers.logits(x, 10)  # its maps are of 1 x 1


def _resnet20(layers: Layers, x):
  x = _activated(layers, x, 'conv1', 16)
  for stage, features in enumerate((16, 32, 64), start=1):
    for block in range(1, 4):
      name = f'stage{stage}_block{block}'
      narrows = stage > 1 and block == 1
      y = _activated(
        layers, x, f'{name}/conv1', features, 3, 2 if narrows else 1
      )
      y = layers.normalised(y, f'{name}/conv2', features, 3, 1)
      x = layers.shortcut(x, features) if narrows else x
      x = layers.relu(layers.add(y, x))
  return layers.logits(x, 10)


def _bn_inception(layers: Layers, x):
  x = _activated(layers, x, 'conv1', 64, 7, 2)
  x = layers.max_pool(x, 3, 2)
  x = _activated(layers, x, 'conv2', 64, 1)
  x = _activated(layers, x, 'conv3', 192)
  x = layers.max_pool(x, 3, 2)
  for name, row in _INCEPTION.items():
    x = _mixed(layers, x, name, *row)
  return layers.logits(x, 1000)


def _mixed(layers, x, name, single, reduce, wide, reduce2, double, pool, last):
  stride = 1 if last else 2
  branches = []
  if single:
    branches.append(_activated(layers, x, f'{name}/b1x1', single, 1))
  y = _activated(layers, x, f'{name}/b3x3_1', reduce, 1)
  branches.append(_activated(layers, y, f'{name}/b3x3_2', wide, 3, stride))
  y = _activated(layers, x, f'{name}/bd3x3_1', reduce2, 1)
  y = _activated(layers, y, f'{name}/bd3x3_2', double)
  branches.append(_activated(layers, y, f'{name}/bd3x3_3', double, 3, stride))
  if pool == 'average':
    y = layers.average_pool(x)
  else:
    y = layers.max_pool(x, 3, stride)
  if last:
    y = _activated(layers, y, f'{name}/bpool', last, 1)
  return layers.concatenate([*branches, y])


CASES = {
  'vgg11': Case(
    lambda layers, x: _vgg(layers, x, 'vgg11'), {'name': 'vgg11'}, 128, 32, 10
  ),
  'vgg16': Case(
    lambda layers, x: _vgg(layers, x, 'vgg16'), {'name': 'vgg16'}, 128, 32, 10
  ),
  'resnet20': Case(_resnet20, {'name': 'resnet20'}, 128, 32, 10),
  'bn_inception': Case(_bn_inception, {'name': 'bn_inception'}, 16, 224, 1000),
}
