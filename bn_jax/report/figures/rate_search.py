"""Finds searches for the learning rate, and what runs reach at each rate.

Runs that differ in nothing but the learning rate are a line.
"""

import functools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from bn_jax.report.drawing import strokes
from bn_jax.report.results import curves

_FEWEST = 3  # rates of a line: two are no search
# Keys that change no result of training: what is measured, and where it is run.
_NO_MATTER = (
  'measures', 'log_every_steps', 'checkpoint', 'evaluation_batch_size',
  'layout', 'devices', 'shard_state', 'remat', 'data_dir',
)  # fmt: skip
_RATE = 'schedule.learning_rate'


class Line(NamedTuple):
  """Runs of one working directory that differ in the learning rate alone.

  Attributes:
    label: their norm, and what tells them from other lines of that norm.
    points: (learning rate, run), by growing rate; one run a rate.
  """

  label: str
  points: tuple[tuple[float, curves.Run], ...]


class Quantity(NamedTuple):
  """What is read off a seed that has ended.

  Attributes:
    name: 'steps', 'accuracy' or 'loss'.
    label: of an axis.
    read: inf if the seed fails, nan where it is unknown.
    failing: the word for a seed that fails: 'never' or 'diverged'.
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
  """What the seeds of a line reach at one learning rate.

  Attributes:
    rate: the learning rate.
    mean: over the seeds, geometric but for accuracy; nan if one of them fails.
    low, high: the ends of its 95 % interval; nan for one seed.
    failing: how many seeds fail.
    seeds: how many have ended.
  """

  rate: float
  mean: float
  low: float
  high: float
  failing: int
  seeds: int


def lines(runs: Sequence[curves.Run]) -> list[Line]:
  """Returns lines of three learning rates or more, in the order of the runs."""
  by_rate_of = {}  # all facts but the rate -> {rate: run}
  for run in runs:
    facts = json.dumps(_facts(run), sort_keys=True)
    by_rate = by_rate_of.setdefault(facts, {})
    rate = float(run.config['schedule']['learning_rate'])
    if rate > 0:  # others have no place on a logarithmic axis
      by_rate.setdefault(rate, run)
  searches = [
    tuple(sorted(by_rate.items(), key=lambda point: point[0]))
    for by_rate in by_rate_of.values()
    if len(by_rate) >= _FEWEST
  ]
  facts = [_facts(points[0][1]) for points in searches]
  return [Line(_label(one, facts), p) for one, p in zip(facts, searches)]


def quantities(lines: Sequence[Line]) -> list[Quantity]:
  """Returns what some line has: loss where it has no accuracy."""
  level = _level(lines)
  every = (
    _steps_to(level),
    Quantity('accuracy', 'Training accuracy', _final('accuracy'), 'diverged'),
    Quantity(
      'loss', 'Training loss', _final('data_loss', unless='accuracy'),
      'diverged',
    ),
  )  # fmt: skip
  return [one for one in every if any(points(line, one) for line in lines)]


def points(line: Line, quantity: Quantity) -> list[Point]:
  """Returns the rates of a line of which something is known."""
  points = []
  for rate, run in line.points:
    values = [
      quantity.read(seed) for seed in run.seeds if curves.has_ended(seed)
    ]
    values = [value for value in values if not math.isnan(value)]
    failing = sum(map(math.isinf, values))
    ends = math.nan, math.nan, math.nan
    if values and not failing:
      # A mean over seeds is that of lines: here of one point each, at step 0.
      each = [([0], [value]) for value in values]
      mean = strokes.mean(each, logarithmic=not quantity.highest)
      ends = tuple(float(end[0]) for end in mean[1:])
    if values:
      points.append(Point(rate, *ends, failing, len(values)))
  return points


def best(points: Sequence[Point], quantity: Quantity) -> Point | None:
  """Returns the best mean, of rates at which no seed fails."""
  sign = -1 if quantity.highest else 1
  finite = [point for point in points if not point.failing]
  return min(finite, key=lambda point: sign * point.mean, default=None)


def _facts(run: curves.Run) -> dict[str, Any]:
  """Returns 'model.width' -> value, of all keys but the learning rate."""
  config = {k: v for k, v in run.config.items() if k not in _NO_MATTER}
  facts = {'in': run.workdir, **dict(_flat(config))}
  facts.pop(_RATE, None)
  return facts


def _flat(section: Mapping[str, Any], above: str = '') -> Iterator:
  for key, value in section.items():
    if isinstance(value, dict):
      yield from _flat(value, f'{above}{key}.')
    else:
      yield above + key, value


def _label(one: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]) -> str:
  """Returns 'batch', or 'batch, model.width 0.5' beside another 'batch'."""
  norm = one['norm.name']
  others = [line for line in lines if line['norm.name'] == norm]
  keys = dict.fromkeys(key for line in others for key in line)
  differ = [
    key
    for key in keys
    if key in one and any(line.get(key) != one[key] for line in others)
  ]
  return ', '.join([norm, *(f'{key} {one[key]}' for key in differ)])


def _steps_to(level: float) -> Quantity:
  return Quantity(
    'steps',
    f'Steps to {100 * level:.0f} % training accuracy',
    functools.partial(curves.steps_to, accuracy=level),
    'never',
  )


def _final(value: str, unless: str = '') -> Callable[[curves.Seed], float]:
  """Returns a reader of the last 20 batches; a seed that diverged fails."""

  def read(seed: curves.Seed) -> float:
    recorded = [curves.recorded(seed, 'train', one) for one in (value, unless)]
    if recorded != [True, False]:
      return math.nan
    if seed.manifest['status'] == 'diverged':
      return math.inf
    return curves.final_of_training(seed, value)

  return read


def _level(lines: Sequence[Line]) -> float:
  """Returns the highest level that all lines reach, or else some line.

  A line reaches it if at some rate every seed does.
  """

  def reaches(line, level) -> bool:
    return any(not point.failing for point in points(line, _steps_to(level)))

  for enough in (all, any):
    for level in curves.LEVELS:
      if lines and enough(reaches(line, level) for line in lines):
        return level
  return curves.LEVELS[0]
