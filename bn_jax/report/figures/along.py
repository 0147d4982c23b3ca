"""Draws a landscape against the step size, at the first and last checkpoint."""

from collections.abc import Iterator

import numpy as np

from bn_jax.report.drawing import first_last, record
from bn_jax.report.figures import landscape
from bn_jax.report.results import beta, curves, looks, seeds

MEASURE = 'along_gradient'
# (quantity, label, what is recorded of it at θ itself; '' for nothing).
_ROWS = (
  ('loss', 'Loss', 'loss_0'),
  ('gradient_change', 'Gradient change', ''),
  ('beta', 'Beta', 'beta_0'),
)
_SIZES = record.Axis('Step size e', 'step_size', True)
_AXES = 'A line ends where a number is not finite. Logarithmic axes.'


def figure(entry: looks.Entry) -> record.Figure | None:
  """Draws loss, gradient change and beta against the step size, a line a run.

  Of analyses and of what has looked once: training has the bands of `landscape`
  and the map of `distance`.
  """
  if not (curves.is_analysis(entry.name) or looks.once(entry)):
    return None
  d = landscape.symbol(entry)
  rows = [_row(entry, *words) for words in _ROWS]
  is_point = first_last.is_point(entry, _SIZES.name)
  made = record.of_entry(
    entry,
    'along',
    f'Loss {landscape.direction(entry)}, by step size',
    record.caption(
      *landscape.definition(entry),
      'Loss: L; dotted, at θ itself. Gradient change: '
      f'|∇L(θ − e·{d}) − g|. Beta: |∇L(θ − e·{d}) − g| / (e·|{d}|); grey: '
      '1 / e, on which it lies where the step has wiped g out.',
      beta.limit(entry, d),
      looks.told(entry) if is_point else _AXES,
    ),
    **first_last.panels(entry, rows, _SIZES),
  )
  return first_last.numbered(made, entry, _SIZES)


def _row(entry, quantity: str, label: str, at_0: str) -> first_last.Row:
  names = (_SIZES.name, quantity)
  return first_last.Row(
    record.Axis(label, quantity, True, seeds.SIZE),
    lambda index, run, of: first_last.lines(
      index, run, entry.name, of, names, at_0
    ),
    lambda of: _wiped(entry, of) if quantity == 'beta' else (),
  )


def _wiped(entry, of: first_last.Of) -> Iterator[record.Lines]:
  """Yields 1 / e, which beta is where the step has wiped the gradient out."""
  every = [
    size
    for run in entry.runs
    for *_, (sizes,) in first_last.of_looks(run, entry.name, of, _SIZES.name)
    for size in sizes
  ]
  sizes = np.unique(every)
  sizes = sizes[sizes > 0]
  if len(sizes):
    curve = record.Curve(None, sizes, 1 / sizes)
    yield record.Lines(None, 'inverse_of_step_size', (curve,))
