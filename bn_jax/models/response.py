"""Local response normalization, which Batch Normalization made superfluous."""

import jax
import jax.numpy as jnp


def normalize(
  x: jax.Array,
  *,
  size: int = 5,
  alpha: float = 1e-4,
  beta: float = 0.75,
  k: float = 1.0,
) -> jax.Array:
  """Each activation divided by those at its place in neighbouring channels.

    y_c = x_c / (k + alpha/n sum_{|d - c| <= n/2} x_d^2)^beta

  Krizhevsky, Sutskever and Hinton (2012), "ImageNet Classification with Deep
  Convolutional Neural Networks", section 3.3, in the form and with the
  constants of Caffe (alpha divided by n), in which GoogLeNet was published;
  the 2015 paper gives none. Beyond the first and last channel are zeros.

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
