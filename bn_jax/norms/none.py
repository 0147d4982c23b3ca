"""No normalization: the identity, under the name of a normalization."""

import jax
from flax import linen as nn

from bn_jax.norms import norm


class Identity(nn.Module):
  """x, unchanged; without parameters and without statistics."""

  @nn.compact
  def __call__(
    self, x: jax.Array, *, mode: str, mask: jax.Array | None = None
  ) -> jax.Array:
    """x; mode is checked as in every normalization, and changes nothing."""
    del mask  # an identity has no statistics to keep padding out of
    norm.check_mode(mode)
    return x


def make() -> norm.Norm:
  """No normalization, for a model: the paper's standard network."""
  return norm.Norm(layer=lambda name: Identity(name=name), bias_before=True)
