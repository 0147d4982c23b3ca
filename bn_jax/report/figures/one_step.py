"""Draws the loss after one step against its learning rate."""

from collections.abc import Sequence

from bn_jax.report.drawing import first_last, record
from bn_jax.report.results import curves, looks, seeds

MEASURE = 'one_step_loss'
_RATES = record.Axis('Learning rate', 'learning_rate', True)


def figure(
  runs: Sequence[curves.Run], name: str | None = None
) -> record.Figure | None:
  """Draws the loss after one step along the gradient, a line a run."""
  entry = looks.of(runs, MEASURE, name)
  if entry is None or not any(
    curves.recorded(seed, entry.name, 'loss') for seed in entry.seeds
  ):
    return None
  nats = not any(curves.is_regression(run) for run in entry.runs)
  axis = record.Axis(
    'Loss after a step' + (' (nats)' if nats else ''), 'loss', True, seeds.SIZE
  )
  row = first_last.Row(
    axis,
    lambda index, run, of: first_last.lines(
      index, run, entry.name, of, (_RATES.name, 'loss'), 'loss_0'
    ),
  )
  panels = first_last.numbered(entry, [row], _RATES)
  return record.Figure(
    name=f'one-step{entry.suffix}',
    title=f'Loss after one step{entry.note}',
    caption='The training loss with its weight penalty at θ − r·g against the '
    'learning rate r, with θ all parameters and g the gradient at θ; dotted: '
    'at θ itself, above which a step makes the loss worse. Where a line ends, '
    'the loss is not finite any more (Bjorck et al., 2018: without Batch '
    'Normalization that is at a smaller rate). '
    f'{looks.told(entry) if "numbers" in panels else _panels(entry)}'
    f'{looks.circumstances(entry)}',
    keys=record.keys_of(entry.indexed),
    **panels,
  )


def _panels(entry: looks.Entry) -> str:
  if looks.once(entry):
    return 'Logarithmic axes. '
  return (
    'Panels: the first measurement (step 0 is the initialization) and the '
    'last. Logarithmic axes. '
  )
