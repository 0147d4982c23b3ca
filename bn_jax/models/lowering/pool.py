"""Pools over overlapping windows, in each way of `bn_jax.models.lowering`.

Padding is 'SAME': n rows give ceil(n / stride) windows, with padding on both
sides and an odd row of it at the end. Maxima also take 'symmetric', the same on
both sides, as PyTorch has it. Padding never counts: a maximum is that
of the pixels in its window, an average is divided by their number. (The 2015
paper does not say; TensorFlow leaves it out too, Caffe's averages count zeros.)

'library' is XLA's reduce_window, but for maxima on GPUs. 'product' takes the
maximum, or the sum, of shifted slices, over columns and then over rows. On the
CPU that is several times faster, because XLA's gradient of overlapping windows
is slow there.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

from bn_jax import errors
from bn_jax.models import lowering as lowering_lib


def max_pool(
  x: jax.Array,
  *,
  window: int = 3,
  stride: int = 2,
  padding: str = 'same',
  lowering: str = 'auto',
) -> jax.Array:
  """Returns the maximum over windows of x, [N, H, W, C] -> [N, H', W', C].

  Args:
    padding: 'same', or 'symmetric': window // 2 rows on both sides.

  Where several values of a window are equal, the first, row by row, gets the
  gradient; NaN stays NaN.

  Raises:
    ValueError: an unknown lowering, or a stride outside 1 to window.
  """
  if not 1 <= stride <= window:
    raise ValueError(
      f'window is {window}, stride is {stride}; allowed: 1 <= stride <= window'
    )
  pool = errors.lookup('lowering', _MAXIMA, lowering)
  return pool(x, window=window, stride=stride, padding=padding)


def average_pool(
  x: jax.Array, *, window: int = 3, lowering: str = 'auto'
) -> jax.Array:
  """Returns the mean of the pixels in each window at stride 1, [N, H, W, C].

  Raises:
    ValueError: an unknown lowering.
  """
  return errors.lookup('lowering', _AVERAGES, lowering)(x, window=window)


def global_average(x: jax.Array) -> jax.Array:
  """Returns the mean of each map of x, [N, H, W, C] -> [N, C]."""
  return x.mean(axis=(1, 2))


def _max_library(x, *, window, stride, padding):
  pads: Any = 'SAME' if padding == 'same' else ((window // 2, window // 2),) * 2
  return lowering_lib.unless_on_gpu(
    lambda x: nn.max_pool(x, (window, window), (stride, stride), pads),
    functools.partial(
      _max_product, window=window, stride=stride, padding=padding
    ),
    x,
  )


def _max_product(x, *, window, stride, padding):
  # Columns first: of equal values, the gradient goes to the first row, and in
  # that row to the first column.
  for axis in (2, 1):
    x = _max_along(x, axis, window, stride, padding)
  return x


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2, 3, 4))
def _max_along(x, axis, window, stride, padding):
  return _maximum(_slices(x, axis, window, stride, -jnp.inf, padding))[0]


@_max_along.defjvp
def _max_along_jvp(axis, window, stride, padding, primals, tangents):
  """Takes the tangent from the place of each window's maximum.

  Only that place is saved, a byte a window. JAX's own rule would save what each
  comparison gave.
  """
  (x,), (dx,) = primals, tangents
  y, place = _maximum(_slices(x, axis, window, stride, -jnp.inf, padding))
  parts = [
    jnp.where(place == offset, part, 0)
    for offset, part in enumerate(_slices(dx, axis, window, stride, 0, padding))
  ]
  return y, functools.reduce(jnp.add, parts)


def _maximum(slices):
  """Returns the maximum of slices and the index of the first that has it.

  NaN stays NaN.
  """
  first, *others = slices
  y, place = first, jnp.zeros(first.shape, jnp.int8)
  for offset, part in enumerate(others, start=1):
    stays = (y >= part) | jnp.isnan(y)
    y = jnp.where(stays, y, part)
    place = jnp.where(stays, place, jnp.int8(offset))
  return y, place


def _average_library(x, *, window):
  y = nn.avg_pool(x, (window, window), padding='SAME', count_include_pad=False)
  return y.astype(x.dtype)  # flax's counts make it float32


def _average_product(x, *, window):
  sums = x
  for axis in (2, 1):
    sums = functools.reduce(jnp.add, _slices(sums, axis, window, 1, 0))
  return sums / jnp.asarray(_pixels(x.shape[1:3], window), x.dtype)


def _pixels(shape, window):
  """Returns the number of pixels in each window, [1, H, W, 1]."""
  # Window i ends `after` places behind pixel i: the first `after` are cut off.
  counts = [
    np.convolve(np.ones(n), np.ones(window))[_pads(n, window, 1)[1] :][:n]
    for n in shape
  ]
  return np.outer(*counts)[None, :, :, None]


def _pads(
  length: int, window: int, stride: int, padding: str = 'same'
) -> tuple[int, int]:
  """Returns the padding (before, after) of 'same' or 'symmetric'."""
  if padding == 'symmetric':
    return window // 2, window // 2
  return lax.padtype_to_pads((length,), (window,), (stride,), 'SAME')[0]


def _slices(x, axis, window, stride, fill, padding='same') -> list[jax.Array]:
  """Returns the slices of x, padded with `fill`."""
  length = x.shape[axis]
  before, after = _pads(length, window, stride, padding)
  count = (length + before + after - window) // stride + 1
  groups = count + (window - 1) // stride
  edges = [(0, 0, 0)] * x.ndim
  edges[axis] = (before, groups * stride - length - before, 0)
  x = lax.pad(x, jnp.asarray(fill, x.dtype), edges)
  return slices(x, axis, window, stride)


def slices(
  x: jax.Array, axis: int, window: int, stride: int
) -> list[jax.Array]:
  """Returns, for each place in the window, the inputs at it of all windows.

  The axis is split into the inputs 0, stride, 2 stride, ... and those after
  them, of which windows are slices without a stride: derivatives of slices with
  one are scattered, which is slow.

  Args:
    x: stride divides the length of its axis; windows begin at 0, stride, ...
  """
  groups = x.shape[axis] // stride
  count = groups - (window - 1) // stride
  x = x.reshape(*x.shape[:axis], groups, stride, *x.shape[axis + 1 :])
  phases = [
    phase.squeeze(axis + 1)
    for phase in lax.split(x, (1,) * stride, axis=axis + 1)
  ]
  return [
    lax.slice_in_dim(
      phases[place % stride],
      place // stride,
      place // stride + count,
      axis=axis,
    )
    for place in range(window)
  ]


_MAXIMA = lowering_lib.table(library=_max_library, product=_max_product)
_AVERAGES = lowering_lib.table(
  library=_average_library, product=_average_product
)
