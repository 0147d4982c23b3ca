"""The figure of accuracy: Figure 1 of Santurkar et al. (2018)."""

from collections.abc import Sequence

import numpy as np
from matplotlib import figure as mpl
from matplotlib import ticker

from bn_jax.report import curves, figures, over_seeds


def figure(runs: Sequence[curves.Run]) -> figures.Figure:
  """Accuracy of training batches, and of the test set, over training."""

  def draw(narrow: bool) -> mpl.Figure:
    drawing, axes = figures.grid(2 if narrow else 1, 1 if narrow else 2, narrow)
    batch, test = axes.flat
    for index, run in enumerate(runs):
      _draw_batch_accuracy(batch, run, index)
      for name in _of_test_set(run)[:1]:
        _draw_lines(test, run, index, name, 'accuracy')
    batch.set_title('Training batches')
    test.set_title('Test set, running statistics')
    for axis in (batch, test):
      axis.set_xlabel('Step')
      axis.set_ylabel('Accuracy')
      axis.set_ylim(0, 1.02)
      axis.yaxis.set_major_formatter(ticker.PercentFormatter(1, symbol=' %'))
    figures.draw_legend(drawing, columns=2 if narrow else 4)
    return drawing

  return figures.Figure(
    name='accuracy',
    title='Accuracy',
    caption='Training batches: accuracy of each batch of '
    f'{figures.batch_size(runs)} (thin) and the mean of the last '
    f'{curves.WINDOW} (thick), with batch statistics, before the update. Test '
    'set: all of it, each example once, with the running statistics.'
    f'{_without_noise(runs)} ' + over_seeds.sentence(runs),
    alt='Training and test accuracy over steps, one line a run: '
    + '; '.join(_final(run) for run in runs),
    draw=draw,
    table=_accuracy_table(runs),
  )


def _of_test_set(run) -> list[str]:
  """The evaluations of a run on its whole test set."""
  names = curves.measure_named(run, 'evaluation')
  return [n for n in names if run.config['measures'][n]['data'] == 'test']


def _draw_batch_accuracy(axis, run, index) -> None:
  colour = figures.look(index)['color']
  for seed in run.seeds:
    train = seed.series.get('train')
    if train is not None:
      axis.plot(
        train.step,
        train.values['accuracy'],
        color=colour,
        alpha=0.25 / len(run.seeds),
        linewidth=0.6,
      )
  trains = [s.series['train'] for s in run.seeds if 'train' in s.series]
  smooth = [
    (train.step, curves.trailing_mean(train.values['accuracy']))
    for train in trains
  ]
  over_seeds.draw(axis, smooth, index, run.name)
  figures.mark_divergence(axis, run, index)


def _draw_lines(axis, run, index, name, value) -> None:
  lines = [
    (s.series[name].step, s.series[name].values[value])
    for s in run.seeds
    if name in s.series
  ]
  over_seeds.draw(axis, lines, index, run.name)


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
  return f'{run.name} ends at {100 * np.mean(values):.1f} % on training batches'


def _without_noise(runs) -> str:
  """What a caption says of noisy networks, if there are some."""
  norms = {run.config['norm']['name'] for run in runs}
  if not norms & {'noisy', 'noise'}:
    return ''
  return (
    ' The running statistics of noisy networks were collected with the noise, '
    'which is off in testing: of these, the training batches tell.'
  )
