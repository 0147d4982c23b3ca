"""Chooses a lowering: one of the ways to write an operation.

'library' is XLA's own operation; 'product' is written in products, slices and
elementwise operations. 'winograd' is the fastest of three for each convolution
on a CPU, the third being `bn_jax.models.lowering.winograd`, which rounds more.
'auto' is the fast one that is fit for training: 'winograd' where a program is
compiled for the CPU, else 'library'.
"""

import functools
from collections.abc import Callable, Mapping

import jax
from jax import lax

from bn_jax import trees

LOWERINGS = ('library', 'product', 'auto', 'winograd')


def table(
  *,
  library: Callable[..., jax.Array],
  product: Callable[..., jax.Array],
  winograd: Callable[..., jax.Array] | None = None,
) -> Mapping[str, Callable[..., jax.Array]]:
  """Returns {lowering: its function} of an operation.

  Functions take arrays by position and the rest by keyword; arrays that are not
  floating point are refused. winograd is product where it is not given.
  """
  winograd = winograd or product

  def auto(*arrays, **keywords):
    return lax.platform_dependent(
      *arrays,
      cpu=functools.partial(winograd, **keywords),
      default=functools.partial(library, **keywords),
    )

  functions = map(_of_floats, (library, product, auto, winograd))
  return dict(zip(LOWERINGS, functions, strict=True))


def unless_on_gpu(
  function: Callable[..., jax.Array],
  on_gpu: Callable[..., jax.Array],
  *arrays: jax.Array,
) -> jax.Array:
  """Returns function(*arrays), or on_gpu(*arrays) in programs for GPUs.

  For maxima over windows: XLA's gradient of them writes on GPUs, in the forward
  pass, a float32 and four integers a window, and takes twice the memory; in a
  TPU's program it is the better one (`benchmarks/compiled.py`).
  """
  return lax.platform_dependent(
    *arrays, cuda=on_gpu, rocm=on_gpu, default=function
  )


def _of_floats(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
  """Returns the function; it refuses arrays that are not floating point."""

  @functools.wraps(function)
  def checked(*arrays, **keywords):
    for name, array in zip(('x', 'kernel'), arrays):
      trees.check_floating(name, array)
    return function(*arrays, **keywords)

  return checked
