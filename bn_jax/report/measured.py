"""The rows of the summary that measures have recorded."""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from bn_jax.report.figures import gallery
from bn_jax.report.results import curves, looks, quantities


class Row(NamedTuple):
  """One quantity of a measure.

  Attributes:
    label: what it is, and of which data.
    name: the measure's key in the config.
    kind: its name there.
    read: reads the quantity off a seed; nan where there is none.
    show: how it is written.
  """

  label: str
  name: str
  kind: str
  read: Callable[[curves.Seed], float]
  show: Callable[[float], str]


def percent(value: float) -> str:
  """A share in percent."""
  return f'{100 * value:.1f} %'


def short(value: float) -> str:
  """Three digits of a number."""
  return f'{value:.3g}'


def rows(runs: Sequence[curves.Run]) -> Iterator[Row]:
  """What measures of some run have recorded, each quantity a row."""
  for kind, read in (
    ('evaluation', _evaluation),
    ('along_gradient', _landscape),
    ('covariate_shift', _covariate_shift),
    ('activations', _activations),
  ):
    for name in looks.keys(runs, kind):
      yield from read(runs, name)
  for kind in gallery.unknown(runs):
    for name in looks.keys(runs, kind):
      yield from _unknown(runs, kind, name)


def _unknown(runs, kind: str, name: str) -> Iterator[Row]:
  """What a measure without rows of its own had at its last look."""
  seen = looks.of(runs, kind, name)
  title = quantities.title(seen)
  for quantity in quantities.of(seen):
    read = functools.partial(quantities.last, key=name, quantity=quantity)
    of = [f'{title}: {quantity.label}']
    of += ['largest'] if quantity.several else []
    of += ['median of the layers'] if quantity.layers else []
    label = ', '.join([*of, 'last look'])
    yield Row(label + _which(runs, kind, name), name, kind, read, short)


def _which(runs, kind: str, name: str) -> str:
  """' (landscape)' where there are several measures of a kind."""
  return f' ({name})' if len(looks.keys(runs, kind)) > 1 else ''


def _evaluation(runs, name: str) -> Iterator[Row]:
  """What was recorded of accuracy, or nothing yet of anything; and the loss."""
  recorded = {
    value
    for run in runs
    for seed in run.seeds
    if name in seed.series
    for value in seed.series[name].values
  }
  # A squared error is in no nats, and of a training batch may be the sum.
  loss = 'Loss an example' if _in_no_nats(runs) else 'Loss in nats'
  for label, value, show in (
    ('Accuracy', 'accuracy', percent),
    ('Top-5 accuracy', 'top5', percent),
    (loss, 'loss', short),
  ):
    to_come = not recorded and value == 'accuracy'
    if value in recorded or value == 'loss' or to_come:
      read = functools.partial(curves.last, name=name, value=value)
      of = f'{label}, {_data(runs, name)}{_later(runs, name)}'
      yield Row(of, name, 'evaluation', read, show)


def _landscape(runs, name: str) -> Iterator[Row]:
  which = _which(runs, 'along_gradient', name)
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
    if value in ('curvature', 'beta_0') and not _recorded(runs, name, value):
      continue
    read = functools.partial(reduce, name=name, value=value)
    yield Row(label + which, name, 'along_gradient', read, short)


def _covariate_shift(runs, name: str) -> Iterator[Row]:
  kind = 'covariate_shift'
  layers = looks.layers(looks.of(runs, kind, name), 'l2')
  for layer in layers:
    for value, what in (('cosine', 'cosine'), ('relative_l2', 'relative l2')):
      read = functools.partial(
        curves.median_of, name=name, value=f'{layer}/{value}'
      )
      label = f'Covariate shift of {layer}, {what}, median'
      yield Row(label + _which(runs, kind, name), name, kind, read, short)


def _activations(runs, name: str) -> Iterator[Row]:
  """The share of units that a ReLU makes dead, where it was recorded."""
  kind, read = 'activations', functools.partial(dead_units, name=name)
  seeds = [seed for run in runs for seed in run.seeds]
  if any(math.isfinite(read(seed)) for seed in seeds):
    label = 'Units never above 0, layers looked at, last look'
    yield Row(label + _which(runs, kind, name), name, kind, read, percent)


def dead_units(seed: curves.Seed, name: str) -> float:
  """The share of units without a value above 0 at the last look, or nan."""
  seen = seed.arrays.get(name)
  shares = [
    share_C
    for key, share_C in (seen[-1].values.items() if seen else ())
    if key.endswith('/positive')
  ]
  if not shares:
    return math.nan
  return float(np.mean(np.concatenate(shares) == 0))


def _recorded(runs, name: str, value: str) -> bool:
  seeds = [seed for run in runs for seed in run.seeds]
  return any(curves.recorded(seed, name, value) for seed in seeds)


def _later(runs, name: str) -> str:
  """' (analysis/NAME, population)' of what was measured afterwards."""
  if not curves.is_analysis(name):
    return ''
  seen = looks.of(runs, 'evaluation', name)
  return f' ({name}, {seen.said("statistics")})'


def _in_no_nats(runs) -> bool:
  return any(map(curves.is_regression, runs))


def _data(runs, name: str) -> str:
  """What an evaluation was of: 'test set', 'train:100'."""
  seeds = looks.of(runs, 'evaluation', name).seeds
  found = [s.manifest['config']['measures'][name]['data'] for s in seeds]
  listed = ' or '.join(dict.fromkeys(found))
  return f'{listed} set' if listed in ('train', 'test') else listed
