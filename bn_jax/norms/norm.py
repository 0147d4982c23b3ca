"""What a normalization is to a model; and none, which is the identity."""

from collections.abc import Callable
from typing import NamedTuple

import jax
from flax import linen as nn

from bn_jax import placement

MODES = ('batch', 'running')


def plainly(layer: nn.Module, name: str) -> Callable[..., jax.Array]:
  """The layer with its kernel as it is."""
  del name

  def apply(x: jax.Array, *, mode: str) -> jax.Array:
    check_mode(mode)
    return layer(x)

  return apply


class Norm(NamedTuple):
  """A normalization, as a model takes it.

  Attributes:
    layer: name -> the module that acts on activations, before the
      nonlinearity: `layer(name)(x, mode=..., mask=..., first=...)`. It is there
      even where it does nothing, so that the input to the nonlinearity has one
      path in every network.
    bias_before: whether a bias of the layer before it makes sense.
    weighted: (layer with a parameter 'kernel', name) -> the same layer with its
      kernel normalised: `weighted(conv, name)(x, mode=...)`.
    frozen: whether the layers' scale, bias and statistics stay as they are: no
      gradient comes to them, and no batch moves them. Whoever changes
      parameters by something else, such as weight decay, has to see to it.
  """

  layer: Callable[[str], nn.Module]
  bias_before: bool
  weighted: Callable[[nn.Module, str], Callable[..., jax.Array]] = plainly
  frozen: bool = False


def check_mode(mode: str) -> None:
  """Raises ValueError unless mode names the statistics to normalise with."""
  if mode not in MODES:
    raise ValueError(
      f'mode is {mode!r}; allowed: {", ".join(map(repr, MODES))}'
    )


class Identity(nn.Module):
  """x, unchanged; without parameters and without statistics."""

  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    *,
    mode: str,
    mask: jax.Array | None = None,
    first: jax.Array | int = 0,
  ) -> jax.Array:
    """x; mode is checked as in every normalization, and changes nothing."""
    del mask, first  # an identity asks nothing about examples
    check_mode(mode)
    return x


def none(*, spread: placement.Spread = placement.ALONE) -> Norm:
  """No normalization, for a model: the paper's standard network."""
  del spread  # nothing is computed over examples
  return Norm(layer=lambda name: Identity(name=name), bias_before=True)
