"""Holds the records of runs as curves, and reduces them to numbers."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bn_jax.storage import records

# Batches of the mean by which steps to an accuracy are counted: that of one
# batch of 128 jumps by several percent. More are smoother, and lag behind.
WINDOW = 20
# Accuracies to which steps are counted where runs are compared: the first that
# is reached; each caption and claim says by which runs.
LEVELS = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)
_ROUNDING = 1e-9  # of a mean accuracy: twenty times 0.9 add up to less than 18
_CONFIDENCE = 0.95  # of intervals over seeds, two-sided
ANALYSIS = 'analysis/'  # and NAME: an entry measured after training
# Value of a record of training: how many updates, not finite, were left out so
# far. Recorded if config.on_nonfinite is 'skip', which may change on the way.
SKIPPED = 'skipped'


class Series(NamedTuple):
  """What one name recorded over a run."""

  step: np.ndarray  # [T]
  values: dict[str, np.ndarray]  # name -> [T], or [T, E] of E numbers a look
  # All under which records were taken, none twice.
  conditions: tuple[Mapping[str, Any], ...] = ()


class Seed(NamedTuple):
  """One run with one seed."""

  seed: int  # the number that training was started with
  # What the run is and how far it is; among the measures of its config are the
  # analyses of its checkpoints, as 'analysis/NAME'.
  manifest: dict[str, Any]
  series: dict[str, Series]  # name -> Series: 'train', and one for each measure
  seconds: dict[str, float]  # name -> seconds spent on it, over all restarts
  # Name -> its records with arrays, in the order of steps.
  arrays: dict[str, list[records.Record]]
  # The file that `recalibrate` wrote, or None.
  population: dict[str, Any] | None = None
  # Why an analysis, or population.json, could not be read.
  left_out: tuple[str, ...] = ()

  @property
  def config(self) -> dict[str, Any]:
    """Returns what it was trained with, and the measures of its checkpoints."""
    return self.manifest['config']


class Run(NamedTuple):
  """A run with all of its seeds, in order."""

  name: str  # with its working directory in front, where there are several
  seeds: tuple[Seed, ...]  # at least one

  @property
  def config(self) -> dict[str, Any]:
    """Returns the config of the first seed; those of others may differ."""
    return self.seeds[0].config

  @property
  def workdir(self) -> str:
    """Returns the working directory in its name; '' where there is only one."""
    return self.name.rpartition('/')[0]


def measures(run: Run) -> dict[str, Any]:
  """Returns name -> section of the config, of each entry that a seed has.

  Where seeds differ, the first counts.
  """
  sections = {}
  for seed in run.seeds:
    for name, section in seed.config['measures'].items():
      sections.setdefault(name, section)
  return sections


def names(run: Run, measure: str) -> list[str]:
  """Returns the names of the entries of a measure, such as 'along_gradient'."""
  every = [pair for s in run.seeds for pair in s.config['measures'].items()]
  return list(dict.fromkeys(k for k, of in every if of['name'] == measure))


def training_measures(run: Run, measure: str) -> list[str]:
  """Returns those of `names` that were measured during training."""
  return [name for name in names(run, measure) if not is_analysis(name)]


def is_analysis(name: str) -> bool:
  """Returns whether an entry was measured after training, of checkpoints."""
  return name.startswith(ANALYSIS)


def is_noisy(run: Run) -> bool:
  """Returns whether its norm adds noise to its output in training."""
  return run.config['norm']['name'] in ('noisy', 'noise')


def has_recorded(run: Run, value: str) -> bool:
  """Returns whether training or an evaluation of a run recorded a value."""
  entries = ('train', *names(run, 'evaluation'))
  return any(recorded(s, name, value) for s in run.seeds for name in entries)


def is_regression(run: Run) -> bool:
  """Returns whether a run has recorded losses, and no accuracy."""
  losses = has_recorded(run, 'data_loss') or has_recorded(run, 'loss')
  return losses and not has_recorded(run, 'accuracy')


def without_accuracy(runs: Sequence[Run]) -> list[bool]:
  """Returns which runs are shown by their loss.

  One that has recorded nothing yet is shown as the others are: by its accuracy,
  if any has one or none has recorded anything.
  """
  regressions = [is_regression(run) for run in runs]
  has_accuracy = any(has_recorded(run, 'accuracy') for run in runs)
  return [any(regressions)] * len(runs) if not has_accuracy else regressions


def has_ended(seed: Seed) -> bool:
  """Returns whether a seed trains no more: what it missed, it never reaches."""
  return seed.manifest['status'] in ('done', 'diverged')


def has_diverged(seed: Seed) -> bool:
  """Returns whether training ended because its objective was not finite."""
  return seed.manifest['status'] == 'diverged'


def reached(seed: Seed) -> int:
  """Returns the step to which a seed has trained.

  While it runs, or if it was killed, its manifest has the step of its start.
  """
  step = seed.manifest['step'] or 0
  if seed.manifest['status'] != 'running':
    return step
  # A row of training is of the step that leads on from there.
  for name, series in seed.series.items():
    step = max(step, int(series.step[-1]) + (name == 'train'))
  return step


def skipped(train: Series) -> np.ndarray:
  """Returns which rows of training, [T], are of an update that was left out.

  A row without a count has that of the row before; without any count, nothing
  was left out.
  """
  if SKIPPED not in train.values:
    return np.zeros(len(train.step), bool)
  count_T = np.nan_to_num(train.values[SKIPPED], nan=0.0)
  return np.diff(np.maximum.accumulate(count_T), prepend=0) > 0


def trained(seed: Seed, value: str) -> tuple[np.ndarray, np.ndarray] | None:
  """Returns (steps, values) of the batches whose update was not left out.

  None where training has not recorded the value.
  """
  if not recorded(seed, 'train', value):
    return None
  train = seed.series['train']
  if SKIPPED not in train.values:
    return train.step, train.values[value]  # no copies of the longest records
  entered_T = ~skipped(train)
  return train.step[entered_T], train.values[value][entered_T]


def trailing_mean(values_T: np.ndarray, window: int = WINDOW) -> np.ndarray:
  """Returns the mean of the last `window` values, [T]; nan before the first."""
  result_T = np.full(len(values_T), np.nan)
  if len(values_T) >= window:
    sums = np.convolve(values_T, np.ones(window), 'valid')
    result_T[window - 1 :] = sums / window
  return result_T


def steps_to(seed: Seed, accuracy: float) -> float:
  """Returns the first step whose last 20 batches reach this mean accuracy.

  inf where it is never reached, nan where no accuracy is recorded. Batches
  whose update was left out do not count.
  """
  found = trained(seed, 'accuracy')
  if found is None:
    return math.nan if 'train' in seed.series else math.inf
  step_T, accuracy_T = found
  mean_T = trailing_mean(accuracy_T)
  rows = np.flatnonzero(mean_T >= accuracy - _ROUNDING)
  return float(step_T[rows[0]]) if len(rows) else math.inf


def final_of_training(seed: Seed, value: str) -> float:
  """Returns the mean of a value over the last 20 training batches.

  Batches whose update was left out do not count; nan for fewer than 20.
  """
  _, value_T = trained(seed, value) or ((), ())
  return float(value_T[-WINDOW:].mean()) if len(value_T) >= WINDOW else math.nan


# Accuracy is in [0, 1], and loss without the weight penalty.
final_train_accuracy = functools.partial(final_of_training, value='accuracy')
final_train_loss = functools.partial(final_of_training, value='data_loss')


def of_population(
  seed: Seed, value: str, statistics: str = 'population'
) -> float:
  """Returns a number of the test set that `recalibrate` took.

  nan where there is none, or training has gone on since.

  Args:
    statistics: 'population', or 'running', those of training.
  """
  facts = seed.population
  if facts is None or facts['step'] != reached(seed):
    return math.nan
  number = facts['test'][statistics].get(value)
  return math.nan if number is None else number


def values(
  seed: Seed, name: str, value: str, change: Callable = np.asarray
) -> tuple[np.ndarray, np.ndarray] | None:
  """Returns (steps [T], `change` of what an entry recorded), or None.

  That is [T], or [T, E] of several numbers a look.
  """
  if not recorded(seed, name, value):
    return None
  series = seed.series[name]
  return series.step, change(series.values[value])


def recorded(seed: Seed, name: str, value: str) -> bool:
  """Returns whether an entry has recorded a value."""
  series = seed.series.get(name)
  return series is not None and value in series.values


def line(
  seed: Seed, name: str, value: str
) -> tuple[np.ndarray, np.ndarray] | None:
  """Returns `values`, of several numbers a look the first."""
  return values(
    seed, name, value,
    lambda of_T: np.asarray(of_T, float).reshape(len(of_T), -1)[:, 0],
  )  # fmt: skip


def last(seed: Seed, name: str, value: str) -> float:
  """Returns the last value that an entry recorded, nan where there is none."""
  found = values(seed, name, value)
  return math.nan if found is None else float(found[1][-1])


def band(values_TE: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns (minimum, maximum) over the step sizes, [T] each, nan left out."""
  return np.fmin.reduce(values_TE, axis=1), upper(values_TE)


def upper(values_TE: np.ndarray) -> np.ndarray:
  """Returns the maximum over the step sizes, [T]."""
  return np.fmax.reduce(values_TE, axis=1)


def width(values_TE: np.ndarray) -> np.ndarray:
  """Returns maximum minus minimum over the step sizes, [T]."""
  low_T, high_T = band(values_TE)
  return high_T - low_T


def median_of(
  seed: Seed, name: str, value: str, change: Callable = np.asarray
) -> float:
  """Returns the median over training of `values`; nan where there are none."""
  found = values(seed, name, value, change)
  return math.nan if found is None else median(found[1])


median_width = functools.partial(median_of, change=width)
median_upper = functools.partial(median_of, change=upper)


def mean_over(seeds: Sequence[Seed], read: Callable[[Seed], float]) -> float:
  """Returns the mean over seeds of `read`, where finite; nan if nowhere."""
  values = [value for seed in seeds if np.isfinite(value := read(seed))]
  return float(np.mean(values)) if values else math.nan


def mean_and_interval(values: Sequence[float]) -> tuple[float, float]:
  """Returns the mean over seeds and half of its 95 % interval (Student's t).

  The half width is nan for one seed, whose spread is unknown, and where a value
  is not finite.
  """
  count = len(values)
  mean = float(np.mean(values))
  if count < 2 or not np.isfinite(values).all():
    return mean, math.nan
  return mean, student(count) * float(np.std(values, ddof=1)) / count**0.5


def in_words(values: Sequence[float], show: Callable[[float], str]) -> str:
  """Returns the mean of values without nan, ± half of its 95 % interval."""
  values = [value for value in values if not math.isnan(value)]
  if not values:
    return 'not measured'
  mean, half = mean_and_interval(values)
  return show(mean) if math.isnan(half) else f'{show(mean)} ± {show(half)}'


def means_and_intervals(
  values_ST: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
  """Returns `mean_and_interval` of the finite values of each column, [T] both.

  nan where a column has none; a half width is nan where it has one.
  """
  finite_ST = np.isfinite(values_ST)
  count_T = finite_ST.sum(axis=0)
  values_ST = np.where(finite_ST, values_ST, 0.0)
  with np.errstate(divide='ignore', invalid='ignore'):
    mean_T = values_ST.sum(axis=0) / count_T
    squares_T = (np.where(finite_ST, values_ST - mean_T, 0.0) ** 2).sum(axis=0)
    error_T = np.sqrt(squares_T / (count_T - 1) / count_T)
  student_T = np.array([
    student(count) if count > 1 else math.nan
    for count in range(len(values_ST) + 1)
  ])[count_T]  # fmt: skip
  return mean_T, student_T * np.where(count_T > 1, error_T, math.nan)


@functools.cache
def student(count: int) -> float:
  """Returns Student's t for the interval of a mean of `count` values."""
  from scipy import stats  # imported late: only several seeds need it

  return float(stats.t.ppf((1 + _CONFIDENCE) / 2, count - 1))


def median(values_T: np.ndarray) -> float:
  """Returns the median without nan; nan if nothing else is there."""
  values_T = values_T[~np.isnan(values_T)]
  return float(np.median(values_T)) if len(values_T) else math.nan
