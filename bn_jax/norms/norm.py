"""Defines what a model takes as its norm, and the norm that does nothing."""

import functools
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from flax import linen as nn

from bn_jax import placement

# Those of the batch; or those in batch_stats: running averages, or the
# population's in their place.
STATISTICS = ('batch', 'running')


def naming_statistics(call: Callable[..., Any]) -> Callable[..., Any]:
  """Wraps a call so that its keyword `statistics` is checked first.

  In this version its old name `mode` works too, with a warning.

  Raises:
    ValueError: statistics other than 'batch' or 'running'.
  """

  @functools.wraps(call)
  def checked(*arguments, statistics=None, mode=None, **keywords):
    if mode is not None and statistics is not None:
      raise ValueError(
        f'statistics={statistics!r} and mode={mode!r} are given; mode is the '
        'old name of statistics: give statistics alone'
      )
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
  """Returns a call of the layer that leaves its kernel as it is."""
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
      a module even if it does nothing, so that the input to the nonlinearity
      has the same path in every network.
    bias_before: whether the layer before the norm has a bias. Where the norm
      subtracts a mean, a bias would have no effect.
    weighted: (layer with a parameter 'kernel', name) -> the same layer with its
      kernel normalised: `weighted(conv, name)(x, statistics=...)`.
    frozen: whether scale, bias and statistics stay as they are: the gradients
      of scale and bias are zero, and no batch changes the statistics. Weight
      decay would still change scale and bias; who adds it leaves them out.
  """

  layer: Callable[[str], nn.Module]
  bias_before: bool
  weighted: Callable[[nn.Module, str], Callable[..., jax.Array]] = plainly
  frozen: bool = False


class Identity(nn.Module):
  """The identity as a module, without parameters and statistics."""

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
    del statistics, mask, first  # x stays as it is
    return x


def none(*, spread: placement.Spread = placement.ALONE) -> Norm:
  """Returns the norm that does nothing: the 2018 paper's standard network."""
  del spread  # nothing is computed over examples
  return Norm(layer=lambda name: Identity(name=name), bias_before=True)
