"""Draws the Batch Sharpness over training, against 2 / (learning rate)."""

from collections.abc import Iterator

from bn_jax.report.drawing import over_steps, record
from bn_jax.report.figures import sharpness
from bn_jax.report.results import curves, looks, optimizers

MEASURE = 'batch_sharpness'
_LABELS = {
  'batch_sharpness': "Mean of g'Hg / |g|²",
  'ratio_of_means': "Mean g'Hg / mean |g|²",
}
# Of `optimizers.edge`: with momentum it is more, and the line no theorem's.
_PLAIN = 2.0


def figure(entry: looks.Entry) -> record.Figure | None:
  """Draws both reductions over mini-batches; of plain SGD also 2 / rate."""
  rows = over_steps.recorded(entry, _LABELS)
  if not rows:
    return None
  without = [
    run.name for index, run in entry.indexed if not _limits(entry, index, run)
  ]
  return over_steps.figure(
    entry,
    [_panel(entry, row) for row in rows],
    abreast=(2, 1),
    name='batch-sharpness',
    title='Batch Sharpness',
    caption=record.caption(
      "The curvature g'Hg / |g|² of mini-batches along their own gradients: "
      'the mean of the ratios (Andreyev and Beneventano, 2024), and the ratio '
      'of the means.',
      len(without) < len(entry.runs)
      and 'Thin: 2 / (learning rate), where the mean of ratios settles under '
      'plain SGD.',
      without
      and f'No such line for {", ".join(without)}: not plain SGD, or not the '
      'function that it descends.',
      looks.once(entry) and looks.told(entry),
      looks.circumstances(entry),
    ),
  )


def _limits(entry: looks.Entry, index: int, run: curves.Run):
  """Returns the lines of 2 / (learning rate) where training is plain SGD."""
  if optimizers.edge(run.config) != _PLAIN:
    return ()
  return sharpness.edges(entry, index, run)


def _panel(entry: looks.Entry, row: str) -> record.Panel:
  def marks(index: int, run: curves.Run) -> Iterator[record.Mark]:
    yield from over_steps.lines(entry, index, run, row)
    yield from _limits(entry, index, run)
    if row == MEASURE:
      error = 'standard_error'
      yield from over_steps.lines(entry, index, run, error, style='hidden')

  is_log = over_steps.is_positive(over_steps.values(entry, row))
  axis = record.Axis("g'Hg / |g|²", row, is_log)
  return over_steps.panel(entry, row, _LABELS[row], axis, marks)
