"""The rows of the summary that measures have recorded."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from bn_jax.report import curves


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
  """Evaluations and landscapes that some run has, each quantity a row."""
  for name in _named(runs, 'evaluation'):
    yield from _evaluation(runs, name)
  for name in _named(runs, 'along_gradient'):
    yield from _landscape(runs, name)


def _named(runs, kind: str) -> list[str]:
  names = [name for run in runs for name in curves.measure_named(run, kind)]
  return list(dict.fromkeys(names))


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
      of = f'{label}, {_data(runs, name)}'
      yield Row(of, name, 'evaluation', read, show)


def _landscape(runs, name: str) -> Iterator[Row]:
  several = len(_named(runs, 'along_gradient')) > 1
  nats = '' if _in_no_nats(runs) else ' in nats'
  for label, reduce, value in (
    (f'Loss band, median width{nats}', curves.median_width, 'loss'),
    (
      'Gradient change, median upper edge',
      curves.median_upper, 'gradient_change',
    ),
    ('Effective beta, median', curves.median_upper, 'beta'),
  ):  # fmt: skip
    read = functools.partial(reduce, name=name, value=value)
    which = f' ({name})' if several else ''
    yield Row(label + which, name, 'along_gradient', read, short)


def _in_no_nats(runs) -> bool:
  return any(map(curves.is_regression, runs))


def _data(runs, name: str) -> str:
  """What an evaluation was of: 'test set', 'train:100'."""
  found = [
    curves.measures(run)[name]['data']
    for run in runs
    if name in curves.measure_named(run, 'evaluation')
  ]
  listed = ' or '.join(dict.fromkeys(found))
  return f'{listed} set' if listed in ('train', 'test') else listed
