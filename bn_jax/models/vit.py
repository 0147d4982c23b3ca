"""Builds vision transformers, where layer norms are at home.

Dosovitskiy et al. (2021), "An Image is Worth 16x16 Words", arXiv:2010.11929, in
the plain form of Beyer, Zhai and Kolesnikov (2022), "Better plain ViT baselines
for ImageNet-1k", arXiv:2205.01580: no class token, fixed positions of sines and
cosines, the mean over patches at the end.

  x = patches(image) + positions             one dense layer of each patch
  x = x + out(attention(qkv(norm(x))))       in each block,
  x = x + mlp2(gelu(mlp1(norm(x))))          twice a norm
  logits = logits(mean over patches of norm(x))

The norm of a layer stands before it, unlike in the other networks here, and
under the same name, LAYER_norm; no nonlinearity follows it directly. x is
[N, T, C], T patches, so that 'layer' and 'rms' normalise a patch by itself, as
transformers do, with per='position'; 'batch' has statistics over the patches of
all examples.

vit_tiny is six blocks of width 192 in three heads on patches of 4 x 4, as is
usual for images of 32 pixels: 2.7 million parameters.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from bn_jax import checks
from bn_jax.models import parts
from bn_jax.norms import norm as norm_lib

_SLOWEST = (
  10_000  # the largest wave length of a position, in patches, over 2 pi
)
_MLP = 4  # hidden units of a block, times the width


class Block(nn.Module):
  """A block of a transformer: attention and two dense layers, each added.

  Attributes:
    norm: before qkv and before mlp1.
    heads: of the attention; divides the channels.
  """

  norm: norm_lib.Norm
  heads: int

  @nn.compact
  def __call__(self, x: jax.Array, **keywords: Any) -> jax.Array:
    """Returns the block of x, [N, T, C]; keywords as `parts.normalised`."""
    width = x.shape[-1]

    def layer(name, features, x):
      return _dense(self.norm, name, features, x, keywords['statistics'])

    y = before(self.norm, 'qkv', x, keywords)
    qkv = layer('qkv', 3 * width, y)
    qkv = qkv.reshape(*qkv.shape[:2], 3, self.heads, width // self.heads)
    y = jax.nn.dot_product_attention(*jnp.moveaxis(qkv, 2, 0))
    x = x + layer('out', width, y.reshape(x.shape))
    y = before(self.norm, 'mlp1', x, keywords)
    y = nn.gelu(layer('mlp1', _MLP * width, y), approximate=False)
    return x + layer('mlp2', width, y)


class Mean(nn.Module):
  """The mean over patches; a module, so that `norms.fold` can look through it.

  Attributes:
    is_mean: that a scale and shift a channel pass through it as they are.
  """

  is_mean: bool = True

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Returns the mean of x, [N, T, C] -> [N, C], summed in float32."""
    wide = jnp.promote_types(x.dtype, jnp.float32)
    return x.mean(axis=1, dtype=wide).astype(x.dtype)


class ViT(nn.Module):
  """A vision transformer; layers are patches, block1/qkv, ..., logits.

  Attributes:
    num_classes: size of the output.
    norm: before the attention, the hidden layer of each block, and the logits.
    patch: pixels a side of a patch; divides the sides of an image.
    depth: number of blocks.
    width: channels of a patch; a multiple of four, and of `heads`.
    heads: of the attention; None: one for each 64 channels.
  """

  num_classes: int
  norm: norm_lib.Norm
  patch: int = 4
  depth: int = 6
  width: int = 192
  heads: int | None = None

  def __post_init__(self):
    parts.check_network(self.num_classes, self.norm)
    for name in ('patch', 'depth', 'width'):
      checks.count(name, getattr(self, name))
    checks.count('heads', self.heads, also=(None,))
    if self.width % 4:
      raise checks.Refused(
        'width', self.width, 'a multiple of 4: sines and cosines of two axes'
      )
    if self.width % _heads(self.heads, self.width):
      raise checks.Refused(
        'heads', self.heads, f'None, or what divides {self.width} channels'
      )
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
    parts.check_rank(x, mask, 'ViT')
    keywords = dict(statistics=statistics, mask=mask, first=first)
    x, grid = _patches(x, self.patch)
    x = _dense(self.norm, 'patches', self.width, x, statistics)
    x = x + jnp.asarray(_positions(grid, self.width), x.dtype)[None]
    heads = _heads(self.heads, self.width)
    for index in range(self.depth):
      x = Block(self.norm, heads, name=f'block{index + 1}')(x, **keywords)
    x = Mean(name='mean')(before(self.norm, 'logits', x, keywords))
    return parts.dense('logits', self.num_classes, x.dtype, use_bias=True)(x)

  def smallest_image(self) -> int:
    """Returns the smallest side of an image, in pixels."""
    return self.patch

  def layer_paths(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Returns (name, paths of its parameters) of each layer, in order."""
    names = ['patches']
    for block in self._blocks():
      names += [f'{block}/{name}' for name in ('qkv', 'out', 'mlp1', 'mlp2')]
    return tuple((name, parts.paths(name)) for name in (*names, 'logits'))

  def tap_paths(self) -> tuple[tuple[str, str], ...]:
    """Returns (layer, path of the module) of what enters nonlinearities.

    That is the hidden layer of each block itself, whose norm is before it.
    """
    paths = [f'{block}/mlp1' for block in self._blocks()]
    return tuple(zip(paths, paths))

  def _blocks(self) -> list[str]:
    return [f'block{index + 1}' for index in range(self.depth)]


def make(
  *,
  num_classes: int,
  norm: norm_lib.Norm,
  patch: int = 4,
  depth: int = 6,
  width: int = 192,
  heads: int | None = None,
) -> ViT:
  """Returns a vision transformer; keywords are the attributes of `ViT`.

  Raises:
    ValueError: a keyword out of its range.
  """
  return ViT(num_classes, norm, patch, depth, width, heads)


def before(
  norm: norm_lib.Norm, name: str, x: jax.Array, keywords: dict[str, Any]
) -> jax.Array:
  """Returns the norm of what enters the layer called `name`."""
  layer = norm.linear or norm.layer
  return layer(f'{name}_norm')(x, **keywords)


def _dense(
  norm: norm_lib.Norm, name: str, features: int, x: jax.Array, statistics: str
) -> jax.Array:
  """Returns a dense layer of x, its kernel normalised where the norm does."""
  dense = parts.dense(name, features, x.dtype, use_bias=True)
  return norm.weighted(dense, f'{name}_weight')(x, statistics=statistics)


def _heads(heads: int | None, width: int) -> int:
  return heads or max(1, width // 64)


def _patches(x: jax.Array, side: int) -> tuple[jax.Array, tuple[int, int]]:
  """Returns the patches of images, [N, T, side * side * C], and their grid.

  Raises:
    ValueError: sides that a patch does not divide.
  """
  count, height, width, channels = x.shape
  if height % side or width % side:
    raise ValueError(
      f'an image of {height} x {width} pixels has no whole patches of {side} x '
      f'{side}; allowed: sides that {side} divides, or another model.patch'
    )
  grid = (height // side, width // side)
  x = x.reshape(count, grid[0], side, grid[1], side, channels)
  x = jnp.moveaxis(x, 3, 2)  # [N, rows, columns, side, side, C]
  return x.reshape(count, math.prod(grid), side * side * channels), grid


def _positions(grid: tuple[int, int], width: int) -> np.ndarray:
  """Returns the position of each patch in sines and cosines, [T, width].

  Vaswani et al. (2017), "Attention Is All You Need", section 3.5, for each of
  two axes: sines and cosines of wave lengths from 2 pi to 2 pi * 10,000.
  """
  count = width // 4
  frequency = _SLOWEST ** -(np.arange(count) / max(count - 1, 1))
  angles = np.stack(np.meshgrid(*map(np.arange, grid), indexing='ij'), axis=-1)
  angles = angles.reshape(-1, 2, 1) * frequency  # [T, 2, width / 4]
  waves = np.concatenate([np.sin(angles), np.cos(angles)], axis=-1)
  return waves.reshape(-1, width)
