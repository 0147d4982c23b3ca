"""Divides each channel of an example by its root mean square; thresholds it.

Singh and Krishnan (2019), "Filter Response Normalization Layer", arXiv:
1911.09737, section 3. Per example and channel, over its positions, and then in
the place of the network's nonlinearity the thresholded linear unit (TLU):

  y = scale x / sqrt(mean(x^2) + epsilon) + bias        z = max(y, tau)

No mean is subtracted: the learned tau, a number a channel, stands for the shift
that a ReLU would need. epsilon is 1e-6; for maps of one position, where y would
else be the sign of x, it is 1e-6 + |epsilon_l| with a learned epsilon_l, one
number a layer, which begins at 1e-4.
"""

import functools
import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from bn_jax import placement
from bn_jax.norms import group_moments as moments_lib
from bn_jax.norms import norm, transform

_LEARNED_EPSILON = 1e-4  # where epsilon_l begins


class FilterResponseNorm(norm.ExampleNorm):
  """Filter response normalization, without its thresholded unit.

  Collections: params {scale, bias}, [C] each, and for maps of one position
  epsilon_l, a number. But for epsilon, y does not change with the scale of a
  channel of an example; it does with a shift.

  Attributes are those of `norm.ExampleNorm`; epsilon is inside the root.
  """

  epsilon: float = 1e-6

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
    """Normalises x, [N, ..., C] or with channels along `axis`."""
    del statistics, first  # there are no statistics of the batch
    x_last = transform.channels_last(x, self.axis)
    scale_C, bias_C = norm.scale_and_bias(self, x_last.shape[-1])
    epsilon = self.epsilon
    if math.prod(x_last.shape[1:-1]) == 1:
      start = nn.initializers.constant(_LEARNED_EPSILON)
      epsilon += jnp.abs(self.param('epsilon_l', start, ()))
    y = normalised(x_last, scale_C, bias_C, mask, epsilon)
    return jnp.moveaxis(y.astype(x.dtype), -1, self.axis)


def normalised(
  x: jax.Array,
  scale_C: jax.Array,
  bias_C: jax.Array,
  mask: jax.Array | None,
  epsilon: jax.Array | float,
) -> jax.Array:
  """Returns y of the formula in float32 at least; what is padding is 0 in x."""
  x = moments_lib.exact(x)
  positions = tuple(range(1, x.ndim - 1))
  total = jnp.square(x).sum(axis=positions, keepdims=True)
  count = math.prod(x.shape[1:-1])
  if mask is not None:
    real = mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim))
    real = jnp.broadcast_to(real, (*x.shape[:-1], 1))
    count = real.sum(axis=positions, keepdims=True)
    # Of an example that is all padding any number will do but 0.
    total = jnp.where(count > 0, total, 1)
    count = jnp.maximum(count, 1)
  factor = transform.beside(scale_C, x) * lax.rsqrt(total / count + epsilon)
  return x * factor + transform.beside(bias_C, x)


class ThresholdedUnit(norm.Unit):
  """The thresholded linear unit: max(y, tau).

  Collections: params {tau}, [C], which begins at 0: a ReLU.
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
    """Returns max(x, tau)."""
    del statistics, mask, first  # each value is by itself
    x_last = transform.channels_last(x, self.axis)
    zeros = nn.initializers.zeros_init()
    tau_C = self.param('tau', zeros, (x_last.shape[-1],))
    # In float32: the gradient of tau is a difference of sums over all values.
    x_last = moments_lib.exact(x_last)
    y = _larger(x_last, transform.beside(tau_C, x_last))
    return jnp.moveaxis(y.astype(x.dtype), -1, self.axis)


@jax.custom_jvp
def _larger(x: jax.Array, tau: jax.Array) -> jax.Array:
  """Returns max(x, tau); where they are equal, the derivative is that of tau.

  JAX's maximum would halve it there. tau gets what comes back to y, less what
  goes on to x. The norm before it needs the sum of the second anyway, so this
  takes a pass less than a sum over what is below tau.
  """
  return jnp.maximum(x, tau)


@_larger.defjvp
def _larger_jvp(primals, tangents):
  (x, tau), (dx, dtau) = primals, tangents
  return _larger(x, tau), jnp.where(x > tau, dx - dtau, 0) + dtau


def make(
  *,
  epsilon: float = 1e-6,
  scale_init: float | str = 1.0,
  axis: int = -1,
  spread: placement.Spread = placement.ALONE,
) -> norm.Norm:
  """Returns filter response normalization, with its unit, for a model.

  Raises:
    ValueError: a keyword out of its range.
  """
  del spread  # nothing is computed over examples
  layer = functools.partial(
    FilterResponseNorm, axis=axis, epsilon=epsilon, scale_init=scale_init
  )
  return norm.as_norm(
    layer,
    bias_before=True,
    unit=lambda name: ThresholdedUnit(axis=axis, name=name),
  )
