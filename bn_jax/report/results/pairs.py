"""Compares two runs seed by seed: what both have of a seed is a pair.

Runs with one seed begin with the same weights and see the same batches, so that
what chance does to both drops out of their difference.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from bn_jax.report.results import curves


class Interval(NamedTuple):
  """A mean over pairs of seeds, with the ends of its 95 % interval."""

  mean: float
  low: float
  high: float


def interval(numbers: Sequence[float], ratio: bool = False) -> Interval:
  """Returns the mean and its 95 % interval (Student's t).

  Args:
    numbers: finite, one a pair; equal ones, or one alone, have no interval.
    ratio: whether they are ratios, above 0: the mean is then geometric, and the
      interval that of the logarithms.
  """
  if len(set(numbers)) == 1:
    return Interval(*[numbers[0]] * 3)
  if ratio:
    return Interval(*map(math.exp, interval(list(np.log(numbers)))))
  mean, half = curves.mean_and_interval(numbers)
  return Interval(mean, mean - half, mean + half)


def compared(
  run: Mapping[int, float], base: Mapping[int, float], ratio: bool = False
) -> tuple[Interval, int] | None:
  """Returns how a run differs from a base, over their common seeds.

  Args:
    run, base: seed -> number.
    ratio: whether run / base is taken, of numbers above 0; else run - base.

  Returns:
    The interval and the number of seeds; None for fewer than two, where there
    is no interval, and where one of the numbers is infinite: never reached.
  """
  common = [
    (run[seed], base[seed])
    for seed in sorted(run.keys() & base.keys())
    if not math.isnan(run[seed] + base[seed])
  ]
  if len(common) < 2 or not np.isfinite(common).all():
    return None
  numbers = [a / b if ratio else a - b for a, b in common]
  return interval(numbers, ratio), len(numbers)
