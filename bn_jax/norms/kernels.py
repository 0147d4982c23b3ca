"""Normalises the kernels of layers, and not their activations.

  weight                  W = g V / |V|, per output unit (Salimans and Kingma,
                          2016, arXiv:1602.07868); flax's
  weight_standardization  W = (V - mean V) / sqrt(var V + epsilon), per output
                          unit (Qiao et al., 2019, arXiv:1903.10520)
  spectral                W = V / (largest singular value) (Miyato et al., 2018,
                          arXiv:1802.05957); flax's

The epsilons of 'weight' and 'spectral' are flax's; 'weight_standardization' has
that of `batch_norm`.
The kernel is [..., in, out]; the weights of an output unit are those with its
last index. V is stored, under the path that the kernel has without
normalization.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from bn_jax import checks, placement, trees
from bn_jax.norms import batch, norm, per_example, transform

# What may follow weight standardization.
_AFTER = {
  'none': norm.none, 'batch': batch.make, 'group': per_example.make_group
}  # fmt: skip


class WeightNorm(nn.WeightNorm):
  """flax's, with our signature; params {LAYER/kernel/scale}: g, [out]."""

  def __post_init__(self):
    transform.check_epsilon(self.epsilon)
    super().__post_init__()

  @norm.checked_call
  def __call__(self, x: jax.Array, *, statistics: str) -> jax.Array:
    """Applies the layer with normalised weights; ignores `statistics`."""
    return _keeping_kernel(self, x, lambda: super(WeightNorm, self).__call__(x))


class SpectralNorm(nn.SpectralNorm):
  """flax's, with our signature.

  batch_stats has {LAYER/kernel/u, LAYER/kernel/sigma}. A call makes `n_steps`
  of power iteration from u; with statistics 'batch', if the collection is
  mutable, it stores the result.
  """

  def __post_init__(self):
    _check_spectral(self.n_steps, self.epsilon)
    super().__post_init__()

  @norm.checked_call
  def __call__(self, x: jax.Array, *, statistics: str) -> jax.Array:
    """Applies the layer with normalised weights."""
    update = statistics == 'batch' and self.is_mutable_collection('batch_stats')
    return _keeping_kernel(
      self,
      x,
      lambda: super(SpectralNorm, self).__call__(x, update_stats=update),
    )


class WeightStandardization(nn.Module):
  """A layer whose kernel is standardized, see `standardized`.

  Attributes:
    layer_instance: a layer with a parameter 'kernel'.
    epsilon, scaled: see `standardized`.
  """

  layer_instance: nn.Module
  epsilon: float = 1e-5
  scaled: bool = True

  def __post_init__(self):
    _check_standardized(self.epsilon, self.scaled)
    super().__post_init__()

  @norm.checked_call
  @nn.compact
  def __call__(self, x: jax.Array, *, statistics: str) -> jax.Array:
    """Applies the layer with standardized weights; ignores `statistics`."""

    def transformed(variables):
      params = variables['params']
      kernel = standardized(
        params['kernel'], epsilon=self.epsilon, scaled=self.scaled
      )
      return {**variables, 'params': {**params, 'kernel': kernel}}

    mapped = nn.map_variables(
      lambda layer: layer(x),
      trans_in_fn=transformed,
      init=self.is_initializing(),
    )
    return _keeping_kernel(self, x, lambda: mapped(self.layer_instance))


def _keeping_kernel(
  module: nn.Module, x: jax.Array, call: Callable[[], jax.Array]
) -> jax.Array:
  """Returns call(), and stores the kernel that was drawn for the layer.

  flax would store the normalised kernel at initialization. This way networks of
  one seed start with the same weights, whatever their normalization.
  """
  if not module.is_initializing():
    return call()
  layer = module.layer_instance
  layer(x)
  kernel = layer.get_variable('params', 'kernel')
  y = call()
  layer.put_variable('params', 'kernel', kernel)
  return y


def standardized(
  kernel: jax.Array, *, epsilon: float = 1e-5, scaled: bool = True
) -> jax.Array:
  """Returns (V - mean) / sqrt(var + epsilon) of each output unit's n weights.

  Args:
    kernel: V, [..., in, out].
    epsilon: added to the variance, inside the root.
    scaled: whether the result is also divided by sqrt(n), so that a unit keeps
      the scale of its inputs (Brock, De and Smith, 2021, arXiv:2101.08692).
      Without that, as in the original, a norm of activations must follow.

  Raises:
    ValueError: a kernel that is not floating point.
  """
  trees.check_floating('kernel', kernel)
  _check_standardized(epsilon, scaled)
  units = kernel.reshape(-1, kernel.shape[-1]).astype(
    jnp.promote_types(kernel.dtype, jnp.float32)
  )
  centred = units - units.mean(axis=0, keepdims=True)
  var = jnp.square(centred).mean(axis=0, keepdims=True)
  factor = lax.rsqrt(var + epsilon)
  factor = factor / math.sqrt(len(units)) if scaled else factor
  return (centred * factor).reshape(kernel.shape).astype(kernel.dtype)


def make_weight(
  *, epsilon: float = 1e-12, spread: placement.Spread = placement.ALONE
) -> norm.Norm:
  """Returns weight normalization for a model.

  Args:
    epsilon: added to the square of a unit's length.
  """
  del spread  # nothing is computed over examples
  transform.check_epsilon(epsilon)
  return _norm(
    lambda layer, name: WeightNorm(layer, epsilon=epsilon, name=name)
  )


def make_spectral(
  *,
  n_steps: int = 1,
  epsilon: float = 1e-12,
  spread: placement.Spread = placement.ALONE,
) -> norm.Norm:
  """Returns spectral normalization for a model.

  Args:
    n_steps: steps of power iteration in a call.
    epsilon: added to the square of a vector's length.
  """
  del spread  # nothing is computed over examples
  _check_spectral(n_steps, epsilon)
  return _norm(
    lambda layer, name: SpectralNorm(
      layer, n_steps=n_steps, epsilon=epsilon, name=name
    )
  )


def make_standardization(
  *,
  scaled: bool = True,
  then: str = 'none',
  epsilon: float = 1e-5,
  spread: placement.Spread = placement.ALONE,
) -> norm.Norm:
  """Returns weight standardization for a model.

  Args:
    scaled, epsilon: see `standardized`.
    then: the normalization of activations that follows: 'none', 'group' or
      'batch', with its defaults.
    spread: how the batch lies on devices, for 'batch'.
  """
  _check_standardized(epsilon, scaled)
  checks.one_of('then', then, tuple(_AFTER))
  after = _AFTER[then](spread=spread)
  return after._replace(
    weighted=lambda layer, name: WeightStandardization(
      layer, epsilon=epsilon, scaled=scaled, name=name
    )
  )


def _norm(weighted: Callable[[nn.Module, str], nn.Module]) -> norm.Norm:
  return norm.none()._replace(weighted=weighted)


def _check_standardized(epsilon: float, scaled: bool) -> None:
  """Raises ValueError for a keyword of `standardized` out of its range."""
  transform.check_epsilon(epsilon)
  checks.flag('scaled', scaled)


def _check_spectral(n_steps: int, epsilon: float) -> None:
  """Raises ValueError for a keyword of `SpectralNorm` out of its range."""
  transform.check_epsilon(epsilon)
  # flax writes a program for each step; a few are exact enough.
  checks.count('n_steps', n_steps, most=1000)
