"""Ways to write one operation, and the choice between them.

'library' is XLA's own operation; 'product' is written in products, slices and
elementwise operations; 'auto' is the one of them that suits the platform that a
program is compiled for: 'product' on the CPU. 'winograd' is 'product', but for
the convolutions of `bn_jax.models.lowering.winograd`: faster, and rounded more.
"""

import functools
from collections.abc import Callable, Mapping

import jax
from jax import lax

LOWERINGS = ('library', 'product', 'auto', 'winograd')


def table(
  *,
  library: Callable[..., jax.Array],
  product: Callable[..., jax.Array],
  winograd: Callable[..., jax.Array] | None = None,
) -> Mapping[str, Callable[..., jax.Array]]:
  """name of a lowering -> function; arrays by position, the rest by keyword.

  Args:
    library, product: of these names.
    winograd: None where it is the product's.
  """

  def auto(*arrays, **keywords):
    return lax.platform_dependent(
      *arrays,
      cpu=functools.partial(product, **keywords),
      default=functools.partial(library, **keywords),
    )

  functions = (library, product, auto, winograd or product)
  return dict(zip(LOWERINGS, functions, strict=True))
