"""Normalises and activates in one: EvoNorm B0 and S0.

Liu, Brock, Simonyan and Le (2020), "Evolving Normalization-Activation Layers",
arXiv:2004.02967, Table 2. With s^2(...) the variance over what is named, plus
epsilon:

  B0  y = scale * x / max(s(batch, positions), v x + s(positions)) + bias
  S0  y = scale * x sigmoid(v x) / s(positions, group of channels) + bias

v, scale and bias are learned, one of each a channel; v and scale begin at 1.
Variances take the mean off, the numerators do not. B0 divides by the deviation
of the batch, in inference by that of a running variance; the other deviations
are always an example's own. The layer is its own nonlinearity: where a network
would have one after it, there is none (`norm.Norm.unit`), and where none would
follow, before a sum, scale and bias alone stand in its place, as in the code of
the authors, which epsilon, 1e-5, and the share of the old average, 0.9, are of
too.
"""

import functools
import math
from typing import NoReturn

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from bn_jax import checks, placement
from bn_jax.norms import group_moments as moments_lib
from bn_jax.norms import norm, per_example, running, transform

_WHY = 'is nonlinear'


class EvoNormB0(running.RunningNorm):
  """EvoNorm B0, as the formula above.

  Collections: params {scale, bias, v}, [C] each; batch_stats {var}, [C], the
  running variance, biased. A frozen layer takes it in training too, so that no
  example depends on another, and the gradients of its parameters are zero.
  """

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
    """Normalises and activates x, [N, ..., C] or with channels along `axis`."""
    del first  # only noise depends on where x begins in its batch
    x_last = transform.channels_last(x, self.axis)
    channels = x_last.shape[-1]
    scale_C, bias_C, v_C = _parameters(self, channels)
    averages = self.averages(channels, var=1.0)
    is_fixed = self.is_fixed(statistics)
    moments = None
    if not is_fixed or self.wants_moments():
      moments = transform.moments(
        x_last, group_size=self.group_size, mask=mask, spread=self.spread
      )
      self.sow_moments(
        {'mean': moments.mean, 'var': moments.var}, moments.count
      )
    if is_fixed or moments is None:
      var_GC, count_G = averages['var'].value[None], jnp.ones(1)
    else:
      self.update(averages, {'var': moments.var}, moments.count, len(x))
      var_GC, count_G = moments.var, moments.count
    if self.frozen:
      scale_C, bias_C, v_C = lax.stop_gradient((scale_C, bias_C, v_C))
    x_last = moments_lib.exact(x_last)
    left = _root(var_GC, count_G, self.epsilon)
    right = _own_deviation(x_last, mask, channels, self.epsilon)
    scale, bias, v = (
      transform.beside(values_C, x_last) for values_C in (scale_C, bias_C, v_C)
    )
    left, right = _laid(left, x_last), v * x_last + _laid(right, x_last)
    # Not `maximum`: where both are alike, its derivative is half of each.
    y = x_last / jnp.where(left > right, left, right) * scale + bias
    return jnp.moveaxis(y.astype(x.dtype), -1, self.axis)

  def fixed_map(self) -> NoReturn:
    """Raises ValueError: it is no affine map."""
    raise ValueError(_WHY)


class EvoNormS0(norm.ExampleNorm):
  """EvoNorm S0, as the formula above.

  Collections: params {scale, bias, v}, [C] each.

  Attributes, beside those of `norm.ExampleNorm`:
    num_groups: of channels; None: `per_example.usual_groups`.
  """

  num_groups: int | None = None

  def __post_init__(self):
    checks.count('num_groups', self.num_groups, also=(None,))
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
    """Normalises and activates x, [N, ..., C] or with channels along `axis`."""
    del statistics, first
    x_last = moments_lib.exact(transform.channels_last(x, self.axis))
    channels = x_last.shape[-1]
    groups = self.num_groups or per_example.usual_groups(channels)
    transform.check_groups(groups, channels)
    if math.prod(x_last.shape[1:]) == groups:
      raise ValueError(
        f'x {list(x.shape)} has groups of one value, whose deviation is 0; '
        'allowed: two positions or more, or fewer num_groups'
      )
    scale, bias, v = (
      transform.beside(values_C, x_last)
      for values_C in _parameters(self, channels)
    )
    deviation = _own_deviation(x_last, mask, groups, self.epsilon)
    y = x_last * nn.sigmoid(v * x_last) / _laid(deviation, x_last)
    return jnp.moveaxis((y * scale + bias).astype(x.dtype), -1, self.axis)

  def fixed_map(self) -> NoReturn:
    """Raises ValueError: it is no affine map."""
    raise ValueError(_WHY)


class Affine(norm.Layer):
  """Scale and bias alone, where an EvoNorm would be one nonlinearity too many.

  Attributes:
    axis: the axis of x that has the channels.
    scale_init: where scale begins, see `norm.scale_initializer`.
    frozen: whether scale and bias get no gradient.
  """

  axis: int = -1
  scale_init: float | str = 1.0
  frozen: bool = False

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
    """Returns scale x + bias, in float32 at least."""
    del statistics, mask, first
    x_last = moments_lib.exact(transform.channels_last(x, self.axis))
    parameters = norm.scale_and_bias(self, x_last.shape[-1])
    if self.frozen:
      parameters = lax.stop_gradient(parameters)
    scale, bias = (transform.beside(v, x_last) for v in parameters)
    y = x_last * scale + bias
    return jnp.moveaxis(y.astype(x.dtype), -1, self.axis)

  def fixed_map(self) -> tuple[jax.Array, jax.Array]:
    """Returns (scale, bias): see `norm.Layer`."""
    get = functools.partial(self.get_variable, 'params')
    return get('scale'), get('bias')


def _parameters(
  layer: nn.Module, channels: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Returns the parameters scale, bias and v of a layer, [C] each."""
  v_C = layer.param('v', nn.initializers.ones_init(), (channels,))
  return *norm.scale_and_bias(layer, channels), v_C


def _own_deviation(
  x: jax.Array, mask: jax.Array | None, groups: int, epsilon: float
) -> jax.Array:
  """Returns the deviation of each example's groups of channels, [N, groups]."""
  examples, channels = x.shape[0], x.shape[-1]
  if math.prod(x.shape[1:]) == groups:  # its root may have no derivative
    return jnp.full((examples, groups), jnp.sqrt(epsilon), x.dtype)
  # An example is a statistics group, and a group of channels is a channel.
  x_NRKg = jnp.swapaxes(
    x.reshape(examples, -1, groups, channels // groups), -1, -2
  )
  if mask is not None:
    mask = jnp.broadcast_to(
      mask.reshape(examples, -1, 1), (*x_NRKg.shape[:2], 1)
    )
  pieces = moments_lib.Pieces(x_NRKg, mask, examples, placement.ALONE)
  _, moments = moments_lib.find(pieces)
  return _root(moments.var, moments.count, epsilon)


def _root(var_GC: jax.Array, count_G: jax.Array, epsilon: float) -> jax.Array:
  """Returns sqrt(var + epsilon), [G, C]; 1 for groups of padding alone."""
  square_GC = moments_lib.exact(var_GC) + epsilon
  return jnp.sqrt(jnp.where(count_G[:, None] > 0, square_GC, 1))


def _laid(values_Gg: jax.Array, x: jax.Array) -> jax.Array:
  """Returns values of groups of examples and of channels, to stand beside x."""
  groups, channel_groups = values_Gg.shape
  values = jnp.repeat(values_Gg, x.shape[-1] // channel_groups, axis=1)
  if groups > 1:
    values = jnp.repeat(values, len(x) // groups, axis=0)
  return values.reshape(len(values), *(1,) * (x.ndim - 2), -1)


def make_b0(
  *,
  group_size: int | None = None,
  momentum: float = 0.9,
  epsilon: float = 1e-5,
  running_average: str = 'ema',
  scale_init: float | str = 1.0,
  frozen: bool = False,
  axis: int = -1,
  spread: placement.Spread = placement.ALONE,
) -> norm.Norm:
  """Returns EvoNorm B0 for a model; keywords are of `RunningNorm`.

  Raises:
    ValueError: a keyword out of its range.
  """
  layer = functools.partial(
    EvoNormB0, group_size=group_size, momentum=momentum, epsilon=epsilon,
    running_average=running_average, scale_init=scale_init, frozen=frozen,
    axis=axis, spread=spread,
  )  # fmt: skip
  return _with_affine(norm.as_norm(layer, bias_before=True), axis, scale_init)


def make_s0(
  *,
  num_groups: int | None = None,
  epsilon: float = 1e-5,
  scale_init: float | str = 1.0,
  axis: int = -1,
  spread: placement.Spread = placement.ALONE,
) -> norm.Norm:
  """Returns EvoNorm S0 for a model; keywords are of `EvoNormS0`.

  Raises:
    ValueError: a keyword out of its range; in its call, channels that
      num_groups does not divide, or groups of one value.
  """
  del spread  # nothing is computed over examples
  layer = functools.partial(
    EvoNormS0, num_groups=num_groups, epsilon=epsilon, scale_init=scale_init,
    axis=axis,
  )  # fmt: skip
  return _with_affine(norm.as_norm(layer, bias_before=True), axis, scale_init)


def _with_affine(
  evonorm: norm.Norm, axis: int, scale_init: float | str
) -> norm.Norm:
  """Returns a norm with what stands after it, and where it may not stand."""
  affine = functools.partial(Affine, axis=axis, frozen=evonorm.frozen)
  return evonorm._replace(
    unit=lambda name: norm.Unit(axis=axis, name=name),
    linear=lambda name: affine(scale_init=scale_init, name=name),
    zeroed=lambda name: affine(scale_init=0.0, name=name),
  )
