"""Statistics of training batches and evaluations, a number a seed."""

import math

import numpy as np

from bn_jax.report.results import curves


def steps_to_accuracy(seed: curves.Seed, *, accuracy: float) -> float:
  """First step whose last 20 batches have this mean accuracy; inf: never."""
  return curves.steps_to(seed, accuracy)


def final_accuracy(seed: curves.Seed) -> float:
  """Mean accuracy of the last 20 training batches, in [0, 1].

  Of one that diverged before it had so many, of all that it had.
  """
  return _final(seed, 'accuracy')


def final_loss(seed: curves.Seed) -> float:
  """Mean loss of the last 20 training batches, without the penalty.

  Of one that diverged before it had so many, of all that it had.
  """
  return _final(seed, 'data_loss')


def last_of(seed: curves.Seed, *, measure: str, value: str) -> float:
  """What a measure recorded last."""
  return curves.last(seed, measure, value)


def steps_to_test_accuracy(
  seed: curves.Seed, *, measure: str, accuracy: float
) -> float:
  """The step of the first evaluation with this accuracy; inf: never."""
  if not curves.recorded(seed, measure, 'accuracy'):
    return math.nan
  series = seed.series[measure]
  reached = np.flatnonzero(series.values['accuracy'] >= accuracy - 1e-9)
  return float(series.step[reached[0]]) if len(reached) else math.inf


def value_at(
  seed: curves.Seed, *, measure: str, value: str, step: int
) -> float:
  """What a measure recorded at one step."""
  if not curves.recorded(seed, measure, value):
    return math.nan
  series = seed.series[measure]
  place = np.flatnonzero(series.step == step)
  return float(series.values[value][place[0]]) if len(place) else math.nan


def diverged(seed: curves.Seed) -> float:
  """1 if the objective became infinite or nan, else 0."""
  return float(seed.manifest['status'] == 'diverged')


def _final(seed: curves.Seed, value: str) -> float:
  mean = curves.final_of_training(seed, value)
  train = seed.series.get('train')
  if not math.isnan(mean) or not diverged(seed) or train is None:
    return mean
  if value not in train.values:
    return math.nan
  _, value_T = curves.without_skipped(train, value)
  finite_T = value_T[np.isfinite(value_T)]
  return float(finite_T.mean()) if len(finite_T) else math.nan
