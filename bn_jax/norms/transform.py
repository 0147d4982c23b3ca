"""Computes Batch Normalization as a function, and its derivative.

Ioffe and Szegedy (2015), "Batch Normalization", arXiv:1502.03167, Algorithm 1:

  mean = 1/m sum_i x_i            var = 1/m sum_i (x_i - mean)^2
  y_i  = scale * (x_i - mean) / sqrt(var + epsilon) + bias

per channel, over the m values of a statistics group: m is the number of its
examples; for feature maps, times that of positions (section 3.2).
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

from bn_jax import checks, placement, trees
from bn_jax.norms import group_moments as moments_lib


class Misfit(ValueError):
  """Raised in a network for what a norm's keyword does not fit."""


def batch_norm(
  x: jax.Array,
  scale: jax.Array,
  bias: jax.Array,
  *,
  axis: int = -1,
  group_size: int | None = None,
  mask: jax.Array | None = None,
  epsilon: float = 1e-5,
  stop_statistics_gradient: bool = False,
  spread: placement.Spread = placement.ALONE,
) -> tuple[jax.Array, moments_lib.Moments]:
  """Returns x normalised by the statistics of its batch, and the statistics.

  Args:
    x: [N, ..., C], or with its channels along `axis`; floating point.
    scale: [C], gamma of the paper.
    bias: [C], beta of the paper.
    axis: of the channels, any but the first.
    group_size: examples that share statistics, in the order of the batch; None
      is the whole batch. 32 is the 2015 paper's mini-batch (section 4.2).
    mask: bool, [N] or x's shape without channels. False is padding: x counts as
      0 there, is left out of the statistics, and gets the gradient 0.
    epsilon: added to the variance, inside the root.
    stop_statistics_gradient: whether the derivative treats mean and variance as
      constants. That is wrong on purpose: in section 2 of the 2015 paper, a
      bias before the layer then grows without end while the loss stays.
    spread: how the batch lies on devices. Inside pmap and shard_map x is one
      device's part of it; a group is then the whole batch, averaged over the
      mapped axis, or lies within that part.

  Returns:
    y, of the shape and dtype of x, and the Moments in float32 at least.

  Raises:
    ValueError: x that is not floating point, or of rank below 2; an axis that
      is the first or out of range; a group size that does not divide N, a group
      of one value; a mask that is not bool; a mask or parameters of another
      shape.
  """
  check_epsilon(epsilon)
  checks.flag('stop_statistics_gradient', stop_statistics_gradient)
  x = channels_last(x, axis)
  check_parameters(x, scale, bias)
  check(x, group_size, mask, spread)
  is_narrow = mask is None and moments_lib.is_narrow(x, group_size, spread)
  if is_narrow:  # each channel as a group of its own: C groups, one channel
    pieces = moments_lib.by_channel(x)
    scale_1C, bias_1C = moments_lib.exact(scale)[:, None], bias[:, None]
  else:
    pieces = moments_lib.cut(x, group_size, mask, spread)
    scale_1C, bias_1C = moments_lib.exact(scale)[None], bias[None]
  bias_1C = moments_lib.exact(bias_1C)
  if stop_statistics_gradient:
    constant_pieces = pieces._replace(x=lax.stop_gradient(pieces.x))
    centre, moments = moments_lib.find(constant_pieces)
    factor_GC = _inverse(pieces, moments, epsilon) * scale_1C
    y_PRKC = affine(pieces, centre, factor_GC, bias_1C)
  else:
    y_PRKC, moments = _transform(
      epsilon, pieces.groups, pieces.spread, pieces.x, pieces.mask, scale_1C,
      bias_1C,
    )  # fmt: skip
  y = y_PRKC.astype(x.dtype)
  if is_narrow:
    y = y.T
    moments = moments_lib.Moments(
      moments.mean.T, moments.var.T, moments.count[:1]
    )
  return jnp.moveaxis(y.reshape(x.shape), -1, axis), moments


def moments(
  x: jax.Array,
  *,
  axis: int = -1,
  group_size: int | None = None,
  mask: jax.Array | None = None,
  spread: placement.Spread = placement.ALONE,
) -> moments_lib.Moments:
  """Returns the statistics by which `batch_norm` normalises a batch."""
  x = channels_last(x, axis)
  check(x, group_size, mask, spread)
  return moments_lib.find(moments_lib.cut(x, group_size, mask, spread))[1]


def affine_by_group(
  x: jax.Array, factor_GC: jax.Array, shift_GC: jax.Array, *, axis: int = -1
) -> jax.Array:
  """Returns factor x + shift, by group and channel, in the dtype of x."""
  x_last = channels_last(x, axis)
  group_size = len(x) // len(factor_GC)
  shape = (len(x), *(1,) * (x.ndim - 2), -1)
  factor, shift = (
    jnp.repeat(value, group_size, axis=0).reshape(shape)
    for value in (factor_GC, shift_GC)
  )
  y = moments_lib.exact(x_last) * factor + shift
  return jnp.moveaxis(y.astype(x.dtype), -1, axis)


def channels_last(x: jax.Array, axis: int) -> jax.Array:
  """Moves the channels of x from `axis` to the last axis.

  Raises:
    ValueError: x that is not floating point, or of rank below 2; an axis that
      is the first or out of range.
  """
  trees.check_floating('x', x)
  channels(x, axis)
  return jnp.moveaxis(x, axis, -1)


def beside(values_C: jax.Array, x: jax.Array) -> jax.Array:
  """Reshapes [C] to stand beside x, [..., C], in float32 at least."""
  return moments_lib.exact(values_C).reshape((1,) * (x.ndim - 1) + (-1,))


def channels(x: jax.Array, axis: int) -> int:
  """Returns the number of channels of x; raises as `channels_last`."""
  if x.ndim < 2:
    raise ValueError(f'x has shape {x.shape}; allowed: [N, ..., C]')
  checks.axis(axis)
  if not -x.ndim < axis < x.ndim or axis == 0:
    raise ValueError(
      f'axis is {checks.shown(axis)}; allowed for channels of x, '
      f'{list(x.shape)}: any but the first'
    )
  return x.shape[axis]


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2))
def _transform(epsilon, groups, spread, x_PRKC, mask, scale_1C, bias_1C):
  """Returns y, [P, R, K, C] as in `moments.Pieces`, and the Moments."""
  pieces = moments_lib.Pieces(x_PRKC, mask, groups, spread)
  centre, moments = moments_lib.find(pieces)
  factor_GC = _inverse(pieces, moments, epsilon) * scale_1C
  return affine(pieces, centre, factor_GC, bias_1C), moments


def _inverse(
  pieces: moments_lib.Pieces, moments: moments_lib.Moments, epsilon: float
) -> jax.Array:
  """Returns 1 / sqrt(var + epsilon), [G, C]."""
  square_GC = moments_lib.where_real(
    pieces, moments.count, moments.var + epsilon
  )
  return lax.rsqrt(square_GC)


def affine(
  pieces: moments_lib.Pieces,
  centre: moments_lib.Centre,
  factor_GC: jax.Array,
  bias_1C: jax.Array,
) -> jax.Array:
  """Returns (x - mean) factor + bias, [P, R, K, C]."""
  factor_PC = moments_lib.to_pieces(pieces, factor_GC)
  factor = moments_lib.wide(factor_PC, pieces.x)
  return centre.away(pieces.x) * factor + moments_lib.wide(bias_1C, pieces.x)


@_transform.defjvp
def _transform_jvp(epsilon, groups, spread, primals, tangents):
  """Returns the derivative along (dx, dscale, dbias), s^2 = var + epsilon:

    dy = scale/s (dx - E[dx] - (x - mean)/s^2 E[(x - mean) dx])
         + dscale (x - mean)/s + dbias

  Factors of a channel are multiplied before they are broadcast to the values.
  The transposed rule then needs two sums over values, of dy and (x - mean) dy,
  from which the gradients of scale and bias follow. Of the forward pass it
  saves x and four numbers a channel, and centres x again.
  """
  x_PRKC, mask, scale_1C, bias_1C = primals
  pieces = moments_lib.Pieces(x_PRKC, mask, groups, spread)
  centre, moments = moments_lib.find(pieces)
  inverse_GC = _inverse(pieces, moments, epsilon)
  y_PRKC = affine(pieces, centre, inverse_GC * scale_1C, bias_1C)

  def to_values(x_GC):
    return moments_lib.wide(moments_lib.to_pieces(pieces, x_GC), x_PRKC)

  def expectation(values_PRKC):
    mean_PC = moments_lib.mean(values_PRKC, mask)
    return moments_lib.over_groups(pieces, mean_PC)

  # XLA cannot fuse across the barriers that prevent_cse would put.
  @functools.partial(jax.checkpoint, prevent_cse=False)
  def derivative(x_PRKC, centre, inverse_GC, scale_1C, tangents):
    dx_PRKC, _, dscale_1C, dbias_1C = tangents
    dx_PRKC = moments_lib.exact(dx_PRKC)
    factor_GC = inverse_GC * scale_1C
    dmean_GC = expectation(dx_PRKC)
    slope_GC = expectation(centre.away(x_PRKC) * dx_PRKC)
    dfactor_GC = inverse_GC * dscale_1C - factor_GC * inverse_GC**2 * slope_GC
    dfactor_PC = moments_lib.to_pieces(pieces, dfactor_GC)
    dshift_GC = dbias_1C - factor_GC * dmean_GC
    dshift_PC = moments_lib.to_pieces(pieces, dshift_GC)
    near_PRKC = centre.near(x_PRKC, inverse_GC)
    dy_PRKC = (
      dx_PRKC * to_values(factor_GC)
      + near_PRKC * moments_lib.wide(dfactor_PC, x_PRKC)
      + moments_lib.wide(dshift_PC - centre.low * dfactor_PC, x_PRKC)
    )
    return dy_PRKC, dmean_GC, 2 * slope_GC

  dy_PRKC, dmean_GC, dvar_GC = derivative(
    x_PRKC, centre, inverse_GC, scale_1C, tangents
  )
  dmoments = moments_lib.Moments(
    dmean_GC, dvar_GC, jnp.zeros_like(moments.count)
  )
  return (y_PRKC, moments), (dy_PRKC, dmoments)


def normalize(
  x: jax.Array,
  mean: jax.Array,
  deviation: jax.Array,
  scale: jax.Array,
  bias: jax.Array,
  *,
  axis: int = -1,
) -> jax.Array:
  """Normalises x by given statistics: an affine map a channel (Algorithm 2).

    y = scale (x - mean) / deviation + bias

  mean, deviation (such as sqrt(var + epsilon)), scale and bias are [C] each,
  and `axis` of x has the channels. y has the shape and dtype of x, and is
  computed in float32 at least.

  Raises:
    ValueError: x that is not floating point, or of rank below 2; an axis that
      is the first or out of range.
  """
  x_last = channels_last(x, axis)
  shape = (1,) * (x.ndim - 1) + (-1,)
  mean, deviation, scale, bias = (
    moments_lib.exact(value).reshape(shape)
    for value in (mean, deviation, scale, bias)
  )
  centred = moments_lib.exact(x_last) - mean
  y = centred * (scale / deviation) + bias
  return jnp.moveaxis(y.astype(x.dtype), -1, axis)


def check_epsilon(epsilon: float) -> None:
  """Raises ValueError unless epsilon is 0 or more; a traced one is unknown."""
  if not checks.is_traced(epsilon):
    checks.number('epsilon', epsilon, least=0)


def check_parameters(x: jax.Array, scale: jax.Array, bias: jax.Array) -> None:
  """Raises ValueError unless scale and bias are [C], for x of [N, ..., C]."""
  count = x.shape[-1]
  if scale.shape != (count,) or bias.shape != (count,):
    raise ValueError(
      f'scale and bias have shapes {scale.shape} and {bias.shape}; allowed: '
      f'({count},) for x of {count} channels'
    )


def check_groups(num_groups: int, channels: int) -> None:
  """Raises ValueError unless groups of channels are all of one size."""
  if channels % num_groups:
    raise Misfit(
      f'num_groups is {num_groups}; allowed: what divides {channels} channels'
    )


def check(
  x: jax.Array,
  group_size: int | None,
  mask: jax.Array | None,
  spread: placement.Spread,
) -> None:
  """Raises ValueError if x, [N, ..., C], cannot have these groups or mask."""
  checks.count('group_size', group_size, also=(None,))
  examples = x.shape[0]
  whole = moments_lib.is_whole(examples, group_size, spread)
  if not (whole or group_size is None) and examples % group_size:
    part = f' that one of {spread.parts} devices holds'
    raise Misfit(
      f'group_size {group_size} does not divide the batch of {examples}'
      f'{part if spread.axis_name else ""}; allowed: a divisor of it'
    )
  batch_size = examples * (spread.parts if spread.axis_name else 1)
  if (group_size or batch_size) * math.prod(x.shape[1:-1]) == 1:
    raise ValueError(
      f'x {list(x.shape)} has groups of one value, which would all become the '
      'bias; allowed: groups of two values or more'
    )
  if mask is not None:
    checks.mask(mask, (examples,), x.shape[:-1])
