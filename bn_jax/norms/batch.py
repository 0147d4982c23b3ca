"""Defines the layers of Batch Normalization and Batch Renormalization."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from bn_jax import checks, placement
from bn_jax.norms import group_moments as moments_lib
from bn_jax.norms import norm, running, transform


class BatchNorm(running.RunningNorm):
  """Batch Normalization (Ioffe and Szegedy, 2015, arXiv:1502.03167).

  Collections: params {scale, bias}, [C] each; batch_stats {mean, var}, [C]
  each, updated with statistics 'batch' where the collection is mutable and the
  layer not frozen, but not by `init`. Of several groups the averages take the
  mean of the groups' means and of their variances, as in the paper, not the
  variance of the pooled batch.

  Attributes, beside those of `RunningNorm`:
    running_variance: 'biased', or 'unbiased' (times m/(m-1), as PyTorch does).
    stop_statistics_gradient: see `batch_norm`.
    affine: whether scale and bias are learned. Otherwise they stay 1 and 0 and
      their gradients are zero, as in section 2 of the paper, which has none.
  """

  running_variance: str = 'biased'
  stop_statistics_gradient: bool = False
  affine: bool = True

  def __post_init__(self):
    checks.one_of(
      'running_variance', self.running_variance, ('biased', 'unbiased')
    )
    checks.flag('stop_statistics_gradient', self.stop_statistics_gradient)
    checks.flag('affine', self.affine)
    if not self.affine and self.scale_init != 1:
      raise checks.Refused('scale_init', self.scale_init, '1 with affine=False')
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
    """Normalises x by its batch's statistics or by the running averages.

    Args:
      x: [N, ..., C], or with its channels along `axis`.
      mask: bool, [N] or x's shape without channels; False is padding.
    """
    del first  # only noise depends on where x begins in its batch
    channels = transform.channels(x, self.axis)
    scale_C = self.scale(channels)
    bias_C = self.param('bias', nn.initializers.zeros_init(), (channels,))
    scale_C, bias_C = self._learned(scale_C, bias_C)
    averages = self.averages(channels, mean=0.0, var=1.0)
    if self.is_fixed(statistics):
      if self.wants_moments():
        self._sow_moments(self.moments(x, mask))
      return transform.normalize(x, *self.fixed(), axis=self.axis)
    y, moments = self.transformed(x, scale_C, bias_C, mask, averages)
    self._sow_moments(moments)
    batch = {'mean': moments.mean, 'var': self._running_variance(moments)}
    self.update(averages, batch, moments.count, x.shape[0])
    return y

  def transformed(
    self,
    x: jax.Array,
    scale_C: jax.Array,
    bias_C: jax.Array,
    mask: jax.Array | None,
    averages: dict[str, nn.Variable],
  ) -> tuple[jax.Array, moments_lib.Moments]:
    """Returns x normalised by its batch, and the batch's statistics."""
    del averages  # `BatchRenorm` needs them
    return transform.batch_norm(
      x, scale_C, bias_C, mask=mask, epsilon=self.epsilon,
      stop_statistics_gradient=self.stop_statistics_gradient, **self._layout(),
    )  # fmt: skip

  def fixed(self) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Returns the mean, divisor, scale and bias of 'running', [C] each."""
    mean_C, divisor_C, scale_C, bias_C = super().fixed()
    return mean_C, divisor_C, *self._learned(scale_C, bias_C)

  def divisor(self) -> jax.Array:
    """Returns what statistics 'running' divide by, [C]."""
    return self.deviation(self.get_variable('batch_stats', 'var'))

  def moments(
    self, x: jax.Array, mask: jax.Array | None
  ) -> moments_lib.Moments:
    """Returns the statistics of a batch, per group."""
    return transform.moments(x, mask=mask, **self._layout())

  def deviation(self, var: jax.Array) -> jax.Array:
    """Returns the divisor of values whose variance is `var`."""
    return jnp.sqrt(moments_lib.exact(var) + self.epsilon)

  def _learned(
    self, scale_C: jax.Array, bias_C: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    """Returns scale and bias, without a derivative unless they are learned."""
    parameters = scale_C, bias_C
    return parameters if self.affine else lax.stop_gradient(parameters)

  def _layout(self) -> dict[str, Any]:
    return dict(axis=self.axis, group_size=self.group_size, spread=self.spread)

  def _sow_moments(self, moments: moments_lib.Moments) -> None:
    self.sow_moments({'mean': moments.mean, 'var': moments.var}, moments.count)

  def _running_variance(self, moments: moments_lib.Moments) -> jax.Array:
    if self.running_variance == 'biased':
      return moments.var
    count_G1 = moments.count[:, None]
    return moments.var * (count_G1 / jnp.maximum(count_G1 - 1, 1))


class BatchRenorm(BatchNorm):
  """Batch Renormalization (Ioffe, 2017, arXiv:1702.03275).

    y = scale ((x - mean_B) / s_B r + d) + bias
    r = clip(s_B / s, 1/r_max, r_max)      d = clip((mean_B - mean)/s, +-d_max)

  with s_B^2 = var_B + epsilon of the batch, and s^2 = var + epsilon of the
  running averages before it; the derivative treats r and d as constants.
  Without clipping y would be x normalised by the running averages, with the
  derivative of the batch's statistics. The limits begin at r_max 1 and d_max 0,
  which is Batch Normalization, and grow linearly.

  The paper averages s; this layer averages s^2, so that population statistics
  and folding apply.

  Attributes, beside those of `BatchNorm`; the defaults are the paper's:
    r_max, d_max: the final limits; infinity, which is none, where the steps
      below are (0, 0).
    r_steps, d_steps: (first, last), the updates between which they grow.
  """

  r_max: float = 3.0
  d_max: float = 5.0
  r_steps: tuple[int, int] = (5_000, 40_000)
  d_steps: tuple[int, int] = (5_000, 25_000)

  def __post_init__(self):
    for name in ('r_steps', 'd_steps'):
      running.check_bounds(name, getattr(self, name))
      setattr(self, name, tuple(getattr(self, name)))  # a list has no hash
    # Towards infinity there is no way in steps.
    checks.number('r_max', self.r_max, least=1, infinite=not self.r_steps[1])
    checks.number('d_max', self.d_max, least=0, infinite=not self.d_steps[1])
    super().__post_init__()

  def counts(self) -> bool:
    """Returns True: r_max and d_max depend on the number of updates."""
    return True

  def transformed(self, x, scale_C, bias_C, mask, averages):
    """Returns x normalised by its batch, and the batch's statistics."""
    count = self.get_variable('batch_stats', 'count')
    r_max = 1 + (self.r_max - 1) * running.ramp(count, self.r_steps)
    d_max = self.d_max * running.ramp(count, self.d_steps)
    ones_C, zeros_C = jnp.ones_like(scale_C), jnp.zeros_like(bias_C)
    y, moments = super().transformed(x, ones_C, zeros_C, mask, averages)
    deviation_1C = self.deviation(averages['var'].value)[None]
    r_GC = self.deviation(moments.var) / deviation_1C
    d_GC = (moments.mean - averages['mean'].value[None]) / deviation_1C
    r_GC, d_GC = lax.stop_gradient(
      (jnp.clip(r_GC, 1 / r_max, r_max), jnp.clip(d_GC, -d_max, d_max))
    )
    factor_GC, shift_GC = scale_C[None] * r_GC, scale_C[None] * d_GC
    shift_GC = shift_GC + bias_C[None]
    y = transform.affine_by_group(y, factor_GC, shift_GC, axis=self.axis)
    return y, moments


def make(
  *,
  group_size: int | None = None,
  momentum: float = 0.9,
  epsilon: float = 1e-5,
  running_variance: str = 'biased',
  running_average: str = 'ema',
  stop_statistics_gradient: bool = False,
  affine: bool = True,
  bias_before: bool | None = None,
  scale_init: float | str = 1.0,
  frozen: bool = False,
  axis: int = -1,
  spread: placement.Spread = placement.ALONE,
) -> norm.Norm:
  """Returns Batch Normalization for a model; keywords are of `BatchNorm`.

  One more is bias_before, whether the layer before the norm has a bias: None is
  where a bias has an effect; True can show that its gradient is zero.

  Raises:
    ValueError: a keyword out of its range.
  """
  checks.flag('bias_before', bias_before, also=(None,))
  if bias_before is None:
    # A bias gets a gradient only where the mean is treated as a constant.
    bias_before = stop_statistics_gradient
  layer = functools.partial(
    BatchNorm, group_size=group_size, momentum=momentum, epsilon=epsilon,
    running_variance=running_variance, running_average=running_average,
    stop_statistics_gradient=stop_statistics_gradient, affine=affine,
    scale_init=scale_init, frozen=frozen, axis=axis, spread=spread,
  )  # fmt: skip
  return norm.as_norm(layer, bias_before=bias_before)


def make_renorm(
  *,
  r_max: float = 3.0,
  d_max: float = 5.0,
  r_steps: tuple[int, int] = (5_000, 40_000),
  d_steps: tuple[int, int] = (5_000, 25_000),
  group_size: int | None = None,
  momentum: float = 0.99,  # the paper averages with weight 0.01
  epsilon: float = 1e-5,
  running_variance: str = 'biased',
  running_average: str = 'ema',
  scale_init: float | str = 1.0,
  frozen: bool = False,
  axis: int = -1,
  spread: placement.Spread = placement.ALONE,
) -> norm.Norm:
  """Returns Batch Renormalization; keywords are those of `BatchRenorm`.

  Raises:
    ValueError: a keyword out of its range.
  """
  layer = functools.partial(
    BatchRenorm, r_max=r_max, d_max=d_max, r_steps=r_steps, d_steps=d_steps,
    group_size=group_size, momentum=momentum, epsilon=epsilon,
    running_variance=running_variance, running_average=running_average,
    scale_init=scale_init, frozen=frozen, axis=axis, spread=spread,
  )  # fmt: skip
  return norm.as_norm(layer, bias_before=False)
