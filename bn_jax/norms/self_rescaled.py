"""Divides by the root mean square, by a scale that depends on the input.

Cai, Zhu, Liu and Min (2025), "SeeDNorm: Self-Rescaled Dynamic Normalization",
arXiv:2510.22777, section 3; of the C channels of a position or example:

  y = (tanh(<beta, x>) alpha + scale) x / sqrt(mean(x^2) + epsilon)

alpha and scale begin at 1, beta at 0: it begins as RMS normalization. With
`heads`, channels are cut into as many parts; each has <beta, x> of its own
part, while the mean is that of all. In the paper each position is by itself.
Where all positions of an example are taken together, x in <beta, x> is their
mean.
"""

import functools
import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from bn_jax import checks, placement
from bn_jax.norms import group_moments as moments_lib
from bn_jax.norms import norm, per_example, transform


class SelfRescaledNorm(norm.ExampleNorm):
  """The layer 'seednorm', as the formula above.

  Collections: params {alpha, beta, scale}, [C] each.

  Attributes, beside those of `norm.ExampleNorm`:
    per: what has statistics of its own: 'example', or each 'position'.
    heads: must divide C.
  """

  per: str = 'example'
  heads: int = 1

  def __post_init__(self):
    checks.one_of('per', self.per, per_example.PER)
    checks.count('heads', self.heads)
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
    """Normalises x, [N, ..., C] or with channels along `axis`."""
    del statistics, first  # there are no statistics of the batch
    x_last = moments_lib.exact(transform.channels_last(x, self.axis))
    channels = x_last.shape[-1]
    if channels % self.heads:
      raise transform.Misfit(
        f'heads is {self.heads}; allowed: what divides {channels} channels'
      )
    zeros, ones = nn.initializers.zeros_init(), nn.initializers.ones_init()
    alpha_C = self.param('alpha', ones, (channels,))
    beta_C = self.param('beta', zeros, (channels,))
    initializer = norm.scale_initializer(self.scale_init)
    scale_C = self.param('scale', initializer, (channels,))
    mean, square = self._means(x_last, mask)
    products = (mean * transform.beside(beta_C, mean)).reshape(
      *mean.shape[:-1], self.heads, -1
    )
    response = jnp.tanh(products.sum(axis=-1))
    response = jnp.repeat(response, channels // self.heads, axis=-1)
    alpha, scale = (transform.beside(v, x_last) for v in (alpha_C, scale_C))
    factor = (response * alpha + scale) * lax.rsqrt(square + self.epsilon)
    y = x_last * factor
    return jnp.moveaxis(y.astype(x.dtype), -1, self.axis)

  def _means(
    self, x: jax.Array, mask: jax.Array | None
  ) -> tuple[jax.Array, jax.Array]:
    """Returns what has statistics of its own: its mean of x, and of x^2.

    The first keeps its channels. Where all is padding the second is 1: the root
    of 0 would have no derivative.
    """
    square = jnp.square(x).mean(axis=-1, keepdims=True)
    mean, real = x, None
    if mask is not None:
      real = mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim))
      real = jnp.broadcast_to(real, square.shape)
    if self.per == 'example':
      axes = tuple(range(1, x.ndim - 1))
      count = math.prod(x.shape[1:-1])
      if real is not None:
        count = real.sum(axis=axes, keepdims=True)
        real, count = count > 0, jnp.maximum(count, 1)
      mean = x.sum(axis=axes, keepdims=True) / count
      square = square.sum(axis=axes, keepdims=True) / count
    return mean, square if real is None else jnp.where(real, square, 1)


def make(
  *,
  per: str = 'example',
  heads: int = 1,
  epsilon: float = 1e-5,
  scale_init: float | str = 1.0,
  axis: int = -1,
  spread: placement.Spread = placement.ALONE,
) -> norm.Norm:
  """Returns SeeDNorm for a model; keywords are those of its layer.

  Raises:
    ValueError: a keyword out of its range; in its call, channels that heads
      does not divide.
  """
  del spread  # nothing is computed over examples
  layer = functools.partial(
    SelfRescaledNorm, per=per, heads=heads, axis=axis, epsilon=epsilon,
    scale_init=scale_init,
  )  # fmt: skip
  # As beta begins at 0, y does where scale does.
  return norm.as_norm(layer, bias_before=True)
