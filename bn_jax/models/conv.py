"""Convolution and pooling, each lowered in one of two ways that agree.

'library' is XLA's own operation, right for GPU and TPU. 'product' writes a
convolution as one matrix product over shifted slices and a pool as a maximum
over them: the same numbers, and on the CPU 3 to 30 times faster, because XLA's
convolution gradients are slow there. 'auto' takes whichever suits the platform
that the program is compiled for. Parameters are the same in all of them.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from bn_jax import errors

Strides = tuple[int, int]


class Conv(nn.Module):
  """A 2-D convolution with the parameters of `flax.linen.Conv`.

  params: kernel [kH, kW, Cin, Cout] (HWIO) and, if asked for, bias [Cout].

  Attributes:
    features: output channels.
    kernel_size: (kH, kW).
    strides: (sH, sW).
    padding: 'SAME' or 'VALID'.
    use_bias: whether a bias is added.
    kernel_init: of the kernel; Glorot (Xavier) uniform as in both papers' time.
    lowering: 'library', 'product' or 'auto'.
  """

  features: int
  kernel_size: tuple[int, int] = (3, 3)
  strides: Strides = (1, 1)
  padding: str = 'SAME'
  use_bias: bool = True
  kernel_init: Callable[..., jax.Array] = nn.initializers.glorot_uniform()
  lowering: str = 'auto'

  @nn.compact
  def __call__(self, x_NHWC: jax.Array) -> jax.Array:
    """The convolution of x, [N, H, W, Cin] -> [N, H', W', Cout]."""
    shape_HWIO = (*self.kernel_size, x_NHWC.shape[-1], self.features)
    kernel_HWIO = self.param('kernel', self.kernel_init, shape_HWIO)
    y_NHWC = convolve(
      x_NHWC,
      kernel_HWIO.astype(x_NHWC.dtype),
      strides=self.strides,
      padding=self.padding,
      lowering=self.lowering,
    )
    if not self.use_bias:
      return y_NHWC
    zeros = nn.initializers.zeros_init()
    bias_O = self.param('bias', zeros, (self.features,))
    return y_NHWC + bias_O.astype(y_NHWC.dtype).reshape(1, 1, 1, -1)


def convolve(
  x: jax.Array,
  kernel: jax.Array,
  *,
  strides: Strides = (1, 1),
  padding: str = 'SAME',
  lowering: str = 'auto',
) -> jax.Array:
  """The cross-correlation of x, [N, H, W, I], with a kernel, [kH, kW, I, O].

  Raises:
    ValueError: an unknown lowering.
  """
  chosen = errors.lookup('lowering', _CONVOLUTIONS, lowering)
  return chosen(x, kernel, strides=strides, padding=padding)


def max_pool(x: jax.Array, *, lowering: str = 'auto') -> jax.Array:
  """The maximum over 2 x 2 windows, stride 2, of x, [N, H, W, C].

  An odd last row or column is left out: the result is [N, H//2, W//2, C].
  Where several values of a window are equal, the first takes the gradient.

  Raises:
    ValueError: an unknown lowering.
  """
  return errors.lookup('lowering', _POOLS, lowering)(x)


def _convolve_library(x, kernel, *, strides, padding):
  return lax.conv_general_dilated(
    x,
    kernel,
    window_strides=strides,
    padding=padding,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )


def _convolve_product(x, kernel, *, strides, padding):
  """pad, shifted slices side by side, one product: patches @ kernel."""
  height, width, channels, features = kernel.shape
  pads = lax.padtype_to_pads(
    x.shape[1:3], (height, width), strides, padding.upper()
  )
  x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
  patches = jnp.concatenate(
    [
      _every(x, row, col, (height, width), strides)
      for row in range(height)
      for col in range(width)
    ],
    axis=-1,
  )
  rows = patches.reshape(-1, height * width * channels)
  y = rows @ kernel.reshape(-1, features)
  return y.reshape(*patches.shape[:3], features)


def _every(x, row, col, window, strides):
  """What the window's element (row, col) sees at each of its places."""
  high = x.shape[1] - window[0] + row + 1
  wide = x.shape[2] - window[1] + col + 1
  return x[:, row : high : strides[0], col : wide : strides[1]]


def _max_pool_library(x):
  return nn.max_pool(x, (2, 2), (2, 2))


def _max_pool_product(x):
  n, height, width, channels = x.shape
  x = x[:, : height // 2 * 2, : width // 2 * 2]
  x = x.reshape(n, height // 2, 2, width // 2, 2, channels)
  corners = [x[:, :, i, :, j] for i in range(2) for j in range(2)]
  return functools.reduce(_first_maximum, corners)


def _first_maximum(a, b):
  """max(a, b) whose gradient goes to a where they are equal; NaN stays NaN.

  `jnp.maximum` shares the gradient of a tie, XLA's pooling does not.
  """
  return jnp.where((a >= b) | jnp.isnan(a), a, b)


def _by_platform(product, library):
  """One of the two, chosen when it is compiled for a platform."""

  def auto(*arrays, **keywords):
    return lax.platform_dependent(
      *arrays,
      cpu=functools.partial(product, **keywords),
      default=functools.partial(library, **keywords),
    )

  return auto


_CONVOLUTIONS = {
  'library': _convolve_library,
  'product': _convolve_product,
  'auto': _by_platform(_convolve_product, _convolve_library),
}
_POOLS = {
  'library': _max_pool_library,
  'product': _max_pool_product,
  'auto': _by_platform(_max_pool_product, _max_pool_library),
}
LOWERINGS = tuple(_CONVOLUTIONS)
