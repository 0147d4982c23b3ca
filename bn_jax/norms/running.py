"""Keeps running averages of batch statistics, for layers to normalise by them.

At update t, with the statistics `batch` of one batch and a weight w:

  running = running + w (batch - running)

  ema            w = 1 - momentum: an exponential moving average that begins at
                 mean 0 and variance 1, as in other libraries
  corrected_ema  w = (1 - momentum) / (1 - momentum^t): the same, without the
                 bias to its start (Kingma and Ba, 2015, "Adam", section 3)
  cumulative     w = 1 / t: the mean of all batches so far

momentum is flax's, the share of the old average; PyTorch's is one minus it. The
defaults, momentum 0.9 and epsilon 1e-5, are PyTorch's.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from jax.typing import ArrayLike

from bn_jax import checks, placement
from bn_jax.norms import group_moments as moments_lib
from bn_jax.norms import norm, transform

AVERAGES = ('ema', 'corrected_ema', 'cumulative')


class RunningNorm(norm.Layer):
  """The base of layers with running averages.

  The averages are the collection batch_stats, [C] each, but for matrices. A
  second collection, 'moments', returns a batch's own statistics: where it is
  mutable, its 'batch' holds them per group, [G, C] each, with their 'count',
  [G]. That also works with statistics 'running'.

  Attributes:
    axis: the axis of x that has the channels.
    group_size: examples that share statistics; None is the whole batch.
    momentum: in [0, 1), the share of the old average that an update keeps.
    running_average: the weight of an update, one of `AVERAGES`.
    epsilon: added to the variance, or to what a norm has in its place.
    spread: how the batch lies on devices.
    scale_init: where scale begins, a number or 'uniform', see
      `norm.scale_initializer`.
    frozen: whether the layer is a fixed map a channel, for fine-tuning. With
      statistics 'batch' it then does the same as with 'running', so that no
      example depends on another. The collection does not change, and the
      gradients of scale and bias are zero. (Keras before TensorFlow 2 had
      another meaning: trainable=False fixed the parameters alone, and the batch
      still normalised and moved the averages.)
  """

  axis: int = -1
  group_size: int | None = None
  momentum: float = 0.9
  running_average: str = 'ema'
  epsilon: float = 1e-5
  spread: placement.Spread = placement.ALONE
  frozen: bool = False
  scale_init: float | str = 1.0

  def __post_init__(self):
    checks.axis(self.axis)
    checks.count('group_size', self.group_size, also=(None,))
    checks.number('momentum', self.momentum, least=0, below=1)
    checks.one_of('running_average', self.running_average, AVERAGES)
    transform.check_epsilon(self.epsilon)
    checks.flag('frozen', self.frozen)
    norm.check_scale_init(self.scale_init)
    super().__post_init__()

  @nn.nowrap
  def sees(self) -> int | None:
    """Returns on how many examples an output depends in training."""
    return 1 if self.frozen else self.group_size

  def counts(self) -> bool:
    """Returns whether batch_stats also holds 'count', the updates so far."""
    return self.running_average != 'ema'

  def scale(self, channels: int) -> jax.Array:
    """Returns the parameter scale, [C]."""
    initializer = norm.scale_initializer(self.scale_init)
    return self.param('scale', initializer, (channels,))

  def averages(self, channels: int, **start: float) -> dict[str, nn.Variable]:
    """Returns the averages by name; `start` has their initial values."""
    if self.counts():
      self.variable('batch_stats', 'count', jnp.zeros, (), jnp.int32)
    return {
      name: self.variable(
        'batch_stats', name, jnp.full, (channels,), value, jnp.float32
      )
      for name, value in start.items()
    }

  def fixed(self) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Returns the mean, divisor, scale and bias of 'running'."""
    mean_C = self.get_variable('batch_stats', 'mean')
    scale_C, bias_C = (
      self.get_variable('params', name) for name in ('scale', 'bias')
    )
    if self.frozen:
      scale_C, bias_C = lax.stop_gradient((scale_C, bias_C))
    return mean_C, self.divisor(), scale_C, bias_C

  def fixed_map(self) -> tuple[ArrayLike, ArrayLike]:
    """Returns (factor, shift) of 'running', in float64: see `norm.Layer`."""
    mean_C, divisor_C, scale_C, bias_C = (
      np.asarray(value, np.float64) for value in self.fixed()
    )
    factor_C = scale_C / divisor_C
    return factor_C, bias_C - factor_C * mean_C

  def is_fixed(self, statistics: str) -> bool:
    """Returns whether the layer normalises by its running averages."""
    return statistics == 'running' or self.frozen

  def divisor(self) -> jax.Array:
    """Returns what statistics 'running' divide by, [C] in most layers."""
    raise NotImplementedError

  def wants_moments(self) -> bool:
    """Returns whether the caller asks for a batch's own statistics."""
    return self.is_mutable_collection('moments') and not self.is_initializing()

  def sow_moments(
    self, batch_GC: Mapping[str, jax.Array], count_G: jax.Array
  ) -> None:
    """Writes a batch's statistics to 'moments', if the caller asks for them."""
    if self.wants_moments():
      self.sow(
        'moments',
        'batch',
        {**batch_GC, 'count': count_G},
        init_fn=lambda: None,
        reduce_fn=lambda _, new: new,  # pyright: ignore[reportArgumentType]  # two types
      )

  def update(
    self,
    averages: Mapping[str, nn.Variable],
    batch_GC: Mapping[str, jax.Array],
    count_G: jax.Array,
    examples: int,
  ) -> None:
    """Updates the averages, if they are mutable, by the mean over the groups.

    Groups of padding alone do not count; without any other nothing changes.
    """
    if not self.is_mutable_collection('batch_stats') or self.is_initializing():
      return
    whole = moments_lib.is_whole(examples, self.group_size, self.spread)
    spread = placement.ALONE if whole else self.spread
    real_G = (count_G > 0).astype(count_G.dtype)
    # No matrix product: on GPU and TPU its default precision loses digits.
    group_count, *sums = spread.sum(
      [real_G.sum(), *(_sum_of_groups(real_G, x) for x in batch_GC.values())]
    )
    weight = jnp.where(group_count > 0, self._weight(), 0)
    for name, sum_C in zip(batch_GC, sums):
      old_C = averages[name].value
      mean_C = sum_C / jnp.maximum(group_count, 1)
      new_C = (1 - weight) * old_C + weight * mean_C
      averages[name].value = new_C.astype(old_C.dtype)
    if self.counts():
      count = self.get_variable('batch_stats', 'count')
      self.put_variable('batch_stats', 'count', count + (group_count > 0))

  def _weight(self) -> jax.Array | float:
    """Returns w of the next update."""
    if self.running_average == 'ema':
      return 1 - self.momentum
    t = self.get_variable('batch_stats', 'count') + 1
    if self.running_average == 'cumulative':
      return 1 / t
    return (1 - self.momentum) / (1 - self.momentum**t)


def ramp(count: jax.Array, bounds: tuple[int, int]) -> jax.Array:
  """Returns 0 up to the first update, 1 from the last, linear in between."""
  first, last = bounds
  share = jnp.clip((count - first) / max(last - first, 1), 0, 1)
  return jnp.where(count >= last, 1.0, share)


def check_bounds(name: str, bounds: Any) -> None:
  """Raises ValueError unless bounds are the first and the last update."""
  allowed = '(first, last), whole numbers, 0 <= first <= last'
  checks.sequence(name, bounds, checks.is_whole, allowed, length=2)
  if not 0 <= bounds[0] <= bounds[1]:
    raise checks.Refused(name, bounds, allowed)


def _sum_of_groups(real_G: jax.Array, x: jax.Array) -> jax.Array:
  """Returns the sum of x, [G, ...], over the groups that are not padding."""
  return (real_G.reshape(-1, *(1,) * (x.ndim - 1)) * x).sum(axis=0)
