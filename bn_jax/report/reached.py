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
  'cka': ('debiased_cka',),
  'batch_sharpness': ('batch_sharpness', 'ratio_of_means'),
  'gradient_confusion': ('smallest_cosine', 'mean_cosine'),
  'gradient_noise': ('noise_scale', 'squared_gradient', 'covariance_trace'),
}


def percent(value: float) -> str:
  """Returns a share in words: '98.1 %'."""
  return f'{100 * value:.1f} %'


class Quantity(NamedTuple):
  """A number that runs are compared by."""

  label: str  # in words, with its unit
  read: Read  # its value of a seed; of steps inf where it was never reached
  show: Callable[[float], str] = '{:.3g}'.format  # a value in words
  # HIGH or LOW; '' where neither is known to be the better one.
  better: str = ''
  # Whether it is drawn on logarithmic axes where it is above 0, so that runs
  # are compared by ratios.
  logarithmic: bool = False
  is_steps: bool = False  # whether it is the number of steps to something
  # Whether it only adds to another one that is better at an end.
  is_further: bool = False


_SHARE = {'show': percent, 'better': HIGH}
_LOSS = {'better': LOW, 'logarithmic': True}
_FURTHER = {'is_further': True}


def quantities(runs: Sequence[curves.Run]) -> Iterator[Quantity]:
  """Yields what the summary shows of these runs, in its order."""
  for of in (_steps_to, _training, _measured, _population):
    yield from of(runs)


def _steps_to(runs) -> Iterator[Quantity]:
  """Yields steps to levels of training accuracy, if some run has accuracies."""
  if not all(curves.without_accuracy(runs)):
    is_reached = lambda accuracy: any(
      math.isfinite(curves.steps_to(seed, accuracy))
      for run in runs
      for seed in run.seeds
    )
    shown = list(filter(is_reached, _THRESHOLDS))[:_THRESHOLD_ROWS]
    shown = shown or _THRESHOLDS[-1:]
    for threshold in reversed(shown):
      yield Quantity(
        f'Steps to {100 * threshold:.0f} % training accuracy',
        functools.partial(curves.steps_to, accuracy=threshold),
        '{:.0f}'.format,
        better=LOW,
        is_steps=True,
        is_further=threshold != shown[0],
      )


def _training(runs) -> Iterator[Quantity]:
  """Yields accuracy of training batches, unless no run has one, and loss.

  Loss only if some run has no accuracy.
  """
  regressions = curves.without_accuracy(runs)
  last = f'last {curves.WINDOW} batches'
  if not all(regressions):
    label = f'Training accuracy, {last}'
    yield Quantity(label, curves.final_train_accuracy, **_SHARE)
  if any(regressions):
    yield Quantity(f'Training loss, {last}', curves.final_train_loss, **_LOSS)


def _last(label: str, entry: looks.Entry, value: str, **keywords) -> Quantity:
  """Returns the last value that an entry has recorded."""
  read = functools.partial(curves.last, name=entry.name, value=value)
  return Quantity(label, read, **keywords)


def _median(
  label: str, entry: looks.Entry, value: str, change=np.asarray, **keywords
) -> Quantity:
  """Returns the median over training of `change` of what is recorded."""
  read = functools.partial(
    curves.median_of, name=entry.name, value=value, change=change
  )
  return Quantity(label, read, **keywords)


def _measured(runs) -> Iterator[Quantity]:
  """Yields the quantities that measures of some run have recorded."""
  others = dict.fromkeys(figures.unknown(runs), _unknown)
  for measure, quantities_of in (_OF_A_MEASURE | others).items():
    names = looks.names(runs, measure)
    for name in names:
      entry = looks.of(runs, measure, name)
      # Labels of evaluations tell several apart by their data.
      several = len(names) > 1 and measure != looks.EVALUATION
      # An analysis called after its measure is told by its step.
      which = (entry.note or f' ({name})') if several else ''
      for quantity in quantities_of(entry):
        read = _only(measure, name, quantity.read)
        yield quantity._replace(label=quantity.label + which, read=read)


def _only(measure: str, name: str, read: Read) -> Read:
  """Returns a reader that is nan where the entry is another measure."""
  return lambda seed: read(seed) if looks.has(seed, measure, name) else math.nan


def _where_finite(entry: looks.Entry, quantity: Quantity) -> list[Quantity]:
  """Returns a quantity, or nothing where no seed has a number."""
  is_told = any(math.isfinite(quantity.read(seed)) for seed in entry.seeds)
  return [quantity] if is_told else []


def _evaluation(entry: looks.Entry) -> Iterator[Quantity]:
  """Yields accuracy, top-5 accuracy and loss, as far as a run recorded them.

  Before the first record: accuracy and loss, which are then not measured.
  """
  # ' (analysis/NAME, population)' of an evaluation after training.
  after = ''
  if curves.is_analysis(entry.name):
    after = f' ({entry.name}, {entry.condition("statistics")})'
  # A squared error is not in nats, and of a training batch may be a sum.
  loss = f'Loss{_nats(entry) or " per example"}'
  begun = any(entry.name in seed.series for seed in entry.seeds)
  for label, value, keywords in (
    ('Accuracy', 'accuracy', _SHARE),
    ('Top-5 accuracy', 'top5', _SHARE | _FURTHER),
    (loss, 'loss', _LOSS),
    ('Accuracy of the average', f'{looks.AVERAGED}accuracy', _SHARE | _FURTHER),
    (f'{loss} of the average', f'{looks.AVERAGED}loss', _LOSS | _FURTHER),
  ):
    to_come = value == 'loss' or (value == 'accuracy' and not begun)
    if to_come or looks.recorded(entry, value):
      yield _last(f'{label}, {_data(entry)}{after}', entry, value, **keywords)


def _landscape(entry: looks.Entry) -> Iterator[Quantity]:
  for label, value, change in (
    (f'Loss band, median width{_nats(entry)}', 'loss', curves.width),
    ('Gradient change, median upper edge', 'gradient_change', curves.upper),
    ('Effective beta, median', 'beta', curves.upper),
    ("Curvature d'Hd / |d|², median", 'curvature', np.asarray),
    ('Limit of beta as e goes to 0, median', 'beta_0', np.asarray),
  ):
    is_asked_for = value in ('curvature', 'beta_0')
    if not is_asked_for or looks.recorded(entry, value):
      is_log = value != 'curvature'
      yield _median(label, entry, value, change, logarithmic=is_log)


def _covariate_shift(entry: looks.Entry) -> Iterator[Quantity]:
  for layer in looks.layers(entry, 'l2'):
    label = f'Covariate shift of {layer}'
    yield _median(f'{label}, cosine, median', entry, f'{layer}/cosine')
    yield _median(
      f'{label}, relative l2, median', entry, f'{layer}/relative_l2',
      logarithmic=True,
    )  # fmt: skip


def _activations(entry: looks.Entry) -> Iterator[Quantity]:
  """Yields the share of units that a ReLU makes dead, where recorded."""
  read = functools.partial(dead_units, name=entry.name)
  label = 'Dead units (never above 0), last measurement'
  yield from _where_finite(entry, Quantity(label, read, percent))


def _path(entry: looks.Entry) -> Iterator[Quantity]:
  """Yields the barriers of the last line, of each kind of statistics."""
  for statistics in path.recorded(entry):
    label = f'Barrier{_nats(entry)}, {path.OVER[statistics]}, last'
    yield _last(label, entry, f'{statistics}/barrier')


def _sharpness(entry: looks.Entry) -> Iterator[Quantity]:
  """Yields the largest eigenvalue, and what it is of the edge of stability."""
  label = 'Sharpness, last measurement'
  yield _last(label, entry, 'sharpness', logarithmic=True)
  read = functools.partial(_of_edge, name=entry.name)
  label = 'Sharpness by the edge of stability, last'
  yield from _where_finite(entry, Quantity(label, read, logarithmic=True))


def _of_edge(seed: curves.Seed, name: str) -> float:
  """Returns the last sharpness by the edge then; nan where there is none."""
  limits = sharpness.edge(seed, name)
  if limits is None or not len(limits[1]):
    return math.nan
  return curves.last(seed, name, 'sharpness') / limits[1][-1]


def _spectrum(entry: looks.Entry) -> Iterator[Quantity]:
  """Yields both ends of the last spectrum, of each block."""
  for block in spectrum.blocks(entry):
    of = f' of {block.rstrip("/")}' if block else ''
    for end in ('largest', 'smallest'):
      yield _last(f'Spectrum{of}, {end} eigenvalue, last', entry, block + end)


def _radius(entry: looks.Entry) -> Iterator[Quantity]:
  """Yields the last rise of the loss, within the largest radius."""
  largest = max(radius.radii(entry), default=math.nan)
  read = functools.partial(radius.last, name=entry.name)
  label = f'{radius.title(entry)} {largest:g}, last measurement'
  yield Quantity(label, read, logarithmic=True)


def _trace(entry: looks.Entry) -> Iterator[Quantity]:
  """Yields the last traces: of blocks, of which there are few, and not layers.

  Their errors and intervals are in the figure.
  """
  layers = {
    layer for section in entry.sections for layer in section.get('layers', ())
  }
  for row in trace.recorded(entry):
    if row.rpartition('/')[0] not in layers:
      label = f'{trace.label(row)}, last measurement'
      yield _last(label, entry, row, logarithmic=True)


def _unknown(entry: looks.Entry) -> Iterator[Quantity]:
  """Yields the last numbers of a measure without rows of its own."""
  title, every = quantities_lib.title(entry), quantities_lib.of(entry)
  names = {entry.measure: [q.name for q in every], **_SUMMARISED}[entry.measure]
  for quantity in every:
    if quantity.name in names:
      words = [f'{title}: {quantity.label}']
      words += ['largest'] if quantity.several else []
      words += ['median of the layers'] if quantity.layers else []
      read = functools.partial(
        quantities_lib.last, entry=entry.name, quantity=quantity
      )
      is_log = entry.measure == batch_sharpness.MEASURE
      label = ', '.join([*words, 'last measurement'])
      yield Quantity(label, read, logarithmic=is_log)


_OF_A_MEASURE = {
  looks.EVALUATION: _evaluation,
  'along_gradient': _landscape,
  'covariate_shift': _covariate_shift,
  'activations': _activations,
  path.MEASURE: _path,
  sharpness.MEASURE: _sharpness,
  spectrum.MEASURE: _spectrum,
  trace.MEASURE: _trace,
  radius.MEASURE: _radius,
  'cka': _unknown,
  batch_sharpness.MEASURE: _unknown,
}


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
  classified = any(numbers.get('accuracy') is not None for numbers in tests)
  value, keywords = ('accuracy', _SHARE) if classified else ('loss', _LOSS)
  read = functools.partial(curves.of_population, value=value)
  label = f'{value.capitalize()}, test set, population statistics'
  if tests:
    yield Quantity(label, read, **keywords)


def _nats(entry: looks.Entry) -> str:
  """Returns ' in nats', unless a run's loss has another unit."""
  return '' if any(map(curves.is_regression, entry.runs)) else ' in nats'


def _data(entry: looks.Entry) -> str:
  """Returns the data of an evaluation: 'test set', 'train:100'."""
  text = ' or '.join(dict.fromkeys(own['data'] for own in entry.sections))
  return f'{text} set' if text in ('train', 'test') else text
