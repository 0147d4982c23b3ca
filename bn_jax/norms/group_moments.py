"""Computes the mean and variance of a batch, exact in float32, per group."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import ad_checkpoint, lax

from bn_jax import placement, trees

# The largest K of `Pieces` where there are no positions. That values lie along
# two axes matters, see `cut`; their lengths are a choice.
_BLOCK = 16
# Every 16th row gives the shift of the two-pass variance. More rows cost time;
# fewer lose bits of the variance, see `_find_alone`.
_SAMPLE = 16


class Moments(NamedTuple):
  """Statistics of a batch, per group and channel.

  Attributes:
    mean: [G, C].
    var: [G, C], biased (divided by the count).
    count: [G], number of real values of a channel in the group. It is 0 where
      all examples are padding; mean and var are then 0.
  """

  mean: jax.Array
  var: jax.Array
  count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]  # nobody counts in it


class Pieces(NamedTuple):
  """A batch cut into statistics groups, and these into one piece a device.

  Attributes:
    x: [P, R, K, C]: P pieces of R times K values a channel; the pieces of a
      group are neighbours. Or [C, N], cut `by_channel`: C pieces of N values.
    mask: [P, R, K] or [P, R, 1], or None.
    groups: G, which divides P.
    spread: that of the only group, if programs see parts of it; else ALONE.
  """

  x: jax.Array
  mask: jax.Array | None
  groups: int
  spread: placement.Spread


def cut(
  x: jax.Array,
  group_size: int | None,
  mask: jax.Array | None,
  spread: placement.Spread,
) -> Pieces:
  """Cuts a batch, [N, ..., C], into pieces of groups, each on one device.

  What the mask leaves out is 0 in them. It is left out of each sum too, but
  only after an operation, whose derivative would be inf or nan for such values.

  The values of a piece lie along two axes, although one would do: XLA's CPU
  code for the derivative of statistics over a single axis takes 230 ms instead
  of 30 (128 x 32 x 32 x 64).
  """
  trees.check_examples(x)
  examples, channels = x.shape[0], x.shape[-1]
  whole = is_whole(examples, group_size, spread)
  groups = 1 if whole or group_size is None else examples // group_size
  piece_count = groups * _pieces_of_a_group(examples, groups, spread)
  positions = math.prod(x.shape[1:-1])
  inner = math.gcd(examples // piece_count, _BLOCK)
  inner = positions if positions > 1 else inner
  x_PRKC = x.reshape(piece_count, -1, inner, channels)
  if mask is not None:
    mask = mask.reshape(piece_count, x_PRKC.shape[1], -1)
    x_PRKC = jnp.where(mask[..., None], x_PRKC, 0)
  group_spread = spread if whole and spread.axis_name else placement.ALONE
  return Pieces(x_PRKC, mask, groups, group_spread)


def is_whole(
  examples: int, group_size: int | None, spread: placement.Spread
) -> bool:
  """Returns whether the whole batch is one group.

  Args:
    examples: number of examples in x, which inside pmap and shard_map are those
      of one device.
  """
  batch_size = examples * spread.parts if spread.axis_name else examples
  return group_size in (None, batch_size)


def _pieces_of_a_group(examples, groups, spread) -> int:
  """Returns how many pieces a group has: one a device if that is even, or 1."""
  if spread.axis_name or spread.parts % groups:
    return 1
  devices = spread.parts // groups
  return 1 if examples // groups % devices else devices


def is_narrow(
  x: jax.Array, group_size: int | None, spread: placement.Spread
) -> bool:
  """Returns whether x, [N, ..., C], is better cut `by_channel`."""
  return (
    x.ndim == 2
    and is_whole(x.shape[0], group_size, spread)
    and spread.is_narrow(*x.shape)
  )


def by_channel(x: jax.Array) -> Pieces:
  """Cuts a batch, [N, C], into C groups: a channel each, and its N values.

  These lie along one axis and the last: XLA sums along others without vectors.
  """
  return Pieces(x.T, None, x.shape[1], placement.ALONE)


class Centre(NamedTuple):
  """The mean of the group of each piece, as the sum of two numbers.

  A mean that is large beside the deviations does not fit into float32: at
  10,000 it is rounded by 0.001. (x - high) - low loses nothing.

  Attributes:
    high: [P, C], a value near the mean.
    low: [P, C], the mean minus high.
  """

  high: jax.Array
  low: jax.Array

  def away(self, x_PRKC: jax.Array) -> jax.Array:
    """Returns x minus the mean of its group, in float32 at least."""
    return (exact(x_PRKC) - wide(self.high, x_PRKC)) - wide(self.low, x_PRKC)

  def near(self, x_PRKC: jax.Array, other_PC: jax.Array) -> jax.Array:
    """Returns x minus high; low is then subtracted from sums, not from values.

    Args:
      other_PC: any finite numbers, see `apart`.
    """
    return exact(x_PRKC) - wide(apart(self.high, other_PC), x_PRKC)


def exact(x: jax.Array) -> jax.Array:
  """Returns x in float32 at least, as all statistics are computed."""
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def find(pieces: Pieces) -> tuple[Centre, Moments]:
  """Returns the means of the groups in two numbers each, and their moments.

  The moments of single pieces are merged (Chan, Golub and LeVeque, 1983), so
  devices exchange two numbers a channel.
  """
  high_PC, low_PC, var_PC = _saved(_find_alone(pieces.x, pieces.mask))
  mean_PC = high_PC + low_PC
  count_G = total(pieces)
  if _is_in_one_piece(pieces):
    if pieces.mask is not None:
      mean_PC = jnp.where(count_G[:, None] > 0, mean_PC, 0)
    return Centre(high_PC, low_PC), Moments(mean_PC, var_PC, count_G)
  mean_GC = _saved(over_groups(pieces, mean_PC))
  apart_PC = mean_PC - to_pieces(pieces, mean_GC)
  var_GC = _saved(over_groups(pieces, var_PC + apart_PC**2))
  return Centre(high_PC, low_PC - apart_PC), Moments(mean_GC, var_GC, count_G)


def _saved(statistics):
  """Names statistics, so that a policy of `jax.checkpoint` can save them."""
  return ad_checkpoint.checkpoint_name(statistics, 'moments')


def _is_in_one_piece(pieces: Pieces) -> bool:
  return len(pieces.x) == pieces.groups and not pieces.spread.axis_name


def where_real(
  pieces: Pieces, count_G: jax.Array, x_GC: jax.Array
) -> jax.Array:
  """Returns x, but 1 for groups of padding alone, whose x may divide by 0."""
  if pieces.mask is None:
    return x_GC
  return jnp.where(count_G[:, None] > 0, x_GC, 1)


def over_groups(pieces: Pieces, x_PC: jax.Array) -> jax.Array:
  """Returns means over groups, [G, C], from means over pieces, [P, C]."""
  if _is_in_one_piece(pieces):
    return x_PC
  count_P = _count(pieces.x, pieces.mask)
  total_P = to_pieces(pieces, total(pieces)[:, None])[:, 0]
  weight_P1 = (count_P / jnp.maximum(total_P, 1))[:, None]
  sums_GC = (weight_P1 * x_PC).reshape(pieces.groups, -1, x_PC.shape[1])
  return pieces.spread.sum(sums_GC.sum(axis=1))


def largest(pieces: Pieces, x_PRKC: jax.Array) -> jax.Array:
  """Returns the largest real value of each group, 0 without any, [G, C].

  Args:
    x_PRKC: values of 0 or more.
  """
  if pieces.mask is not None:
    x_PRKC = jnp.where(pieces.mask[..., None], x_PRKC, 0)
  channels = x_PRKC.shape[-1]
  largest_PC = _largest(x_PRKC.reshape(len(x_PRKC), -1, channels), 1)
  largest_GC = _largest(largest_PC.reshape(pieces.groups, -1, channels), 1)
  return _largest(pieces.spread.gathered(largest_GC), 0)


def _largest(x: jax.Array, axis: int) -> jax.Array:
  """Returns the maximum along an axis; of equal values the first counts.

  JAX differentiates `max` by comparing the values with it. If a compiler
  computes the values twice, they may round otherwise, and none equals it.
  """
  index = lax.stop_gradient(jnp.argmax(x, axis=axis, keepdims=True))
  return jnp.take_along_axis(x, index, axis=axis).squeeze(axis)


def to_pieces(pieces: Pieces, x_GC: jax.Array) -> jax.Array:
  """Returns values of groups, [G, C], for each of their pieces, [P, C]."""
  return jnp.repeat(x_GC, len(pieces.x) // pieces.groups, axis=0)


def total(pieces: Pieces) -> jax.Array:
  """Returns the number of real values of a channel in each group, [G]."""
  count_P = _count(pieces.x, pieces.mask)
  count_G = count_P.reshape(pieces.groups, -1).sum(axis=1)
  if pieces.mask is None:
    return count_G * pieces.spread.parts  # all parts have as many
  return pieces.spread.sum(count_G)


@jax.custom_jvp
def _find_alone(
  x_PRKC: jax.Array, mask_PRK: jax.Array | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Returns (high, low, var), [P, C] each, by the shifted two-pass algorithm.

    mean = s + E[x - s]      var = E[(x - s)^2] - E[x - s]^2

  holds for every s. With s = 0 all digits are lost for data far from zero: the
  variance of N(3000, 1) in float32 comes out as 0 to 2. Here s is the mean of a
  share f of the values (after a shift by one of them). Whatever the data, var
  contains the variance between that share and the rest, f / (1 - f)
  (mean - s)^2, so the subtraction takes away at most 1/f times what remains:
  with f = 1/16 that costs four of float32's 24 bits, for random data almost
  none.
  """
  # Cut, then converted: a part of the whole in float32 would be cut from an
  # array that TPUs write to memory for it, twice as large as that in bfloat16.
  first_PC = exact(_first_real(x_PRKC, mask_PRK))
  sample_PRKC = x_PRKC if mask_PRK is not None else x_PRKC[:, ::_SAMPLE]
  sample_PRKC, x_PRKC = exact(sample_PRKC), exact(x_PRKC)
  high_PC = first_PC + mean(sample_PRKC - wide(first_PC, x_PRKC), mask_PRK)
  low_PC = mean(x_PRKC - wide(apart(high_PC, first_PC), x_PRKC), mask_PRK)
  near_PRKC = x_PRKC - wide(apart(high_PC, low_PC), x_PRKC)
  square_PC = mean(near_PRKC * near_PRKC, mask_PRK)
  return high_PC, low_PC, jnp.maximum(square_PC - low_PC * low_PC, 0)


def apart(x_PC: jax.Array, other_PC: jax.Array) -> jax.Array:
  """Returns x, in a form that the compiler does not recognise as x.

  If several sums centred the values in the same way, XLA would write the
  centred array to memory and share it. A sum with a subtraction of its own
  reads x alone. (XLA keeps 0 * other, which might be NaN; an optimization
  barrier does not help, since XLA drops it before it merges equal terms.)
  """
  return x_PC + 0 * other_PC


@_find_alone.defjvp
def _find_alone_jvp(primals, tangents):
  """Returns the derivatives of the exact moments, whatever the algorithm.

    d mean = E[dx]      d var = 2 E[(x - mean) dx]

  JAX transposes them for reverse mode and differentiates them for the second
  order. The derivative of the mean is that of low; that of high is 0.
  """
  (x_PRKC, mask_PRK), (dx_PRKC, _) = primals, tangents
  high_PC, low_PC, var_PC = _find_alone(x_PRKC, mask_PRK)
  dx_PRKC = exact(dx_PRKC)
  dmean_PC = mean(dx_PRKC, mask_PRK)
  near_PRKC = Centre(high_PC, low_PC).near(x_PRKC, var_PC)
  slope_PC = mean(near_PRKC * dx_PRKC, mask_PRK) - low_PC * dmean_PC
  derivatives = jnp.zeros_like(high_PC), dmean_PC, 2 * slope_PC
  return (high_PC, low_PC, var_PC), derivatives


def wide(x_PC: jax.Array, x_PRKC: jax.Array) -> jax.Array:
  """Reshapes [P, C] to [P, 1, 1, C], to broadcast against values.

  Those that are cut `by_channel`, [C, N], have no axis more.
  """
  return x_PC if x_PRKC.ndim == 2 else x_PC[:, None, None]


def _first_real(x_PRKC: jax.Array, mask_PRK: jax.Array | None) -> jax.Array:
  """Returns the first value of each piece and channel that is no padding."""
  if x_PRKC.ndim == 2:
    return x_PRKC[:, :1]
  if mask_PRK is None:
    return x_PRKC[:, 0, 0]
  x_PMC = x_PRKC[:, :, : mask_PRK.shape[2]].reshape(
    x_PRKC.shape[0], -1, x_PRKC.shape[3]
  )
  first_P = jnp.argmax(mask_PRK.reshape(len(x_PMC), -1), axis=1)
  return jnp.take_along_axis(x_PMC, first_P[:, None, None], axis=1)[:, 0]


def mean(x_PRKC: jax.Array, mask_PRK: jax.Array | None) -> jax.Array:
  """Returns the mean of each piece's real values, [P, C]; 0 without any."""
  if x_PRKC.ndim == 2:
    return x_PRKC.mean(axis=1, keepdims=True)
  if mask_PRK is None:
    return x_PRKC.mean(axis=(1, 2))
  total_PC = jnp.where(mask_PRK[..., None], x_PRKC, 0).sum(axis=(1, 2))
  return total_PC / jnp.maximum(_count(x_PRKC, mask_PRK), 1)[:, None]


def _count(x_PRKC: jax.Array, mask_PRK: jax.Array | None) -> jax.Array:
  """Returns the number of real values of a channel in each piece, [P]."""
  if x_PRKC.ndim == 2:
    x_PRKC = x_PRKC[:, None, :, None]
  piece_count, rows, inner, _ = x_PRKC.shape
  dtype = jnp.promote_types(x_PRKC.dtype, jnp.float32)
  if mask_PRK is None:
    return jnp.full((piece_count,), rows * inner, dtype)
  values = inner // mask_PRK.shape[2]  # of one element of the mask
  return values * mask_PRK.sum(axis=(1, 2), dtype=dtype)
