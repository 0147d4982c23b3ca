"""Draws training: loss, accuracy, norms and rate, and the test set.

As in Figure 1 of Santurkar et al. (2018), training batches beside the test set.
A regression has no accuracy.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from bn_jax.report.drawing import overlay, record
from bn_jax.report.results import conditions, curves, looks, seeds

_ONE_BATCH = (
  "The paper's training accuracy is of one batch of 128 every 100 steps: "
  'compare it with our thin lines.'
)
_AVERAGED = '_of_the_average'  # ends the quantity of an averaged network


class _Row(NamedTuple):
  """A quantity of training or of the test set."""

  value: str  # as it is recorded
  axis: record.Axis  # its axis
  title: str  # of its panel
  # Whether it is of the test set; else of each training batch.
  test: bool = False
  # What the paper calls it, of which there may be curves; '' of none.
  paper: str = ''


def _loss(name: str, label: str = 'Loss') -> record.Axis:
  return record.Axis(label, name, True, seeds.SIZE)


def _accuracy(name: str) -> record.Axis:
  return record.Axis(
    'Accuracy', name, within=seeds.SHARE, limits=(0, 1.02), fixed=True,
    percent=True,
  )  # fmt: skip


_ROWS = (
  _Row('data_loss', _loss('training_loss'), 'Training loss',
       paper='data_loss'),
  _Row('accuracy', _accuracy('training_accuracy'), 'Training accuracy',
       paper='accuracy'),
  _Row('loss', _loss('test_loss'), 'Test loss', True),
  _Row('accuracy', _accuracy('test_accuracy'), 'Test accuracy', True,
       'test accuracy'),
  _Row('penalty', _loss('penalty', 'Penalty'), 'Weight penalty'),
  _Row('gradient_norm', _loss('gradient_norm', '|g|'), 'Gradient norm'),
  _Row('update_norm', _loss('update_norm', '|Δθ|'), 'Update norm'),
  _Row('learning_rate', _loss('learning_rate', 'Learning rate'),
       'Learning rate'),
)  # fmt: skip
_PLAIN = ('penalty', 'learning_rate')  # that no batch makes jump


def figure(runs: Sequence[curves.Run]) -> record.Figure | None:
  """Draws what training recorded, a panel a quantity, a line a run."""
  indexed = list(enumerate(runs))
  panels, matches_of = [], {}
  for row in _ROWS:
    marks = tuple(
      mark for index, run in indexed for mark in _lines(row, index, run)
    )
    if not _says_something(row, marks):
      continue
    matches = overlay.distinct(indexed, row.paper) if row.paper else []
    matches_of[row.axis.name] = matches
    marks += overlay.references(matches, row.axis.name)
    panels.append(record.Panel(record.STEPS, row.axis, marks, row.title))
  if not panels:  # nothing is recorded yet
    return None
  matches = [match for of in matches_of.values() for match in of]
  return record.Figure(
    name='training',
    title='Training',
    caption=record.caption(
      *_caption(runs),
      overlay.sentence(
        matches, matches_of.get('training_accuracy') and _ONE_BATCH
      ),
    ),
    rows=(tuple(panels),),
    keys=record.keys_of(indexed),
    shares=False,
    abreast=(3, 1),
    reference=overlay.told(matches),
  )


def _lines(row: _Row, index: int, run: curves.Run) -> Iterator[record.Lines]:
  entry = _test_entry(run)

  def read(seed, value=row.value):
    if row.test:
      return curves.values(seed, entry, value)
    return curves.trained(seed, value)

  name = row.axis.name
  if not row.test:
    window = 1 if row.value in _PLAIN else curves.WINDOW
    yield from record.lines(index, name, run, read, window=window)
    return
  yield from record.lines(index, name, run, read)
  yield from record.lines(
    index, name + _AVERAGED, run,
    lambda seed: read(seed, looks.AVERAGED + row.value), style='thin',
  )  # fmt: skip


def _says_something(row: _Row, marks: Sequence[record.Lines]) -> bool:
  """Returns whether a panel is drawn: of penalties if one is above 0.

  Of rates if they are not one number, which the summary has.
  """
  values = [curve.y for mark in marks for curve in mark.curves]
  if row.value == 'penalty':
    return any(np.any(value_T > 0) for value_T in values)
  if row.value == 'learning_rate':
    return len({rate for value_T in values for rate in value_T}) > 1
  return bool(marks)


def _caption(runs: Sequence[curves.Run]) -> Iterator[str]:
  """Yields its sentences; of averages and noisy networks if there are some."""
  loss = conditions.distinct(runs, conditions.loss)
  size = conditions.by_run(runs, conditions.batch_size)
  yield (
    f'Training batches: each batch of {size} examples before its update, with '
    'the statistics of the batch (thin), and the mean of the last '
    f'{curves.WINDOW} (thick). Test set: {_test_set(runs)}, with the running '
    'statistics.'
  )
  if decays := {run.config.get('ema') for run in runs} - {None}:
    yield (
      'Dotted: the same of the averages of parameters and running statistics '
      f'over the updates (ema {", ".join(map(str, sorted(decays)))}).'
    )
  yield (
    f'{f"The loss is {loss}, w" if loss else "Losses are w"}ithout the weight '
    'penalty, in the units of the task. |g| is the norm of the gradient of the '
    'loss with its penalty, |Δθ| that of what the optimizer changed. '
    'Logarithmic vertical axes but for accuracy.'
  )
  if any(map(curves.is_noisy, runs)):
    yield (
      'The running statistics of noisy networks are collected with the noise, '
      'which is off in testing: judge these networks by their training '
      'batches, or after python -m bn_jax recalibrate.'
    )


def _test_set(runs: Sequence[curves.Run]) -> str:
  """Returns how much of the test set is evaluated, for a caption."""
  parts = {}
  for run in runs:
    name = _test_entry(run)
    data = curves.measures(run)[name]['data'] if name else 'test'
    _, _, count = data.partition(':')
    parts[f'its first {count} examples' if count else 'all of it'] = None
  return ' or '.join(parts)


def _test_entry(run: curves.Run) -> str | None:
  """Returns the evaluation of the whole test set, else of a part of it."""
  measures = curves.measures(run)
  names = curves.training_measures(run, looks.EVALUATION)
  whole = [name for name in names if measures[name]['data'] == 'test']
  first = [name for name in names if measures[name]['data'][:5] == 'test:']
  return next(iter((*whole, *first)), None)
