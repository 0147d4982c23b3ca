"""The table of the report: what each run reached, a quantity a row."""

import functools
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from bn_jax.report import figures
from bn_jax.report.results import curves, looks
from bn_jax.report.results import quantities as quantities_lib

Read = Callable[[curves.Seed], float]  # nan where there is nothing
Show = Callable[[float], str]
Quantity = tuple[str, Read, Show]  # with its label

# Steps are counted to the three highest that some run reaches.
_THRESHOLDS = (0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)


def table(runs: Sequence[curves.Run]) -> list[list[str]]:
  """The summary: a header with the runs, then one row a quantity."""
  return [
    ['', *(run.name for run in runs)],
    ['Normalization', *(run.config['norm']['name'] for run in runs)],
    ['Learning rate', *(_rate(run) for run in runs)],
    ['Parameters', *(f'{_first(run)["parameters"]:,}' for run in runs)],
    ['Steps', *(_status(run) for run in runs)],
    ['Seeds', *(str(len(run.seeds)) for run in runs)],
    *_steps_to(runs),
    *(
      [label, *(_over(run, read, show) for run in runs)]
      for of in (_training, _measured, _population)
      for label, read, show in of(runs)
    ),
    ['Time, training / all', *(_time(run) for run in runs)],
  ]


def _steps_to(runs) -> Iterator[list[str]]:
  """How fast training batches were learnt, unless no run has an accuracy."""
  if not all(curves.without_accuracy(runs)):
    for threshold in _reached(runs):
      label = f'Steps to {100 * threshold:.0f} % of training batches'
      yield [label, *(_steps(run, threshold) for run in runs)]


def _training(runs) -> Iterator[Quantity]:
  """How well training batches were learnt.

  By accuracy, unless no run has one; by loss, if some run has nothing else.
  """
  regressions = curves.without_accuracy(runs)
  last = f'last {curves.WINDOW} batches'
  if not all(regressions):
    yield f'Training accuracy, {last}', curves.final_train_accuracy, _percent
  if any(regressions):
    yield f'Training loss a batch, {last}', curves.final_train_loss, _short


def _measured(runs) -> Iterator[Quantity]:
  """What measures of some run have recorded."""
  for kind, quantities in (
    ('evaluation', _evaluation),
    ('along_gradient', _landscape),
    ('covariate_shift', _covariate_shift),
    ('activations', _activations),
  ):
    keys = looks.keys(runs, kind)
    for key in keys:
      # Of several evaluations the labels say the data.
      which = f' ({key})' if len(keys) > 1 and kind != 'evaluation' else ''
      for label, read, show in quantities(runs, key):
        yield label + which, _only(kind, key, read), show
  for kind in figures.unknown(runs):
    keys = looks.keys(runs, kind)
    for key in keys:
      which = f' ({key})' if len(keys) > 1 else ''
      for label, read, show in _unknown(runs, kind, key):
        yield label + which, _only(kind, key, read), show


def _only(kind: str, key: str, read: Read) -> Read:
  """Reads nan of a seed whose measure of this key is of another kind."""
  return lambda seed: read(seed) if looks.has(seed, kind, key) else math.nan


def _evaluation(runs, key: str) -> Iterator[Quantity]:
  """What was recorded of accuracy, or nothing yet of anything; and the loss."""
  recorded = {
    value
    for run in runs
    for seed in run.seeds
    if key in seed.series
    for value in seed.series[key].values
  }
  seen = looks.of(runs, 'evaluation', key)
  # ' (analysis/NAME, population)' of what was measured afterwards.
  later = ''
  if curves.is_analysis(key):
    later = f' ({key}, {seen.said("statistics")})'
  # A squared error is in no nats, and of a training batch may be the sum.
  loss = 'Loss an example' if _in_no_nats(runs) else 'Loss in nats'
  for label, value, show in (
    ('Accuracy', 'accuracy', _percent),
    ('Top-5 accuracy', 'top5', _percent),
    (loss, 'loss', _short),
  ):
    to_come = not recorded and value == 'accuracy'
    if value in recorded or value == 'loss' or to_come:
      read = functools.partial(curves.last, name=key, value=value)
      yield f'{label}, {_data(seen)}{later}', read, show


def _landscape(runs, key: str) -> Iterator[Quantity]:
  nats = '' if _in_no_nats(runs) else ' in nats'
  for label, reduce, value in (
    (f'Loss band, median width{nats}', curves.median_width, 'loss'),
    (
      'Gradient change, median upper edge',
      curves.median_upper, 'gradient_change',
    ),
    ('Effective beta, median', curves.median_upper, 'beta'),
    ("Curvature d'Hd / |d|², median", curves.median_of, 'curvature'),
    ('Limit of beta as e goes to 0, median', curves.median_of, 'beta_0'),
  ):  # fmt: skip
    if value in ('curvature', 'beta_0') and not any(
      curves.recorded(seed, key, value) for run in runs for seed in run.seeds
    ):
      continue
    yield label, functools.partial(reduce, name=key, value=value), _short


def _covariate_shift(runs, key: str) -> Iterator[Quantity]:
  for layer in looks.layers(looks.of(runs, 'covariate_shift', key), 'l2'):
    for value, what in (('cosine', 'cosine'), ('relative_l2', 'relative l2')):
      read = functools.partial(
        curves.median_of, name=key, value=f'{layer}/{value}'
      )
      yield f'Covariate shift of {layer}, {what}, median', read, _short


def _activations(runs, key: str) -> Iterator[Quantity]:
  """The share of units that a ReLU makes dead, where it was recorded."""
  read = functools.partial(dead_units, key=key)
  if any(math.isfinite(read(seed)) for run in runs for seed in run.seeds):
    label = 'Units never above 0, layers looked at, last look'
    yield label, read, _percent


def _unknown(runs, kind: str, key: str) -> Iterator[Quantity]:
  """What a measure without rows of its own had at its last look."""
  seen = looks.of(runs, kind, key)
  title = quantities_lib.title(seen)
  for quantity in quantities_lib.of(seen):
    of = [f'{title}: {quantity.label}']
    of += ['largest'] if quantity.several else []
    of += ['median of the layers'] if quantity.layers else []
    read = functools.partial(quantities_lib.last, key=key, quantity=quantity)
    yield ', '.join([*of, 'last look']), read, _short


def dead_units(seed: curves.Seed, key: str) -> float:
  """The share of units without a value above 0 at the last look, or nan."""
  seen = seed.arrays.get(key)
  shares = [
    share_C
    for name, share_C in (seen[-1].values.items() if seen else ())
    if name.endswith('/positive')
  ]
  if not shares:
    return math.nan
  return float(np.mean(np.concatenate(shares) == 0))


def _population(runs) -> Iterator[Quantity]:
  """The test set with the population's statistics, where some run has them."""
  found = [
    seed.population['test']['population']
    for run in runs
    for seed in run.seeds
    if seed.population
  ]
  if not found:
    return
  classified = any(numbers.get('accuracy') is not None for numbers in found)
  value, show = ('accuracy', _percent) if classified else ('loss', _short)
  read = functools.partial(_of_population, value=value)
  yield f'{value.capitalize()}, test set, population statistics', read, show


def _of_population(seed: curves.Seed, value: str) -> float:
  """What the population's statistics give, nan if it went on since."""
  found = seed.population
  if found is None or found['step'] != curves.reached(seed):
    return math.nan
  number = found['test']['population'].get(value)
  return math.nan if number is None else number


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


def _over(run, read: Read, show: Show) -> str:
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


def _in_no_nats(runs) -> bool:
  return any(map(curves.is_regression, runs))


def _data(seen: looks.Looks) -> str:
  """What an evaluation was of: 'test set', 'train:100'."""
  configs = [seed.manifest['config'] for seed in seen.seeds]
  found = [config['measures'][seen.key]['data'] for config in configs]
  listed = ' or '.join(dict.fromkeys(found))
  return f'{listed} set' if listed in ('train', 'test') else listed


def _percent(value: float) -> str:
  return f'{100 * value:.1f} %'


def _short(value: float) -> str:
  return f'{value:.3g}'
