"""Checks keywords and images, for several networks."""

from collections.abc import Sequence
from typing import Any

import jax

from bn_jax import trees
from bn_jax.models import lowering


def check_num_classes(value: int) -> None:
  """Raises ValueError unless the size of the output is 1, 2, 3, ..."""
  if type(value) is not int or value < 1:
    raise ValueError(f'num_classes is {value}; allowed: 1 or more')


def check_width(value: float) -> None:
  """Raises ValueError unless value is above 0 and finite."""
  if not 0 < value < float('inf'):
    raise ValueError(f'width is {value}; allowed: above 0 and finite')


def check_dropout(value: float) -> None:
  """Raises ValueError unless value is a probability below 1."""
  if not 0 <= value < 1:
    raise ValueError(f'dropout is {value}; allowed: 0 <= dropout < 1')


def check_lowering(value: str) -> None:
  """Raises ValueError unless value names a lowering."""
  check_one_of('lowering', value, lowering.LOWERINGS)


def check_one_of(name: str, value: Any, allowed: Sequence[Any]) -> None:
  """Raises ValueError unless value is in `allowed`."""
  if value not in allowed:
    raise ValueError(
      f'{name} is {value!r}; allowed: {", ".join(map(str, allowed))}'
    )


def check_bool(name: str, value: Any) -> None:
  """Raises ValueError unless value is True or False."""
  if type(value) is not bool:
    raise ValueError(f'{name} is {value!r}; allowed: True or False')


def check_count(name: str, value: Any) -> None:
  """Raises ValueError unless value is 1, 2, 3, ..."""
  if type(value) is not int or value < 1:
    raise ValueError(f'{name} is {value!r}; allowed: 1, 2, 3, ...')


def check_images(x: jax.Array, network: str, halving: Sequence[str]) -> None:
  """Raises ValueError unless x can go through a network.

  Each of h layers of stride 2 has to halve a map of at least two whole pixels,
  so an image needs 2^h x 2^h pixels or more.

  Args:
    x: [N, H, W, C].
    network: a name for the message.
    halving: names of the layers of stride 2, in forward order.
  """
  check_rank(x, network)
  smallest, side = 2 ** len(halving), min(x.shape[1:3])
  if side < smallest:
    layer = next(name for k, name in enumerate(halving) if side >> k < 2)
    raise ValueError(
      f'an image of {x.shape[1]} x {x.shape[2]} pixels is too small for '
      f'{network}: {layer} would halve a map of less than 2 whole pixels; '
      f'allowed: {smallest} x {smallest} or more'
    )


def check_rank(x: jax.Array, network: str) -> None:
  """Raises ValueError unless x is a batch of images, one or more."""
  if x.ndim != 4:
    raise ValueError(
      f'x has shape {list(x.shape)}; allowed for {network}: images, '
      '[N, H, W, C]'
    )
  trees.check_examples(x)
