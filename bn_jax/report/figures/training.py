"""A number of training batches and of the test set, over training.

What the figures of accuracy and of loss have in common.
"""

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib import figure as mpl

from bn_jax.report.drawing import canvas, strokes
from bn_jax.report.results import conditions, curves

Indexed = Sequence[tuple[int, curves.Run]]


def drawing(
  indexed: Indexed, narrow: bool, values: tuple[str, str], logarithmic: bool
) -> tuple[mpl.Figure, Sequence]:
  """A drawing of training batches and test set, and its two axes.

  Args:
    indexed: (index, run), by which it is coloured.
    narrow: for telephones.
    values: what it is called in 'train' and in an evaluation.
    logarithmic: whether means over seeds are geometric.
  """
  made, axes = canvas.grid(2 if narrow else 1, 1 if narrow else 2, narrow)
  batch, test = axes.flat
  for index, run in indexed:
    _draw_batches(batch, run, index, values[0], logarithmic)
    _draw_test_set(test, run, index, values[1], logarithmic)
  batch.set_title('Training batches')
  test.set_title('Test set, running statistics')
  for axis in (batch, test):
    axis.set_xlabel('Step')
  return made, (batch, test)


def finish(made: mpl.Figure, axes: Sequence, indexed: Indexed) -> mpl.Figure:
  """The drawing with its divergences and legend, when all else is drawn."""
  for axis in axes:
    strokes.divergences(axis, list(indexed))
  strokes.legend(made, [(index, run.name) for index, run in indexed])
  return made


def table(runs: Sequence[curves.Run], values: tuple[str, str], name: str):
  """The numbers of the figure, as rows; `name` is that of the last column."""
  rows = [('run', 'seed', 'step', 'quantity', name)]
  for run in runs:
    evaluations = curves.measure_named(run, 'evaluation')
    quantities = [('train', values[0]), *((n, values[1]) for n in evaluations)]
    for seed in run.seeds:
      for quantity, value in quantities:
        series = seed.series.get(quantity)
        if series is None or value not in series.values:
          continue
        for step, number in zip(series.step, series.values[value]):
          rows.append((run.name, seed.seed, step, quantity, f'{number:.6g}'))
  return rows


def ending(
  run: curves.Run,
  read: Callable[[curves.Seed], float],
  show: Callable[[float], str],
) -> str:
  """'batchnorm ends at 98 % on training batches', the mean over its seeds."""
  found = [value for seed in run.seeds if np.isfinite(value := read(seed))]
  if not found:
    return f'{run.name} has seen fewer than {curves.WINDOW} training batches'
  return f'{run.name} ends at {show(np.mean(found))} on training batches'


def without_noise(runs: Sequence[curves.Run]) -> str:
  """What a caption says of noisy networks, if there are some."""
  norms = {run.config['norm']['name'] for run in runs}
  if not norms & {'noisy', 'noise'}:
    return ''
  return (
    ' The running statistics of noisy networks were collected with the noise, '
    'which is off in testing: of these, the training batches tell, or what '
    'python -m bn_jax recalibrate finds.'
  )


def batches(runs: Sequence[curves.Run]) -> str:
  """How the left half is made, for a caption."""
  return (
    f'of each batch of {conditions.said(runs, conditions.batch_size)} examples '
    f'(thin) and the mean of the last {curves.WINDOW} (thick), with batch '
    'statistics, before the update'
  )


def test_set(runs: Sequence[curves.Run]) -> str:
  """What of the test set is shown, for a caption."""
  found = {}
  for run in runs:
    name = _test_measure(run)
    data = curves.measures(run)[name]['data'] if name else 'test'
    _, _, count = data.partition(':')
    found[f'its first {count} examples' if count else 'all of it'] = None
  return ' or '.join(found)


def _draw_batches(axis, run, index, value, logarithmic) -> None:
  trains = [s.series['train'] for s in run.seeds if 'train' in s.series]
  lines = [(t.step, t.values[value]) for t in trains if value in t.values]
  raw = {'linestyle': '-', 'marker': None, 'linewidth': 0.6}
  for step_T, value_T in lines:
    alpha = 0.25 / len(lines) if len(value_T) >= curves.WINDOW else 0.6
    strokes.line(axis, step_T, value_T, index, alpha=alpha, **raw)
  kept = [
    curves.without_skipped(train, value)
    for train in trains
    if value in train.values
  ]
  smooth = [(step_T, curves.trailing_mean(value_T)) for step_T, value_T in kept]
  strokes.draw_mean(axis, smooth, index, logarithmic)


def _draw_test_set(axis, run, index, value, logarithmic) -> None:
  name = _test_measure(run)
  series = [s.series[name] for s in run.seeds if name in s.series]
  lines = [(s.step, s.values[value]) for s in series if value in s.values]
  if lines:
    strokes.draw_mean(axis, lines, index, logarithmic)


def _test_measure(run: curves.Run) -> str | None:
  """The evaluation of the whole test set, else of its first examples."""
  measures = curves.measures(run)
  names = curves.training_measures(run, 'evaluation')
  whole = [name for name in names if measures[name]['data'] == 'test']
  first = [name for name in names if measures[name]['data'][:5] == 'test:']
  return next(iter((*whole, *first)), None)
