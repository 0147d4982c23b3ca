"""Batch Normalization with its statistics in the open.

Ioffe and Szegedy (2015), "Batch Normalization", arXiv:1502.03167, Algorithm 1:

  mean = 1/m sum_i x_i            var = 1/m sum_i (x_i - mean)^2
  y_i  = scale * (x_i - mean) / sqrt(var + epsilon) + bias

per channel, over the m values of a statistics group: its examples times, for
feature maps, their positions (section 3.2).
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from bn_jax import spread as spread_lib
from bn_jax.norms import moments as moments_lib
from bn_jax.norms import norm


def batch_norm(
  x: jax.Array,
  scale: jax.Array,
  bias: jax.Array,
  *,
  group_size: int | None = None,
  mask: jax.Array | None = None,
  epsilon: float = 1e-5,
  spread: spread_lib.Spread = spread_lib.ALONE,
) -> tuple[jax.Array, moments_lib.Moments]:
  """x normalised by the statistics of its own batch, and those statistics.

  Args:
    x: [N, ..., C], channels last, floating point.
    scale: [C], gamma of the paper.
    bias: [C], beta of the paper.
    group_size: examples that share statistics, in the order of the batch; None
      is the whole batch. 32 is a replica of the 2015 paper.
    mask: [N] bool; examples where it is False are left out of the statistics
      (and normalised with them like the others).
    epsilon: added to the variance, inside the root.
    spread: how the batch lies on devices. Inside pmap and shard_map x is one
      device's part of it, and a group is the whole batch, then averaged over
      the axis, or lies within that part.

  Returns:
    y, of the shape and dtype of x, and the Moments in float32 at least.

  Raises:
    ValueError: a group size that does not divide N, a mask not of shape [N],
      parameters not of shape [C], or x of rank below 2.
  """
  _check(x, scale, bias, group_size, mask, spread)
  pieces = moments_lib.cut(x, group_size, mask, spread)
  scale_1C, bias_1C = (
    moments_lib.exact(scale)[None],
    moments_lib.exact(bias)[None],
  )
  y_PRKC, moments = _transform(
    epsilon, pieces.groups, pieces.spread, *pieces[:2], scale_1C, bias_1C
  )
  return y_PRKC.astype(x.dtype).reshape(x.shape), moments


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2))
def _transform(epsilon, groups, spread, x_PRKC, mask, scale_1C, bias_1C):
  """y, [P, R, K, C], and the Moments; the derivative is `_transform_jvp`."""
  pieces = moments_lib.Pieces(x_PRKC, mask, groups, spread)
  centre, moments = moments_lib.find(pieces)
  factor_GC = lax.rsqrt(moments.var + epsilon) * scale_1C
  return _affine(pieces, centre, factor_GC, bias_1C), moments


def _affine(pieces, centre, factor_GC, bias_1C):
  """(x - mean) factor + bias, [P, R, K, C]."""
  factor_PC = moments_lib.to_pieces(pieces, factor_GC)
  scaled_PRKC = centre.away(pieces.x) * moments_lib.wide(factor_PC)
  return scaled_PRKC + moments_lib.wide(bias_1C)


@_transform.defjvp
def _transform_jvp(epsilon, groups, spread, primals, tangents):
  """The derivative along (dx, dscale, dbias), with s^2 = var + epsilon:

    dy = scale/s (dx - E[dx] - (x - mean)/s^2 E[(x - mean) dx])
         + dscale (x - mean)/s + dbias

  What is of a channel is multiplied before it is spread over the values, so
  that the transposed rule takes two sums over them, of dy and (x - mean) dy,
  which are those of the parameters' gradients too. Of the forward pass it keeps
  x and four numbers a channel, and centres x again.
  """
  x_PRKC, mask, scale_1C, bias_1C = primals
  pieces = moments_lib.Pieces(x_PRKC, mask, groups, spread)
  centre, moments = moments_lib.find(pieces)
  inverse_GC = lax.rsqrt(moments.var + epsilon)
  y_PRKC = _affine(pieces, centre, inverse_GC * scale_1C, bias_1C)

  def wide(x_GC):
    return moments_lib.wide(moments_lib.to_pieces(pieces, x_GC))

  def expectation(values_PRKC):
    mean_PC = moments_lib.mean(values_PRKC, mask)
    return moments_lib.over_groups(pieces, mean_PC)

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
      dx_PRKC * wide(factor_GC)
      + near_PRKC * moments_lib.wide(dfactor_PC)
      + moments_lib.wide(dshift_PC - centre.low * dfactor_PC)
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
  var: jax.Array,
  scale: jax.Array,
  bias: jax.Array,
  *,
  epsilon: float = 1e-5,
) -> jax.Array:
  """x normalised by given statistics: one affine map a channel (Algorithm 2).

  Args:
    x: [N, ..., C].
    mean: [C].
    var: [C].
    scale: [C].
    bias: [C].
    epsilon: added to the variance, inside the root.

  Returns:
    y, of the shape and dtype of x; computed in float32 at least.
  """
  last = (1,) * (x.ndim - 1) + (-1,)
  dtype = jnp.promote_types(x.dtype, jnp.float32)
  factor_C = scale.astype(dtype) * lax.rsqrt(var.astype(dtype) + epsilon)
  centred = x.astype(dtype) - mean.astype(dtype).reshape(last)
  y = centred * factor_C.reshape(last) + bias.astype(dtype).reshape(last)
  return y.astype(x.dtype)


class BatchNorm(nn.Module):
  """Batch Normalization as a layer that owns its parameters and statistics.

  Collections: params {scale, bias}, [C] each; batch_stats {mean, var}, [C]
  each, written in mode 'batch' if and only if the collection is mutable:

    running = momentum * running + (1 - momentum) * batch

  (flax's convention; PyTorch's momentum is one minus this one). Over several
  groups, `batch` is the mean of the groups' means and of their *within-group*
  variances, as in the paper, not the variance of the pooled batch.

  Attributes:
    group_size: examples that share statistics; None is the whole batch.
    momentum: in [0, 1): the share of the old average that a step keeps.
    epsilon: added to the variance, inside the root.
    running_variance: 'biased', or 'unbiased' (times m/(m-1), as PyTorch does).
    spread: how the batch lies on devices.
  """

  group_size: int | None = None
  momentum: float = 0.9
  epsilon: float = 1e-5
  running_variance: str = 'biased'
  spread: spread_lib.Spread = spread_lib.ALONE

  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    *,
    mode: str,
    mask: jax.Array | None = None,
    first: jax.Array | int = 0,
  ) -> jax.Array:
    """x, [N, ..., C], normalised; mode 'batch' or 'running' names by what."""
    del first  # statistics do not depend on where an example stands
    norm.check_mode(mode)
    channels = (x.shape[-1],)
    scale_C = self.param('scale', nn.initializers.ones_init(), channels)
    bias_C = self.param('bias', nn.initializers.zeros_init(), channels)
    mean_C = self.variable('batch_stats', 'mean', jnp.zeros, channels)
    var_C = self.variable('batch_stats', 'var', jnp.ones, channels)
    if mode == 'running':
      return normalize(
        x, mean_C.value, var_C.value, scale_C, bias_C, epsilon=self.epsilon
      )
    y, moments = batch_norm(
      x,
      scale_C,
      bias_C,
      group_size=self.group_size,
      mask=mask,
      epsilon=self.epsilon,
      spread=self.spread,
    )
    if self.is_mutable_collection('batch_stats') and not self.is_initializing():
      whole = moments_lib.is_whole(len(x), self.group_size, self.spread)
      across = spread_lib.ALONE if whole else self.spread
      batch_mean_C, batch_var_C = self._batch_average(moments, across)
      mean_C.value = self._updated(mean_C.value, batch_mean_C)
      var_C.value = self._updated(var_C.value, batch_var_C)
    return y

  def _batch_average(
    self, moments: moments_lib.Moments, across: spread_lib.Spread
  ) -> tuple[jax.Array, jax.Array]:
    """Mean over all groups that hold a real example: [C], [C]."""
    var_GC = moments.var
    if self.running_variance == 'unbiased':
      count_G1 = moments.count[:, None]
      var_GC = var_GC * (count_G1 / jnp.maximum(count_G1 - 1, 1))
    real_G1 = (moments.count > 0)[:, None].astype(var_GC.dtype)
    # No matrix product: on GPU and TPU it might lose digits.
    number, mean_C, var_C = across.sum(
      tuple((real_G1 * x).sum(axis=0) for x in (1.0, moments.mean, var_GC))
    )
    number = jnp.maximum(number, 1)
    return mean_C / number, var_C / number

  def _updated(self, running_C: jax.Array, batch_C: jax.Array) -> jax.Array:
    new_C = self.momentum * running_C + (1 - self.momentum) * batch_C
    return new_C.astype(running_C.dtype)


def make(
  *,
  group_size: int | None = None,
  momentum: float = 0.9,
  epsilon: float = 1e-5,
  running_variance: str = 'biased',
  spread: spread_lib.Spread = spread_lib.ALONE,
) -> norm.Norm:
  """Batch Normalization for a model; keywords are those of `BatchNorm`.

  Raises:
    ValueError: a group size below 1, a momentum outside [0, 1), a negative
      epsilon or an unknown kind of running variance.
  """
  keywords = checked(group_size, momentum, epsilon, running_variance)
  return norm.Norm(
    layer=lambda name: BatchNorm(name=name, spread=spread, **keywords),
    bias_before=False,
  )


def checked(
  group_size: int | None, momentum: float, epsilon: float, running_variance: str
) -> dict[str, Any]:
  """The attributes of a `BatchNorm`; ValueError for one out of its range."""
  if group_size is not None and group_size < 1:
    raise ValueError(f'group_size is {group_size}; at least 1, or None')
  if not 0 <= momentum < 1:
    raise ValueError(f'momentum is {momentum}; allowed: 0 <= momentum < 1')
  if not epsilon >= 0:
    raise ValueError(f'epsilon is {epsilon}; allowed: 0 or more')
  if running_variance not in ('biased', 'unbiased'):
    raise ValueError(
      f"running_variance is {running_variance!r}; 'biased' or 'unbiased'"
    )
  return dict(
    group_size=group_size,
    momentum=momentum,
    epsilon=epsilon,
    running_variance=running_variance,
  )


def _check(x, scale, bias, group_size, mask, spread) -> None:
  if x.ndim < 2:
    raise ValueError(f'x has shape {x.shape}; allowed: [N, ..., C]')
  examples, channels = x.shape[0], x.shape[-1]
  if scale.shape != (channels,) or bias.shape != (channels,):
    raise ValueError(
      f'scale and bias have shapes {scale.shape} and {bias.shape}; x has '
      f'{channels} channels'
    )
  if not moments_lib.is_whole(examples, group_size, spread) and (
    group_size < 1 or examples % group_size
  ):
    part = f' that one of {spread.parts} devices holds'
    raise ValueError(
      f'group_size {group_size} does not divide the batch of {examples}'
      f'{part if spread.axis_name else ""}'
    )
  if mask is not None and mask.shape != (examples,):
    raise ValueError(f'mask has shape {mask.shape}; allowed: ({examples},)')
