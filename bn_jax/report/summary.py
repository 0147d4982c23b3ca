"""The table of the report: what each run reached."""

import functools
import math
from collections.abc import Sequence

import numpy as np

from bn_jax.report import measured
from bn_jax.report.results import curves, looks

# Steps are counted to the three highest that some run reaches.
_THRESHOLDS = (0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)


def table(runs: Sequence[curves.Run]) -> list[list[str]]:
  """The summary: a header with the runs, then one row a quantity."""
  rows = [['', *(run.name for run in runs)]]
  rows += [
    ['Normalization', *(run.config['norm']['name'] for run in runs)],
    ['Learning rate', *(_rate(run) for run in runs)],
    ['Parameters', *(f'{_first(run)["parameters"]:,}' for run in runs)],
    ['Steps', *(_status(run) for run in runs)],
    ['Seeds', *(str(len(run.seeds)) for run in runs)],
  ]
  rows += _training(runs)
  for row in measured.rows(runs):
    cells = [
      _over(run, functools.partial(_of_measure, row=row), row.show)
      for run in runs
    ]
    rows.append([row.label, *cells])
  rows += _with_population(runs)
  rows.append(['Time, training / all', *(_time(run) for run in runs)])
  return rows


def _training(runs) -> list[list[str]]:
  """How fast and how well training batches were learnt.

  By accuracy, unless no run has one; by loss, if some run has nothing else.
  """
  rows = []
  regressions = curves.without_accuracy(runs)
  last = f'last {curves.WINDOW} batches'
  if not all(regressions):
    for threshold in _reached(runs):
      label = f'Steps to {100 * threshold:.0f} % of training batches'
      rows.append([label, *(_steps(run, threshold) for run in runs)])
    cells = [
      _over(run, curves.final_train_accuracy, measured.percent) for run in runs
    ]
    rows.append([f'Training accuracy, {last}', *cells])
  if any(regressions):
    cells = [
      _over(run, curves.final_train_loss, measured.short) for run in runs
    ]
    rows.append([f'Training loss a batch, {last}', *cells])
  return rows


def _of_measure(seed: curves.Seed, row: measured.Row) -> float:
  """What a row reads off a seed; nan if its measure is none of this kind."""
  if not looks.has(seed, row.kind, row.name):
    return math.nan
  return row.read(seed)


def _with_population(runs) -> list[list[str]]:
  """The test set with the population's statistics, where some run has them."""
  found = [
    seed.population['test']['population']
    for run in runs
    for seed in run.seeds
    if seed.population
  ]
  if not found:
    return []
  classified = any(numbers.get('accuracy') is not None for numbers in found)
  value, show = (
    ('accuracy', measured.percent) if classified else ('loss', measured.short)
  )
  read = functools.partial(_of_population, value=value)
  label = f'{value.capitalize()}, test set, population statistics'
  return [[label, *(_over(run, read, show) for run in runs)]]


def _reached(runs: Sequence[curves.Run]) -> tuple[float, ...]:
  """The thresholds to show, the lowest first."""
  reached = [
    threshold
    for threshold in _THRESHOLDS
    if any(
      math.isfinite(curves.steps_to(seed, threshold))
      for run in runs
      for seed in run.seeds
    )
  ]
  return tuple(reversed(reached[:3] or _THRESHOLDS[-1:]))


def _of_population(seed: curves.Seed, value: str) -> float:
  """What the population's statistics give, nan if it went on since."""
  found = seed.population
  if found is None or found['step'] != curves.reached(seed):
    return math.nan
  number = found['test']['population'].get(value)
  return math.nan if number is None else number


def _over(run, read, show) -> str:
  """Mean over the seeds that are done, with half of its 95 % interval.

  Where none is done yet, over those there are: the row of steps says so.
  """
  done = [s for s in run.seeds if s.manifest['status'] == 'done'] or run.seeds
  values = [value for seed in done if not math.isnan(value := read(seed))]
  if not values:
    return 'not measured'
  mean, half = curves.mean_and_interval(values)
  shown = show(mean) if math.isnan(half) else f'{show(mean)} ± {show(half)}'
  if len(values) < len(run.seeds):
    shown += f' ({len(values)} of {len(run.seeds)} seeds)'
  return shown


def _steps(run, threshold) -> str:
  values = [curves.steps_to(seed, threshold) for seed in run.seeds]
  if any(map(math.isnan, values)):
    return 'not measured'
  missed = sum(map(math.isinf, values))
  if missed:
    ended = all(map(curves.has_ended, run.seeds))
    word = 'never' if ended else 'not yet'
    of = f' in {missed} of {len(values)} seeds' if missed < len(values) else ''
    return word + of
  mean, half = curves.mean_and_interval(values)
  return f'{mean:.0f}' if math.isnan(half) else f'{mean:.0f} ± {half:.0f}'


def _status(run) -> str:
  said = []
  for seed in run.seeds:
    status, step = seed.manifest['status'], curves.reached(seed)
    said.append(f'{step}' if status == 'done' else f'{status} at {step}')
  return ', '.join(dict.fromkeys(said))


def _time(run) -> str:
  train = np.mean([seed.seconds.get('train', 0.0) for seed in run.seeds])
  whole = np.mean([sum(seed.seconds.values()) for seed in run.seeds])
  return f'{train:.0f} s / {whole:.0f} s'


def _rate(run) -> str:
  return f'{run.config["schedule"]["learning_rate"]:g}'


def _first(run) -> dict:
  return run.seeds[0].manifest
