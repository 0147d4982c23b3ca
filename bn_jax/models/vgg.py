"""Builds VGG networks, for images of at least 8 x 8 pixels.

Simonyan and Zisserman (2015), "Very Deep Convolutional Networks", arXiv:
1409.1556, Table 1, columns A, B, D and E. The normalization, if any, stands
before the nonlinearity (Ioffe and Szegedy 2015, section 3.2). A layer has no
bias where its norm removes the mean.

Five blocks are each followed by a 2 x 2 max pool. An image below 32 x 32 cannot
be halved five times, so the *first* pools are left out, and the late blocks get
maps of the size they have on CIFAR. (On a 1 x 1 map, eight of a 3 x 3 kernel's
nine weights would see padding alone, and networks without normalization lose
their signal.)

  image     pools left out       maps at the five blocks (square images)
  8 - 15    1, 2                 8  8  8  4  2      ends as 1 x 1
  16 - 31   1                    16 16 8  4  2      ends as 1 x 1
  32 -      none                 32 16 8  4  2      ends as 1 x 1 (224: 7 x 7)
"""

from collections.abc import Sequence
from typing import Any

import jax
from flax import linen as nn

from bn_jax import checks
from bn_jax.models import parts
from bn_jax.models.lowering import LOWERINGS, conv
from bn_jax.norms import norm as norm_lib

# Convolutions in each of the five blocks; depth counts three dense layers too.
BLOCKS = {
  11: (1, 1, 2, 2, 2),
  13: (2, 2, 2, 2, 2),
  16: (2, 2, 3, 3, 3),
  19: (2, 2, 4, 4, 4),
}
_CHANNELS = (64, 128, 256, 512, 512)
FLATTENS = ('channels_last', 'channels_first')
# With the first two pools left out, three have to halve the map.
SMALLEST_IMAGE = 8


class VGG(nn.Module):
  """A VGG network; layers are called conv1, conv2, ..., dense1, ..., logits.

  The norm of a layer is called LAYER_norm, that of its kernel, where there is
  one, LAYER_weight; its nonlinearity is a ReLU. The last layer, logits, has
  none of them.

  Attributes:
    depth: 11, 13, 16 or 19.
    num_classes: size of the output.
    norm: the normalization before each nonlinearity.
    width: multiplies the channels of the convolutions.
    head: widths of the hidden dense layers; (4096, 4096) is the original,
      (512, 512) or () are usual for CIFAR.
    dropout: probability that a hidden dense unit is dropped; 0.5 in the
      original.
    lowering: how convolutions and pools are computed, see
      `bn_jax.models.lowering`.
    head_norm: whether the hidden dense layers have a norm, too.
    head_pool: pixels of a side to which the last maps are averaged before the
      dense layers (`parts.adaptive_average`); None: as they are.
    flatten: order of the last map's numbers, 'channels_last' (height, width,
      channel) or 'channels_first'.
  """

  depth: int
  num_classes: int
  norm: norm_lib.Norm
  width: float = 1.0
  head: tuple[int, ...] = ()
  dropout: float = 0.0
  lowering: str = 'auto'
  head_norm: bool = True
  head_pool: int | None = None
  flatten: str = 'channels_last'

  def __post_init__(self):
    parts.check_network(self.num_classes, self.norm)
    checks.one_of('depth', self.depth, tuple(BLOCKS))
    parts.check_width(self.width)
    checks.sizes('head', self.head)
    checks.number('dropout', self.dropout, least=0, below=1)
    checks.one_of('lowering', self.lowering, LOWERINGS)
    checks.flag('head_norm', self.head_norm)
    checks.count('head_pool', self.head_pool, also=(None,))
    checks.one_of('flatten', self.flatten, FLATTENS)
    self.head = tuple(self.head)  # a list has no hash
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
    parts.check_rank(x, mask, 'VGG')
    first_pool = omitted_pools(x.shape[1:3])
    keywords: dict[str, Any] = dict(
      statistics=statistics, mask=mask, first=first
    )

    def activated(norm, layer, x):
      return parts.activated(norm, layer, x, nn.relu, **keywords)

    index = 0
    for block, convolutions in enumerate(BLOCKS[self.depth]):
      for _ in range(convolutions):
        index += 1
        x = activated(self.norm, self._convolution(block, index), x)
      if block >= first_pool:
        x = conv.max_pool(x, lowering=self.lowering)
    x = self._flat(x)
    norm = self.norm if self.head_norm else norm_lib.none()
    for number, features in enumerate(self.head, start=1):
      dense = parts.dense(
        f'dense{number}', features, x.dtype, use_bias=norm.bias_before
      )
      x = activated(norm, dense, x)
      x = parts.Dropout(self.dropout, name=f'dropout{number}')(x, first=first)
    return parts.dense('logits', self.num_classes, x.dtype, use_bias=True)(x)

  def _convolution(self, block: int, index: int) -> nn.Module:
    return conv.Conv(
      features=parts.scaled(_CHANNELS[block], self.width),
      use_bias=self.norm.bias_before,
      lowering=self.lowering,
      name=f'conv{index}',
    )

  def _flat(self, x: jax.Array) -> jax.Array:
    if self.head_pool is not None:
      x = parts.adaptive_average(x, self.head_pool)
    if self.flatten == 'channels_first':
      x = x.transpose(0, 3, 1, 2)
    return x.reshape(x.shape[0], -1)

  def smallest_image(self) -> int:
    """Returns the smallest side of an image, in pixels."""
    return SMALLEST_IMAGE

  def layer_paths(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Returns (name, paths of its parameters) of each layer, in order."""
    count = sum(BLOCKS[self.depth])
    names = [f'conv{i + 1}' for i in range(count)]
    names += [f'dense{i + 1}' for i in range(len(self.head))]
    hidden = [(name, parts.paths(name)) for name in names]
    return (*hidden, ('logits', ('logits',)))

  def tap_paths(self) -> tuple[tuple[str, str], ...]:
    """Returns (layer, path of its norm) of what enters nonlinearities."""
    return tuple(parts.tap(name) for name, _ in self.layer_paths()[:-1])


def make(
  *,
  depth: int,
  num_classes: int,
  norm: norm_lib.Norm,
  width: float = 1.0,
  head: tuple[int, ...] = (),
  dropout: float = 0.0,
  lowering: str = 'auto',
  head_norm: bool = True,
  head_pool: int | None = None,
  flatten: str = 'channels_last',
) -> VGG:
  """Returns a VGG network; keywords are the attributes of `VGG`.

  Raises:
    ValueError: a keyword out of its range.
  """
  return VGG(
    depth=depth,
    num_classes=num_classes,
    norm=norm,
    width=width,
    head=head,
    dropout=dropout,
    lowering=lowering,
    head_norm=head_norm,
    head_pool=head_pool,
    flatten=flatten,
  )


def omitted_pools(image: Sequence[int]) -> int:
  """Returns how many of the first pools are left out for an image.

  Args:
    image: (height, width) in pixels.

  Raises:
    ValueError: an image smaller than 8 x 8.
  """
  side = min(image)
  if side < SMALLEST_IMAGE:
    raise ValueError(
      f'an image of {image[0]} x {image[1]} pixels is too small for VGG: its '
      f'last pool would see less than 2 x 2; allowed: {SMALLEST_IMAGE} x '
      f'{SMALLEST_IMAGE} or more'
    )
  return 2 if side < 16 else 1 if side < 32 else 0
