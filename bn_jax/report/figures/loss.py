"""The figure of loss, of runs that have no accuracy: regressions."""

from collections.abc import Sequence

from matplotlib import figure as mpl

from bn_jax.report.drawing import canvas, overlay, strokes
from bn_jax.report.figures import training
from bn_jax.report.results import conditions, curves

_VALUES = 'data_loss', 'loss'


def figure(runs: Sequence[curves.Run]) -> canvas.Figure | None:
  """Loss of training batches, and of the test set, over training."""
  without = curves.without_accuracy(runs)
  indexed = [(index, run) for index, run in enumerate(runs) if without[index]]
  if not indexed:
    return None
  shown = [run for _, run in indexed]
  papers = overlay.distinct(indexed, 'data_loss')

  def draw(narrow: bool) -> mpl.Figure:
    drawing, axes = training.drawing(indexed, narrow, _VALUES, True)
    overlay.draw(axes[0], papers)
    for axis, label in zip(axes, ('Loss of a batch', 'Loss of an example')):
      canvas.scale_logarithmically(axis)
      axis.set_ylabel(label)
    overlay.legend(drawing, papers)
    return training.finish(drawing, axes, indexed)

  return canvas.Figure(
    name='loss',
    title='Loss',
    caption=f'Training batches: the loss that is made small, {_kind(shown)}'
    f'{training.batches(shown)}. Test set: its mean over '
    f'{training.test_set(shown)}, each example once, with the running '
    'statistics. Without a penalty, in the units of the '
    f'task. Logarithmic axes.{training.without_noise(shown)} '
    + strokes.seeds_sentence(shown, logarithmic=True)
    + overlay.sentence(papers),
    alt='Training and test loss over steps, one line a run: '
    + '; '.join(_final(run) for run in shown)
    + overlay.words(papers),
    draw=draw,
    table=training.table(shown, _VALUES, 'loss'),
  )


def _kind(runs) -> str:
  """'squared_error (factor 1, reduction sum), '; '' where it is not told."""
  said = conditions.distinct(runs, conditions.loss)
  return f'{said}, ' if said else ''


def _final(run) -> str:
  return training.ending(run, curves.final_train_loss, '{:.3g}'.format)
