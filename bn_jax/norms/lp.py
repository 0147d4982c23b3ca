"""Normalises by the mean of |x|^p in place of the variance.

Santurkar et al. (2018), "How Does Batch Normalization Help Optimization?",
arXiv:1805.11604, section 3.3: the mean is subtracted as in Batch Normalization;
the result is divided by "the average of the lp norm" of the activations whose
mean is *not* subtracted. Per channel, over the m values of a statistics group:

  scale_p = (1/m sum_i |x_i|^p + epsilon)^(1/p)   p = inf: max_i |x_i| + epsilon
  y_i     = scale * (x_i - mean) / scale_p + bias

which is the reading that gives the ranges of the paper's Figure 6. But for
epsilon, y changes with a shift of x, not with its scale. For p = 2 and mean 0
it is Batch Normalization. The centred form has x - mean in scale_p, not x.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from bn_jax import checks, placement
from bn_jax.norms import group_moments as moments_lib
from bn_jax.norms import norm, running, transform


class LpMoments(NamedTuple):
  """Statistics of a batch, per group and channel.

  Attributes:
    mean: [G, C].
    scale_p: [G, C], the divisor.
    count: [G], number of real values of a channel in the group.
  """

  mean: jax.Array
  scale_p: jax.Array
  count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]  # nobody counts in it


def lp_norm(
  x: jax.Array,
  scale: jax.Array,
  bias: jax.Array,
  *,
  p: float,
  centred: bool = False,
  axis: int = -1,
  group_size: int | None = None,
  mask: jax.Array | None = None,
  epsilon: float = 1e-5,
  spread: placement.Spread = placement.ALONE,
) -> tuple[jax.Array, LpMoments]:
  """Returns x normalised by its mean and power mean, and these statistics.

  Args:
    x: [N, ..., C], floating point.
    scale, bias: [C], as in the formula.
    p: 1 or more; infinity is the maximum.
    centred: whether the power mean is that of x - mean.
    axis: of the channels, any but the first.
    group_size: examples that share statistics; None is the whole batch.
    mask: bool, [N] or x's shape without channels; False is padding, as in
      `batch_norm`.
    epsilon: added to the mean of |x|^p (to the maximum, for infinity).
    spread: how the batch lies on devices.

  Returns:
    y, of the shape and dtype of x, and the LpMoments in float32 at least.

  Raises:
    ValueError: p below 1, or what `batch_norm` refuses.
  """
  check_power(p, centred)
  transform.check_epsilon(epsilon)
  x = transform.channels_last(x, axis)
  transform.check_parameters(x, scale, bias)
  pieces, centre, moments = _find(
    x, p, centred, group_size, mask, epsilon, spread
  )
  factor_GC = moments_lib.exact(scale)[None] / moments.scale_p
  bias_1C = moments_lib.exact(bias)[None]
  y_PRKC = transform.affine(pieces, centre, factor_GC, bias_1C)
  y = y_PRKC.astype(x.dtype).reshape(x.shape)
  return jnp.moveaxis(y, -1, axis), moments


def check_power(p: float, centred: bool) -> None:
  """Raises ValueError for a p that makes no norm, or no bool for centred."""
  checks.number('p', p, least=1, infinite=True)
  checks.flag('centred', centred)


def _find(x, p, centred, group_size, mask, epsilon, spread):
  """Returns (pieces, centre, LpMoments) of x, [N, ..., C]."""
  transform.check(x, group_size, mask, spread)
  p = checks.plain(p)  # a number of JAX has no hash, which `_power` needs
  pieces = moments_lib.cut(x, group_size, mask, spread)
  centre, moments = moments_lib.find(pieces)
  values_PRKC = (
    centre.away(pieces.x) if centred else moments_lib.exact(pieces.x)
  )
  magnitude_PRKC = jnp.abs(values_PRKC)
  if math.isinf(p):
    scale_GC = moments_lib.largest(pieces, magnitude_PRKC) + epsilon
    scale_GC = moments_lib.where_real(pieces, moments.count, scale_GC)
  else:
    if pieces.mask is not None:
      # Not 0, where for p below 2 the second derivative of |x|^p is inf.
      magnitude_PRKC = jnp.where(pieces.mask[..., None], magnitude_PRKC, 1)
    mean_PC = moments_lib.mean(_power(magnitude_PRKC, p), pieces.mask)
    mean_GC = moments_lib.over_groups(pieces, mean_PC) + epsilon
    mean_GC = moments_lib.where_real(pieces, moments.count, mean_GC)
    scale_GC = _power(mean_GC, 1 / p)
  return pieces, centre, LpMoments(moments.mean, scale_GC, moments.count)


def _power(x: jax.Array, p: float) -> jax.Array:
  """Returns x^p, by a product or a root if possible: a tenth of the cost."""
  operations = {1: lambda x: x, 2: jnp.square, 0.5: jnp.sqrt}
  return operations[p](x) if p in operations else x**p


class LpNorm(running.RunningNorm):
  """`lp_norm` as a layer.

  Collections: params {scale, bias}, [C] each; batch_stats {mean, scale_p}, [C]
  each, running averages of the groups' statistics.

  Attributes, beside those of `RunningNorm`:
    p: 1 or more, or infinity.
    centred: see `lp_norm`.
  """

  p: float = 2.0
  centred: bool = False

  def __post_init__(self):
    check_power(self.p, self.centred)
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
    """Normalises x by its batch's statistics or by the running averages."""
    del first  # only noise depends on where x begins in its batch
    channels = transform.channels(x, self.axis)
    scale_C = self.scale(channels)
    bias_C = self.param('bias', nn.initializers.zeros_init(), (channels,))
    averages = self.averages(channels, mean=0.0, scale_p=1.0)
    if self.is_fixed(statistics):
      if self.wants_moments():
        x_last = transform.channels_last(x, self.axis)
        *_, moments = _find(
          x_last, self.p, self.centred, self.group_size, mask, self.epsilon,
          self.spread,
        )  # fmt: skip
        self.sow_moments(_statistics(moments), moments.count)
      return transform.normalize(x, *self.fixed(), axis=self.axis)
    y, moments = lp_norm(
      x, scale_C, bias_C, p=self.p, centred=self.centred, axis=self.axis,
      group_size=self.group_size, mask=mask, epsilon=self.epsilon,
      spread=self.spread,
    )  # fmt: skip
    self.sow_moments(_statistics(moments), moments.count)
    self.update(averages, _statistics(moments), moments.count, x.shape[0])
    return y

  def divisor(self) -> jax.Array:
    """Returns what statistics 'running' divide by, [C]."""
    return self.get_variable('batch_stats', 'scale_p')


def _statistics(moments: LpMoments) -> dict[str, jax.Array]:
  return {'mean': moments.mean, 'scale_p': moments.scale_p}


def make(
  *,
  p: float = 2.0,
  centred: bool = False,
  group_size: int | None = None,
  momentum: float = 0.9,
  epsilon: float = 1e-5,
  running_average: str = 'ema',
  scale_init: float | str = 1.0,
  frozen: bool = False,
  axis: int = -1,
  spread: placement.Spread = placement.ALONE,
) -> norm.Norm:
  """Returns `lp_norm` for a model; keywords are those of `LpNorm`.

  Raises:
    ValueError: a keyword out of its range.
  """
  layer = functools.partial(
    LpNorm, p=p, centred=centred, group_size=group_size, momentum=momentum,
    epsilon=epsilon, running_average=running_average, scale_init=scale_init,
    frozen=frozen, axis=axis, spread=spread,
  )  # fmt: skip
  # The mean removes a bias; in scale_p it would act as `scale` does.
  return norm.as_norm(layer, bias_before=False)
