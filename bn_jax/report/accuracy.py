"""The figure of accuracy: Figure 1 of Santurkar et al. (2018)."""

from collections.abc import Sequence

import numpy as np
from matplotlib import figure as mpl
from matplotlib import ticker

from bn_jax.report import conditions, curves, figures, over_seeds, strokes


def figure(runs: Sequence[curves.Run]) -> figures.Figure:
  """Accuracy of training batches, and of the test set, over training."""

  def draw(narrow: bool) -> mpl.Figure:
    drawing, axes = figures.grid(2 if narrow else 1, 1 if narrow else 2, narrow)
    batch, test = axes.flat
    for index, run in enumerate(runs):
      _draw_batches(batch, run, index)
      _draw_test_set(test, run, index)
    batch.set_title('Training batches')
    test.set_title('Test set, running statistics')
    for axis in (batch, test):
      axis.set_xlabel('Step')
      axis.set_ylabel('Accuracy')
      axis.set_ylim(0, 1.02)
      axis.yaxis.set_major_formatter(ticker.PercentFormatter(1, symbol=' %'))
      strokes.divergences(axis, list(enumerate(runs)))
    strokes.legend(drawing, [(i, run.name) for i, run in enumerate(runs)])
    return drawing

  return figures.Figure(
    name='accuracy',
    title='Accuracy',
    caption='Training batches: accuracy of each batch of '
    f'{conditions.said(runs, conditions.batch_size)} examples (thin) and the '
    f'mean of the last {curves.WINDOW} (thick), with batch statistics, before '
    'the update. Test set: all of it, each example once, with the running '
    'statistics.'
    f'{_without_noise(runs)} ' + over_seeds.sentence(runs),
    alt='Training and test accuracy over steps, one line a run: '
    + '; '.join(_final(run) for run in runs),
    draw=draw,
    table=_accuracy_table(runs),
  )


def _draw_batches(axis, run, index) -> None:
  trains = [s.series['train'] for s in run.seeds if 'train' in s.series]
  raw = {'linestyle': '-', 'marker': None, 'linewidth': 0.6}
  for train in trains:
    accuracy_T = train.values['accuracy']
    alpha = 0.25 / len(trains) if len(accuracy_T) >= curves.WINDOW else 0.6
    strokes.line(axis, train.step, accuracy_T, index, alpha=alpha, **raw)
  smooth = [
    (train.step, curves.trailing_mean(train.values['accuracy']))
    for train in trains
  ]
  over_seeds.draw(axis, smooth, index)


def _draw_test_set(axis, run, index) -> None:
  measures = curves.measures(run)
  for name in curves.measure_named(run, 'evaluation'):
    if measures[name]['data'] == 'test':
      series = [s.series[name] for s in run.seeds if name in s.series]
      lines = [(one.step, one.values['accuracy']) for one in series]
      over_seeds.draw(axis, lines, index)
      return


def _accuracy_table(runs):
  rows = [('run', 'seed', 'step', 'quantity', 'accuracy')]
  for run in runs:
    names = ['train', *curves.measure_named(run, 'evaluation')]
    for seed in run.seeds:
      for name in names:
        series = seed.series.get(name)
        if series is None:
          continue
        for step, value in zip(series.step, series.values['accuracy']):
          rows.append((run.name, seed.seed, step, name, f'{value:.6g}'))
  return rows


def _final(run) -> str:
  values = [curves.final_train_accuracy(seed) for seed in run.seeds]
  values = [value for value in values if np.isfinite(value)]
  if not values:
    return f'{run.name} has seen fewer than {curves.WINDOW} training batches'
  return f'{run.name} ends at {100 * np.mean(values):.1f} % on training batches'


def _without_noise(runs) -> str:
  """What a caption says of noisy networks, if there are some."""
  norms = {run.config['norm']['name'] for run in runs}
  if not norms & {'noisy', 'noise'}:
    return ''
  return (
    ' The running statistics of noisy networks were collected with the noise, '
    'which is off in testing: of these, the training batches tell, or what '
    'python -m bn_jax recalibrate finds.'
  )
