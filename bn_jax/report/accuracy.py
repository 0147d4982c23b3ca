"""The figure of accuracy: Figure 1 of Santurkar et al. (2018)."""

from collections.abc import Sequence

from matplotlib import figure as mpl
from matplotlib import ticker

from bn_jax.report import curves, figures, over_seeds, training

_VALUES = 'accuracy', 'accuracy'


def figure(runs: Sequence[curves.Run]) -> figures.Figure | None:
  """Accuracy of training batches, and of the test set, over training.

  None where no run has one: of regressions there is the figure of loss.
  """
  without = curves.without_accuracy(runs)
  indexed = [
    (index, run) for index, run in enumerate(runs) if not without[index]
  ]
  if not indexed:
    return None
  shown = [run for _, run in indexed]

  def draw(narrow: bool) -> mpl.Figure:
    drawing, axes = training.drawing(indexed, narrow, _VALUES, False)
    for axis in axes:
      axis.set_ylabel('Accuracy')
      axis.set_ylim(0, 1.02)
      axis.yaxis.set_major_formatter(ticker.PercentFormatter(1, symbol=' %'))
    return training.finish(drawing, axes, indexed)

  return figures.Figure(
    name='accuracy',
    title='Accuracy',
    caption=f'Training batches: accuracy {training.batches(shown)}. Test set: '
    'all of it, each example once, with the running statistics.'
    f'{training.without_noise(shown)} ' + over_seeds.sentence(shown),
    alt='Training and test accuracy over steps, one line a run: '
    + '; '.join(_final(run) for run in shown),
    draw=draw,
    table=training.table(shown, _VALUES, 'accuracy'),
  )


def _final(run) -> str:
  return training.ending(
    run, curves.final_train_accuracy, lambda value: f'{100 * value:.1f} %'
  )
