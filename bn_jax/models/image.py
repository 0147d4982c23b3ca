"""What a network of convolutions asks of its images."""

from collections.abc import Sequence

import jax


def check(x: jax.Array, network: str, halving: Sequence[str]) -> None:
  """Raises ValueError unless x can go through a network.

  Of h layers of stride 2, each has to halve a map of at least two whole pixels,
  so an image has at least 2^h x 2^h pixels.

  Args:
    x: [N, H, W, C].
    network: its name, for the message.
    halving: its layers of stride 2, in forward order.
  """
  check_rank(x, network)
  smallest, shorter = 2 ** len(halving), min(x.shape[1:3])
  if shorter < smallest:
    first = next(name for k, name in enumerate(halving) if shorter >> k < 2)
    raise ValueError(
      f'an image of {x.shape[1]} x {x.shape[2]} pixels is too small for '
      f'{network}: {first} would halve a map of less than 2 whole pixels; '
      f'allowed: {smallest} x {smallest} or more'
    )


def check_rank(x: jax.Array, network: str) -> None:
  """Raises ValueError unless x is a batch of images."""
  if x.ndim != 4:
    raise ValueError(
      f'x has shape {list(x.shape)}; allowed for {network}: images, '
      '[N, H, W, C]'
    )
