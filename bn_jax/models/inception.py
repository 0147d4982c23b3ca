"""Builds Inception, with Batch Normalization or without, for ImageNet.

Ioffe and Szegedy (2015), "Batch Normalization", arXiv:1502.03167, section 4.2
and the table of their Figure 5, inception_table.py. Where the paper is silent,
these are our choices (docs/models.md says what others did):

  * The second convolution is 1 x 1 to 64 channels, then 3 x 3 to 192.
  * The separable first layer has no norm between its two convolutions.
  * All padding is 'SAME', and average pools do not count it.
  * There are no auxiliary classifiers. The logits have a bias; convolutions
    have one where the norm does not remove the mean, the depthwise one never.
  * Local response normalization stands where GoogLeNet has it: after the first
    pool and before the second.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from bn_jax import checks
from bn_jax.models import inception_table, parts
from bn_jax.models.lowering import LOWERINGS, conv, pool
from bn_jax.norms import norm as norm_lib

ACTIVATIONS = {'relu': nn.relu, 'sigmoid': nn.sigmoid}
# The layers of stride 2 in each stem.
STEMS = {'imagenet': ('conv1', 'pool1', 'pool2'), 'cifar': ()}


class Style(NamedTuple):
  """What all layers of a network share; names are those of `Inception`."""

  norm: norm_lib.Norm
  width: float
  activation: str
  kernel_scale: float
  lowering: str

  def activated(self, x, keywords, name, channels, size=1, stride=1):
    """Returns nonlinearity(norm(convolution(x))); keywords of `parts`."""
    layer = conv.Conv(
      features=parts.scaled(channels, self.width),
      kernel_size=(size, size),
      strides=(stride, stride),
      use_bias=self.norm.bias_before,
      kernel_init=self.kernel_init,
      lowering=self.lowering,
      name=name,
    )
    nonlinearity = ACTIVATIONS[self.activation]
    return parts.activated(self.norm, layer, x, nonlinearity, **keywords)

  def kernel_init(self, *shape) -> jax.Array:
    """Draws Glorot uniform weights, times kernel_scale."""
    return self.kernel_scale * nn.initializers.glorot_uniform()(*shape)


class Mixed(nn.Module):
  """One inception module: up to four branches, concatenated by channels.

  Layers: b1x1; b3x3_1 (1 x 1), b3x3_2; bd3x3_1 (1 x 1), bd3x3_2, bd3x3_3 (in
  place of a 5 x 5); bpool, the projection after a 3 x 3 pool. Stride 2 is that
  of b3x3_2, bd3x3_3 and the pool, which then has no projection.
  """

  row: inception_table.Row
  style: Style

  @nn.compact
  def __call__(self, x: jax.Array, **keywords) -> jax.Array:
    """Returns the module of x; keywords are those of `parts.activated`."""
    row, stride = self.row, self.row.stride

    def activated(x, *convolution):
      return self.style.activated(x, keywords, *convolution)

    branches = []
    if row.b1x1:
      branches.append(activated(x, 'b1x1', row.b1x1))
    y = activated(x, 'b3x3_1', row.reduce_3x3)
    branches.append(activated(y, 'b3x3_2', row.b3x3, 3, stride))
    y = activated(x, 'bd3x3_1', row.reduce_double)
    y = activated(y, 'bd3x3_2', row.double, 3)
    branches.append(activated(y, 'bd3x3_3', row.double, 3, stride))
    y = self._pooled(x)
    if row.projection:
      y = activated(y, 'bpool', row.projection)
    branches.append(y)
    return jnp.concatenate(branches, axis=-1)

  def _pooled(self, x):
    lowering = self.style.lowering
    if self.row.pool == 'average':
      return pool.average_pool(x, lowering=lowering)
    return pool.max_pool(x, stride=self.row.stride, lowering=lowering)


class Inception(nn.Module):
  """The network of Figure 5; layers are conv1, ..., mixed_3a/b1x1, ..., logits.

  Attributes:
    num_classes: size of the output.
    norm: the normalization before each nonlinearity.
    width: multiplies all channels.
    pool_projection: channels of the pool's projection in 4c and 4d, 128 or 96.
    separable: whether the first convolution is separable: 8 outputs of each
      channel by itself, then 1 x 1 to 64.
    activation: 'relu' or 'sigmoid'.
    dropout: probability that an input of the classifier is dropped.
    lrn: whether there is local response normalization in the stem.
    stem: 'imagenet', or 'cifar' for small images: its first convolution is 3 x
      3 at stride 1, and it has no pools.
    per_activation: modules whose norms have statistics of each activation, not
      of each map (the last ones, in the ensemble of section 4.2.3); all images
      must then have one size.
    kernel_scale: multiplies the initial kernels of convolutions.
    modules: the modules of the table to use, in its order; () is all of them,
      the paper's network.
    lowering: how convolutions and pools are computed, see
      `bn_jax.models.lowering`.
  """

  num_classes: int
  norm: norm_lib.Norm
  width: float = 1.0
  pool_projection: int = 128
  separable: bool = False
  activation: str = 'relu'
  dropout: float = 0.0
  lrn: bool = False
  stem: str = 'imagenet'
  per_activation: Sequence[str] = ()
  kernel_scale: float = 1.0
  modules: Sequence[str] = ()
  lowering: str = 'auto'

  def __post_init__(self):
    for name in ('per_activation', 'modules'):
      checks.names(name, getattr(self, name), 'modules')
      setattr(self, name, tuple(getattr(self, name)))  # a list has no hash
    super().__post_init__()
    parts.check_network(self.num_classes, self.norm)
    parts.check_width(self.width)
    checks.number('dropout', self.dropout, least=0, below=1)
    checks.one_of('lowering', self.lowering, LOWERINGS)
    checks.one_of(
      'pool_projection', self.pool_projection, inception_table.PROJECTIONS
    )
    checks.one_of('activation', self.activation, tuple(ACTIVATIONS))
    checks.one_of('stem', self.stem, tuple(STEMS))
    checks.flag('separable', self.separable)
    checks.flag('lrn', self.lrn)
    for name in self.modules:
      checks.one_of('modules', name, inception_table.MODULES)
    if self.modules and list(self.modules) != list(self.rows()):
      raise ValueError(
        f'modules is {self.modules}; allowed: each once, in the order of '
        f'{", ".join(inception_table.MODULES)}'
      )
    for name in self.per_activation:
      checks.one_of('per_activation', name, tuple(self.rows()))
    checks.number('kernel_scale', self.kernel_scale, above=0)

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
    parts.check_images(x, mask, 'Inception', self._halving())
    keywords = dict(statistics=statistics, mask=mask, first=first)
    style = Style(
      self.norm, self.width, self.activation, self.kernel_scale, self.lowering
    )
    x = self._stem(x, style, keywords)
    for name, row in self.rows().items():
      per_activation = name in self.per_activation
      module = Mixed(row, style, name=name)
      x = module(x, per_activation=per_activation, **keywords)
    x = parts.Dropout(self.dropout, name='dropout')(
      pool.global_average(x), first=first
    )
    logits = parts.dense('logits', self.num_classes, x.dtype, use_bias=True)
    return logits(x)

  def _stem(self, x, style, keywords):
    """Returns the input of the first module."""
    is_small = self.stem == 'cifar'
    size, stride = (3, 1) if is_small else (7, 2)

    def pooled(x):
      return x if is_small else pool.max_pool(x, lowering=self.lowering)

    def lrn(x):
      return parts.local_response_norm(x) if self.lrn else x

    if self.separable:
      x = conv.DepthwiseConv(
        multiplier=8,  # the depth multiplier of the paper
        kernel_size=(size, size),
        strides=(stride, stride),
        kernel_init=style.kernel_init,
        lowering=self.lowering,
        name='conv1_depthwise',
      )(x)
      size, stride = 1, 1
    x = lrn(pooled(style.activated(x, keywords, 'conv1', 64, size, stride)))
    x = style.activated(x, keywords, 'conv2', 64)
    x = style.activated(x, keywords, 'conv3', 192, 3)
    return pooled(lrn(x))

  def rows(self) -> dict[str, inception_table.Row]:
    """Returns the rows of the table for `modules` and `pool_projection`."""
    ambiguous_modules = {'mixed_4c', 'mixed_4d'}
    return {
      name: row._replace(projection=self.pool_projection)
      if name in ambiguous_modules
      else row
      for name, row in inception_table.TABLE.items()
      if name in (self.modules or inception_table.MODULES)
    }

  def smallest_image(self) -> int:
    """Returns the smallest side of an image, in pixels."""
    return 2 ** len(self._halving())

  def layer_paths(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Returns (name, paths of its parameters) of each layer, in order."""
    hidden = [(name, parts.paths(name)) for name in self._hidden()]
    if self.separable:
      hidden[0] = ('conv1', ('conv1_depthwise', *hidden[0][1]))
    return (*hidden, ('logits', ('logits',)))

  def tap_paths(self) -> tuple[tuple[str, str], ...]:
    """Returns (layer, path of its norm) of what enters nonlinearities."""
    return tuple(map(parts.tap, self._hidden()))

  def _halving(self) -> tuple[str, ...]:
    """Returns the layers and modules of stride 2, in forward order."""
    modules = [name for name, row in self.rows().items() if row.stride == 2]
    return (*STEMS[self.stem], *modules)

  def _hidden(self) -> Sequence[str]:
    """Returns the names of all layers but the last."""
    names = ['conv1', 'conv2', 'conv3']
    for module, row in self.rows().items():
      layers = ['b1x1'] if row.b1x1 else []
      layers += ['b3x3_1', 'b3x3_2', 'bd3x3_1', 'bd3x3_2', 'bd3x3_3']
      layers += ['bpool'] if row.projection else []
      names += [f'{module}/{name}' for name in layers]
    return names


def _factory(
  *, default_dropout: float, default_lrn: bool
) -> Callable[..., Inception]:
  """Returns a constructor; a config reads its keywords and their defaults."""

  def make(
    *,
    num_classes: int,
    norm: norm_lib.Norm,
    width: float = 1.0,
    pool_projection: int = 128,
    separable: bool = False,
    activation: str = 'relu',
    dropout: float = default_dropout,
    lrn: bool = default_lrn,
    stem: str = 'imagenet',
    per_activation: Sequence[str] = (),
    kernel_scale: float = 1.0,
    modules: Sequence[str] = (),
    lowering: str = 'auto',
  ) -> Inception:
    """Returns the network; keywords are the attributes of `Inception`.

    Raises:
      ValueError: a keyword out of its range.
    """
    return Inception(
      num_classes, norm, width, pool_projection, separable, activation,
      dropout, lrn, stem, per_activation, kernel_scale, modules, lowering,
    )  # fmt: skip

  return make


# The paper's Inception with norm 'none', its BN-Baseline with 'batch'. Dropout
# and local response normalization are GoogLeNet's.
make_inception = _factory(default_dropout=0.4, default_lrn=True)
# Section 4.2.1 leaves out both, which Batch Normalization makes superfluous.
make_bn_inception = _factory(default_dropout=0.0, default_lrn=False)
