"""Draws accuracy and loss over training.

As in Figure 1 of Santurkar et al. (2018), training batches beside the test set.
Regressions, which have no accuracy, have the figure of the loss instead.
"""

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib import figure as mpl
from matplotlib import ticker

from bn_jax.report.drawing import canvas, overlay, strokes
from bn_jax.report.results import conditions, curves, looks

_ONE_BATCH = (
  "The paper's training accuracy is of one batch of 128 every 100 steps: "
  'compare it with our thin lines.'
)


def figure(runs: Sequence[curves.Run]) -> canvas.Figure | None:
  """Draws the accuracy of training batches and of the test set over training.

  None where no run has an accuracy: regressions have the figure of the loss.
  """
  indexed = _indexed(runs, by_loss=False)
  if not indexed:
    return None
  runs = [run for _, run in indexed]
  values = 'accuracy', 'accuracy'
  # The paper's curves on the axes of training batches and of the test set.
  matches_of_axes = [
    overlay.distinct(indexed, quantity)
    for quantity in ('accuracy', 'test accuracy')
  ]
  matches = [*matches_of_axes[0], *matches_of_axes[1]]

  def draw(narrow: bool) -> mpl.Figure:
    drawing, axes = _drawing(indexed, narrow, values, logarithmic=False)
    for axis, axis_matches in zip(axes, matches_of_axes):
      overlay.draw(axis, axis_matches)
      axis.set_ylabel('Accuracy')
      axis.set_ylim(0, 1.02)
      axis.yaxis.set_major_formatter(ticker.PercentFormatter(1, symbol=' %'))
    overlay.legend(drawing, matches)
    return _finished(drawing, axes, indexed)

  return canvas.Figure(
    name='accuracy',
    title='Accuracy',
    caption=f'Training batches: accuracy {_batches(runs)}. Test set: accuracy '
    f'{_test_set(runs)}, with the running statistics.{_average(runs)}'
    f'{_noise(runs)}'
    + overlay.sentence(matches, _ONE_BATCH if matches_of_axes[0] else ''),
    alt='Training and test accuracy over steps, one line a run: '
    + _ends(runs, curves.final_train_accuracy, lambda a: f'{100 * a:.1f} %')
    + overlay.words(matches),
    draw=draw,
    table=_table(runs, values, 'accuracy'),
  )


def loss(runs: Sequence[curves.Run]) -> canvas.Figure | None:
  """Draws the loss of training batches and of the test set over training."""
  indexed = _indexed(runs, by_loss=True)
  if not indexed:
    return None
  runs = [run for _, run in indexed]
  values = 'data_loss', 'loss'
  matches = overlay.distinct(indexed, 'data_loss')
  loss_of_runs = conditions.distinct(runs, conditions.loss)
  loss_sentence = f'The loss is {loss_of_runs}. ' if loss_of_runs else ''

  def draw(narrow: bool) -> mpl.Figure:
    drawing, axes = _drawing(indexed, narrow, values, logarithmic=True)
    overlay.draw(axes[0], matches)
    for axis, label in zip(
      axes, ('Training loss, per batch', 'Test loss, per example')
    ):
      canvas.scale_logarithmically(axis)
      axis.set_ylabel(label)
    overlay.legend(drawing, matches)
    return _finished(drawing, axes, indexed)

  return canvas.Figure(
    name='loss',
    title='Loss',
    caption=f'Training batches: loss {_batches(runs)}. Test set: its mean '
    f'{_test_set(runs)}, with the running statistics.{_average(runs)} '
    f'{loss_sentence}Without '
    'the weight penalty, in the units of the task. Logarithmic vertical axes.'
    f'{_noise(runs)}' + overlay.sentence(matches),
    alt='Training and test loss over steps, one line a run: '
    + _ends(runs, curves.final_train_loss, '{:.3g}'.format)
    + overlay.words(matches),
    draw=draw,
    table=_table(runs, values, 'loss'),
  )


def _indexed(
  runs: Sequence[curves.Run], *, by_loss: bool
) -> list[tuple[int, curves.Run]]:
  """Returns (index, run) of runs shown by their loss, or by their accuracy."""
  return [
    (index, run)
    for index, (run, without) in enumerate(
      zip(runs, curves.without_accuracy(runs))
    )
    if without == by_loss
  ]


def _drawing(
  indexed: strokes.Indexed,
  narrow: bool,
  values: tuple[str, str],
  *,
  logarithmic: bool,
) -> tuple[mpl.Figure, Sequence]:
  """Draws training batches and the test set; returns drawing and two axes.

  `values` are the names of what is drawn in 'train' and in an evaluation; if
  `logarithmic`, means over seeds are geometric.
  """
  drawing, axes = canvas.grid(2 if narrow else 1, 1 if narrow else 2, narrow)
  batch, test = axes.flat
  for index, run in indexed:
    _draw_batches(batch, run, index, values[0], logarithmic)
    evaluations = _series(run, _test_entry(run), values[1])
    lines = [(series.step, series.values[values[1]]) for series in evaluations]
    strokes.draw_mean(test, lines, index, logarithmic, _within(logarithmic))
    value = looks.AVERAGED + values[1]
    averages = _series(run, _test_entry(run), value)
    if averages:
      mean = strokes.mean([(s.step, s.values[value]) for s in averages])
      strokes.thin(test, mean.step, mean.mean, index)
  batch.set_title('Training batches')
  test.set_title('Test set, running statistics')
  for axis in (batch, test):
    axis.set_xlabel('Training step')
  return drawing, (batch, test)


def _draw_batches(axis, run, index, value, logarithmic) -> None:
  trains = _series(run, 'train', value)
  raw = {'linestyle': '-', 'marker': None, 'linewidth': 0.6}
  for train in trains:
    has_mean = len(train.step) >= curves.WINDOW
    # Faint behind their mean, and fainter with more seeds; else well visible.
    alpha = 0.25 / len(trains) if has_mean else 0.6
    strokes.line(
      axis, train.step, train.values[value], index, alpha=alpha, **raw
    )
  entered = [curves.without_skipped(train, value) for train in trains]
  smooth = [
    (step_T, curves.trailing_mean(value_T)) for step_T, value_T in entered
  ]
  strokes.draw_mean(axis, smooth, index, logarithmic, _within(logarithmic))


def _within(logarithmic: bool) -> strokes.Range:
  """Returns the range of a loss, whose axis is logarithmic, or an accuracy."""
  return strokes.SIZE if logarithmic else strokes.SHARE


def _series(
  run: curves.Run, name: str | None, value: str
) -> list[curves.Series]:
  """Returns the series of the seeds that recorded a value under a name."""
  return [
    seed.series[name]
    for seed in run.seeds
    if curves.recorded(seed, name, value)
  ]


def _finished(
  drawing: mpl.Figure, axes: Sequence, indexed: strokes.Indexed
) -> mpl.Figure:
  """Adds divergences and legend to a drawing, when all else is drawn."""
  for axis in axes:
    strokes.divergences(axis, indexed)
  strokes.legend_of(drawing, indexed)
  return drawing


def _table(runs: Sequence[curves.Run], values: tuple[str, str], name: str):
  """Returns the numbers of the figure; `name` is that of the last column."""
  rows = [('run', 'seed', 'step', 'quantity', name)]
  for run in runs:
    evaluations = curves.names(run, looks.EVALUATION)
    quantities = [('train', values[0], '')]
    for entry in evaluations:
      quantities += [
        (entry, values[1], ''),
        (entry, looks.AVERAGED + values[1], ' of the average'),
      ]
    for seed in run.seeds:
      for entry, value, of in quantities:
        if curves.recorded(seed, entry, value):
          series = seed.series[entry]
          numbers = canvas.digits(series.values[value])
          for step, number in zip(series.step, numbers):
            rows.append((run.name, seed.seed, step, entry + of, number))
  return rows


def _ends(
  runs: Sequence[curves.Run],
  read: Callable[[curves.Seed], float],
  show: Callable[[float], str],
) -> str:
  """Returns 'batchnorm ends at 98 % on training batches; ...'."""

  def of(run: curves.Run) -> str:
    mean = curves.mean_over(run.seeds, read)
    if np.isnan(mean):
      return f'{run.name} has seen fewer than {curves.WINDOW} training batches'
    return f'{run.name} ends at {show(mean)} on training batches'

  return '; '.join(map(of, runs))


def _average(runs: Sequence[curves.Run]) -> str:
  """Returns what a caption says of averaged networks, if there are some."""
  decays = {run.config.get('ema') for run in runs} - {None}
  if not decays:
    return ''
  return (
    ' Dotted: the same of the averages of parameters and running statistics '
    f'over the updates (ema {", ".join(map(str, sorted(decays)))}).'
  )


def _noise(runs: Sequence[curves.Run]) -> str:
  """Returns what a caption says of noisy networks, if there are some."""
  if not any(map(curves.is_noisy, runs)):
    return ''
  return (
    ' The running statistics of noisy networks are collected with the noise, '
    'which is off in testing: judge these networks by their training batches, '
    'or after python -m bn_jax recalibrate.'
  )


def _batches(runs: Sequence[curves.Run]) -> str:
  """Returns what is drawn of training batches, for a caption."""
  size = conditions.by_run(runs, conditions.batch_size)
  return (
    f'of each batch of {size} examples before its update, with the statistics '
    f'of the batch (thin), and the mean of the last {curves.WINDOW} batches '
    '(thick)'
  )


def _test_set(runs: Sequence[curves.Run]) -> str:
  """Returns how much of the test set is evaluated, for a caption."""
  parts = {}
  for run in runs:
    name = _test_entry(run)
    data = curves.measures(run)[name]['data'] if name else 'test'
    _, _, count = data.partition(':')
    parts[f'on its first {count} examples' if count else 'on all of it'] = None
  return ' or '.join(parts)


def _test_entry(run: curves.Run) -> str | None:
  """Returns the evaluation of the whole test set, else of a part of it."""
  measures = curves.measures(run)
  names = curves.training_measures(run, looks.EVALUATION)
  whole = [name for name in names if measures[name]['data'] == 'test']
  first = [name for name in names if measures[name]['data'][:5] == 'test:']
  return next(iter((*whole, *first)), None)
