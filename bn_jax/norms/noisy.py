"""Adds random noise after a normalization, drawn anew at every step.

Santurkar et al. (2018), "How Does Batch Normalization Help Optimization?",
arXiv:1805.11604, Algorithm 1 and appendix A.2.1. For each unit j (a channel of
feature maps) and each step, then for each element i of the unit:

  mu_j ~ U(-n_mu, n_mu)                  sigma_j ~ U(1, n_sigma)
  m_ij ~ U(mu_j - r_mu, mu_j + r_mu)     s_ij ~ N(sigma_j, r_sigma)
  y_ij = s_ij * x_ij + m_ij

so the distribution of every unit jumps from step to step: an internal covariate
shift by design. The paper does not say whether r_sigma is a variance or a
standard deviation; here it is the second. Defaults are the paper's constants.
"""

import functools
import math
from typing import cast

import jax
import jax.extend.random as jax_random
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

from bn_jax import checks, placement, trees
from bn_jax.norms import batch, norm

# The error function has no inverse at -1.
_ABOVE_MINUS_ONE = np.nextafter(np.float32(-1), np.float32(0))


def add_noise(
  x: jax.Array,
  key: jax.Array,
  *,
  first: jax.Array | int = 0,
  n_mu: float = 0.5,
  n_sigma: float = 1.25,
  r_mu: float | jax.Array = 0.1,
  r_sigma: float | jax.Array = 0.1,
) -> jax.Array:
  """Adds the noise of Algorithm 1 to x, [N, ..., C].

  For x of mean 0 and variance 1, given mu and sigma, the result has mean mu and
  variance sigma^2 + r_sigma^2 + r_mu^2 / 3.

  Args:
    key: of the layer and step.
    first: the index of the first example of x in the batch of the step. An
      example's noise depends on its index, not on the size of x.
    n_mu: largest |mu| of a unit.
    n_sigma: largest sigma of a unit; the smallest is 1.
    r_mu: largest distance of an element's shift from its unit's.
    r_sigma: standard deviation of the elements' factors around their unit's.

  Returns:
    y, of the shape and dtype of x.

  Raises:
    ValueError: x that is not floating point, a keyword out of its range.
  """
  trees.check_floating('x', x)
  _checked(n_mu, n_sigma, r_mu, r_sigma)
  unit_key, element_key = jax.random.split(key)
  mu_C, sigma_C = jax.random.uniform(unit_key, (2, x.shape[-1]))
  mu_C, sigma_C = n_mu * (2 * mu_C - 1), 1 + (n_sigma - 1) * sigma_C
  uniform_m, uniform_s = _pair_of_uniforms(element_key, x.shape, first)
  # A traced number has a dtype of its own, which must not be the result's.
  r_mu, r_sigma = (
    cast(jax.Array, r).astype(uniform_m.dtype) if checks.is_traced(r) else r
    for r in (r_mu, r_sigma)
  )
  shape = (1,) * (x.ndim - 1) + (-1,)
  m = mu_C.reshape(shape) + r_mu * uniform_m
  s = sigma_C.reshape(shape) + r_sigma * 2**0.5 * lax.erf_inv(uniform_s)
  return (s * x.astype(s.dtype) + m).astype(x.dtype)


def _pair_of_uniforms(
  key: jax.Array, shape: tuple[int, ...], first: jax.Array | int
) -> tuple[jax.Array, jax.Array]:
  """Returns two independent uniform arrays on (-1, 1): both words of a hash.

  `jax.random` would compute a hash for each and use half of it, and most of the
  cost of noise is in these hashes. The counter is (example, element of it), so
  that an example's noise depends on its index alone.
  """
  example = lax.broadcasted_iota(jnp.uint32, shape, 0)
  example = example + jnp.asarray(first, jnp.uint32)
  element = jnp.arange(math.prod(shape[1:]), dtype=jnp.uint32)
  element = jnp.broadcast_to(element.reshape(1, *shape[1:]), shape)
  counts = jnp.stack([example.ravel(), element.ravel()])
  words = jax_random.threefry_2x32(
    jax.random.bits(key, (2,), jnp.uint32), counts.ravel()
  )
  first_m, second_m = words.reshape(2, -1)
  return _uniform(first_m).reshape(shape), _uniform(second_m).reshape(shape)


def _uniform(word: jax.Array) -> jax.Array:
  """Returns 23 random bits as a float32 in (-1, 1), where erf_inv is finite."""
  one_to_two = lax.bitcast_convert_type(
    (word >> 9) | jnp.uint32(0x3F800000), jnp.float32
  )
  return jnp.maximum(2 * one_to_two - 3, _ABOVE_MINUS_ONE)


class NoisyBatchNorm(batch.BatchNorm):
  """Batch Normalization, then noise: after scale and bias, before the ReLU.

  Its parameters are those of `BatchNorm`; its statistics are those of x, before
  its own noise is added. Noise is added whenever the rng 'noise' is passed,
  whichever statistics are named, also in a frozen layer; else never.

  Attributes:
    noise: (name, value) of keywords of `add_noise`; a module's attributes must
      be hashable.
  """

  noise: tuple[tuple[str, float], ...] = ()

  is_noisy = True

  @norm.checked_call
  def __call__(
    self,
    x: jax.Array,
    *,
    statistics: str,
    mask: jax.Array | None = None,
    first: jax.Array | int = 0,
  ) -> jax.Array:
    """Normalises x, [N, ..., C] or with channels along `axis`; adds noise."""
    y = super().__call__(x, statistics=statistics, mask=mask)
    return _noisy(self, y, first, self.axis)


class Noise(norm.Identity):
  """The same noise without a normalization: the paper's control.

  Attributes:
    noise: see `NoisyBatchNorm`.
  """

  noise: tuple[tuple[str, float], ...] = ()

  is_noisy = True

  @norm.checked_call
  def __call__(
    self,
    x: jax.Array,
    *,
    statistics: str,
    mask: jax.Array | None = None,
    first: jax.Array | int = 0,
  ) -> jax.Array:
    """Adds noise to x, [N, ..., C]."""
    return _noisy(
      self, super().__call__(x, statistics=statistics, mask=mask), first
    )


def make(
  *,
  n_mu: float = 0.5,
  n_sigma: float = 1.25,
  r_mu: float = 0.1,
  r_sigma: float = 0.1,
  group_size: int | None = None,
  momentum: float = 0.9,
  epsilon: float = 1e-5,
  running_variance: str = 'biased',
  running_average: str = 'ema',
  scale_init: float | str = 1.0,
  frozen: bool = False,
  axis: int = -1,
  spread: placement.Spread = placement.ALONE,
) -> norm.Norm:
  """Returns Batch Normalization, then noise; keywords are those of both.

  Raises:
    ValueError: a keyword out of its range.
  """
  layer = functools.partial(
    NoisyBatchNorm, noise=_checked(n_mu, n_sigma, r_mu, r_sigma),
    group_size=group_size, momentum=momentum, epsilon=epsilon,
    running_variance=running_variance, running_average=running_average,
    scale_init=scale_init, frozen=frozen, axis=axis, spread=spread,
  )  # fmt: skip
  return norm.as_norm(layer, bias_before=False)


def make_alone(
  *,
  n_mu: float = 0.5,
  n_sigma: float = 1.25,
  r_mu: float = 0.1,
  r_sigma: float = 0.1,
  spread: placement.Spread = placement.ALONE,
) -> norm.Norm:
  """Returns noise without a normalization; keywords are of `add_noise`.

  Raises:
    ValueError: a keyword out of its range.
  """
  del spread  # noise depends on the key and an example's index alone
  noise = _checked(n_mu, n_sigma, r_mu, r_sigma)
  return norm.Norm(
    layer=lambda name: Noise(noise=noise, name=name), bias_before=True
  )


def _noisy(
  layer: nn.Module, y: jax.Array, first: jax.Array | int, axis: int = -1
) -> jax.Array:
  if not layer.has_rng('noise'):
    return y
  key = layer.make_rng('noise')
  noisy = add_noise(
    jnp.moveaxis(y, axis, -1), key, first=first, **dict(layer.noise)
  )
  return jnp.moveaxis(noisy, -1, axis)


def _checked(n_mu, n_sigma, r_mu, r_sigma) -> tuple[tuple[str, float], ...]:
  """Returns the keywords of `add_noise`, hashable; checks their ranges."""
  noise = dict(n_mu=n_mu, n_sigma=n_sigma, r_mu=r_mu, r_sigma=r_sigma)
  for name, value in noise.items():
    checks.number(name, value, least=1 if name == 'n_sigma' else 0)
  return tuple((name, checks.plain(value)) for name, value in noise.items())
