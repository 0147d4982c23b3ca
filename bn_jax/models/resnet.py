"""Builds residual networks, of CIFAR's size and of ImageNet's.

He, Zhang, Ren and Sun (2016), "Deep Residual Learning for Image Recognition",
arXiv:1512.03385. The norm stands after each convolution, before the
nonlinearity or the sum. The last norm of a block begins with scale 1, or with
0, so that a block begins as its shortcut (Goyal et al., 2017, "Accurate, Large
Minibatch SGD", arXiv:1706.02677, section 5.1).

  resnet20, resnet56   section 4.2: 3 stages of n blocks of two 3 x 3
                       convolutions, 6n + 2 weight layers, 16, 32 and 64
                       channels. A shortcut into more channels takes every
                       second pixel and fills up with zeros (option A).
  resnet18, resnet34   Table 1: the stem for ImageNet, then 2, 2, 2 and 2, or
                       3, 4, 6 and 3, blocks of two 3 x 3 convolutions. A
                       shortcut into another shape is a projection with a norm
                       (option B).
  resnet50             Table 1: stages of 3, 4, 6 and 3 bottlenecks, 1 x 1,
                       3 x 3 and 1 x 1 to four times the channels. The stride
                       is that of the 3 x 3 convolution ("v1.5"), or of the
                       first, as in the paper (`stride_in='1x1'`).

Initial kernels of convolutions are He's, N(0, 2 / fan_in) (He et al., 2015,
arXiv:1502.01852), as in the paper, or Glorot uniform as in the other networks
here. The logits' kernel is Glorot uniform. Without skips (`skip=False`) it is
the plain network of the same layers: the paper's "plain-20", and the
"ResNet-20-noshort" of Li et al. (2018), arXiv:1712.09913.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from bn_jax import checks
from bn_jax.models import parts
from bn_jax.models.lowering import LOWERINGS, conv, pool
from bn_jax.norms import norm as norm_lib

INITS = {
  'he': nn.initializers.variance_scaling(2.0, 'fan_in', 'normal'),
  'glorot': nn.initializers.glorot_uniform(),
}
SHORTCUTS = ('zeros', 'projection')
STRIDES_IN = ('3x3', '1x1')
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}


class Sum(nn.Module):
  """The sum of a block and its shortcut; a module, so that it has a path."""

  @nn.compact
  def __call__(self, x: jax.Array, shortcut: jax.Array) -> jax.Array:
    """Returns x + shortcut."""
    return x + shortcut


class Style(NamedTuple):
  """What all layers of a network share; names are those of `ResNet`."""

  norm: norm_lib.Norm
  initial: str
  lowering: str
  zero_init_residual: bool = False
  padding: str = 'same'

  def activated(self, x, keywords, *sizes):
    """Returns ReLU(norm(convolution(x))); keywords are of `parts`."""
    layer = self._convolution(*sizes)
    return parts.activated(self.norm, layer, x, nn.relu, **keywords)

  def normalised(self, x, keywords, *sizes):
    """Returns norm(convolution(x)), what a sum takes."""
    layer = self._convolution(*sizes)
    return parts.normalised(self.norm, layer, x, **keywords)

  def _convolution(self, name, channels, size, stride):
    return conv.Conv(
      features=channels,
      kernel_size=(size, size),
      strides=(stride, stride),
      padding=conv.pads(self.padding, (size, size), (stride, stride)),
      use_bias=self.norm.bias_before,
      kernel_init=INITS[self.initial],
      lowering=self.lowering,
      name=name,
    )

  def last(self):
    """Returns the style of a block's last layer."""
    if not self.zero_init_residual:
      return self
    return self._replace(norm=self.norm._replace(linear=self.norm.zeroed))


class Block(nn.Module):
  """Convolutions, then the sum with the block's input, then a ReLU.

  Attributes:
    convolutions: (channels, kernel size, stride) of conv1, conv2, ...
    shortcut: 'identity', 'zeros' or 'projection', a layer of that name; or
      'none', of a block that adds nothing.
    style: what the layers of the network share.
  """

  convolutions: tuple[tuple[int, int, int], ...]
  shortcut: str
  style: Style

  @nn.compact
  def __call__(self, x: jax.Array, **keywords) -> jax.Array:
    """Returns the block of x, [N, H, W, C]; keywords as `parts.activated`."""
    y = x
    for index, sizes in enumerate(self.convolutions, start=1):
      name = f'conv{index}'
      if index < len(self.convolutions) or self.shortcut == 'none':
        y = self.style.activated(y, keywords, name, *sizes)
      else:
        y = self.style.last().normalised(y, keywords, name, *sizes)
    stride = math.prod(stride for _, _, stride in self.convolutions)
    if self.shortcut == 'projection':
      sizes = (y.shape[-1], 1, stride)
      x = self.style.normalised(x, keywords, 'projection', *sizes)
    elif self.shortcut == 'zeros':
      x = padded(x, stride, y.shape[-1])
    elif self.shortcut == 'none':
      return y
    return nn.relu(Sum(name='sum')(y, x))


def padded(x: jax.Array, stride: int, channels: int) -> jax.Array:
  """Returns every stride-th pixel of x, filled up with channels of zeros."""
  x = x[:, ::stride, ::stride]
  return jnp.pad(x, [(0, 0)] * 3 + [(0, channels - x.shape[-1])])


class ResNet(nn.Module):
  """A residual network; layers are conv1, stage1_block1/conv1, ..., logits.

  Attributes:
    blocks: number of blocks in each stage.
    bottleneck: whether a block is a bottleneck, or two 3 x 3 convolutions.
    num_classes: size of the output.
    norm: the normalization after each convolution.
    width: multiplies all channels.
    shortcut: 'zeros' or 'projection', where the shape changes.
    initial: how kernels of convolutions are drawn, 'he' or 'glorot'. (A
      module of flax has a method called init.)
    lowering: how convolutions and pools are computed, see
      `bn_jax.models.lowering`.
    zero_init_residual: whether the scale of a block's last norm begins at 0.
    skip: whether blocks have shortcuts; False: the plain network.
    stem: 'imagenet': 7 x 7 at stride 2 to 64 channels, then a 3 x 3 max pool at
      stride 2; 'cifar': 3 x 3 to 16 channels.
    padding: of convolutions and pools at stride 2, 'same' or 'symmetric', see
      `lowering.conv.pads`; sizes are the same, and values are not.
    stride_in: the convolution of a bottleneck that has the stride, '3x3' or
      '1x1', the first.
  """

  blocks: tuple[int, ...]
  bottleneck: bool
  num_classes: int
  norm: norm_lib.Norm
  width: float = 1.0
  shortcut: str = 'zeros'
  initial: str = 'he'
  lowering: str = 'auto'
  zero_init_residual: bool = False
  skip: bool = True
  stem: str = 'cifar'
  padding: str = 'same'
  stride_in: str = '3x3'

  def __post_init__(self):
    parts.check_network(self.num_classes, self.norm)
    checks.sizes('blocks', self.blocks)
    checks.flag('bottleneck', self.bottleneck)
    parts.check_width(self.width)
    checks.one_of('shortcut', self.shortcut, SHORTCUTS)
    checks.one_of('init', self.initial, tuple(INITS))
    checks.one_of('lowering', self.lowering, LOWERINGS)
    checks.flag('zero_init_residual', self.zero_init_residual)
    if self.zero_init_residual and self.norm.zeroed is None:
      raise checks.Refused(
        'zero_init_residual',
        True,
        'False for a norm without a scale that could turn it off',
      )
    checks.flag('skip', self.skip)
    checks.one_of('stem', self.stem, ('cifar', 'imagenet'))
    checks.one_of('padding', self.padding, conv.PADDINGS)
    checks.one_of('stride_in', self.stride_in, STRIDES_IN)
    if self.zero_init_residual and not self.skip:
      raise checks.Refused(
        'zero_init_residual', True, 'False without skips: a block would be 0'
      )
    self.blocks = tuple(self.blocks)  # a list has no hash
    super().__post_init__()

  @norm_lib.checked_call
  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    *,
    statistics: str,
    mask: jax.Array | None = None,
    first: jax.Array | int = 0,
  ) -> jax.Array:
    """Returns the logits of images; see `bn_jax.models.make`."""
    parts.check_images(x, mask, 'ResNet', self._halving())
    keywords = dict(statistics=statistics, mask=mask, first=first)
    style = Style(
      self.norm, self.initial, self.lowering, self.zero_init_residual,
      self.padding,
    )  # fmt: skip
    is_imagenet = self.stem == 'imagenet'
    size, stride = (7, 2) if is_imagenet else (3, 1)
    channels = self._channels(stage=0)
    x = style.activated(x, keywords, 'conv1', channels, size, stride)
    if is_imagenet:
      x = pool.max_pool(x, padding=self.padding, lowering=self.lowering)
    for name, (convolutions, shortcut) in self._block_specs().items():
      x = Block(convolutions, shortcut, style, name=name)(x, **keywords)
    x = pool.global_average(x)
    return parts.dense('logits', self.num_classes, x.dtype, use_bias=True)(x)

  def _channels(self, stage: int) -> int:
    channels = (64 if self.stem == 'imagenet' else 16) * 2**stage
    return parts.scaled(channels, self.width)

  def _block_specs(self) -> dict[str, tuple[Any, str]]:
    """Returns {name of a block: (its convolutions, its shortcut)}."""
    specs = {}
    for stage, count in enumerate(self.blocks):
      channels = self._channels(stage)
      for block in range(count):
        stride = 2 if stage and not block else 1
        convolutions = ((channels, 3, stride), (channels, 3, 1))
        if self.bottleneck:
          first, second = stride, 1
          if self.stride_in == '3x3':
            first, second = 1, stride
          convolutions = (
            (channels, 1, first), (channels, 3, second), (4 * channels, 1, 1)
          )  # fmt: skip
        changes_shape = not block and (stage > 0 or self.bottleneck)
        shortcut = self.shortcut if changes_shape else 'identity'
        specs[f'stage{stage + 1}_block{block + 1}'] = (
          convolutions,
          shortcut if self.skip else 'none',
        )
    return specs

  def _halving(self) -> list[str]:
    """Returns the names of the layers of stride 2."""
    stem = ['conv1', 'pool1'] if self.stem == 'imagenet' else []
    layers = [
      f'{block}/conv{index + 1}'
      for block, (convolutions, _) in self._block_specs().items()
      for index, (_, _, stride) in enumerate(convolutions)
      if stride == 2
    ]
    return stem + layers

  def smallest_image(self) -> int:
    """Returns the smallest side of an image, in pixels."""
    return 2 ** len(self._halving())

  def layer_paths(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Returns (name, paths of its parameters) of each layer, in order."""
    names = ['conv1']
    for block, (convolutions, shortcut) in self._block_specs().items():
      layers = [f'conv{i + 1}' for i in range(len(convolutions))]
      layers += ['projection'] if shortcut == 'projection' else []
      names += [f'{block}/{name}' for name in layers]
    hidden = ((name, parts.paths(name)) for name in names)
    return (*hidden, ('logits', ('logits',)))

  def tap_paths(self) -> tuple[tuple[str, str], ...]:
    """Returns (layer, path of the module) of what enters nonlinearities.

    For a block's last convolution that is the sum, if there is one. A
    projection has none.
    """
    taps = [parts.tap('conv1')]
    for block, (convolutions, _) in self._block_specs().items():
      last = len(convolutions)
      taps += [parts.tap(f'{block}/conv{i}') for i in range(1, last)]
      end = f'{block}/conv{last}'
      taps.append((end, f'{block}/sum') if self.skip else parts.tap(end))
    return tuple(taps)


def make_cifar(
  *,
  depth: int,
  num_classes: int,
  norm: norm_lib.Norm,
  width: float = 1.0,
  shortcut: str = 'zeros',
  init: str = 'he',
  lowering: str = 'auto',
  zero_init_residual: bool = False,
  skip: bool = True,
) -> ResNet:
  """Returns a residual network for images of CIFAR's size, 6n + 2 layers deep.

  Keywords, except depth, are the attributes of `ResNet`.

  Args:
    init: of its convolutions' kernels, 'he' or 'glorot'; there `initial`.

  Raises:
    ValueError: a keyword out of its range.
  """
  if not checks.is_size(depth) or depth < 8 or depth % 6 != 2:
    raise checks.Refused('depth', depth, '8, 14, 20, ..., 6n + 2')
  blocks = ((depth - 2) // 6,) * 3
  return ResNet(
    blocks, False, num_classes, norm, width, shortcut, init, lowering,
    zero_init_residual, skip,
  )  # fmt: skip


def make_imagenet(
  *,
  depth: int,
  num_classes: int,
  norm: norm_lib.Norm,
  width: float = 1.0,
  init: str = 'he',
  lowering: str = 'auto',
  zero_init_residual: bool = False,
  skip: bool = True,
  padding: str = 'same',
) -> ResNet:
  """Returns ResNet-18 or 34; keywords are those of `ResNet`, init is initial.

  Raises:
    ValueError: a keyword out of its range.
  """
  checks.one_of('depth', depth, (18, 34))
  return ResNet(
    BLOCKS[depth], False, num_classes, norm, width, 'projection', init,
    lowering, zero_init_residual, skip, 'imagenet', padding,
  )  # fmt: skip


def make_bottlenecks(
  *,
  num_classes: int,
  norm: norm_lib.Norm,
  width: float = 1.0,
  init: str = 'he',
  lowering: str = 'auto',
  zero_init_residual: bool = False,
  skip: bool = True,
  padding: str = 'same',
  stride_in: str = '3x3',
) -> ResNet:
  """Returns ResNet-50; keywords are those of `ResNet`, init is initial.

  Raises:
    ValueError: a keyword out of its range.
  """
  return ResNet(
    BLOCKS[50], True, num_classes, norm, width, 'projection', init, lowering,
    zero_init_residual, skip, 'imagenet', padding, stride_in,
  )  # fmt: skip
