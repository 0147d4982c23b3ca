"""Draws the loss after one step against its learning rate."""

from bn_jax.report.drawing import first_last, record
from bn_jax.report.results import looks, seeds

MEASURE = 'one_step_loss'
_RATES = record.Axis('Learning rate', 'learning_rate', True)


def figure(entry: looks.Entry) -> record.Figure | None:
  """Draws the loss after one step along the gradient, a line a run."""
  if not looks.recorded(entry, 'loss'):
    return None
  label = looks.loss(entry, 'Loss after a step')
  axis = record.Axis(label, 'loss', True, seeds.SIZE)
  row = first_last.Row(
    axis,
    lambda index, run, of: first_last.lines(
      index, run, entry.name, of, (_RATES.name, 'loss'), 'loss_0'
    ),
  )
  is_point = first_last.is_point(entry, _RATES.name)
  made = record.of_entry(
    entry,
    'one-step',
    'Loss after one step',
    record.caption(
      'The training loss with its weight penalty at θ − r·g against the '
      'learning rate r, with θ all parameters and g the gradient at θ; dotted: '
      'at θ itself, above which a step makes the loss worse. Where a line '
      'ends, the loss is not finite any more (Bjorck et al., 2018: without '
      'Batch Normalization that is at a smaller rate).',
      not looks.once(entry)
      and 'Panels: the first measurement (step 0 is the initialization) and '
      'the last.',
      looks.told(entry) if is_point else 'Logarithmic axes.',
      looks.circumstances(entry),
    ),
    **first_last.panels(entry, [row], _RATES),
  )
  return first_last.numbered(made, entry, _RATES)
