"""Finds searches for the learning rate, and what runs reach at each rate.

Runs that differ in nothing but the learning rate make a line.
"""

import functools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from bn_jax.report.results import conditions, curves, optimizers, seeds
from bn_jax.storage import run_folder

_FEWEST = 2  # rates of a line
# Keys that tell two lines from each other although a run may change them.
_TELLING = ('steps', 'on_nonfinite', 'max_skips')
_RATE = 'schedule.learning_rate'


class Line(NamedTuple):
  """Runs of one working directory that differ in the learning rate alone."""

  label: str  # their norm, and what tells them from other lines of that norm
  # (learning rate, run), by growing rate; one run a rate.
  points: tuple[tuple[float, curves.Run], ...]


class Quantity(NamedTuple):
  """What is read off a seed that has ended."""

  name: str  # 'steps', 'accuracy' or 'loss'
  label: str  # of an axis
  # Inf if the seed fails, nan where it is unknown.
  read: Callable[[curves.Seed], float]
  failing: str  # the word for a seed that fails: 'never' or 'diverged'
  highest: bool = False  # whether a higher number is a better one


class Point(NamedTuple):
  """What the seeds of a line reach at one learning rate."""

  rate: float  # the learning rate
  # Over the seeds, geometric but for accuracy; nan if one of them fails.
  mean: float
  failing: int  # how many seeds fail
  seeds: int  # how many have ended


def lines(runs: Sequence[curves.Run]) -> list[Line]:
  """Returns lines of two learning rates or more, in the order of the runs."""
  by_rate_of = {}  # all facts but the rate -> {rate: run}
  for run in runs:
    facts = json.dumps(_facts(run), sort_keys=True)
    by_rate = by_rate_of.setdefault(facts, {})
    rate = optimizers.rate(run.config)
    if rate and rate > 0:  # others have no place on a logarithmic axis
      by_rate.setdefault(rate, run)
  searches = [
    tuple(sorted(by_rate.items(), key=lambda item: item[0]))
    for by_rate in by_rate_of.values()
    if len(by_rate) >= _FEWEST
  ]
  all_facts = [_facts(search[0][1]) for search in searches]
  return [
    Line(_label(facts, all_facts), search)
    for facts, search in zip(all_facts, searches)
  ]


def quantities(all_lines: Sequence[Line]) -> list[Quantity]:
  """Returns what some line has recorded: loss only of runs without accuracy."""
  level = _level(all_lines)
  every = (
    _steps_to(level),
    Quantity(
      'accuracy', 'Training accuracy', _final('accuracy'), 'diverged', True
    ),
    Quantity(
      'loss', 'Training loss', _final('data_loss', unless='accuracy'),
      'diverged',
    ),
  )  # fmt: skip
  return [q for q in every if any(points(line, q) for line in all_lines)]


def points(line: Line, quantity: Quantity) -> list[Point]:
  """Returns the points of a line at the rates where some seed is known."""
  points_of_line = []
  for rate, run in line.points:
    values = map(quantity.read, filter(curves.has_ended, run.seeds))
    values = [value for value in values if not math.isnan(value)]
    failing = sum(map(math.isinf, values))
    mean = math.nan
    if values and not failing:
      # A mean over seeds is that of lines: here of one point each, at step 0.
      each = [([0], [value]) for value in values]
      mean = float(seeds.mean(each, not quantity.highest).mean[0])
    if values:
      points_of_line.append(Point(rate, mean, failing, len(values)))
  return points_of_line


def best(candidates: Sequence[Point], quantity: Quantity) -> Point | None:
  """Returns the point with the best mean, of those at which no seed fails."""
  sign = -1 if quantity.highest else 1
  finite = [point for point in candidates if not point.failing]
  return min(finite, key=lambda point: sign * point.mean, default=None)


def _facts(run: curves.Run) -> dict[str, Any]:
  """Returns 'model.width' -> value, of all keys that make two lines differ."""
  config = {
    key: value
    for key, value in run.config.items()
    if key in _TELLING or key not in run_folder.MAY_CHANGE
  }
  facts = {'in': run.workdir, **dict(conditions.flat(config))}
  facts['norm.name'] = conditions.norm(run.seeds[0])
  facts.pop(_RATE, None)
  return facts


def _label(facts: Mapping, all_facts: Sequence[Mapping]) -> str:
  """Returns 'batch', or 'batch, model.width 0.5' beside another 'batch'."""
  norm = facts['norm.name']
  rivals = [other for other in all_facts if other['norm.name'] == norm]
  keys = dict.fromkeys(key for other in rivals for key in other)
  differ = [
    key
    for key in keys
    if key in facts and any(other.get(key) != facts[key] for other in rivals)
  ]
  return ', '.join([norm, *(f'{key} {facts[key]}' for key in differ)])


def _steps_to(level: float) -> Quantity:
  return Quantity(
    'steps',
    f'Steps to {100 * level:.0f} % training accuracy',
    functools.partial(curves.steps_to, accuracy=level),
    'never',
  )


def _final(value: str, unless: str = '') -> Callable[[curves.Seed], float]:
  """Returns a reader of the last 20 batches: inf of a seed that diverged.

  nan if `value` is not recorded, or if `unless` is.
  """

  def read(seed: curves.Seed) -> float:
    recorded = [curves.recorded(seed, 'train', v) for v in (value, unless)]
    if recorded != [True, False]:
      return math.nan
    if curves.has_diverged(seed):
      return math.inf
    return curves.final_of_training(seed, value)

  return read


def _level(all_lines: Sequence[Line]) -> float:
  """Returns the highest level that all lines reach, or else some line.

  A line reaches it if at some rate every seed does.
  """

  def reaches(line, level) -> bool:
    return any(not point.failing for point in points(line, _steps_to(level)))

  for enough in (all, any):
    for level in curves.LEVELS:
      if all_lines and enough(reaches(line, level) for line in all_lines):
        return level
  return curves.LEVELS[0]
