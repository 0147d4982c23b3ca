"""No normalization: the identity, under the name of a normalization."""

import jax
from flax import linen as nn

from bn_jax import placement
from bn_jax.norms import norm


class Identity(nn.Module):
  """x, unchanged; without parameters and without statistics."""

  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    *,
    mode: str,
    mask: jax.Array | None = None,
    first: jax.Array | int = 0,
  ) -> jax.Array:
    """x; mode is checked as in every normalization, and changes nothing."""
    del mask, first  # an identity asks nothing about examples
    norm.check_mode(mode)
    return x


def make(*, spread: placement.Spread = placement.ALONE) -> norm.Norm:
  """No normalization, for a model: the paper's standard network."""
  del spread  # nothing is computed over examples
  return norm.Norm(layer=lambda name: Identity(name=name), bias_before=True)
