"""The table of the report: what each run reached."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from bn_jax.report import curves

_THRESHOLDS = (0.80, 0.90, 0.95)


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
  for threshold in _THRESHOLDS:
    label = f'Steps to {100 * threshold:.0f} % of training batches'
    rows.append([label, *(_steps(run, threshold) for run in runs)])
  rows.append(
    [
      f'Training accuracy, last {curves.WINDOW} batches',
      *(_over(run, curves.final_train_accuracy, _percent) for run in runs),
    ]
  )
  for label, name, value, show in _measured(runs):
    rows.append(
      [label, *(_over(run, _reader(name, value), show) for run in runs)]
    )
  rows.append(['Time, training / all', *(_time(run) for run in runs)])
  return rows


def _measured(runs):
  """(label, measure, value, how to show it) of what the runs measured."""
  rows = []
  for name in curves.measure_named(runs[0], 'evaluation'):
    data = runs[0].config['measures'][name]['data']
    rows.append((f'Accuracy, {data} set', name, 'accuracy', _percent))
    rows.append((f'Loss, {data} set', name, 'loss', _short))
  for name in curves.measure_named(runs[0], 'along_gradient'):
    rows.append(('Loss band, median width', name, 'width:loss', _short))
    rows.append(
      (
        'Gradient change, median upper edge',
        name,
        'upper:gradient_change',
        _short,
      )
    )
    rows.append(('Effective beta, median', name, 'upper:beta', _short))
  return rows


def _reader(name: str, value: str) -> Callable[[curves.Seed], float]:
  reduction, _, quantity = value.rpartition(':')
  if reduction == 'width':
    return lambda seed: curves.median_width(seed, name, quantity)
  if reduction == 'upper':
    return lambda seed: curves.median_upper(seed, name, quantity)
  return lambda seed: curves.last(seed, name, quantity)


def _over(run, read, show) -> str:
  """Mean over seeds, with half of the 95 % interval where there is one."""
  values = [read(seed) for seed in run.seeds]
  mean, half = curves.mean_and_interval(values)
  if math.isnan(mean):
    return 'not measured'
  return show(mean) if math.isnan(half) else f'{show(mean)} ± {show(half)}'


def _steps(run, threshold) -> str:
  values = [curves.steps_to(seed, threshold) for seed in run.seeds]
  missed = sum(map(math.isinf, values))
  if missed == len(values):
    return 'never'
  if missed:
    return f'never in {missed} of {len(values)} seeds'
  mean, half = curves.mean_and_interval(values)
  return f'{mean:.0f}' if math.isnan(half) else f'{mean:.0f} ± {half:.0f}'


def _status(run) -> str:
  said = []
  for seed in run.seeds:
    status, step = seed.manifest['status'], seed.manifest['step']
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
