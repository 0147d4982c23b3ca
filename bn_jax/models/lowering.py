"""Two ways to write one operation, and the choice between them.

'library' is XLA's own operation; 'product' is written in products, slices and
elementwise operations; 'auto' is the one that suits the platform that a program
is compiled for: 'product' on the CPU.
"""

import functools
from collections.abc import Callable, Mapping

import jax
from jax import lax

LOWERINGS = ('library', 'product', 'auto')


def table(
  *, library: Callable[..., jax.Array], product: Callable[..., jax.Array]
) -> Mapping[str, Callable[..., jax.Array]]:
  """name of a lowering -> function; arrays by position, the rest by keyword."""

  def auto(*arrays, **keywords):
    return lax.platform_dependent(
      *arrays,
      cpu=functools.partial(product, **keywords),
      default=functools.partial(library, **keywords),
    )

  return dict(zip(LOWERINGS, (library, product, auto)))
