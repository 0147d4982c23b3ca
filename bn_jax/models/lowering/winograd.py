"""Computes 3 x 3 convolutions of stride 1 by a quarter of the multiplications.

Winograd's minimal filtering, as in Lavin and Gray (2016), "Fast algorithms for
convolutional neural networks", arXiv:1509.09308, section 4.3. Along an axis, a
tile of outputs y is computed from its inputs d and three taps g,

  y = A' [(G g) * (B' d)]       * element by element,

so in two dimensions V = B'dB, U = GgG', and Y = A'MA of the sums M = sum_c V U
over channels, which are a matrix product for each of the elements. There are
two algorithms:

F(4, 3): 4 outputs of 6 inputs by 6 products; shifted slices need 12. It is the
  product of two polynomials by their values at the points p = 0, 5/8, -5/8,
  3/2, -3/2 and infinity (Toom and Cook), transposed. A evaluates at the points.
  G does too, and divides by prod_{j != i} (p_i - p_j). A row of B' holds the
  coefficients of prod_{j != i} (z - p_j). Sides are padded to multiples of 4.
Pair, for a side of 2: y0 = g1 d0 + g2 d1, y1 = g0 d0 + g1 d1 (taps that meet
  padding are left out). g1 (d0 + d1) is in both: 3 products instead of 6.

All is linear in x and in the kernel, and written in slices, weighted sums and
stacks, which JAX can transpose: gradients cost two such convolutions, and
derivatives exist in both modes and at any order. Slabs, slices of length 1,
come from `lax.split`, whose transpose is one concatenation; that of indices is
a slow sum of padded arrays.

It rounds more than the product form, since A' adds up large terms that cancel.
The points 0, 1, -1, 2, -2 of Lavin and Gray are 2.2 times worse than these and
no faster: a step of VGG-11 takes 0.99 of the time of theirs, or 0.99 where the
parts that two opposite points share are computed once (16 rounds in turns, CPU
seconds on loaded cores). In float32 the relative error (2-norm) of a layer of
256 channels, of normal inputs after a ReLU, and of its two gradients is 1.2e-6,
1.5e-6 and 7e-7 (product: 2.8e-7, 2.9e-7 and 2.0e-7); that of a Pair 1e-7 to
4e-7. In a whole network the last digit of a value can switch a ReLU or a
maximum: for gradients of networks see docs/models.md#lowerings.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from bn_jax.models.lowering import pool

Matrix = tuple[tuple[float, ...], ...]


class Algorithm(NamedTuple):
  """The convolution of a tile of one axis with three taps.

  Attributes:
    tile: the number of outputs of a tile.
    pad: the number of zeros before and after the axis.
    inputs: B', [products, inputs of a tile].
    taps: G, [products, 3].
    outputs: A', [tile, products].
  """

  tile: int
  pad: int
  inputs: Matrix
  taps: Matrix
  outputs: Matrix


# Points, A and B are exact in binary; of G, each number is rounded once.
F43 = Algorithm(
  tile=4,
  pad=1,
  inputs=(
    (225 / 256, 0, -169 / 64, 0, 1, 0),
    (0, -45 / 32, -9 / 4, 5 / 8, 1, 0),
    (0, 45 / 32, -9 / 4, -5 / 8, 1, 0),
    (0, -75 / 128, -25 / 64, 3 / 2, 1, 0),
    (0, 75 / 128, -25 / 64, -3 / 2, 1, 0),
    (0, 225 / 256, 0, -169 / 64, 0, 1),
  ),
  taps=(
    (256 / 225, 0, 0),
    (-2048 / 2975, -256 / 595, -32 / 119),
    (-2048 / 2975, 256 / 595, -32 / 119),
    (128 / 1071, 64 / 357, 32 / 119),
    (128 / 1071, -64 / 357, 32 / 119),
    (0, 0, 1),
  ),
  outputs=(
    (1, 1, 1, 1, 1, 0),
    (0, 5 / 8, -5 / 8, 3 / 2, -3 / 2, 0),
    (0, 25 / 64, 25 / 64, 9 / 4, 9 / 4, 0),
    (0, 125 / 512, -125 / 512, 27 / 8, -27 / 8, 1),
  ),
)
PAIR = Algorithm(
  tile=2,
  pad=0,
  inputs=((1, 1), (0, 1), (1, 0)),
  taps=((0, 1, 0), (0, -1, 1), (1, -1, 0)),
  outputs=((1, 1, 0), (1, 0, 1)),
)

# Every side from 2 on pays. Of the CPU seconds of 'product', forward and
# backward, it takes 0.4 to 0.6 where 4 divides the side, also at 14 pixels, 0.3
# to 0.8 at 7, 0.7 at 3 and 6, and as many at 5 (in turns, on loaded cores).
# With 3 or 4 channels it is half as fast as 'product': there are few products
# to save, and V and M still have to be written, 2.25 times as large as x and y.
_LEAST_CHANNELS = 8
_DTYPES = ('float32', 'float64')  # in half precision no digit would be left


def pays(
  x: jax.Array, kernel: jax.Array, strides: tuple[int, int], padding: str
) -> bool:
  """Returns whether `convolve` can do a convolution, and does it faster."""
  return (
    kernel.shape[:2] == (3, 3)
    and tuple(strides) == (1, 1)
    and padding.upper() == 'SAME'
    and min(x.shape[1:3]) > 1
    and x.shape[3] >= _LEAST_CHANNELS
    and x.dtype in _DTYPES
  )


def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Returns the cross-correlation of x and a kernel, 'SAME', at stride 1.

  Args:
    x: [N, H, W, I].
    kernel: [3, 3, I, O].

  Returns:
    [N, H, W, O].

  Raises:
    ValueError: a kernel of another size.
  """
  if kernel.shape[:2] != (3, 3):
    raise ValueError(
      f'a kernel of {kernel.shape[0]} x {kernel.shape[1]}; allowed: 3 x 3'
    )
  examples, height, width, _ = x.shape
  rows, cols = _algorithm(height), _algorithm(width)
  tiles = (_tiles(height, rows), _tiles(width, cols))
  # [products, tiles, I] @ [products, I, O]: one batched product.
  m = _of_input(x, rows, cols) @ _of_kernel(kernel, rows, cols)
  sizes = examples, *tiles, kernel.shape[3]  # no -1: examples may be 0
  m = m.reshape(len(rows.inputs), len(cols.inputs), *sizes)
  y = jnp.stack(_mixed(cols.outputs, _slabs(m, 1)), axis=4)
  y = jnp.stack(_mixed(rows.outputs, _slabs(y, 0)), axis=2)
  y = y.reshape(
    examples, tiles[0] * rows.tile, tiles[1] * cols.tile, kernel.shape[3]
  )
  return y[:, :height, :width]


def _algorithm(size: int) -> Algorithm:
  return PAIR if size == PAIR.tile else F43


def _tiles(size: int, algorithm: Algorithm) -> int:
  return -(-size // algorithm.tile)


def _of_input(x: jax.Array, rows: Algorithm, cols: Algorithm) -> jax.Array:
  """Returns V, [products, tiles, I]."""
  v = jnp.stack(_mixed(rows.inputs, _tile_inputs(x, 1, rows)))
  v = jnp.stack(_mixed(cols.inputs, _tile_inputs(v, 3, cols)), axis=1)
  return v.reshape(len(rows.inputs) * len(cols.inputs), -1, x.shape[-1])


def _of_kernel(
  kernel: jax.Array, rows: Algorithm, cols: Algorithm
) -> jax.Array:
  """Returns U, [products, I, O]."""
  u = jnp.stack(_mixed(rows.taps, _slabs(kernel, 0)))
  u = jnp.stack(_mixed(cols.taps, _slabs(u, 1)), axis=1)
  return u.reshape(-1, *kernel.shape[2:])


def _mixed(matrix: Matrix, slabs: Sequence[jax.Array]) -> list[jax.Array]:
  """Returns matrix @ slabs, without the products by 0 and 1."""
  return [
    functools.reduce(
      jnp.add,
      [
        slab if weight == 1 else weight * slab
        for weight, slab in zip(row, slabs, strict=True)
        if weight
      ],
    )
    for row in matrix
  ]


def _tile_inputs(
  x: jax.Array, axis: int, algorithm: Algorithm
) -> list[jax.Array]:
  """Returns the first, second, ... inputs of all tiles of an axis."""
  inputs, tile = len(algorithm.inputs[0]), algorithm.tile
  groups = _tiles(x.shape[axis], algorithm) + (inputs - 1) // tile
  padding = [(0, 0)] * x.ndim
  after = groups * tile - x.shape[axis] - algorithm.pad
  padding[axis] = (algorithm.pad, after)
  return pool.slices(jnp.pad(x, padding), axis, inputs, tile)


def _slabs(x: jax.Array, axis: int) -> list[jax.Array]:
  """Splits x into its slabs along an axis."""
  parts = lax.split(x, (1,) * x.shape[axis], axis)
  return [part.squeeze(axis) for part in parts]
