"""Computes convolutions and 2 x 2 max pools, in each lowering.

'library' is XLA's own operation, the right one for GPU and TPU. 'product'
writes a convolution as one matrix product over shifted slices and a pool as a
maximum over them. It gives the same numbers but for rounding, 3 to 30 times as
fast on the CPU, where XLA's convolution gradients are slow. 'winograd' is the
fastest there, in 3 x 3 convolutions of stride 1 twice as fast again, but it
rounds more: fit for training, while measures take another. Parameters are the
same in all of them. For overlapping windows see `bn_jax.models.lowering.pool`.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from bn_jax import errors
from bn_jax.models import lowering as lowering_lib
from bn_jax.models.lowering import thin, winograd

Strides = tuple[int, int]
# 'same' pads as XLA's 'SAME', which at stride 2 has the odd row at the end;
# 'symmetric' pads half a window on both sides, as PyTorch and Caffe do.
PADDINGS = ('same', 'symmetric')


def pads(
  padding: str, window: Strides, strides: Strides
) -> str | tuple[tuple[int, int], ...]:
  """Returns one of `PADDINGS` as XLA takes it, for an odd window.

  At stride 1 the two are the same.
  """
  if padding == 'same' or tuple(strides) == (1, 1):
    return 'SAME'
  return tuple((size // 2, size // 2) for size in window)


class Conv(nn.Module):
  """A 2-D convolution with the parameters of `flax.linen.Conv`.

  params: kernel [kH, kW, Cin, Cout] (HWIO) and, with use_bias, bias [Cout].

  Attributes:
    features: the number of output channels.
    padding: 'SAME', 'VALID', or (before, after) of each side; see `pads`.
    kernel_init: by default Glorot (Xavier) uniform, which was usual when both
      papers were written.
    lowering: 'library', 'product', 'auto' or 'winograd'.
  """

  features: int
  kernel_size: tuple[int, int] = (3, 3)
  strides: Strides = (1, 1)
  padding: str | tuple[tuple[int, int], ...] = 'SAME'
  use_bias: bool = True
  kernel_init: Callable[..., jax.Array] = nn.initializers.glorot_uniform()
  lowering: str = 'auto'

  @nn.compact
  def __call__(self, x_NHWC: jax.Array) -> jax.Array:
    """Returns the convolution of x, [N, H, W, Cin] -> [N, H', W', Cout]."""
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
    # The gradient of the bias is a sum over all places: in bfloat16, on a CPU,
    # it would stop at 256 (jax 0.10.2). The sum of float32 changes no bits.
    wide = jnp.promote_types(y_NHWC.dtype, jnp.float32)
    shifted = y_NHWC.astype(wide) + bias_O.astype(wide).reshape(1, 1, 1, -1)
    return shifted.astype(y_NHWC.dtype)


class DepthwiseConv(nn.Module):
  """A 2-D convolution of each channel by itself, without a bias.

  params: kernel [kH, kW, 1, Cin * multiplier], as flax's with
  feature_group_count=Cin; channel c gives the outputs c * multiplier + m.
  Padding is 'SAME'; attributes are those of `Conv`, and multiplier, the number
  of outputs of each channel.
  """

  multiplier: int
  kernel_size: tuple[int, int] = (3, 3)
  strides: Strides = (1, 1)
  kernel_init: Callable[..., jax.Array] = nn.initializers.glorot_uniform()
  lowering: str = 'auto'

  @nn.compact
  def __call__(self, x_NHWC: jax.Array) -> jax.Array:
    """Returns the convolution of x, [N, H, W, C] -> [N, H', W', C * m]."""
    outputs = x_NHWC.shape[-1] * self.multiplier
    kernel = self.param(
      'kernel', self.kernel_init, (*self.kernel_size, 1, outputs)
    )
    convolution = errors.lookup('lowering', _DEPTHWISE, self.lowering)
    return convolution(
      x_NHWC,
      kernel.astype(x_NHWC.dtype),
      strides=self.strides,
      padding='SAME',
    )


def convolve(
  x: jax.Array,
  kernel: jax.Array,
  *,
  strides: Strides = (1, 1),
  padding: str | tuple[tuple[int, int], ...] = 'SAME',
  lowering: str = 'auto',
) -> jax.Array:
  """Returns the cross-correlation of x, [N, H, W, I], and a kernel, HWIO.

  Raises:
    ValueError: an unknown lowering.
  """
  convolution = errors.lookup('lowering', _CONVOLUTIONS, lowering)
  return convolution(x, kernel, strides=strides, padding=padding)


def max_pool(x: jax.Array, *, lowering: str = 'auto') -> jax.Array:
  """Returns the maximum of 2 x 2 windows at stride 2 of x, [N, H, W, C].

  An odd last row or column is left out: the result is [N, H//2, W//2, C].
  Where several values of a window are equal, the first gets the gradient.

  Raises:
    ValueError: an unknown lowering.
  """
  return errors.lookup('lowering', _POOLS, lowering)(x)


def first_maximum(a, b):
  """Returns max(a, b); of equal values a gets the gradient; NaN stays NaN.

  `jnp.maximum` would share the gradient of equal values; XLA's pooling does
  not.
  """
  return jnp.where((a >= b) | jnp.isnan(a), a, b)


def _convolve_library(x, kernel, *, strides, padding, groups=1):
  return lax.conv_general_dilated(
    x,
    kernel,
    window_strides=strides,
    padding=padding,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    feature_group_count=groups,
  )


def _convolve_product(x, kernel, *, strides, padding):
  """Pads, lays shifted slices side by side, and takes patches @ kernel."""
  height, width, channels, features = kernel.shape
  slices = _shifted(x, (height, width), strides, padding)
  patches = jnp.concatenate(slices, axis=-1)
  rows = patches.reshape(-1, height * width * channels)
  y = rows @ kernel.reshape(-1, features)
  return y.reshape(*patches.shape[:3], features)


def _convolve_winograd(x, kernel, *, strides, padding):
  if not winograd.pays(x, kernel, strides, padding):
    return _convolve_product(x, kernel, strides=strides, padding=padding)
  fastest = thin if thin.pays(x, kernel) else winograd
  return fastest.convolve(x, kernel)


def _depthwise_library(x, kernel, *, strides, padding):
  return _convolve_library(
    x, kernel, strides=strides, padding=padding, groups=x.shape[-1]
  )


def _depthwise_product(x, kernel, *, strides, padding):
  """Takes one product a channel, over its shifted slices."""
  height, width, _, features = kernel.shape
  channels = x.shape[-1]
  slices = _shifted(x, (height, width), strides, padding)
  patches_NHWTC = jnp.stack(slices, axis=3)
  kernel_TCM = kernel.reshape(height * width, channels, -1)
  y = jnp.einsum('nhwtc,tcm->nhwcm', patches_NHWTC, kernel_TCM)
  return y.reshape(*y.shape[:3], features)


def _shifted(x, window, strides, padding) -> list[jax.Array]:
  """Returns the inputs of each element of the window, row by row."""
  if isinstance(padding, str):
    padding = lax.padtype_to_pads(
      x.shape[1:3], window, strides, padding.upper()
    )
  x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
  return [
    _inputs(x, row, col, window, strides)
    for row in range(window[0])
    for col in range(window[1])
  ]


def _inputs(x, row, col, window, strides):
  """Returns the inputs of the window's element (row, col) in all windows."""
  row_end = x.shape[1] - window[0] + row + 1
  col_end = x.shape[2] - window[1] + col + 1
  return x[:, row : row_end : strides[0], col : col_end : strides[1]]


def _max_pool_library(x):
  return lowering_lib.unless_on_gpu(
    lambda x: nn.max_pool(x, (2, 2), (2, 2)), _max_pool_product, x
  )


def _max_pool_product(x):
  n, height, width, channels = x.shape
  x = x[:, : height // 2 * 2, : width // 2 * 2]
  x = x.reshape(n, height // 2, 2, width // 2, 2, channels)
  # Split, not indexed: the gradient of indices would be a sum of four maps.
  rows = lax.split(x, (1, 1), axis=2)
  corners = [
    corner for row in rows for corner in lax.split(row, (1, 1), axis=4)
  ]
  y = functools.reduce(first_maximum, corners)
  return y.squeeze((2, 4))


_CONVOLUTIONS = lowering_lib.table(
  library=_convolve_library,
  product=_convolve_product,
  winograd=_convolve_winograd,
)
_DEPTHWISE = lowering_lib.table(
  library=_depthwise_library, product=_depthwise_product
)
_POOLS = lowering_lib.table(
  library=_max_pool_library, product=_max_pool_product
)
