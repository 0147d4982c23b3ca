"""Tells what runs have reached: numbers of each seed, for the summary."""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from bn_jax.report import figures
from bn_jax.report.figures import (
  batch_sharpness,
  path,
  radius,
  sharpness,
  spectrum,
  trace,
)
from bn_jax.report.results import curves, looks
from bn_jax.report.results import quantities as quantities_lib

Read = Callable[[curves.Seed], float]  # nan where there is nothing
HIGH, LOW = 'high', 'low'

# Steps are counted to the three highest of these accuracies that some run
# reaches: so a hard task has rows too, and an easy one few.
_THRESHOLDS = (0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)
_THRESHOLD_ROWS = 3
# Of measures without rows of their own, those quantities that say something
# alone; of the others all.
_SUMMARISED = {
  'gradient_confusion': ('smallest_cosine', 'mean_cosine'),
  'gradient_noise': ('noise_scale', 'squared_gradient', 'covariance_trace'),
}


def _short(value: float) -> str:
  return f'{value:.3g}'


def percent(value: float) -> str:
  """Returns a share in words: '98.1 %'."""
  return f'{100 * value:.1f} %'


class Quantity(NamedTuple):
  """A number that runs are compared by.

  Attributes:
    label: in words, with its unit.
    read: its value of a seed; of steps inf where it was never reached.
    show: a value in words.
    better: HIGH or LOW; '' where neither is known to be the better one.
    logarithmic: whether it is drawn on logarithmic axes where it is above 0, so
      that runs are compared by ratios.
    is_steps: whether it is the number of steps to something.
  """

  label: str
  read: Read
  show: Callable[[float], str] = _short
  better: str = ''
  logarithmic: bool = False
  is_steps: bool = False


def _accuracy(label: str, read: Read) -> Quantity:
  return Quantity(label, read, percent, better=HIGH)


def _loss(label: str, read: Read) -> Quantity:
  return Quantity(label, read, better=LOW, logarithmic=True)


def quantities(runs: Sequence[curves.Run]) -> Iterator[Quantity]:
  """Yields what the summary shows of these runs, in its order."""
  for of in (_steps_to, _training, _measured, _population):
    yield from of(runs)


def _steps_to(runs) -> Iterator[Quantity]:
  """Yields steps to levels of training accuracy, if some run has accuracies."""
  if not all(curves.without_accuracy(runs)):
    for threshold in _reached(runs):
      yield Quantity(
        f'Steps to {100 * threshold:.0f} % training accuracy',
        functools.partial(curves.steps_to, accuracy=threshold),
        '{:.0f}'.format,
        better=LOW,
        is_steps=True,
      )


def _training(runs) -> Iterator[Quantity]:
  """Yields accuracy of training batches, unless no run has one, and loss.

  Loss only if some run has no accuracy.
  """
  regressions = curves.without_accuracy(runs)
  last = f'last {curves.WINDOW} batches'
  if not all(regressions):
    yield _accuracy(f'Training accuracy, {last}', curves.final_train_accuracy)
  if any(regressions):
    yield _loss(f'Training loss, {last}', curves.final_train_loss)


def _measured(runs) -> Iterator[Quantity]:
  """Yields the quantities that measures of some run have recorded."""
  rows = {
    looks.EVALUATION: _evaluation,
    'along_gradient': _landscape,
    'covariate_shift': _covariate_shift,
    'activations': _activations,
    path.MEASURE: _path,
    sharpness.MEASURE: _sharpness,
    spectrum.MEASURE: _spectrum,
    trace.MEASURE: _trace,
    radius.MEASURE: _radius,
    'cka': functools.partial(_unknown, measure='cka', only=('debiased_cka',)),
    batch_sharpness.MEASURE: functools.partial(
      _unknown,
      measure=batch_sharpness.MEASURE,
      only=('batch_sharpness', 'ratio_of_means'),
    ),
  }
  for measure in figures.unknown(runs):
    only = _SUMMARISED.get(measure)
    rows[measure] = functools.partial(_unknown, measure=measure, only=only)
  for measure, quantities_of in rows.items():
    names = looks.names(runs, measure)
    for name in names:
      # Labels of evaluations tell several apart by their data.
      several = len(names) > 1 and measure != looks.EVALUATION
      # An analysis called after its measure is told by its step.
      note = looks.of(runs, measure, name).note
      which = (note or f' ({name})') if several else ''
      for quantity in quantities_of(runs, name):
        read = _only(measure, name, quantity.read)
        yield quantity._replace(label=quantity.label + which, read=read)


def _only(measure: str, name: str, read: Read) -> Read:
  """Returns a reader that is nan where the entry is another measure."""
  return lambda seed: read(seed) if looks.has(seed, measure, name) else math.nan


def _evaluation(runs, name: str) -> Iterator[Quantity]:
  """Yields accuracy, top-5 accuracy and loss, as far as a run recorded them.

  Before the first record: accuracy and loss, which are then not measured.
  """
  recorded = {
    value
    for run in runs
    for seed in run.seeds
    if name in seed.series
    for value in seed.series[name].values
  }
  entry = looks.of(runs, looks.EVALUATION, name)
  # ' (analysis/NAME, population)' of an evaluation after training.
  after = ''
  if curves.is_analysis(name):
    after = f' ({name}, {entry.condition("statistics")})'
  # A squared error is not in nats, and of a training batch may be a sum.
  loss = 'Loss per example' if _has_no_unit(runs) else 'Loss in nats'
  for of, label, value in (
    (_accuracy, 'Accuracy', 'accuracy'),
    (_accuracy, 'Top-5 accuracy', 'top5'),
    (_loss, loss, 'loss'),
    (_accuracy, 'Accuracy of the average', looks.AVERAGED + 'accuracy'),
    (_loss, f'{loss} of the average', looks.AVERAGED + 'loss'),
  ):
    to_come = not recorded and value == 'accuracy'
    if value in recorded or value == 'loss' or to_come:
      read = functools.partial(curves.last, name=name, value=value)
      yield of(f'{label}, {_data(entry)}{after}', read)


def _landscape(runs, name: str) -> Iterator[Quantity]:
  nats = '' if _has_no_unit(runs) else ' in nats'
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
      curves.recorded(seed, name, value) for run in runs for seed in run.seeds
    ):
      continue
    read = functools.partial(reduce, name=name, value=value)
    yield Quantity(label, read, logarithmic=value != 'curvature')


def _covariate_shift(runs, name: str) -> Iterator[Quantity]:
  entry = looks.of(runs, 'covariate_shift', name)
  for layer in looks.layers(entry, 'l2'):
    for value, what in (('cosine', 'cosine'), ('relative_l2', 'relative l2')):
      read = functools.partial(
        curves.median_of, name=name, value=f'{layer}/{value}'
      )
      yield Quantity(
        f'Covariate shift of {layer}, {what}, median',
        read,
        logarithmic=value == 'relative_l2',
      )


def _activations(runs, name: str) -> Iterator[Quantity]:
  """Yields the share of units that a ReLU makes dead, where recorded."""
  read = functools.partial(dead_units, name=name)
  if any(math.isfinite(read(seed)) for run in runs for seed in run.seeds):
    label = 'Dead units (never above 0), last measurement'
    yield Quantity(label, read, percent)


def _path(runs, name: str) -> Iterator[Quantity]:
  """Yields the barriers of the last line, of each kind of statistics."""
  nats = '' if _has_no_unit(runs) else ' in nats'
  for statistics in path.recorded(looks.of(runs, path.MEASURE, name)):
    read = functools.partial(
      curves.last, name=name, value=f'{statistics}/barrier'
    )
    yield Quantity(f'Barrier{nats}, {path.OVER[statistics]}, last', read)


def _sharpness(runs, name: str) -> Iterator[Quantity]:
  """Yields the largest eigenvalue, and what it is of the edge of stability."""
  read = functools.partial(curves.last, name=name, value='sharpness')
  yield Quantity('Sharpness, last measurement', read, logarithmic=True)
  of_edge = functools.partial(_of_edge, name=name)
  if any(math.isfinite(of_edge(seed)) for run in runs for seed in run.seeds):
    yield Quantity(
      'Sharpness by the edge of stability, last', of_edge, logarithmic=True
    )


def _of_edge(seed: curves.Seed, name: str) -> float:
  """Returns the last sharpness by the edge then; nan where there is none."""
  if not looks.has(seed, sharpness.MEASURE, name):
    return math.nan
  limits = sharpness.edge(seed, name)
  if limits is None or not len(limits[1]):
    return math.nan
  return curves.last(seed, name, 'sharpness') / limits[1][-1]


def _spectrum(runs, name: str) -> Iterator[Quantity]:
  """Yields both ends of the last spectrum, of each block."""
  for block in spectrum.blocks(looks.of(runs, spectrum.MEASURE, name)):
    of = f' of {block.rstrip("/")}' if block else ''
    for end in ('largest', 'smallest'):
      read = functools.partial(curves.last, name=name, value=f'{block}{end}')
      yield Quantity(f'Spectrum{of}, {end} eigenvalue, last', read)


def _radius(runs, name: str) -> Iterator[Quantity]:
  """Yields the last rise of the loss, within the largest radius."""
  entry = looks.of(runs, radius.MEASURE, name)
  largest = max(radius.radii(entry), default=math.nan)
  read = functools.partial(radius.last, name=name)
  label = f'{radius.title(entry)} {largest:g}, last measurement'
  yield Quantity(label, read, logarithmic=True)


def _trace(runs, name: str) -> Iterator[Quantity]:
  """Yields the last traces: of blocks, of which there are few, and not layers.

  Their errors and intervals are in the figure.
  """
  entry = looks.of(runs, trace.MEASURE, name)
  sections = [s.manifest['config']['measures'][name] for s in entry.seeds]
  layers = {
    layer for section in sections for layer in section.get('layers', ())
  }
  for row in trace.recorded(entry):
    if row.rpartition('/')[0] not in layers:
      read = functools.partial(curves.last, name=name, value=row)
      label = f'{trace.label(row)}, last measurement'
      yield Quantity(label, read, logarithmic=True)


def _unknown(
  runs, name: str, measure: str, only: Sequence[str] | None = None
) -> Iterator[Quantity]:
  """Yields the last numbers of a measure without rows of its own.

  Args:
    only: the names of its quantities that are shown; None is all.
  """
  entry = looks.of(runs, measure, name)
  title = quantities_lib.title(entry)
  for quantity in quantities_lib.of(entry):
    if only is not None and quantity.name not in only:
      continue
    words = [f'{title}: {quantity.label}']
    words += ['largest'] if quantity.several else []
    words += ['median of the layers'] if quantity.layers else []
    read = functools.partial(quantities_lib.last, entry=name, quantity=quantity)
    yield Quantity(
      ', '.join([*words, 'last measurement']),
      read,
      logarithmic=measure == batch_sharpness.MEASURE,
    )


def dead_units(seed: curves.Seed, name: str) -> float:
  """Returns the share of units without a value above 0 at the last look.

  Of the layers at which the entry looks; nan where it is not recorded.
  """
  looks_T = seed.arrays.get(name)
  shares = [
    share_C
    for value, share_C in (looks_T[-1].values.items() if looks_T else ())
    if value.endswith('/positive')
  ]
  if not shares:
    return math.nan
  return float(np.mean(np.concatenate(shares) == 0))


def _population(runs) -> Iterator[Quantity]:
  """Yields accuracy or loss of the test set by the population's statistics."""
  tests = [
    seed.population['test']['population']
    for run in runs
    for seed in run.seeds
    if seed.population
  ]
  if not tests:
    return
  classified = any(numbers.get('accuracy') is not None for numbers in tests)
  of, value = (_accuracy, 'accuracy') if classified else (_loss, 'loss')
  read = functools.partial(curves.of_population, value=value)
  yield of(f'{value.capitalize()}, test set, population statistics', read)


def _reached(runs: Sequence[curves.Run]) -> tuple[float, ...]:
  """Returns the thresholds to show, the lowest first."""
  thresholds = [
    threshold
    for threshold in _THRESHOLDS
    if any(
      math.isfinite(curves.steps_to(seed, threshold))
      for run in runs
      for seed in run.seeds
    )
  ]
  return tuple(reversed(thresholds[:_THRESHOLD_ROWS] or _THRESHOLDS[-1:]))


def _has_no_unit(runs) -> bool:
  return any(map(curves.is_regression, runs))


def _data(entry: looks.Entry) -> str:
  """Returns the data of an evaluation: 'test set', 'train:100'."""
  configs = [seed.manifest['config'] for seed in entry.seeds]
  data = [config['measures'][entry.name]['data'] for config in configs]
  text = ' or '.join(dict.fromkeys(data))
  return f'{text} set' if text in ('train', 'test') else text
