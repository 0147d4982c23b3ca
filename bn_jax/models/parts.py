"""What several networks are built of: a layer with its norm, Dropout, and LRN.

A layer NAME is up to three modules beside each other, under the names that
records and figures use: NAME itself, which has the kernel, NAME_weight, the
norm of that kernel where there is one, and NAME_norm, the norm of what the
layer makes.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from bn_jax.norms import norm as norm_lib


def normalised(
  norm: norm_lib.Norm,
  layer: nn.Module,
  x: jax.Array,
  *,
  per_activation: bool = False,
  statistics: str,
  **examples: Any,
) -> jax.Array:
  """norm(layer(x)): what enters the nonlinearity.

  Args:
    norm: of the network.
    layer: a named module with a parameter 'kernel'.
    x: [N, ..., C].
    per_activation: whether each activation of a feature map has statistics,
      scale and bias of its own, as in a dense layer.
    statistics: 'batch' or 'running'.
    **examples: mask and first, as the norm takes them.
  """
  y = norm.weighted(layer, f'{layer.name}_weight')(x, statistics=statistics)
  norm_layer = norm.layer(f'{layer.name}_norm')
  if not per_activation:
    return norm_layer(y, statistics=statistics, **examples)
  flat = y.reshape(y.shape[0], -1)
  return norm_layer(flat, statistics=statistics, **examples).reshape(y.shape)


def dense(
  name: str, features: int, dtype: Any, *, use_bias: bool, **keywords: Any
) -> nn.Dense:
  """A dense layer with Glorot uniform weights, its product in a dtype."""
  keywords = {
    'kernel_init': nn.initializers.glorot_uniform(),
    **keywords,
  }
  return nn.Dense(
    features, dtype=dtype, use_bias=use_bias, name=name, **keywords
  )


def paths(name: str) -> tuple[str, ...]:
  """Where the parameters of a layer are."""
  return name, f'{name}_weight', f'{name}_norm'


def tap(name: str) -> tuple[str, str]:
  """(layer, path of the module whose output enters its nonlinearity)."""
  return name, f'{name}_norm'


def scaled(channels: int, width: float) -> int:
  """Returns a number of channels times the width: rounded, at least one."""
  return max(1, round(channels * width))


class Dropout(nn.Module):
  """Sets each activation to 0 with probability `rate`; the others grow.

  Srivastava et al. (2014), "Dropout", in its inverted form: what is kept is
  divided by 1 - rate, so that nothing is left to do for inference. It acts if
  and only if the rng 'dropout' is passed. What an example keeps depends on
  nothing but its index; flax's own draws for a whole array at once, so that it
  would change with the size of the batch.

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


def local_response_norm(
  x: jax.Array,
  *,
  size: int = 5,
  alpha: float = 1e-4,
  beta: float = 0.75,
  k: float = 1.0,
) -> jax.Array:
  """Divides each activation by those at its place in neighbouring channels.

    y_c = x_c / (k + alpha/n sum_{|d - c| <= n/2} x_d^2)^beta

  Krizhevsky, Sutskever and Hinton (2012), "ImageNet Classification with Deep
  Convolutional Neural Networks", section 3.3, in the form and with the
  constants of Caffe (alpha divided by n), in which GoogLeNet was published;
  the 2015 paper, which made it superfluous, gives none. Beyond the first and
  last channel are zeros.

  Args:
    x: [N, ..., C].
    size: n, channels of a neighbourhood, odd.
    alpha, beta, k: as in the formula.

  Returns:
    y, of the shape and dtype of x; sums are in float32 at least.
  """
  squares = jnp.square(x.astype(jnp.promote_types(x.dtype, jnp.float32)))
  pads = [(0, 0)] * (x.ndim - 1) + [(size // 2, size // 2)]
  padded = jnp.pad(squares, pads)
  channels = x.shape[-1]
  sums = sum(padded[..., shift : shift + channels] for shift in range(size))
  return (x * (k + alpha / size * sums) ** -beta).astype(x.dtype)
