"""Draws the trace of the Hessian over training, with its interval."""

from collections.abc import Iterator

import numpy as np

from bn_jax.report.drawing import over_steps, record
from bn_jax.report.figures import spectrum
from bn_jax.report.results import curves, looks

MEASURE = 'trace'
LABELS = {'trace': 'Trace', 'squared_trace': 'Trace of the square'}
# A trace that varies by more is drawn on a logarithmic axis.
_WIDE = 20.0
_XTRACE = 'XTrace (Epperly, Tropp and Webber, 2024)'
_HUTCHINSON = 'Hutchinson’s estimator (1990)'
_METHODS = {
  'xtrace': _XTRACE,
  'hutchinson': _HUTCHINSON,
  'auto': f'{_XTRACE}, or {_HUTCHINSON} where there are fewer than 20 products '
  'or its basis is too large',
}


def figure(entry: looks.Entry) -> record.Figure | None:
  """Draws the trace of each block, a line a run, and bars of 95 %."""
  rows = recorded(entry)
  if not rows:
    return None
  mean = ', of one network (the mean of their ends)' * entry.has_several_seeds
  bars = f'Bars: 95 % intervals over the random vectors{mean}.'
  methods = entry.values('method') or ['auto']
  return over_steps.figure(
    entry,
    [_panel(entry, row) for row in rows],
    name='trace',
    title=f'Trace of {spectrum.matrix(entry)}',
    caption=record.caption(
      f'The trace, the sum of all eigenvalues, of {spectrum.matrix(entry)} of '
      f'{spectrum.loss(entry)}, estimated by '
      f'{"; or by ".join(_METHODS[method] for method in methods)}.',
      any('squared' in row for row in rows)
      and 'That of its square is the sum of their squares.',
      any('/' in row for row in rows)
      and 'Of a block of parameters, its own block of the matrix.',
      looks.told(entry) if looks.once(entry) else bars,
      looks.circumstances(entry),
    ),
  )


def recorded(entry: looks.Entry) -> list[str]:
  """Returns 'trace', 'norms/trace', 'squared_trace', as far as recorded."""
  return over_steps.recorded(entry, LABELS)


def label(row: str) -> str:
  """Returns 'Trace, norms' of 'norms/trace'."""
  return over_steps.titled(row, LABELS[row.rpartition('/')[2]])


def _panel(entry: looks.Entry, row: str) -> record.Panel:
  """Returns lines and bars, and in the table also errors and products."""
  beside, last = row.removesuffix('trace'), row.rpartition('/')[2]
  name = f'{last.removesuffix("trace")}interval'

  def marks(index: int, run: curves.Run) -> Iterator[record.Mark]:
    yield from over_steps.lines(entry, index, run, row)
    for bars in record.lines(index, name, run, interval):
      yield record.Bars(index, bars.quantity, bars.curves)
    for other in (f'{beside}standard_error', f'{beside}products'):
      yield from over_steps.lines(entry, index, run, other, style='hidden')

  def interval(seed: curves.Seed):
    ends = [
      curves.line(seed, entry.name, beside + end) for end in ('low', 'high')
    ]
    if None in ends:
      return None
    (step_T, low_T), (_, high_T) = ends
    return step_T, low_T, high_T

  values = over_steps.values(entry, row, f'{beside}low')
  is_wide = over_steps.is_positive(values) and bool(
    np.max(values) > _WIDE * np.min(values)
  )
  axis = record.Axis(LABELS[last], last, is_wide)
  return over_steps.panel(entry, row, LABELS[last], axis, marks)
