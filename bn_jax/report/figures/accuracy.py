"""The figures of accuracy and of loss over training.

Figure 1 of Santurkar et al. (2018), training batches beside the test set; of
regressions, which have no accuracy, by their loss.
"""

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib import figure as mpl
from matplotlib import ticker

from bn_jax.report.drawing import canvas, overlay, strokes
from bn_jax.report.results import conditions, curves

_OF_ONE_BATCH = (
  'Its accuracy of training batches is of one batch of 128 every 100 steps: '
  'compare it with our thin lines.'
)


def figure(runs: Sequence[curves.Run]) -> canvas.Figure | None:
  """Accuracy of training batches, and of the test set, over training.

  None where no run has one: of regressions there is the figure of loss.
  """
  indexed = _indexed(runs, by_loss=False)
  if not indexed:
    return None
  shown = [run for _, run in indexed]
  values = 'accuracy', 'accuracy'
  # Of the axes of training batches and of the test set.
  papers = [
    overlay.distinct(indexed, quantity)
    for quantity in ('accuracy', 'test accuracy')
  ]
  both = [*papers[0], *papers[1]]

  def draw(narrow: bool) -> mpl.Figure:
    drawing, axes = _drawing(indexed, narrow, values, logarithmic=False)
    for axis, theirs in zip(axes, papers):
      overlay.draw(axis, theirs)
      axis.set_ylabel('Accuracy')
      axis.set_ylim(0, 1.02)
      axis.yaxis.set_major_formatter(ticker.PercentFormatter(1, symbol=' %'))
    overlay.legend(drawing, both)
    return _finished(drawing, axes, indexed)

  return canvas.Figure(
    name='accuracy',
    title='Accuracy',
    caption=f'Training batches: accuracy {_batches(shown)}. Test set: '
    f'{_test_set(shown)}, each example once, with the running '
    f'statistics.{_without_noise(shown)} '
    + strokes.seeds_sentence(shown)
    + overlay.sentence(both, _OF_ONE_BATCH if papers[0] else ''),
    alt='Training and test accuracy over steps, one line a run: '
    + _ends(shown, curves.final_train_accuracy, lambda a: f'{100 * a:.1f} %')
    + overlay.words(both),
    draw=draw,
    table=_table(shown, values, 'accuracy'),
  )


def loss(runs: Sequence[curves.Run]) -> canvas.Figure | None:
  """Loss of training batches, and of the test set, over training."""
  indexed = _indexed(runs, by_loss=True)
  if not indexed:
    return None
  shown = [run for _, run in indexed]
  values = 'data_loss', 'loss'
  papers = overlay.distinct(indexed, 'data_loss')
  # 'squared_error (factor 1, reduction sum)'; '' where it is not told.
  kind = conditions.distinct(shown, conditions.loss)

  def draw(narrow: bool) -> mpl.Figure:
    drawing, axes = _drawing(indexed, narrow, values, logarithmic=True)
    overlay.draw(axes[0], papers)
    for axis, label in zip(axes, ('Loss of a batch', 'Loss of an example')):
      canvas.scale_logarithmically(axis)
      axis.set_ylabel(label)
    overlay.legend(drawing, papers)
    return _finished(drawing, axes, indexed)

  return canvas.Figure(
    name='loss',
    title='Loss',
    caption='Training batches: the loss that is made small, '
    f'{kind}{", " if kind else ""}{_batches(shown)}. Test set: its mean over '
    f'{_test_set(shown)}, each example once, with the running '
    'statistics. Without a penalty, in the units of the '
    f'task. Logarithmic axes.{_without_noise(shown)} '
    + strokes.seeds_sentence(shown, logarithmic=True)
    + overlay.sentence(papers),
    alt='Training and test loss over steps, one line a run: '
    + _ends(shown, curves.final_train_loss, '{:.3g}'.format)
    + overlay.words(papers),
    draw=draw,
    table=_table(shown, values, 'loss'),
  )


def _indexed(
  runs: Sequence[curves.Run], *, by_loss: bool
) -> list[tuple[int, curves.Run]]:
  """(index, run) of those that are shown by their loss, or of the others."""
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
  """A drawing of training batches and test set, and its two axes.

  Args:
    indexed: (index, run), by which it is coloured.
    narrow: for telephones.
    values: what it is called in 'train' and in an evaluation.
    logarithmic: whether means over seeds are geometric.
  """
  drawing, axes = canvas.grid(2 if narrow else 1, 1 if narrow else 2, narrow)
  batch, test = axes.flat
  for index, run in indexed:
    _draw_batches(batch, run, index, values[0], logarithmic)
    found = _series(run, _test_measure(run), values[1])
    lines = [(series.step, series.values[values[1]]) for series in found]
    strokes.draw_mean(test, lines, index, logarithmic)
  batch.set_title('Training batches')
  test.set_title('Test set, running statistics')
  for axis in (batch, test):
    axis.set_xlabel('Step')
  return drawing, (batch, test)


def _draw_batches(axis, run, index, value, logarithmic) -> None:
  trains = _series(run, 'train', value)
  raw = {'linestyle': '-', 'marker': None, 'linewidth': 0.6}
  for train in trains:
    enough = len(train.step) >= curves.WINDOW
    alpha = 0.25 / len(trains) if enough else 0.6
    strokes.line(
      axis, train.step, train.values[value], index, alpha=alpha, **raw
    )
  kept = [curves.without_skipped(train, value) for train in trains]
  smooth = [(step_T, curves.trailing_mean(value_T)) for step_T, value_T in kept]
  strokes.draw_mean(axis, smooth, index, logarithmic)


def _series(
  run: curves.Run, name: str | None, value: str
) -> list[curves.Series]:
  """Of the seeds that have recorded a value under a name."""
  return [
    seed.series[name]
    for seed in run.seeds
    if curves.recorded(seed, name, value)
  ]


def _finished(
  drawing: mpl.Figure, axes: Sequence, indexed: strokes.Indexed
) -> mpl.Figure:
  """The drawing with its divergences and legend, when all else is drawn."""
  for axis in axes:
    strokes.divergences(axis, indexed)
  strokes.legend_of(drawing, indexed)
  return drawing


def _table(runs: Sequence[curves.Run], values: tuple[str, str], name: str):
  """The numbers of the figure, as rows; `name` is that of the last column."""
  rows = [('run', 'seed', 'step', 'quantity', name)]
  for run in runs:
    evaluations = curves.measure_named(run, 'evaluation')
    quantities = [('train', values[0]), *((n, values[1]) for n in evaluations)]
    for seed in run.seeds:
      for quantity, value in quantities:
        if curves.recorded(seed, quantity, value):
          series = seed.series[quantity]
          numbers = canvas.digits(series.values[value])
          for step, number in zip(series.step, numbers):
            rows.append((run.name, seed.seed, step, quantity, number))
  return rows


def _ends(
  runs: Sequence[curves.Run],
  read: Callable[[curves.Seed], float],
  show: Callable[[float], str],
) -> str:
  """'batchnorm ends at 98 % on training batches; ...', means over seeds."""

  def of(run: curves.Run) -> str:
    found = [value for seed in run.seeds if np.isfinite(value := read(seed))]
    if not found:
      return f'{run.name} has seen fewer than {curves.WINDOW} training batches'
    return f'{run.name} ends at {show(np.mean(found))} on training batches'

  return '; '.join(map(of, runs))


def _without_noise(runs: Sequence[curves.Run]) -> str:
  """What a caption says of noisy networks, if there are some."""
  norms = {run.config['norm']['name'] for run in runs}
  if not norms & {'noisy', 'noise'}:
    return ''
  return (
    ' The running statistics of noisy networks were collected with the noise, '
    'which is off in testing: of these, the training batches tell, or what '
    'python -m bn_jax recalibrate finds.'
  )


def _batches(runs: Sequence[curves.Run]) -> str:
  """How the left half is made, for a caption."""
  return (
    f'of each batch of {conditions.said(runs, conditions.batch_size)} examples '
    f'(thin) and the mean of the last {curves.WINDOW} (thick), with batch '
    'statistics, before the update'
  )


def _test_set(runs: Sequence[curves.Run]) -> str:
  """What of the test set is shown, for a caption."""
  found = {}
  for run in runs:
    name = _test_measure(run)
    data = curves.measures(run)[name]['data'] if name else 'test'
    _, _, count = data.partition(':')
    found[f'its first {count} examples' if count else 'all of it'] = None
  return ' or '.join(found)


def _test_measure(run: curves.Run) -> str | None:
  """The evaluation of the whole test set, else of its first examples."""
  measures = curves.measures(run)
  names = curves.training_measures(run, 'evaluation')
  whole = [name for name in names if measures[name]['data'] == 'test']
  first = [name for name in names if measures[name]['data'][:5] == 'test:']
  return next(iter((*whole, *first)), None)
