"""What a normalization is to a model; and none, which is the identity."""

import functools
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from flax import linen as nn

from bn_jax import placement

STATISTICS = ('batch', 'running')


def naming_statistics(call: Callable[..., Any]) -> Callable[..., Any]:
  """Wraps a call with the keyword `statistics`: checks it, before anything.

  For this version alone, its old name `mode` is taken too, with a warning.

  Raises:
    ValueError: anything but 'batch' or 'running'.
  """

  @functools.wraps(call)
  def checked(*arguments, statistics=None, mode=None, **keywords):
    if mode is not None:
      warnings.warn(
        f'mode={mode!r} is called statistics={mode!r}; the old name goes with '
        'the next version',
        FutureWarning,
        stacklevel=2,
      )
      statistics = mode
    if statistics not in STATISTICS:
      raise ValueError(
        f'statistics is {statistics!r}; allowed: '
        f'{", ".join(map(repr, STATISTICS))}'
      )
    return call(*arguments, statistics=statistics, **keywords)

  return checked


def plainly(layer: nn.Module, name: str) -> Callable[..., jax.Array]:
  """The layer with its kernel as it is."""
  del name

  @naming_statistics
  def apply(x: jax.Array, *, statistics: str) -> jax.Array:
    del statistics  # a plain kernel has none
    return layer(x)

  return apply


class Norm(NamedTuple):
  """A normalization, as a model takes it.

  Attributes:
    layer: name -> the module that acts on activations, before the
      nonlinearity: `layer(name)(x, statistics=..., mask=..., first=...)`. It is
      there even where it does nothing, so that the input to the nonlinearity
      has one path in every network.
    bias_before: whether a bias of the layer before it makes sense.
    weighted: (layer with a parameter 'kernel', name) -> the same layer with its
      kernel normalised: `weighted(conv, name)(x, statistics=...)`.
    frozen: whether the layers' scale, bias and statistics stay as they are: no
      gradient comes to them, and no batch moves them. Whoever changes
      parameters by something else, such as weight decay, has to see to it.
  """

  layer: Callable[[str], nn.Module]
  bias_before: bool
  weighted: Callable[[nn.Module, str], Callable[..., jax.Array]] = plainly
  frozen: bool = False


class Identity(nn.Module):
  """x, unchanged; without parameters and without statistics."""

  @naming_statistics
  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    *,
    statistics: str,
    mask: jax.Array | None = None,
    first: jax.Array | int = 0,
  ) -> jax.Array:
    """Returns x."""
    del statistics, mask, first  # an identity asks nothing about examples
    return x


def none(*, spread: placement.Spread = placement.ALONE) -> Norm:
  """No normalization, for a model: the paper's standard network."""
  del spread  # nothing is computed over examples
  return Norm(layer=lambda name: Identity(name=name), bias_before=True)
