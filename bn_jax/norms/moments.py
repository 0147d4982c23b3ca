"""Mean and variance of a batch, exact in float32, per group and channel."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import ad_checkpoint, lax

from bn_jax import spread as spread_lib

_BLOCK = 16  # rows that are summed first, where there are no positions


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


class Pieces(NamedTuple):
  """A batch cut into statistics groups, and these into pieces, one a device.

  Attributes:
    x: [P, R, K, C], in float32 at least; the pieces of a group are neighbours.
    mask: [P, R, K] or [P, R, 1], or None.
    groups: G, which divides P.
    spread: over which the one group there is goes on, or ALONE.
  """

  x: jax.Array
  mask: jax.Array | None
  groups: int
  spread: spread_lib.Spread


def cut(
  x: jax.Array,
  group_size: int | None,
  mask: jax.Array | None,
  spread: spread_lib.Spread,
) -> Pieces:
  """The groups of a batch, [N, ..., C], in pieces that lie on one device each.

  The values of a piece lie along two axes, although one would do: XLA's CPU
  code for the derivative of statistics over a single axis is ten times slower.
  """
  examples, channels = x.shape[0], x.shape[-1]
  whole = is_whole(examples, group_size, spread)
  groups = 1 if whole else examples // group_size
  pieces = groups * _pieces_of_a_group(examples, groups, spread)
  positions = math.prod(x.shape[1:-1])
  inner = positions if positions > 1 else math.gcd(examples // pieces, _BLOCK)
  dtype = jnp.promote_types(x.dtype, jnp.float32)
  x_PRKC = x.astype(dtype).reshape(pieces, -1, inner, channels)
  if mask is not None:
    mask = mask.reshape(pieces, x_PRKC.shape[1], -1)
  across = spread if whole and spread.axis_name else spread_lib.ALONE
  return Pieces(x_PRKC, mask, groups, across)


def is_whole(
  examples: int, group_size: int | None, spread: spread_lib.Spread
) -> bool:
  """Whether the whole batch is one group; `examples` are those in sight."""
  everything = examples * spread.parts if spread.axis_name else examples
  return group_size in (None, everything)


def _pieces_of_a_group(examples, groups, spread) -> int:
  """Into how many devices' parts a group falls, where the batch is in sight."""
  if spread.axis_name or spread.parts % groups:
    return 1
  pieces = spread.parts // groups
  return 1 if examples // groups % pieces else pieces


def centre(pieces: Pieces) -> tuple[jax.Array, Moments]:
  """x minus the mean of its group, [P, R, K, C], and the groups' moments.

  The moments of the pieces, each found by itself, are merged (Chan, Golub and
  LeVeque, 1983): two numbers a channel are all that devices tell each other.
  """
  near_PRKC, found = _centre_alone(pieces.x, pieces.mask)
  if len(pieces.x) == pieces.groups and not pieces.spread.axis_name:
    return near_PRKC, found
  count_GP1 = found.count.reshape(pieces.groups, -1, 1)
  total_G = count_GP1.sum(axis=(1, 2))
  if pieces.mask is None:
    total_G = total_G * pieces.spread.parts  # nobody needs to be asked
  else:
    total_G = pieces.spread.sum(total_G)
  weight_GP1 = count_GP1 / jnp.maximum(total_G, 1).reshape(-1, 1, 1)

  def over_pieces(x_GPC):
    mean_GC = pieces.spread.sum((weight_GP1 * x_GPC).sum(axis=1))
    # Who recomputes activations to save memory need not ask all devices again.
    return ad_checkpoint.checkpoint_name(mean_GC, 'moments')

  shape = (*count_GP1.shape[:2], -1)
  mean_GPC = found.mean.reshape(shape)
  mean_GC = over_pieces(mean_GPC)
  apart_GPC = mean_GPC - mean_GC[:, None]
  var_GC = over_pieces(found.var.reshape(shape) + apart_GPC**2)
  apart_PC = apart_GPC.reshape(found.mean.shape)
  return near_PRKC + wide(apart_PC), Moments(mean_GC, var_GC, total_G)


def _centre_alone(
  x_GRKC: jax.Array, mask_GRK: jax.Array | None
) -> tuple[jax.Array, Moments]:
  """x minus its mean, and its moments, by the corrected two-pass algorithm.

  E[x^2] - E[x]^2 loses everything for data far from zero (N(3000, 1) in float32
  has variance 0 to 2). Here x is first shifted by one of its own values, then
  by the mean of that; what the rounded mean misses is corrected:

    mean = s + E[x - s]      var = E[(x - s)^2] - E[x - s]^2

  holds for every constant s, so s needs no derivative, and all derivatives, in
  both modes and of every order, are those of the exact moments.
  """
  first_GC = _first_real(x_GRKC, mask_GRK)
  shift_GC = lax.stop_gradient(
    first_GC + _mean(x_GRKC - wide(first_GC), mask_GRK)
  )
  near_GRKC = x_GRKC - wide(shift_GC)
  offset_GC = _mean(near_GRKC, mask_GRK)
  square_GC = _mean(near_GRKC * near_GRKC, mask_GRK)
  var_GC = jnp.maximum(square_GC - offset_GC * offset_GC, 0)
  mean_GC = shift_GC + offset_GC
  count_G = _count(x_GRKC, mask_GRK)
  if mask_GRK is not None:
    mean_GC = jnp.where(count_G[:, None] > 0, mean_GC, 0)
  return near_GRKC - wide(offset_GC), Moments(mean_GC, var_GC, count_G)


def wide(x_GC: jax.Array) -> jax.Array:
  """[G, C] as [G, 1, 1, C], to stand beside values."""
  return x_GC[:, None, None]


def _first_real(x_GRKC: jax.Array, mask_GRK: jax.Array | None) -> jax.Array:
  """The first value of each group and channel that is not padding."""
  if mask_GRK is None:
    return x_GRKC[:, 0, 0]
  x_GMC = x_GRKC[:, :, : mask_GRK.shape[2]].reshape(
    x_GRKC.shape[0], -1, x_GRKC.shape[3]
  )
  first_G = jnp.argmax(mask_GRK.reshape(len(x_GMC), -1), axis=1)
  return jnp.take_along_axis(x_GMC, first_G[:, None, None], axis=1)[:, 0]


def _mean(x_GRKC: jax.Array, mask_GRK: jax.Array | None) -> jax.Array:
  """Mean over the real values of each group, [G, C]; 0 where there are none."""
  if mask_GRK is None:
    return x_GRKC.mean(axis=(1, 2))
  total_GC = jnp.where(mask_GRK[..., None], x_GRKC, 0).sum(axis=(1, 2))
  return total_GC / jnp.maximum(_count(x_GRKC, mask_GRK), 1)[:, None]


def _count(x_GRKC: jax.Array, mask_GRK: jax.Array | None) -> jax.Array:
  """How many real values each group holds of a channel, [G]."""
  groups, rows, inner, _ = x_GRKC.shape
  if mask_GRK is None:
    return jnp.full((groups,), rows * inner, x_GRKC.dtype)
  values = inner // mask_GRK.shape[2]  # of one element of the mask
  return values * mask_GRK.sum(axis=(1, 2), dtype=x_GRKC.dtype)
