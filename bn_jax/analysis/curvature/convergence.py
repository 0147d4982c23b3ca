"""Says when the outermost values of a Krylov space are those of an operator.

A small residual alone does not: a vector of a few dimensions in a space of many
looks converged too soon. An eigenvalue x beyond all values t_j of the space has
a share in the start vector of at most

  prod_j beta_j / prod_j |x - t_j|

since with a larger one its share in the next vector of the basis would exceed
1. A random vector has less than that only so often: Van Dorsselaer,
Hochstenbach and Van der Vorst (2000), "Computing probabilistic bounds for
extreme eigenvalues of symmetric matrices with the Lanczos method".

Everything here takes NumPy or jax.numpy as `xp`: it is asked on the host and
inside of programs.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp

# Residuals of products stall at so many units of rounding times the largest
# eigenvalue: in float32 at 2 to 5 for perceptrons with Batch Normalization of
# 714 and 9,098 parameters, at 41 to 53 for a VGG-11 of an eighth of its width.
_ROUNDING = 64
# How often an eigenvalue may be missed, and how far out it is then, in units of
# the largest |value|. Closer ones are separated by the residual alone.
_RISK, _BEYOND = 0.01, 0.1


class Goal(NamedTuple):
  """What a search is for.

  Attributes:
    count: values at each end.
    ends: of 'largest' and 'smallest'.
    tolerance: of residuals.
    one_will_do: whether one beginning is enough.
  """

  count: int  # pyright: ignore[reportIncompatibleMethodOverride]  # nobody counts in it
  ends: tuple[str, ...]
  tolerance: float
  one_will_do: bool


def least_tolerance(dtype: jnp.dtype) -> float:
  """Returns the smallest tolerance that products of a dtype allow."""
  return _ROUNDING * float(jnp.finfo(dtype).eps)


def scales(goal: Goal, top: Any, largest: Any, least: float, xp: Any) -> dict:
  """Returns end -> the largest residual of a pair that has converged.

  Args:
    top: the largest value.
    largest: the largest |value|.
    least: the smallest tolerance.
  """
  sizes = {'largest': xp.abs(top), 'smallest': largest}
  return {
    end: xp.maximum(goal.tolerance * sizes[end], least * largest)
    for end in goal.ends
  }


def aims(scales: Mapping, largest: Any, least: float, xp: Any) -> dict:
  """Returns scales without what rounding adds to residuals: half, if more."""
  rounding = least * largest
  return {
    end: xp.maximum(scale / 2, xp.sqrt(xp.maximum(scale**2 - rounding**2, 0)))
    for end, scale in scales.items()
  }


def beyond(goal: Goal, values: Any, largest: Any) -> list:
  """Returns what an eigenvalue would be that should not be missed.

  Args:
    values: in increasing order.
  """
  ends = {
    'largest': values[-1] + _BEYOND * largest,
    'smallest': values[0] - _BEYOND * largest,
  }
  return [ends[end] for end in goal.ends]


def is_likely(rests: Any, distances: Any, size: int, xp: Any) -> Any:
  """Returns whether an eigenvalue may well have been missed.

  Args:
    rests: beta_j of all steps.
    distances: from the eigenvalue to each value of the space.
    size: dimensions of the operator: a random start has a share below s in an
      eigenvector with a probability of about s * sqrt(2 size / pi).
  """
  share = xp.sum(xp.log(rests)) - xp.sum(xp.log(distances))
  return share + math.log(2 * size / math.pi) / 2 > math.log(_RISK)
