"""Computes 3 x 3 convolutions of stride 1 of few channels on many places.

What the other forms write, V and M or patches, is then much, and the products
are small. XLA's own convolution writes nothing, and is the fastest; but not its
gradient of the kernel: it moves the channels of x and of dy to the front, and
computes again in that loop, in the wrong order, all that x and dy are made of.
In a step of ResNet-20 the moves took 110 ms, and those convolutions 35 (jax
0.10.2, CPU). Here that gradient is one product, of [places, 3 Cin] and
[places, 3 Cout]: each place with its neighbours in the row, and with those in
the column, so that all nine pairs of each are in it, and nothing else.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import custom_derivatives, lax

# Forward and backward, from 16 to 16 channels at 32 pixels, batch 128, it takes
# 14 ms, 'winograd' 21 and 'product' 35; from 32 to 32 channels 'winograd' is
# the fastest, and from 16 to 16 at 16 pixels they are alike (the least of 7, in
# turns, on two loaded cores with huge pages).
_MOST_CHANNELS, _LEAST_SIDE = 16, 32
# The sum over all places at once would be left to one core.
_BLOCKS = 16


def pays(x: jax.Array, kernel: jax.Array) -> bool:
  """Returns whether `convolve` is faster than `winograd.convolve`."""
  return (
    min(x.shape[1:3]) >= _LEAST_SIDE
    and max(kernel.shape[2:]) <= _MOST_CHANNELS
    and x.dtype == jnp.float32
  )


@jax.custom_jvp
def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Returns the cross-correlation of x and a kernel, 'SAME', at stride 1.

  Args:
    x: [N, H, W, I].
    kernel: [3, 3, I, O].

  Returns:
    [N, H, W, O].
  """
  return lax.conv_general_dilated(
    x, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
  )


@functools.partial(convolve.defjvp, symbolic_zeros=True)
def _jvp(primals, tangents) -> tuple[jax.Array, Any]:
  x, kernel = primals
  # An input that is not differentiated, such as images, costs nothing.
  terms = [
    term(tangent, other)
    for term, tangent, other in (
      (convolve.fun, tangents[0], kernel),
      (lambda dkernel, x: _rows(x, dkernel), tangents[1], x),
    )
    if not isinstance(tangent, custom_derivatives.SymbolicZero)
  ]
  return convolve(x, kernel), sum(terms)


def _rows(x, kernel):
  """The same, whose transpose by the kernel is the product of the module."""
  examples, height, width, channels = x.shape
  features = kernel.shape[3]
  padded = jnp.pad(x, ((0, 0), (0, 0), (1, 1), (0, 0)))
  neighbours = jnp.concatenate(
    [padded[:, :, col : col + width] for col in range(3)], axis=-1
  )
  blocks = math.gcd(examples, _BLOCKS)
  neighbours = neighbours.reshape(blocks, -1, 3 * channels)
  taps = kernel.transpose(1, 2, 0, 3).reshape(3 * channels, 3 * features)
  y = neighbours @ jnp.broadcast_to(taps, (blocks, *taps.shape))
  y = y.reshape(examples, height, width, 3 * features)
  y = jnp.pad(y, ((0, 0), (1, 1), (0, 0), (0, 0)))
  return sum(
    y[:, row : row + height, :, row * features : (row + 1) * features]
    for row in range(3)
  )
