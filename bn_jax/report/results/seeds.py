"""Takes the mean over seeds, and says how far it can be trusted.

The one place where that stands: figures, tables and the page's script have
these numbers. Up to four seeds are shown as lines of their own, for an interval
of so few is wider than what it is to tell; from five on the interval is the
95 % one of Student.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bn_jax.report.results import curves

FEWEST = 5  # seeds of an interval that is drawn
# Ranges that a quantity cannot leave: an interval of few seeds may.
SHARE = (0.0, 1.0)
COSINE = (-1.0, 1.0)
SIZE = (0.0, np.inf)
Range = tuple[float, float]


class Mean(NamedTuple):
  """A curve, the mean of several seeds."""

  x: np.ndarray  # [T]
  mean: np.ndarray  # [T]; nan where no seed has a finite value
  # [T] each, the ends of its 95 % interval; nan for one seed.
  low: np.ndarray
  high: np.ndarray


def mean(
  lines: Sequence, logarithmic: bool = False, within: Range | None = None
) -> Mean:
  """Returns the mean over seeds, at every x that one of them has.

  It is over the finite values there: a seed that has diverged takes no part
  from then on.

  Args:
    lines: (x, values), [T] each, of each seed, at least one.
    logarithmic: the geometric mean instead, and the interval of the
      logarithms, for logarithmic axes; only positive values take part.
    within: what the quantity cannot leave; the interval ends there.
  """
  x_T = np.unique(np.concatenate([np.asarray(x, float) for x, _ in lines]))
  values_ST = np.full((len(lines), len(x_T)), np.nan)
  for row, (x, values) in zip(values_ST, lines):
    row[np.searchsorted(x_T, x)] = values
  if logarithmic:
    values_ST = np.log(np.where(values_ST > 0, values_ST, np.nan))
  ends = curves.means_and_intervals(values_ST)
  mean_T, half_T = ends
  ends = mean_T, mean_T - half_T, mean_T + half_T
  ends = tuple(map(np.exp, ends)) if logarithmic else ends
  if within is not None:
    ends = ends[0], *(np.clip(end, *within) for end in ends[1:])
  return Mean(x_T, *ends)


def paired(
  lines: Sequence, logarithmic: bool = True, within: Range | None = None
) -> Mean | None:
  """Returns the mean of points that belong together by their order.

  Point i of one seed belongs to point i of the others, whose x may differ, by
  growing x; the x of a mean is the geometric mean of theirs. Lines of another
  length than the first are left out; None without lines.
  """
  lines = [(np.asarray(x, float), np.asarray(y, float)) for x, y in lines]
  lines = [(x[order], y[order]) for x, y in lines for order in [np.argsort(x)]]
  lines = [(x, y) for x, y in lines if len(x) == len(lines[0][0])]
  if not lines:
    return None
  indices = range(len(lines[0][0]))
  x = mean([(indices, x) for x, _ in lines], logarithmic=True).mean
  result = mean([(indices, y) for _, y in lines], logarithmic, within)
  return Mean(x, *(np.where(np.isfinite(x), end, np.nan) for end in result[1:]))


def shows_interval(count: int) -> bool:
  """Returns whether a mean over so many seeds is drawn with its interval."""
  return count >= FEWEST
