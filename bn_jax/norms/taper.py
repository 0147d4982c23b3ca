"""Trains with a normalization that tapers to a fixed map (TaperNorm).

Kanavalau, Amo Alonso and Lall (2026), "Gated Removal of Normalization in
Transformers", arXiv:2602.10408. With r(x) = sqrt(mean x^2 + epsilon) of an
example, or of each position, and g the gate of the update k:

  y = g scale * x / r(x) + (1 - g) c gain * x
  g(k) = 1 up to k = first, 0 from k = last on, and between
         (1 + cos(pi (k - first) / (last - first))) / 2
  c = E[|scale * x|^2 / r(x)] / E[|scale * x|^2]

Up to the first update moving averages track both expectations, of which c x
comes nearest to x / r(x); then c stays, and gain, which begins as scale is
there, is learned by itself. With g = 0 the layer is a fixed factor a channel,
which `norms.fold` puts into the layer beside it.

Which parts are the paper's: we had its abstract, and the formulas above as
other people's programs and notes quote them, not its own text. From these are
the gate, c, the cosine, and averages of share 0.99. Ours is the rest: the
averages without the weight of their start; the first and the last update, of
which a layer knows no share of a run (5 % and 40 % of one of 10,000, after the
notes of an experiment); the root mean square alone, and no layer norm;
statistics of an example's positions together by default, as in 'rms', where the
paper has each token's own; and that gain is kept as its start and what was
learned since, since a layer cannot copy a parameter: with plain gradients that
is the same, and weight decay draws gain to its start. The auxiliary loss is not
here.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from jax.typing import ArrayLike

from bn_jax import checks, placement
from bn_jax.norms import group_moments as moments_lib
from bn_jax.norms import norm, per_example, running, transform


class TaperNorm(running.RunningNorm):
  """A root mean square that tapers, as the formulas above.

  Collections: params {scale, gain}, [C] each, where gain is what it moved since
  its start; batch_stats {count, start [C], numerator, denominator}: the updates
  so far, gain's start, and the averages whose ratio is c. With statistics
  'batch', where batch_stats is mutable, a call counts as an update. Both kinds
  of statistics give the same outputs.

  Attributes, beside axis, momentum, epsilon, spread, scale_init and frozen of
  `RunningNorm` (a frozen layer counts no update):
    per: what has a root mean square of its own: 'example', or each 'position'.
    taper_steps: (first, last), the updates between which the gate falls.
  """

  per: str = 'example'
  taper_steps: tuple[int, int] = (500, 4_000)

  def __post_init__(self):
    checks.one_of('per', self.per, per_example.PER)
    running.check_bounds('taper_steps', self.taper_steps)
    first, last = self.taper_steps
    self.taper_steps = first, last  # a list has no hash
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
    """Normalises x, [N, ..., C] or with channels along `axis`, or scales it."""
    del first  # only noise depends on where x begins in its batch
    x_last = moments_lib.exact(transform.channels_last(x, self.axis))
    channels = x_last.shape[-1]
    scale_C = self.scale(channels)
    self.param('gain', nn.initializers.zeros_init(), (channels,))
    for name, shape in (
      ('start', (channels,)), ('numerator', ()), ('denominator', ())
    ):  # fmt: skip
      self.variable('batch_stats', name, jnp.ones, shape, jnp.float32)
    self.variable('batch_stats', 'count', jnp.zeros, (), jnp.int32)
    if self.frozen:
      scale_C = lax.stop_gradient(scale_C)
    deviation, is_real = self._deviation(x_last, mask)
    scale, factor = (
      transform.beside(values_C, x_last)
      for values_C in (scale_C, self._factor())
    )
    gate = self.gate().astype(x_last.dtype)
    y = x_last * (gate * scale / deviation + (1 - gate) * factor)
    if statistics == 'batch' and not self.frozen:
      self._update(x_last, scale_C, deviation, is_real)
    return jnp.moveaxis(y.astype(x.dtype), -1, self.axis)

  def gate(self) -> jax.Array:
    """Returns g of the update that is next."""
    count = self.get_variable('batch_stats', 'count')
    share = running.ramp(count, self.taper_steps)
    falling = jnp.where(share < 1, (1 + jnp.cos(math.pi * share)) / 2, 0.0)
    return jnp.where(count <= self.taper_steps[0], 1.0, falling)

  def fixed_map(self) -> tuple[ArrayLike, ArrayLike]:
    """Returns the factor, and 0: see `norm.Layer`.

    Raises:
      ValueError: the gate is not 0 yet.
    """
    if gate := float(self.gate()):
      raise ValueError(
        f'still normalises, with a gate of {gate:.2g} that is 0 from update '
        f'{self.taper_steps[1]} on'
      )
    factor_C = self._factor()
    return factor_C, np.zeros(factor_C.shape)

  def _factor(self) -> jax.Array:
    """Returns c gain, [C]."""
    start_C, numerator, denominator = (
      self.get_variable('batch_stats', name)
      for name in ('start', 'numerator', 'denominator')
    )
    gain_C = start_C + self.get_variable('params', 'gain')
    gain_C = lax.stop_gradient(gain_C) if self.frozen else gain_C
    return gain_C * _ratio(numerator, denominator)

  def _deviation(
    self, x: jax.Array, mask: jax.Array | None
  ) -> tuple[jax.Array, jax.Array]:
    """Returns r(x) beside x, and where it is of anything real."""
    if mask is None:
      mask = jnp.ones(x.shape[:1], bool)
    mask = mask.reshape(*mask.shape, *(1,) * (x.ndim - mask.ndim))
    mask = jnp.broadcast_to(mask, (*x.shape[:-1], 1))
    axes = -1 if self.per == 'position' else tuple(range(1, x.ndim))
    count = mask.sum(axes, x.dtype, keepdims=True) * x.shape[-1]
    square = jnp.square(x).sum(axes, keepdims=True) / jnp.maximum(count, 1)
    # Of padding alone the root would be of 0, which has no derivative.
    is_real = count > 0
    return jnp.sqrt(jnp.where(is_real, square + self.epsilon, 1)), is_real

  def _update(
    self,
    x: jax.Array,
    scale_C: jax.Array,
    deviation: jax.Array,
    is_real: jax.Array,
  ) -> None:
    """Counts an update; up to the first, both averages and start move."""
    if not self.is_mutable_collection('batch_stats') or self.is_initializing():
      return
    x, scale_C, deviation = lax.stop_gradient((x, scale_C, deviation))
    axes = tuple(
      k for k in range(1, x.ndim) if deviation.shape[k] == 1
    )  # of what has one deviation
    square = jnp.square(x * transform.beside(scale_C, x))
    square = square.sum(axes, keepdims=True)
    numerator, denominator, total = self.spread.sum(
      (
        jnp.sum(jnp.where(is_real, square / deviation, 0)),
        jnp.sum(jnp.where(is_real, square, 0)),
        is_real.sum(dtype=x.dtype),
      )
    )
    count = self.get_variable('batch_stats', 'count')
    is_warm = (count <= self.taper_steps[0]) & (total > 0)
    weight = (1 - self.momentum) / (1 - self.momentum ** (count + 1))
    new = {'start': (scale_C, 1.0)}
    for name, value in (
      ('numerator', numerator), ('denominator', denominator)
    ):  # fmt: skip
      new[name] = (value / jnp.maximum(total, 1), weight)
    for name, (value, share) in new.items():
      old = self.get_variable('batch_stats', name)
      moved = jnp.where(is_warm, old + share * (value - old), old)
      self.put_variable('batch_stats', name, moved.astype(old.dtype))
    self.put_variable('batch_stats', 'count', count + (total > 0))


def _ratio(numerator: jax.Array, denominator: jax.Array) -> jax.Array:
  """Returns c; 1 where scale, and so both numbers, are 0."""
  is_known = denominator > 0
  return jnp.where(is_known, numerator / jnp.where(is_known, denominator, 1), 1)


def make(
  *,
  taper_steps: tuple[int, int] = (500, 4_000),
  per: str = 'example',
  momentum: float = 0.99,
  epsilon: float = 1e-5,
  scale_init: float | str = 1.0,
  frozen: bool = False,
  axis: int = -1,
  spread: placement.Spread = placement.ALONE,
) -> norm.Norm:
  """Returns a normalization that tapers; keywords are of `TaperNorm`.

  Raises:
    ValueError: a keyword out of its range.
  """
  layer = functools.partial(
    TaperNorm, taper_steps=taper_steps, per=per, momentum=momentum,
    epsilon=epsilon, scale_init=scale_init, frozen=frozen, axis=axis,
    spread=spread,
  )  # fmt: skip
  return norm.as_norm(layer, bias_before=True)
