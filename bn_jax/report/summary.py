"""The table of the report: what each run reached."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from bn_jax.report import curves

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
  for threshold in _reached(runs):
    label = f'Steps to {100 * threshold:.0f} % of training batches'
    rows.append([label, *(_steps(run, threshold) for run in runs)])
  rows.append(
    [
      f'Training accuracy, last {curves.WINDOW} batches',
      *(_over(run, curves.final_train_accuracy, _percent) for run in runs),
    ]
  )
  for label, name, kind, value, show in _measured(runs):
    read = _reader(name, value)
    cells = [
      _over(run, read, show)
      if name in curves.measure_named(run, kind)
      else 'not measured'
      for run in runs
    ]
    rows.append([label, *cells])
  if any(seed.population for run in runs for seed in run.seeds):
    label = 'Accuracy, test set, population statistics'
    cells = [_over(run, _with_population, _percent) for run in runs]
    rows.append([label, *cells])
  rows.append(['Time, training / all', *(_time(run) for run in runs)])
  return rows


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


_LANDSCAPE = (
  ('Loss band, median width in nats', 'width:loss'),
  ('Gradient change, median upper edge', 'upper:gradient_change'),
  ('Effective beta, median', 'upper:beta'),
)


def _measured(runs):
  """(label, measure, its kind, value, how to show it), over all runs."""
  rows = []
  for kind in ('evaluation', 'along_gradient'):
    names = [name for run in runs for name in curves.measure_named(run, kind)]
    names = list(dict.fromkeys(names))
    for name in names:
      if kind == 'evaluation':
        data = _data(runs, name, kind)
        rows.append((f'Accuracy, {data}', name, kind, 'accuracy', _percent))
        rows.append((f'Loss in nats, {data}', name, kind, 'loss', _short))
        continue
      which = f' ({name})' if len(names) > 1 else ''
      rows += [
        (label + which, name, kind, value, _short)
        for label, value in _LANDSCAPE
      ]
  return rows


def _data(runs, name: str, kind: str) -> str:
  """What an evaluation was of: 'test set', 'train:100'."""
  found = [
    curves.measures(run)[name]['data']
    for run in runs
    if name in curves.measure_named(run, kind)
  ]
  listed = ' or '.join(dict.fromkeys(found))
  return f'{listed} set' if listed in ('train', 'test') else listed


def _reader(name: str, value: str) -> Callable[[curves.Seed], float]:
  reduction, _, quantity = value.rpartition(':')
  if reduction == 'width':
    return lambda seed: curves.median_width(seed, name, quantity)
  if reduction == 'upper':
    return lambda seed: curves.median_upper(seed, name, quantity)
  return lambda seed: curves.last(seed, name, quantity)


def _with_population(seed: curves.Seed) -> float:
  """Accuracy with the population's statistics, nan if it went on since."""
  found = seed.population
  if found is None or found['step'] != curves.reached(seed):
    return math.nan
  return found['test']['population']['accuracy']


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


def _percent(value: float) -> str:
  return f'{100 * value:.1f} %'


def _short(value: float) -> str:
  return f'{value:.3g}'
