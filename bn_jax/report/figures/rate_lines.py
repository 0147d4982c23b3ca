"""Runs that differ in nothing but the learning rate, found among others."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from bn_jax.report.results import curves

_FEWEST = 3  # rates of a line: two are no search
# What is no difference: what is measured, and where and how it is run.
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


def among(runs: Sequence[curves.Run]) -> list[Line]:
  """All lines of three learning rates or more, in the order of the runs."""
  alike = {}
  for run in runs:
    rate = run.config['schedule']['learning_rate']
    found = alike.setdefault(json.dumps(_facts(run), sort_keys=True), {})
    if rate > 0:  # others have no place on a logarithmic axis
      found.setdefault(float(rate), run)
  found = [
    tuple(sorted(by_rate.items(), key=lambda point: point[0]))
    for by_rate in alike.values()
    if len(by_rate) >= _FEWEST
  ]
  facts = [_facts(points[0][1]) for points in found]
  return [Line(_label(one, facts), p) for one, p in zip(facts, found)]


def _facts(run: curves.Run) -> dict[str, Any]:
  """What a run was trained with, but for its rate: 'model.width' -> value."""
  config = {k: v for k, v in run.config.items() if k not in _NO_MATTER}
  found = {'in': run.name.rpartition('/')[0], **dict(_flat(config))}
  found.pop(_RATE, None)
  return found


def _flat(section: Mapping[str, Any], above: str = '') -> Iterator:
  for key, value in section.items():
    if isinstance(value, dict):
      yield from _flat(value, f'{above}{key}.')
    else:
      yield above + key, value


def _label(one: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]) -> str:
  """'batch', or 'batch, model.width 0.5' if there is another 'batch'."""
  norm = one['norm.name']
  others = [line for line in lines if line['norm.name'] == norm]
  keys = dict.fromkeys(key for line in others for key in line)
  differ = [
    key
    for key in keys
    if key in one and any(line.get(key) != one[key] for line in others)
  ]
  return ', '.join([norm, *(f'{key} {one[key]}' for key in differ)])
