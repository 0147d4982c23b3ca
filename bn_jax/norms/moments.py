"""Mean and variance of a batch, exact in float32, per group and channel."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax


class Moments(NamedTuple):
  """Statistics of a batch, per group and channel.

  Attributes:
    mean: [G, C].
    var: [G, C], biased (divided by the count).
    count: [G], how many values of a channel the group holds; 0 where all of
      its examples are padding, and then mean and var are 0.
  """

  mean: jax.Array
  var: jax.Array
  count: jax.Array


def grouped(
  x: jax.Array, group_size: int | None, mask: jax.Array | None
) -> tuple[jax.Array, jax.Array | None]:
  """x as [G, M, C] in float32 at least, the mask as [G, M]."""
  examples, channels = x.shape[0], x.shape[-1]
  groups = 1 if group_size is None else examples // group_size
  dtype = jnp.promote_types(x.dtype, jnp.float32)
  x_GMC = x.astype(dtype).reshape(groups, -1, channels)
  if mask is None:
    return x_GMC, None
  positions = x_GMC.shape[1] * groups // examples
  return x_GMC, jnp.repeat(mask, positions).reshape(groups, -1)


def centre(
  x_GMC: jax.Array, mask_GM: jax.Array | None
) -> tuple[jax.Array, Moments]:
  """x minus its mean, and its moments, by the corrected two-pass algorithm.

  E[x^2] - E[x]^2 loses everything for data far from zero (N(3000, 1) in float32
  has variance 0 to 2). Here x is first shifted by one of its own values, then
  by the mean of that; what the rounded mean misses is corrected:

    mean = s + E[x - s]      var = E[(x - s)^2] - E[x - s]^2

  holds for every constant s, so s needs no derivative, and all derivatives, in
  both modes and of every order, are those of the exact moments.
  """
  first_G1C = _first_real(x_GMC, mask_GM)
  shift_G1C = lax.stop_gradient(
    first_G1C + _mean(x_GMC - first_G1C, mask_GM)[:, None]
  )
  near_GMC = x_GMC - shift_G1C
  offset_GC = _mean(near_GMC, mask_GM)
  square_GC = _mean(near_GMC * near_GMC, mask_GM)
  var_GC = jnp.maximum(square_GC - offset_GC * offset_GC, 0)
  mean_GC = shift_G1C[:, 0] + offset_GC
  count_G = _count(x_GMC, mask_GM)
  if mask_GM is not None:
    mean_GC = jnp.where(count_G[:, None] > 0, mean_GC, 0)
  return near_GMC - offset_GC[:, None], Moments(mean_GC, var_GC, count_G)


def _first_real(x_GMC: jax.Array, mask_GM: jax.Array | None) -> jax.Array:
  """The first value of each group and channel that is not padding."""
  if mask_GM is None:
    return x_GMC[:, :1]
  first_G = jnp.argmax(mask_GM, axis=1)
  return jnp.take_along_axis(x_GMC, first_G[:, None, None], axis=1)


def _mean(x_GMC: jax.Array, mask_GM: jax.Array | None) -> jax.Array:
  """Mean over the real values of each group, [G, C]; 0 where there are none."""
  if mask_GM is None:
    return x_GMC.mean(axis=1)
  total_GC = jnp.where(mask_GM[..., None], x_GMC, 0).sum(axis=1)
  return total_GC / jnp.maximum(_count(x_GMC, mask_GM), 1)[:, None]


def _count(x_GMC: jax.Array, mask_GM: jax.Array | None) -> jax.Array:
  """How many real values each group holds of a channel, [G]."""
  if mask_GM is None:
    return jnp.full(x_GMC.shape[:1], x_GMC.shape[1], x_GMC.dtype)
  return mask_GM.sum(axis=1, dtype=x_GMC.dtype)
