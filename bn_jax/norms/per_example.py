"""Normalises each example by itself: flax's modules, with our signature.

  layer     over all units of an example (Ba, Kiros and Hinton, 2016,
            arXiv:1607.06450), or over those at each of its positions
  group     over groups of channels (Wu and He, 2018, arXiv:1803.08494)
  instance  over each channel (Ulyanov, Vedaldi and Lempitsky, 2016,
            arXiv:1607.08022)
  rms       as layer, but divided by the root mean square, without a mean (Zhang
            and Sennrich, 2019, arXiv:1910.07467)

They keep no statistics, so 'batch' and 'running' give the same, and examples
that are padding have no influence. Padding positions (a mask of x's shape
without channels) are left out of the statistics. Variances take two passes over
the values, so that they are exact far from zero too. epsilon is that of
`batch_norm`.
"""

import functools
import math
from collections.abc import Callable
from typing import cast

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from bn_jax import checks, placement
from bn_jax.norms import norm, transform

PER = ('example', 'position')


class PerExample(norm.Layer):
  """A normalization of flax's, with our signature.

  Collections: params {scale, bias}, [C] each ('rms': scale alone).

  Attributes:
    factory: shape of x -> the module of flax.
    per: what has statistics of its own: 'example', or each 'position'.
    scale_init: where the factory's module has its scale begin.
  """

  factory: Callable[[tuple[int, ...]], nn.Module]
  per: str = 'example'
  scale_init: float | str = 1.0

  def __post_init__(self):
    checks.one_of('per', self.per, PER)
    super().__post_init__()

  @norm.checked_call
  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    *,
    statistics: str,
    mask: jax.Array | None = None,
    first: jax.Array | int = 0,
  ) -> jax.Array:
    """Normalises x, [N, ..., C]; computed in float32 at least."""
    del first
    inner = self.factory(x.shape)
    nn.share_scope(self, inner)  # no level of its own in the parameters' paths
    if mask is not None:
      x, mask = self._padded(x, mask)
    return inner(x, mask=mask).astype(x.dtype)

  def _padded(
    self, x: jax.Array, mask: jax.Array
  ) -> tuple[jax.Array, jax.Array | None]:
    """Returns x, and the mask of its values that are left out of statistics.

    Where statistics are of padding alone, they are those of other numbers: the
    mean of nothing would be nan, and with epsilon 0 so would be the derivative
    for numbers that are all alike.
    """
    own = mask  # whether what has statistics of its own holds anything real
    if self.per == 'example':
      own = mask.reshape(len(mask), -1).any(axis=1)
    own = own.reshape(*own.shape, *(1,) * (x.ndim - own.ndim))
    x = jnp.where(own, x, _alternating(x))
    if mask.ndim == 1 or self.per == 'position':
      return x, None  # nothing real shares statistics with padding
    return x, jnp.broadcast_to(mask[..., None] | ~own, x.shape)


def _alternating(x: jax.Array) -> jax.Array:
  """Returns an array like x of 0 and 1 in turn, along each axis."""
  axes = (lax.broadcasted_iota(jnp.int32, x.shape, k) for k in range(x.ndim))
  total = cast(jax.Array, sum(axes))
  return (total % 2).astype(x.dtype)


def make_layer(
  *,
  per: str = 'example',
  epsilon: float = 1e-5,
  scale_init: float | str = 1.0,
  spread: placement.Spread = placement.ALONE,
) -> norm.Norm:
  """Returns layer normalization for a model.

  Args:
    per: 'example', over channels and positions, or 'position', over channels.
    epsilon: added to the variance, inside the root.
    scale_init: where scale begins, see `norm.scale_initializer`.

  Raises:
    ValueError: a keyword out of its range.
  """
  del spread  # nothing is computed over examples
  return _over_units(nn.LayerNorm, per, epsilon, scale_init)


def make_rms(
  *,
  per: str = 'example',
  epsilon: float = 1e-5,
  scale_init: float | str = 1.0,
  spread: placement.Spread = placement.ALONE,
) -> norm.Norm:
  """Returns RMS normalization for a model; keywords are of `make_layer`."""
  del spread  # nothing is computed over examples
  return _over_units(nn.RMSNorm, per, epsilon, scale_init)


def make_group(
  *,
  num_groups: int | None = None,
  epsilon: float = 1e-5,
  scale_init: float | str = 1.0,
  spread: placement.Spread = placement.ALONE,
) -> norm.Norm:
  """Returns group normalization for a model.

  Args:
    num_groups: must divide the number of channels; None is `usual_groups`.
    epsilon: added to the variance, inside the root.
    scale_init: where scale begins, see `norm.scale_initializer`.

  Raises:
    ValueError: num_groups or epsilon out of its range; in its call, channels
      that num_groups does not divide.
  """
  del spread  # nothing is computed over examples
  checks.count('num_groups', num_groups, also=(None,))

  def constructor(shape):
    groups = num_groups or usual_groups(shape[-1])
    transform.check_groups(groups, shape[-1])
    return functools.partial(nn.GroupNorm, groups)

  return _norm(constructor, epsilon, scale_init)


def make_instance(
  *,
  epsilon: float = 1e-5,
  scale_init: float | str = 1.0,
  spread: placement.Spread = placement.ALONE,
) -> norm.Norm:
  """Returns instance normalization for a model.

  Args:
    epsilon: added to the variance, inside the root.
    scale_init: where scale begins, see `norm.scale_initializer`.

  Raises:
    ValueError: epsilon below 0; in its call, images of one position.
  """
  del spread  # nothing is computed over examples

  def constructor(shape):
    if math.prod(shape[1:-1]) == 1:
      raise ValueError(
        f'x {list(shape)} has groups of one value, which would all become the '
        'bias; allowed: two positions or more'
      )
    return nn.InstanceNorm

  # The mean of a channel removes its bias.
  return _norm(constructor, epsilon, scale_init)._replace(bias_before=False)


def usual_groups(channels: int) -> int:
  """Returns gcd(32, channels) groups, or half as many below 64 channels.

  32 is the paper's number. Below 64 channels a group could hold one channel,
  which is instance normalization; half as many groups hold two or more.
  """
  divisor = math.gcd(32, channels)
  return divisor if channels >= 64 else max(1, divisor // 2)


def _over_units(
  module, per: str, epsilon: float, scale_init: float | str
) -> norm.Norm:
  checks.one_of('per', per, PER)

  def constructor(shape):
    axes = tuple(range(1, len(shape))) if per == 'example' else -1
    return functools.partial(module, reduction_axes=axes)

  return _norm(constructor, epsilon, scale_init, per)


def _norm(
  constructor: Callable[[tuple[int, ...]], Callable[..., nn.Module]],
  epsilon: float,
  scale_init: float | str,
  per: str = 'example',
) -> norm.Norm:
  """Returns a norm; constructor: shape of x -> a constructor of flax."""
  transform.check_epsilon(epsilon)
  norm.check_scale_init(scale_init)

  def module(scale_init, shape):
    return constructor(shape)(
      epsilon=epsilon,
      use_fast_variance=False,
      scale_init=norm.scale_initializer(scale_init),
    )

  def layer(scale_init, name):
    factory = functools.partial(module, scale_init)
    return PerExample(factory, per, scale_init, name=name)

  return norm.Norm(
    layer=functools.partial(layer, scale_init),
    # A mean over several channels does not remove a channel's bias.
    bias_before=True,
    zeroed=functools.partial(layer, 0.0),
  )
