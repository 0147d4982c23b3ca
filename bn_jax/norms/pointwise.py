"""Squashes each activation by itself: no statistics, no neighbours.

  dyt   y = scale tanh(alpha x) + bias         "Dynamic Tanh" (Zhu, Chen, He,
                                               LeCun and Liu, 2025, arXiv:
                                               2503.10622)
  derf  y = scale erf(alpha x + shift) + bias  "Dynamic erf" (Chen, Lu, Zhu, Sun
                                               and Liu, 2025, arXiv:2512.10938)

alpha and shift are learned, one number a layer each; they begin at 0.5 and 0,
as in the papers, scale and bias at 1 and 0. What comes out lies between bias -
scale and bias + scale, whatever comes in; neither a scale nor a shift of x is
taken out of it.
"""

import functools
from collections.abc import Callable
from typing import NoReturn

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from bn_jax import checks, placement
from bn_jax.norms import group_moments as moments_lib
from bn_jax.norms import norm, transform


class DynamicTanh(norm.Layer):
  """The layer 'dyt', as the formula above.

  Collections: params {alpha, scale, bias}; alpha is one number, the others are
  [C].

  Attributes:
    axis: the axis of x that has the channels.
    alpha_init: where alpha begins.
    scale_init: where scale begins, see `norm.scale_initializer`.
  """

  axis: int = -1
  alpha_init: float = 0.5
  scale_init: float | str = 1.0

  def __post_init__(self):
    checks.axis(self.axis)
    checks.number('alpha_init', self.alpha_init, above=0)
    norm.check_scale_init(self.scale_init)
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
    """Squashes x, [N, ..., C] or with channels along `axis`."""
    del statistics, mask, first  # each value is by itself
    x_last = transform.channels_last(x, self.axis)
    alpha = self.param('alpha', nn.initializers.constant(self.alpha_init), ())
    squashed = self.squashed(moments_lib.exact(x_last) * alpha)
    parameters_C = norm.scale_and_bias(self, x_last.shape[-1])
    scale, bias = (transform.beside(v, x_last) for v in parameters_C)
    y = squashed * scale + bias
    return jnp.moveaxis(y.astype(x.dtype), -1, self.axis)

  def squashed(self, argument: jax.Array) -> jax.Array:
    """Returns the bounded function of alpha x."""
    return jnp.tanh(argument)

  def fixed_map(self) -> NoReturn:
    """Raises ValueError: the layer is not linear."""
    raise ValueError('is not linear')


class DynamicErf(DynamicTanh):
  """The layer 'derf': as `DynamicTanh`, with one more number, shift."""

  def squashed(self, argument: jax.Array) -> jax.Array:
    """Returns the bounded function of alpha x."""
    shift = self.param('shift', nn.initializers.zeros_init(), ())
    return lax.erf(argument + shift)


def _factory(layer_class: Callable[..., DynamicTanh]):
  """Returns a constructor; a config reads its keywords and their defaults."""

  def make(
    *,
    alpha_init: float = 0.5,
    scale_init: float | str = 1.0,
    axis: int = -1,
    spread: placement.Spread = placement.ALONE,
  ) -> norm.Norm:
    """Returns the norm for a model; keywords are those of its layer.

    Raises:
      ValueError: a keyword out of its range.
    """
    del spread  # nothing is computed over examples
    layer = functools.partial(
      layer_class, axis=axis, alpha_init=alpha_init, scale_init=scale_init
    )
    return norm.as_norm(layer, bias_before=True)

  return make


make_tanh = _factory(DynamicTanh)
make_erf = _factory(DynamicErf)
