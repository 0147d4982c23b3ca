"""Scales each channel by its share of an example's response.

Woo et al. (2023), "ConvNeXt V2", arXiv:2301.00808, section 3 ("GRN"). Per
example, over its positions, with C channels:

  g_c = |x_c|_2          n_c = g_c / (1/C sum_k g_k + epsilon)
  y_c = scale_c n_c x_c + bias_c + x_c

scale and bias begin at 0, so that the layer begins as the identity. It makes
channels compete, and takes no scale out of x: but for epsilon, n is that of
2 x, so y - bias doubles with x. In the paper it stands behind the nonlinearity
of a block's wide layer; here where all norms stand, before it.
"""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn

from bn_jax import placement
from bn_jax.norms import group_moments as moments_lib
from bn_jax.norms import norm, transform


class GlobalResponseNorm(norm.ExampleNorm):
  """Global response normalization, as the formula above.

  Collections: params {scale, bias}, [C] each. Positions that are padding count
  as 0, and so have no influence.

  Attributes are those of `norm.ExampleNorm`; epsilon is added to the mean of
  the channels' norms.
  """

  epsilon: float = 1e-6
  scale_init: float | str = 0.0

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
    """Scales x, [N, ..., C] or with channels along `axis`; float32 at least."""
    del statistics, mask, first  # what is padding is 0 already
    x_last = moments_lib.exact(transform.channels_last(x, self.axis))
    parameters = norm.scale_and_bias(self, x_last.shape[-1])
    scale, bias = (transform.beside(v, x_last) for v in parameters)
    y = scale * (x_last * _share(x_last, self.epsilon)) + bias + x_last
    return jnp.moveaxis(y.astype(x.dtype), -1, self.axis)


def _share(x: jax.Array, epsilon: float) -> jax.Array:
  """Returns n of the formula, [N, 1, ..., 1, C]; 0 where a channel is 0."""
  positions = tuple(range(1, x.ndim - 1))
  square = jnp.square(x).sum(axis=positions, keepdims=True)
  # At 0 the root has no derivative; the norm of a dead channel gets 0.
  is_alive = square > 0
  response = jnp.where(is_alive, jnp.sqrt(jnp.where(is_alive, square, 1)), 0)
  mean = response.mean(axis=-1, keepdims=True) + epsilon
  return response / jnp.where(is_alive.any(axis=-1, keepdims=True), mean, 1)


def make(
  *,
  epsilon: float = 1e-6,
  scale_init: float | str = 0.0,
  axis: int = -1,
  spread: placement.Spread = placement.ALONE,
) -> norm.Norm:
  """Returns global response normalization; keywords are of its layer.

  Raises:
    ValueError: a keyword out of its range.
  """
  del spread  # nothing is computed over examples
  layer = functools.partial(
    GlobalResponseNorm, axis=axis, epsilon=epsilon, scale_init=scale_init
  )
  # A scale of 0 leaves x as it is, and not 0, so there is nothing to zero.
  return norm.as_norm(layer, bias_before=True, zeroed=None)
