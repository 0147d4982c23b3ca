"""Curves of several seeds as one: the mean, with its 95 % interval."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bn_jax.report.drawing import strokes
from bn_jax.report.results import curves


class Mean(NamedTuple):
  """A curve over steps, the mean of several seeds.

  Attributes:
    step: [T].
    mean: [T]; nan where no seed has a finite value.
    low, high: [T], the ends of its 95 % interval; nan for one seed.
  """

  step: np.ndarray
  mean: np.ndarray
  low: np.ndarray
  high: np.ndarray


def draw(axis, lines: Sequence, index: int, logarithmic: bool = False) -> None:
  """Mean over seeds, with its 95 % interval where there are several."""
  if not lines:
    return
  drawn = mean(lines, logarithmic)
  strokes.line(axis, drawn.step, drawn.mean, index)
  shade(axis, drawn, index)


def draw_against(axis, lines: Sequence, index: int) -> None:
  """Geometric means over seeds against what is no step, such as a step size.

  Point i of one seed belongs to point i of the others, whose x may differ.

  Args:
    axis: to draw on.
    lines: (x, y) each, [E]; those of another length than the first are left
      out.
    index: of the run.
  """
  # Sizes may be given in any order, and are 0 where the learning rate was.
  lines = [(np.asarray(x, float), np.asarray(y, float)) for x, y in lines]
  lines = [(x[order], y[order]) for x, y in lines for order in [np.argsort(x)]]
  lines = [(x, y) for x, y in lines if len(x) == len(lines[0][0])]
  if not lines:
    return
  places = range(len(lines[0][0]))
  x = mean([(places, x) for x, _ in lines], logarithmic=True)
  y = mean([(places, y) for _, y in lines], logarithmic=True)
  # What has no place is nothing, and its neighbour then stands alone.
  placed = np.where(np.isfinite(x.mean), y.mean, np.nan)
  drawn = y._replace(step=x.mean, mean=placed)
  strokes.line(axis, drawn.step, drawn.mean, index)
  shade(axis, drawn, index)


def shade(axis, drawn: Mean, index: int) -> None:
  """The 95 % interval of a mean, if it has one."""
  if np.isfinite(drawn.low).any():
    strokes.band(
      axis, drawn.step, drawn.low, drawn.high, index, alpha=0.2, linewidth=0
    )


def mean(lines: Sequence, logarithmic: bool = False) -> Mean:
  """The mean of lines, (steps, values) each, at every step that one has.

  At each step it is over the seeds that have a finite value there: one that
  has diverged takes no part from then on.

  Args:
    lines: at least one.
    logarithmic: the geometric mean instead, and the interval of the
      logarithms, for logarithmic axes; values that are not positive take no
      part.
  """
  found = {}
  for steps, values in lines:
    if logarithmic:
      values = np.log(np.where(np.asarray(values) > 0, values, np.nan))
    for step, value in zip(steps, values):
      found.setdefault(int(step), []).append(value)
  pairs = [
    curves.mean_and_interval(finite)
    if (finite := _finite(found[step]))
    else (np.nan, np.nan)
    for step in sorted(found)
  ]
  mean_T, half_T = np.array(pairs).reshape(-1, 2).T
  ends = mean_T, mean_T - half_T, mean_T + half_T
  ends = map(np.exp, ends) if logarithmic else ends
  return Mean(np.array(sorted(found)), *ends)


def sentence(runs: Sequence[curves.Run], logarithmic: bool = False) -> str:
  """How many seeds a figure rests on, and its means, for its caption."""
  counts = sorted({len(run.seeds) for run in runs})
  if counts == [1]:
    seeds = sorted({run.seeds[0].seed for run in runs})
    return f'One seed ({", ".join(map(str, seeds))}): an illustration.'
  number = ' to '.join(map(str, counts))
  kind = 'geometric means' if logarithmic else 'means'
  words = (
    f'{number} seeds: lines and edges are {kind}, shades their 95 % intervals.'
  )
  if any(
    seed.manifest['status'] != 'done' for run in runs for seed in run.seeds
  ):
    words += ' Where a seed has ended, the others go on.'
  return words


def _finite(values: Sequence[float]) -> list[float]:
  return [value for value in values if np.isfinite(value)]
