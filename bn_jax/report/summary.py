"""The report's table, and what the paper claims set beside these runs."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from bn_jax.report import curves

_THRESHOLDS = (0.80, 0.90, 0.95)


class Claim(NamedTuple):
  """A claim of Santurkar et al. (2018), and how these runs answer it.

  Attributes:
    statement: what is claimed of Batch Normalization.
    numbers: what was measured, without and with it.
    verdict: 'holds', 'fails', 'mixed' or 'not measured'.
    detail: in how many seeds.
  """

  statement: str
  numbers: str
  verdict: str
  detail: str


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


def claims(runs: Sequence[curves.Run]) -> list[Claim]:
  """Each claim, for the first run without and the first with normalization.

  Only runs that differ in nothing but the norm are compared; where there is no
  such pair, there are no claims.
  """
  pair = _pair(runs)
  if pair is None:
    return []
  return [
    _claim(
      'trains in fewer steps (to 90 % of training batches)',
      pair,
      lambda seed: curves.steps_to(seed, 0.90),
      _number,
    ),
    *_landscape_claims(pair),
  ]


def _landscape_claims(pair) -> list[Claim]:
  names = curves.measure_named(pair[0], 'along_gradient')
  if not names:
    return []
  name = names[0]
  return [
    _claim(
      'makes the loss vary less along the gradient (median band width)',
      pair,
      lambda seed: curves.median_width(seed, name, 'loss'),
      _short,
    ),
    _claim(
      'makes the gradient more predictive (median upper edge of its change)',
      pair,
      lambda seed: curves.median_upper(seed, name, 'gradient_change'),
      _short,
    ),
    _claim(
      'lowers the effective beta (median over training)',
      pair,
      lambda seed: curves.median_upper(seed, name, 'beta'),
      _short,
    ),
  ]


def _claim(statement, pair, read, show) -> Claim:
  """Smaller is what the paper claims; seeds of one number are a pair."""
  plain = {seed.seed: read(seed) for seed in pair[0].seeds}
  normalised = {seed.seed: read(seed) for seed in pair[1].seeds}
  both = sorted(plain.keys() & normalised.keys())
  both = [seed for seed in both if not _unknown(plain[seed], normalised[seed])]
  statement = f'Batch Normalization {statement}'
  if not both:
    return Claim(statement, '', 'not measured', 'no seed has both')
  less = sum(normalised[seed] < plain[seed] for seed in both)
  verdict = {len(both): 'holds', 0: 'fails'}.get(less, 'mixed')
  numbers = ' → '.join(
    show(float(np.mean([values[seed] for seed in both])))
    for values in (plain, normalised)
  )
  detail = f'{less} of {len(both)} seeds'
  if len(both) == 1:
    detail = 'one seed: an illustration'
  return Claim(statement, numbers, verdict, detail)


def _unknown(plain: float, normalised: float) -> bool:
  """Whether nothing can be said: a nan, or neither ever got there."""
  if math.isnan(plain) or math.isnan(normalised):
    return True
  return math.isinf(plain) and math.isinf(normalised)


def _pair(runs) -> tuple[curves.Run, curves.Run] | None:
  for plain in runs:
    for normalised in runs:
      if (
        plain.config['norm']['name'] == 'none'
        and normalised.config['norm']['name'] == 'batch'
        and _without_norm(plain) == _without_norm(normalised)
      ):
        return plain, normalised
  return None


def _without_norm(run) -> dict:
  return {key: value for key, value in run.config.items() if key != 'norm'}


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


def _number(value: float) -> str:
  return 'never' if math.isinf(value) else f'{value:.0f}'
