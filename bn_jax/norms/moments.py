"""Mean and variance of a batch, exact in float32, per group and channel."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import ad_checkpoint, lax

from bn_jax import placement

# At most so many rows lie along the second axis where there are no positions,
# see `cut`. That there are two axes matters; their lengths are a choice.
_BLOCK = 16
# One row of so many gives the shift of the two-pass variance. More rows cost
# time; fewer lose bits of the variance, see `_find_alone`.
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
  count: jax.Array


class Pieces(NamedTuple):
  """A batch cut into statistics groups, and these into one piece a device.

  Attributes:
    x: [P, R, K, C]; the pieces of a group are neighbours.
    mask: [P, R, K] or [P, R, 1], or None.
    groups: G, which divides P.
    spread: the devices over which the only group goes on, or ALONE.
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

  The values of a piece lie along two axes, although one would do: XLA's CPU
  code for the derivative of statistics over a single axis is ten times slower.
  """
  examples, channels = x.shape[0], x.shape[-1]
  whole = is_whole(examples, group_size, spread)
  groups = 1 if whole else examples // group_size
  pieces = groups * _pieces_of_a_group(examples, groups, spread)
  positions = math.prod(x.shape[1:-1])
  inner = positions if positions > 1 else math.gcd(examples // pieces, _BLOCK)
  x_PRKC = x.reshape(pieces, -1, inner, channels)
  if mask is not None:
    mask = mask.reshape(pieces, x_PRKC.shape[1], -1)
  across = spread if whole and spread.axis_name else placement.ALONE
  return Pieces(x_PRKC, mask, groups, across)


def is_whole(
  examples: int, group_size: int | None, spread: placement.Spread
) -> bool:
  """Returns whether the whole batch is one group.

  Args:
    examples: number of examples in x, which inside pmap and shard_map are those
      of one device.
  """
  everything = examples * spread.parts if spread.axis_name else examples
  return group_size in (None, everything)


def _pieces_of_a_group(examples, groups, spread) -> int:
  """Returns on how many devices a group lies, where x is the whole batch."""
  if spread.axis_name or spread.parts % groups:
    return 1
  pieces = spread.parts // groups
  return 1 if examples // groups % pieces else pieces


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
    return (exact(x_PRKC) - wide(self.high)) - wide(self.low)

  def near(self, x_PRKC: jax.Array, other_PC: jax.Array) -> jax.Array:
    """Returns x minus high, for a mean from which low is then subtracted.

    Args:
      other_PC: any finite numbers, see `apart`.
    """
    return exact(x_PRKC) - wide(apart(self.high, other_PC))


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
  """Names statistics, so that recomputing activations can save these few."""
  return ad_checkpoint.checkpoint_name(statistics, 'moments')


def _is_in_one_piece(pieces: Pieces) -> bool:
  return len(pieces.x) == pieces.groups and not pieces.spread.axis_name


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
  count, _, _, channels = x_PRKC.shape
  largest_PC = _largest(x_PRKC.reshape(count, -1, channels), 1)
  largest_GC = _largest(largest_PC.reshape(pieces.groups, -1, channels), 1)
  return _largest(pieces.spread.gathered(largest_GC), 0)


def _largest(x: jax.Array, axis: int) -> jax.Array:
  """Returns the maximum along an axis; of equal values the first counts.

  JAX differentiates `max` by comparing the values with it. A compiler that
  computes them twice may round them differently, and then none is equal.
  """
  index = lax.stop_gradient(jnp.argmax(x, axis=axis, keepdims=True))
  return jnp.take_along_axis(x, index, axis=axis).squeeze(axis)


def to_pieces(pieces: Pieces, x_GC: jax.Array) -> jax.Array:
  """Returns values of groups, [G, C], for each of their pieces, [P, C]."""
  return jnp.repeat(x_GC, len(pieces.x) // pieces.groups, axis=0)


def total(pieces: Pieces) -> jax.Array:
  """Returns the number of values of a channel in each group, [G]."""
  count_P = _count(pieces.x, pieces.mask)
  count_G = count_P.reshape(pieces.groups, -1).sum(axis=1)
  if pieces.mask is None:
    return count_G * pieces.spread.parts  # devices need not be asked
  return pieces.spread.sum(count_G)


@jax.custom_jvp
def _find_alone(
  x_GRKC: jax.Array, mask_GRK: jax.Array | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Returns (high, low, var), [G, C] each, by the shifted two-pass algorithm.

    mean = s + E[x - s]      var = E[(x - s)^2] - E[x - s]^2

  holds for every s. With s = 0 all digits are lost for data far from zero: the
  variance of N(3000, 1) in float32 comes out as 0 to 2. Here s is the mean of a
  share f of the values (after a shift by one of them). Whatever the data, var
  contains the variance between that share and the rest, f / (1 - f)
  (mean - s)^2, so the subtraction takes away at most 1/f times what remains:
  with f = 1/16 that costs four of float32's 24 bits, for random data almost
  none.
  """
  x_GRKC = exact(x_GRKC)
  first_GC = _first_real(x_GRKC, mask_GRK)
  sample_GRKC = x_GRKC if mask_GRK is not None else x_GRKC[:, ::_SAMPLE]
  high_GC = first_GC + mean(sample_GRKC - wide(first_GC), mask_GRK)
  low_GC = mean(x_GRKC - wide(apart(high_GC, first_GC)), mask_GRK)
  near_GRKC = x_GRKC - wide(apart(high_GC, low_GC))
  square_GC = mean(near_GRKC * near_GRKC, mask_GRK)
  return high_GC, low_GC, jnp.maximum(square_GC - low_GC * low_GC, 0)


def apart(x_GC: jax.Array, other_GC: jax.Array) -> jax.Array:
  """Returns x, in a form that the compiler does not recognise as x.

  If several sums centred the values in the same way, XLA would write the
  centred array to memory and share it. A sum with a subtraction of its own
  reads x alone. (XLA keeps 0 * other, which might be NaN; an optimization
  barrier does not help, since XLA drops it before it merges equal terms.)
  """
  return x_GC + 0 * other_GC


@_find_alone.defjvp
def _find_alone_jvp(primals, tangents):
  """Returns the derivatives of the exact moments, whatever the algorithm.

    d mean = E[dx]      d var = 2 E[(x - mean) dx]

  JAX transposes them for reverse mode and differentiates them for the second
  order. The derivative of the mean is that of low; that of high is 0.
  """
  (x_GRKC, mask_GRK), (dx_GRKC, _) = primals, tangents
  high_GC, low_GC, var_GC = _find_alone(x_GRKC, mask_GRK)
  dx_GRKC = exact(dx_GRKC)
  dmean_GC = mean(dx_GRKC, mask_GRK)
  near_GRKC = Centre(high_GC, low_GC).near(x_GRKC, var_GC)
  slope_GC = mean(near_GRKC * dx_GRKC, mask_GRK) - low_GC * dmean_GC
  derivatives = jnp.zeros_like(high_GC), dmean_GC, 2 * slope_GC
  return (high_GC, low_GC, var_GC), derivatives


def wide(x_GC: jax.Array) -> jax.Array:
  """Reshapes [G, C] to [G, 1, 1, C], to broadcast against values."""
  return x_GC[:, None, None]


def _first_real(x_GRKC: jax.Array, mask_GRK: jax.Array | None) -> jax.Array:
  """Returns the first value of each group and channel that is no padding."""
  if mask_GRK is None:
    return x_GRKC[:, 0, 0]
  x_GMC = x_GRKC[:, :, : mask_GRK.shape[2]].reshape(
    x_GRKC.shape[0], -1, x_GRKC.shape[3]
  )
  first_G = jnp.argmax(mask_GRK.reshape(len(x_GMC), -1), axis=1)
  return jnp.take_along_axis(x_GMC, first_G[:, None, None], axis=1)[:, 0]


def mean(x_GRKC: jax.Array, mask_GRK: jax.Array | None) -> jax.Array:
  """Returns the mean of each group's real values, [G, C]; 0 without any."""
  if mask_GRK is None:
    return x_GRKC.mean(axis=(1, 2))
  total_GC = jnp.where(mask_GRK[..., None], x_GRKC, 0).sum(axis=(1, 2))
  return total_GC / jnp.maximum(_count(x_GRKC, mask_GRK), 1)[:, None]


def _count(x_GRKC: jax.Array, mask_GRK: jax.Array | None) -> jax.Array:
  """Returns the number of real values of a channel in each piece, [G]."""
  groups, rows, inner, _ = x_GRKC.shape
  dtype = jnp.promote_types(x_GRKC.dtype, jnp.float32)
  if mask_GRK is None:
    return jnp.full((groups,), rows * inner, dtype)
  values = inner // mask_GRK.shape[2]  # of one element of the mask
  return values * mask_GRK.sum(axis=(1, 2), dtype=dtype)
