"""What runs reach at each learning rate, and at which they reach most."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from bn_jax.report.claims import ordering
from bn_jax.report.drawing import strokes
from bn_jax.report.figures import rate_lines
from bn_jax.report.results import curves


class Quantity(NamedTuple):
  """What is read off a seed that has ended.

  Attributes:
    name: 'steps', 'accuracy' or 'loss'.
    label: of an axis.
    read: inf if the seed fails, nan where it is unknown.
    failing: what a seed does that fails.
  """

  name: str
  label: str
  read: Callable[[curves.Seed], float]
  failing: str

  @property
  def highest(self) -> bool:
    """Whether the best is the highest."""
    return self.name == 'accuracy'


class Point(NamedTuple):
  """A learning rate.

  Attributes:
    rate: the number.
    mean: over the seeds, geometric but for accuracy; nan if one of them fails.
    low, high: the ends of its 95 % interval; nan for one seed.
    failing: how many seeds do.
    seeds: how many there are.
  """

  rate: float
  mean: float
  low: float
  high: float
  failing: int
  seeds: int


def quantities(lines: Sequence[rate_lines.Line]) -> list[Quantity]:
  """Those of which some line has something: loss where it has no accuracy."""
  level = _level(lines)
  known = (
    _steps_to(level),
    Quantity('accuracy', 'Training accuracy', _final('accuracy'), 'diverged'),
    Quantity(
      'loss', 'Training loss a batch', _final('data_loss', unless='accuracy'),
      'diverged',
    ),
  )  # fmt: skip
  return [
    quantity for quantity in known if any(of(line, quantity) for line in lines)
  ]


def of(line: rate_lines.Line, quantity: Quantity) -> list[Point]:
  """The rates of a line of which something is known."""
  found = []
  for rate, run in line.points:
    values = [
      quantity.read(seed) for seed in run.seeds if curves.has_ended(seed)
    ]
    values = [value for value in values if not math.isnan(value)]
    failing = sum(map(math.isinf, values))
    ends = math.nan, math.nan, math.nan
    if values and not failing:
      # All seeds at one place, as if it were a step.
      lines = [([0], [value]) for value in values]
      mean = strokes.mean(lines, logarithmic=not quantity.highest)
      ends = tuple(float(end[0]) for end in mean[1:])
    if values:
      found.append(Point(rate, *ends, failing, len(values)))
  return found


def best(points: Sequence[Point], quantity: Quantity) -> Point | None:
  """The best mean, of rates at which no seed fails."""
  sign = -1 if quantity.highest else 1
  finite = [point for point in points if not point.failing]
  return min(finite, key=lambda point: sign * point.mean, default=None)


def _steps_to(level: float) -> Quantity:
  return Quantity(
    'steps',
    f'Steps to {100 * level:.0f} % of training batches',
    functools.partial(curves.steps_to, accuracy=level),
    'never',
  )


def _final(value: str, unless: str = '') -> Callable[[curves.Seed], float]:
  """Reads the mean over the last 20 batches; a seed that diverged fails."""

  def read(seed: curves.Seed) -> float:
    train = seed.series.get('train')
    recorded = () if train is None else train.values
    if value not in recorded or unless in recorded:
      return math.nan
    if seed.manifest['status'] == 'diverged':
      return math.inf
    return curves.final_of_training(seed, value)

  return read


def _level(lines: Sequence[rate_lines.Line]) -> float:
  """The highest that all lines reach at some rate in every seed, or some do."""

  def reaches(line, level) -> bool:
    return any(not point.failing for point in of(line, _steps_to(level)))

  for enough in (all, any):
    for level in ordering.LEVELS:
      if lines and enough(reaches(line, level) for line in lines):
        return level
  return ordering.LEVELS[0]
