"""Dropout whose choice for an example depends on nothing but its index."""

import jax
import jax.numpy as jnp
from flax import linen as nn


class Dropout(nn.Module):
  """Each activation becomes 0 with probability `rate`; the others grow.

  Srivastava et al. (2014), "Dropout", in its inverted form: what is kept is
  divided by 1 - rate, so that nothing is left to do for inference. It acts if
  and only if the rng 'dropout' is passed. flax's own draws for a whole array at
  once, so that an example's choice would change with the size of the batch.

  Attributes:
    rate: in [0, 1).
  """

  rate: float

  @nn.compact
  def __call__(self, x: jax.Array, *, first: jax.Array | int = 0) -> jax.Array:
    """x, [N, ...]; `first` is the index of x[0] in the batch of the step."""
    if not self.rate or not self.has_rng('dropout'):
      return x
    key = self.make_rng('dropout')

    def kept(index):
      return jax.random.bernoulli(
        jax.random.fold_in(key, index), 1 - self.rate, x.shape[1:]
      )

    kept_N = jax.vmap(kept)(first + jnp.arange(len(x)))
    return jnp.where(kept_N, x / (1 - self.rate), jnp.zeros((), x.dtype))
