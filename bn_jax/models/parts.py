"""Has parts of several networks: a layer with its norm, Dropout, LRN, checks.

A layer NAME is up to four modules side by side, under the names that records
and figures use: NAME itself, which has the kernel; NAME_weight, the norm of
that kernel, if it has one; NAME_norm, the norm of the layer's output; and
NAME_unit, the norm's own nonlinearity, if it has one.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from bn_jax import checks, placement, trees
from bn_jax.norms import norm as norm_lib


def activated(
  norm: norm_lib.Norm,
  layer: nn.Module,
  x: jax.Array,
  nonlinearity: Callable[[jax.Array], jax.Array],
  *,
  per_activation: bool = False,
  statistics: str,
  **examples: Any,
) -> jax.Array:
  """Returns nonlinearity(norm(layer(x))), or with the norm's own unit.

  Args:
    layer: a named module with a parameter 'kernel'.
    nonlinearity: the network's, which a norm may replace.
    per_activation: whether each activation of a feature map has its own
      statistics, scale and bias, as in a dense layer.
    **examples: mask and first, as the norm takes them.
  """
  y = norm.weighted(layer, f'{layer.name}_weight')(x, statistics=statistics)
  shape = y.shape
  y = y.reshape(len(y), -1) if per_activation else y
  keywords = dict(statistics=statistics, **examples)
  y = norm.layer(f'{layer.name}_norm')(y, **keywords)
  if norm.unit:
    return norm.unit(f'{layer.name}_unit')(y, **keywords).reshape(shape)
  return nonlinearity(y.reshape(shape))


def normalised(
  norm: norm_lib.Norm, layer: nn.Module, x: jax.Array, **keywords: Any
) -> jax.Array:
  """Returns norm(layer(x)), where no nonlinearity follows directly.

  Args:
    layer: a named module with a parameter 'kernel'.
    **keywords: of `activated`.
  """
  alone = norm._replace(layer=norm.linear or norm.layer, unit=None)
  return activated(alone, layer, x, lambda y: y, **keywords)


def dense(
  name: str, features: int, dtype: Any, *, use_bias: bool, **keywords: Any
) -> nn.Dense:
  """Returns a dense layer, with Glorot uniform weights by default."""
  keywords.setdefault('kernel_init', nn.initializers.glorot_uniform())
  return nn.Dense(
    features, dtype=dtype, use_bias=use_bias, name=name, **keywords
  )


def product(spread: placement.Spread) -> Callable[..., jax.Array] | None:
  """Returns what dense layers multiply by; None: `lax.dot_general`.

  Args:
    spread: with its `channels_first`, products of few columns, [N, C], are
      computed as [C, N], as norms are then: XLA drops what transposes twice.
  """

  def multiplied(x, kernel, dimensions, **keywords):
    ((last,), (first,)), batch = dimensions
    is_plain = x.ndim == kernel.ndim == 2 and (last, first) == (1, 0)
    if not is_plain or not spread.is_narrow(len(x), kernel.shape[1]):
      return lax.dot_general(x, kernel, dimensions, **keywords)
    return lax.dot_general(kernel, x, (((0,), (1,)), batch), **keywords).T

  return multiplied if spread.channels_first else None


def paths(name: str) -> tuple[str, ...]:
  """Returns the paths of a layer's parameters."""
  return name, f'{name}_weight', f'{name}_norm', f'{name}_unit'


def tap(name: str) -> tuple[str, str]:
  """Returns (layer, path of the module whose output enters a nonlinearity)."""
  return name, f'{name}_norm'


def scaled(channels: int, width: float) -> int:
  """Returns a number of channels times the width: rounded, at least one."""
  return max(1, round(channels * width))


def adaptive_average(x: jax.Array, size: int) -> jax.Array:
  """Returns the maps of x averaged to size x size, [N, size, size, C].

  Row i of a map of n rows is the mean of the rows floor(i n / size) to
  ceil((i + 1) n / size), the last left out, and likewise a column: PyTorch's
  AdaptiveAvgPool2d. A map of that size stays as it is; a smaller one repeats
  its pixels.

  Args:
    x: [N, H, W, C].
  """
  for axis in (1, 2):
    if x.shape[axis] != size:
      ends = [
        (i * x.shape[axis] // size, -(-(i + 1) * x.shape[axis] // size))
        for i in range(size)
      ]
      x = jnp.stack(
        [
          lax.slice_in_dim(x, *pair, axis=axis).mean(axis=axis) for pair in ends
        ],
        axis=axis,
      )
  return x


class Dropout(nn.Module):
  """Sets each activation to 0 with probability `rate`; the others grow.

  Srivastava et al. (2014), "Dropout", in its inverted form: the other
  activations are divided by 1 - rate, so that inference needs no change. It
  acts if and only if the rng 'dropout' is passed. What is dropped of an example
  depends on its index alone; flax's Dropout draws for the whole array, so that
  it would depend on the size of the batch.

  Attributes:
    rate: in [0, 1).
  """

  rate: float

  @nn.compact
  def __call__(self, x: jax.Array, *, first: jax.Array | int = 0) -> jax.Array:
    """Drops activations of x; first is the index of x[0] in the batch."""
    if not self.rate or not self.has_rng('dropout'):
      return x
    return dropped(x, self.rate, self.make_rng('dropout'), first=first)


def dropped(
  x: jax.Array,
  rate: float,
  key: jax.Array,
  *,
  first: jax.Array | int = 0,
  shared: Collection[int] = (),
) -> jax.Array:
  """Returns x with activations set to 0; first is the index of x[0].

  Along the axes `shared`, 1 or more, an example's activations go together.
  """
  shape = [1 if axis in shared else size for axis, size in enumerate(x.shape)]

  def mask(index):
    return jax.random.bernoulli(
      jax.random.fold_in(key, index), 1 - rate, shape[1:]
    )

  mask_N = jax.vmap(mask)(first + jnp.arange(len(x)))
  return jnp.where(mask_N, x / (1 - rate), jnp.zeros((), x.dtype))


def local_response_norm(
  x: jax.Array,
  *,
  size: int = 5,
  alpha: float = 1e-4,
  beta: float = 0.75,
  k: float = 1.0,
) -> jax.Array:
  """Divides each activation by those of neighbouring channels at its pixel.

    y_c = x_c / (k + alpha/n sum_{|d - c| <= n/2} x_d^2)^beta

  Krizhevsky, Sutskever and Hinton (2012), "ImageNet Classification with Deep
  Convolutional Neural Networks", section 3.3, in the form (alpha divided by n)
  and with the constants of Caffe, in which GoogLeNet was published; the 2015
  paper names no constants. Channels beyond the first and the last count as 0.

  Args:
    x: [N, ..., C].
    size: n, the number of channels in a neighbourhood, odd.

  Returns:
    y, of the shape and dtype of x; sums are in float32 at least.

  Raises:
    ValueError: x that is not floating point.
  """
  trees.check_floating('x', x)
  squares = jnp.square(x.astype(jnp.promote_types(x.dtype, jnp.float32)))
  pads = [(0, 0)] * (x.ndim - 1) + [(size // 2, size // 2)]
  padded = jnp.pad(squares, pads)
  channels = x.shape[-1]
  sums = sum(padded[..., shift : shift + channels] for shift in range(size))
  return (x * (k + alpha / size * sums) ** -beta).astype(x.dtype)


def check_network(num_classes: int, norm: norm_lib.Norm) -> None:
  """Raises ValueError for what every network has, and this one cannot have."""
  checks.count('num_classes', num_classes)
  if not isinstance(norm, norm_lib.Norm):
    raise checks.Refused('norm', norm, 'what norms.make returns')


def check_width(value: float) -> None:
  """Raises ValueError unless value can multiply channels."""
  # The product must be a size of an array; nobody has a network so wide.
  checks.number('width', value, above=0, most=10_000)


def check_batch(x: jax.Array, mask: jax.Array | None) -> None:
  """Raises ValueError unless x has examples and the mask, if any, is theirs.

  A layer may be told which positions are padding. A network may not: a
  convolution would spread them, and a dense layer has no positions.
  """
  trees.check_examples(x)
  if mask is not None:
    checks.mask(mask, x.shape[:1])


def check_images(
  x: jax.Array, mask: jax.Array | None, network: str, halving: Sequence[str]
) -> None:
  """Raises ValueError unless x can go through a network.

  Each of h layers of stride 2 has to halve a map of at least two whole pixels,
  so an image needs 2^h x 2^h pixels or more.

  Args:
    x: [N, H, W, C].
    mask: [N], or None.
    network: a name for the message.
    halving: names of the layers of stride 2, in forward order.
  """
  check_rank(x, mask, network)
  smallest, side = 2 ** len(halving), min(x.shape[1:3])
  if side < smallest:
    layer = next(name for k, name in enumerate(halving) if side >> k < 2)
    raise ValueError(
      f'an image of {x.shape[1]} x {x.shape[2]} pixels is too small for '
      f'{network}: {layer} would halve a map of less than 2 whole pixels; '
      f'allowed: {smallest} x {smallest} or more'
    )


def check_rank(x: jax.Array, mask: jax.Array | None, network: str) -> None:
  """Raises ValueError unless x is a batch of images, one or more."""
  if x.ndim != 4:
    raise ValueError(
      f'x has shape {list(x.shape)}; allowed for {network}: images, '
      '[N, H, W, C]'
    )
  check_batch(x, mask)
