"""The figure of accuracy: Figure 1 of Santurkar et al. (2018)."""

from collections.abc import Sequence

from matplotlib import figure as mpl
from matplotlib import ticker

from bn_jax.report.drawing import canvas, overlay, strokes
from bn_jax.report.figures import training
from bn_jax.report.results import curves

_VALUES = 'accuracy', 'accuracy'
_OF_ONE_BATCH = (
  'Its accuracy of training batches is of one batch of 128 every 100 steps: '
  'compare it with our thin lines.'
)


def figure(runs: Sequence[curves.Run]) -> canvas.Figure | None:
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
  # Of the axes of training batches and of the test set.
  papers = [
    overlay.distinct(indexed, quantity)
    for quantity in ('accuracy', 'test accuracy')
  ]
  both = [*papers[0], *papers[1]]

  def draw(narrow: bool) -> mpl.Figure:
    drawing, axes = training.drawing(indexed, narrow, _VALUES, False)
    for axis, theirs in zip(axes, papers):
      overlay.draw(axis, theirs)
      axis.set_ylabel('Accuracy')
      axis.set_ylim(0, 1.02)
      axis.yaxis.set_major_formatter(ticker.PercentFormatter(1, symbol=' %'))
    overlay.legend(drawing, both)
    return training.finish(drawing, axes, indexed)

  return canvas.Figure(
    name='accuracy',
    title='Accuracy',
    caption=f'Training batches: accuracy {training.batches(shown)}. Test set: '
    f'{training.test_set(shown)}, each example once, with the running '
    f'statistics.{training.without_noise(shown)} '
    + strokes.seeds_sentence(shown)
    + overlay.sentence(both, _OF_ONE_BATCH if papers[0] else ''),
    alt='Training and test accuracy over steps, one line a run: '
    + '; '.join(_final(run) for run in shown)
    + overlay.words(both),
    draw=draw,
    table=training.table(shown, _VALUES, 'accuracy'),
  )


def _final(run) -> str:
  return training.ending(
    run, curves.final_train_accuracy, lambda value: f'{100 * value:.1f} %'
  )
