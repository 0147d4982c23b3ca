"""Computes the statistics that a claim may be about: numbers of a run and seed.

`name` is that of a measure's entry in the config, `value` the name of a
quantity v that it records; nan: not recorded, or nothing that can be compared.
At a look along the gradient v has a number for each step size e (Santurkar et
al., 2018, section 3.1); its band is from the smallest to the largest of these.
"Reduced": over the looks from step `after` on, by
`reductions.REDUCTIONS[reduce]`.
"""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bn_jax import errors
from bn_jax.report.results import (
  curves,
  looks,
  optimizers,
  reductions,
  within_run,
)
from bn_jax.storage import records

OfLooks = reductions.OfLooks

# Numbers of steps. In these alone inf is a result, "never reached".
STEPS = ('steps_to_accuracy', 'steps_to_test_accuracy')

# Relative: step sizes are recorded in float32, and rounding moves them by 1e-7;
# two step sizes of one look differ by far more than this.
_NEAR = 1e-3
_LONGEST = 60  # characters of a value in a message
_ROUNDING = 1e-9  # of an accuracy: far less than one example of a test set


def final_accuracy(seed: curves.Seed) -> float:
  """Returns the mean accuracy of the last 20 training batches, in [0, 1].

  Of a run that diverged, if that mean is nan: the mean of all finite values.
  """
  return _final(seed, 'accuracy')


def final_loss(seed: curves.Seed) -> float:
  """Returns `final_accuracy` of the data loss, which has no penalty."""
  return _final(seed, 'data_loss')


def steps_to_test_accuracy(
  seed: curves.Seed, *, name: str, accuracy: float
) -> float:
  """Returns the first step at which `name` has this accuracy; inf: never."""
  found = curves.values(seed, name, 'accuracy')
  if found is None:
    return math.nan
  step_T, accuracy_T = found
  rows = np.flatnonzero(accuracy_T >= accuracy - _ROUNDING)
  return float(step_T[rows[0]]) if len(rows) else math.inf


def value_at(seed: curves.Seed, *, name: str, value: str, step: int) -> float:
  """Returns the quantity at one step; nan without a look there."""
  step_T, values_T = curves.values(seed, name, value) or ([], [])
  return float({step: math.nan, **dict(zip(step_T, values_T))}[step])


def diverged(seed: curves.Seed) -> float:
  """Returns 1 if the objective became infinite or nan, else 0."""
  return float(curves.has_diverged(seed))


def _final(seed: curves.Seed, value: str) -> float:
  mean = curves.final_of_training(seed, value)
  if not math.isnan(mean) or not diverged(seed):
    return mean
  _, value_T = curves.trained(seed, value) or ((), np.zeros(0))
  finite_T = value_T[np.isfinite(value_T)]
  return float(finite_T.mean()) if len(finite_T) else math.nan


@reductions.reduced
def band_width(seed: curves.Seed, *, name: str, value: str) -> OfLooks:
  """Returns max_e v - min_e v at each look, reduced."""
  return curves.values(seed, name, value, curves.width)


@reductions.reduced
def upper_edge(seed: curves.Seed, *, name: str, value: str) -> OfLooks:
  """Returns max_e v at each look, reduced."""
  return curves.values(seed, name, value, curves.upper)


def beta_of_rate(
  seed: curves.Seed, *, name: str, reduce: str, after: int = 0
) -> float:
  """Returns max_e beta at each look, reduced, times (learning rate) / 2.

  1 is the edge of stability: beta = 2 / (learning rate). With momentum it is
  another number than 2, see `optimizers.edge`; nan where it is not defined.
  """
  beta = upper_edge(seed, name=name, value='beta', reduce=reduce, after=after)
  return within_run.by_edge(seed, beta)


def curvature_of_rate(
  seed: curves.Seed, *, name: str, reduce: str, after: int = 0
) -> float:
  """Returns d'Hd / |d|^2, reduced, times (learning rate) / 2.

  H is the Hessian of the loss, d the direction along which the entry looks. It
  is `of_edge` of the curvature (Cohen et al., 2021, arXiv:2103.00065).
  """
  keywords = {'name': name, 'reduce': reduce, 'after': after}
  return within_run.of_edge(seed, value='curvature', **keywords)


@reductions.reduced
def at_factor(
  seed: curves.Seed, *, name: str, value: str, factor: float
) -> OfLooks:
  """Returns v at the step size `factor` * (learning rate), reduced."""
  return _at(seed, name, value, factor)


@reductions.reduced
def growth(
  seed: curves.Seed, *, name: str, value: str, factors: Sequence[float]
) -> OfLooks:
  """Returns v(b) / v(a), reduced; `factors` (a, b) of the learning rate."""
  both = [_at(seed, name, value, factor) for factor in factors]
  if None in both:
    return None
  (step_T, a_T), (_, b_T) = both
  return step_T, b_T / a_T


@reductions.reduced
def of_measure(seed: curves.Seed, *, name: str, value: str) -> OfLooks:
  """Returns a quantity that is one number a look, reduced."""
  return curves.values(seed, name, value)


@reductions.reduced
def of_layer(
  seed: curves.Seed, *, name: str, value: str, layer: str
) -> OfLooks:
  """Returns a quantity of a layer that is one number a look, reduced."""
  return curves.values(seed, name, f'{layer}/{value}')


def _at(seed: curves.Seed, name: str, value: str, factor: float) -> OfLooks:
  """Returns v at `factor` times the config's rate; nan at looks without it."""
  found = curves.values(seed, name, value)
  if found is None:
    return None
  rate = optimizers.rate(seed.config)
  size = math.nan if rate is None else factor * rate
  step_T, values_TE = found
  sizes_TE = seed.series[name].values['step_size']
  same_TE = np.abs(sizes_TE - size) <= _NEAR * size
  # Not a product with same_TE: elsewhere it may be inf, and 0 * inf is nan.
  value_T = np.where(same_TE, values_TE, 0).sum(axis=1)
  return step_T, np.where(same_TE.sum(axis=1) == 1, value_T, np.nan)


def moment_change(
  seed: curves.Seed, *, name: str, layer: str, reduce: str, moment: str = 'mean'
) -> float:
  """Returns |m(t + 1) - m(t)| between looks, mean over channels, reduced.

  Santurkar et al. (2018), Figure 8(a); `moment` is 'mean' or 'var', of each
  channel.
  """
  step_T, change_T = reductions.changes(seed, name, layer, moment)
  return reductions.over(step_T, change_T, reduce)


@reductions.reduced
def activation_std(seed: curves.Seed, *, name: str, layer: str) -> OfLooks:
  """Returns sqrt(var), mean over channels, at each look, reduced."""
  looks_T = looks.activations(seed, name, layer)
  std_T = [np.sqrt(look.values[f'{layer}/var']).mean() for look in looks_T]
  return [look.step for look in looks_T], std_T


def unit_movement(
  seed: curves.Seed, *, name: str, layer: str, of: str, relative: bool = False
) -> float:
  """Returns how far percentiles of units move in training, mean over units.

  The standard deviation over looks of each unit's 50th percentile (`of` =
  'median'), or of its 85th minus its 15th ('width'; Ioffe and Szegedy, 2015,
  Figure 1(b, c)), in the units of the activations; if `relative`, divided by
  the unit's mean width. Units without a finite result are left out.
  """
  step_T, percentiles_TQC = reductions.percentiles(seed, name, layer)
  if len(step_T) < 2:
    return math.nan
  low_TC, median_TC, high_TC = np.stack(percentiles_TQC, axis=1)
  width_TC = high_TC - low_TC
  movement_C = {'median': median_TC, 'width': width_TC}[of].std(axis=0)
  if relative:
    with np.errstate(divide='ignore', invalid='ignore'):
      movement_C = movement_C / width_TC.mean(axis=0)
  movement_C = movement_C[np.isfinite(movement_C)]
  return float(movement_C.mean()) if len(movement_C) else math.nan


def shape_distance(
  seed: curves.Seed, *, name: str, layer: str, reduce: str
) -> float:
  """Returns W1 of successive looks over the standard deviation, reduced.

  Of all channels together; the deviation is that at the earlier look.
  """
  step_T, distance_T = reductions.distances(seed, name, layer)
  earlier = looks.activations(seed, name, layer)[:-1]
  std_T = np.array([_pooled_std(look, layer) for look in earlier])
  with np.errstate(divide='ignore', invalid='ignore'):
    return reductions.over(step_T, distance_T / std_T, reduce)


def _pooled_std(look: records.Record, layer: str) -> float:
  """Returns the deviation of all channels, which have equally many values."""
  mean_C, var_C = (look.values[f'{layer}/{name}'] for name in ('mean', 'var'))
  return float(np.sqrt(np.mean(var_C) + np.var(mean_C)))


STATISTICS: dict[str, Callable[..., float]] = {
  'last_of': curves.last,
  'steps_to_accuracy': curves.steps_to,
} | {
  statistic.__name__: statistic
  for statistic in (
    activation_std, at_factor, band_width, beta_of_rate, curvature_of_rate,
    diverged, final_accuracy, final_loss, growth, moment_change, of_layer,
    of_measure, shape_distance, steps_to_test_accuracy, unit_movement,
    upper_edge, value_at,
    within_run.at_place, within_run.layer_growth, within_run.of_edge,
    within_run.place_ratio, within_run.plane_share, within_run.quotient,
    within_run.surface_concavity, within_run.surface_height,
  )
}  # fmt: skip


def check(where: str, name: Any, keywords: Any) -> None:
  """Raises ConfigError unless a statistic has this name and these keywords."""
  if not isinstance(name, str) or name not in STATISTICS:
    message = errors.unknown('statistic', name, STATISTICS)
    raise errors.ConfigError(f'{where}: {message}')
  expect(f'{where}.keywords', keywords, A_DICT)
  _, *parameters = inspect.signature(STATISTICS[name]).parameters.values()
  allowed = [parameter.name for parameter in parameters]
  for key in keywords:
    if key not in allowed:
      message = errors.unknown('keyword', key, allowed)
      raise errors.ConfigError(f'{where} ({name}): {message}')
  for parameter in parameters:
    path = f'{where}.keywords.{parameter.name}'
    if parameter.name in keywords:
      wanted = {parameter.name: _A_NAME, **_WANTED}[parameter.name]
      expect(path, keywords[parameter.name], wanted)
    elif parameter.default is inspect.Parameter.empty:
      raise errors.ConfigError(f'{path}: missing; {name} needs it')


def of(name: str, keywords: Mapping[str, Any], seed: curves.Seed) -> float:
  """Returns a statistic of a seed; name and keywords must have passed `check`.

  Infinite numbers, but of STEPS, become nan: they cannot be compared.
  """
  number = STATISTICS[name](seed, **keywords)
  return math.nan if math.isinf(number) and name not in STEPS else number


def words(name: str, keywords: Mapping[str, Any]) -> str:
  """Returns 'band_width(name=landscape, value=loss, reduce=median)'."""
  arguments = ', '.join(f'{key}={value}' for key, value in keywords.items())
  return f'{name}({arguments})'


def is_number(value: Any) -> bool:
  """Returns whether value is a finite int or float; a bool is not."""
  return type(value) in (int, float) and math.isfinite(value)


def are_two(value: Any) -> bool:
  """Returns whether value is a list of two numbers."""
  is_pair = isinstance(value, list) and len(value) == 2
  return is_pair and all(map(is_number, value))


class Wanted(NamedTuple):
  """Which values are right, and what messages call these."""

  is_right: Callable[[Any], bool]
  words: str


def expect(where: str, value: Any, wanted: Wanted) -> None:
  """Raises ConfigError unless a value is what is wanted."""
  if not wanted.is_right(value):
    shown = f'{value!r}'[:_LONGEST]
    raise errors.ConfigError(f'{where}: {shown}; allowed: {wanted.words}')


def at_least(least: int) -> Wanted:
  """Returns what a count may be."""
  return Wanted(
    lambda value: type(value) is int and value >= least,
    ', '.join(map(str, range(least, least + 3))) + ', ...',
  )


def _one_of(*choices: Any) -> Wanted:
  return Wanted(choices.__contains__, ', '.join(map(str, choices)))


A_NUMBER = Wanted(is_number, 'a number')
A_DICT = Wanted(lambda value: isinstance(value, Mapping), 'a dict')
_A_NAME = Wanted(lambda value: isinstance(value, str), 'a name')
# Of keywords that are no names.
_WANTED = {
  'reduce': _one_of(*reductions.REDUCTIONS),
  'moment': _one_of('mean', 'var'),
  'of': _one_of('median', 'width'),
  'relative': _one_of(False, True),
  'toward': _one_of('input', 'output'),
  'factors': Wanted(are_two, 'two numbers'),
  **dict.fromkeys(('accuracy', 'factor', 'step', 'after'), A_NUMBER),
  **dict.fromkeys(('first', 'last', 'place'), at_least(1)),
  **dict.fromkeys(('without_first', 'without_last'), at_least(0)),
}
