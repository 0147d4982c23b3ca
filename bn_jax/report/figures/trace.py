"""Draws the trace of the Hessian over training, with its interval."""

from collections.abc import Sequence

import numpy as np
from matplotlib import figure as mpl

from bn_jax.report.drawing import canvas, strokes
from bn_jax.report.figures import spectrum
from bn_jax.report.results import conditions, curves, looks

MEASURE = 'trace'
LABELS = {'trace': 'Trace', 'squared_trace': 'Trace of the square'}
_ENDS = ('standard_error', 'low', 'high')
# Panels that are drawn, and so many abreast; the CSV has all of them.
_ROWS, _COLUMNS = 6, 3
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


def figure(
  runs: Sequence[curves.Run], name: str | None = None
) -> canvas.Figure | None:
  """Draws the trace of each block, a line a run, and bars of 95 %."""
  entry = looks.of(runs, MEASURE, name)
  rows = [] if entry is None else recorded(entry)
  if not rows:
    return None
  once = looks.once(entry)
  how = looks.told(entry) if once else _bars(entry)
  return canvas.Figure(
    name=f'trace{entry.suffix}',
    title=f'Trace of {spectrum.matrix(entry)}{entry.note}',
    caption=f'The trace, the sum of all eigenvalues, of '
    f'{spectrum.matrix(entry)} of {spectrum.loss(entry)}, estimated by '
    f'{_method(entry)}.{_squared(rows)}{_of_blocks(rows)} '
    f'{how}{looks.circumstances(entry)}',
    alt='Trace over training, one line a run. At the last measurement: '
    + '; '.join(_words(run, entry, rows[0]) for run in entry.runs),
    draw=None if once else lambda narrow: _drawn(entry, rows, narrow),
    table=_table(entry, rows),
    numbers=_numbers(entry, rows) if once else (),
  )


def recorded(entry: looks.Entry) -> list[str]:
  """Returns 'trace', 'norms/trace', 'squared_trace', as far as recorded."""
  names = {
    value: None
    for seed in entry.seeds
    if entry.name in seed.series
    for value in seed.series[entry.name].values
  }
  return [
    row
    for last in LABELS
    for row in sorted(names, key=lambda value: '/' in value)
    if row.rpartition('/')[2] == last
  ]


def label(row: str) -> str:
  """Returns 'Trace, norms' of 'norms/trace'."""
  block, _, last = row.rpartition('/')
  return f'{LABELS[last]}, {block}' if block else LABELS[last]


def _method(entry: looks.Entry) -> str:
  read = conditions.of(entry.measure, 'method', entry.name)
  methods = conditions.by_value(entry.runs, read) or ['auto']
  return '; or by '.join(_METHODS[method] for method in methods)


def _squared(rows: Sequence[str]) -> str:
  if not any('squared' in row for row in rows):
    return ''
  return ' That of its square is the sum of their squares.'


def _of_blocks(rows: Sequence[str]) -> str:
  words = ''
  if any('/' in row for row in rows):
    words = ' Of a block of parameters, its own block of the matrix.'
  if len(rows) > _ROWS:
    words += f' The CSV has more: {", ".join(map(label, rows[_ROWS:]))}.'
  return words


def _bars(entry: looks.Entry) -> str:
  """Returns what bars and shades are; it ends with a space."""
  words = 'Bars: 95 % intervals over the random vectors'
  if max(len(run.seeds) for run in entry.runs) == 1:
    return f'{words}. '
  return (
    f'{words}, of one network (the mean of their ends). Lines and shades: '
    'means over seeds with their 95 % intervals. '
  )


def _drawn(entry, rows, narrow: bool) -> mpl.Figure:
  rows = rows[:_ROWS]
  columns = 1 if narrow else min(len(rows), _COLUMNS)
  drawing, axes = canvas.grid(-(-len(rows) // columns), columns, narrow)
  for axis in axes.flat[len(rows) :]:
    axis.set_visible(False)
  for axis, row in zip(axes.flat, rows):
    axis.set_title(label(row))
    axis.set_xlabel('Training step')
    is_log = _is_wide(entry, row)
    for index, run in entry.indexed:
      strokes.draw_mean(axis, _lines(run, entry, row), index, is_log)
      ends = [_lines(run, entry, _beside(row, end)) for end in ('low', 'high')]
      if all(ends):
        low, high = (strokes.mean(lines, is_log) for lines in ends)
        strokes.bars(axis, low.step, low.mean, high.mean, index)
    if is_log:
      canvas.scale_logarithmically(axis)
    strokes.divergences(axis, entry.indexed)
  strokes.legend_of(drawing, entry.indexed)
  return drawing


def _beside(row: str, end: str) -> str:
  """Returns the name of an end of the interval of a row."""
  return row.removesuffix('trace') + end


def _lines(run, entry, row: str) -> list:
  """Returns (steps, values) of each seed that has them."""
  series = (seed.series.get(entry.name) for seed in run.seeds)
  return [
    (one.step, np.asarray(one.values[row], float))
    for one in series
    if one is not None and row in one.values
  ]


def _is_wide(entry, row: str) -> bool:
  """Returns whether all, with the bars, is above 0 and varies by much."""
  values = [
    y
    for run in entry.runs
    for name in (row, _beside(row, 'low'))
    for _, y in _lines(run, entry, name)
  ]
  every = np.concatenate(values)
  every = every[np.isfinite(every)]
  return bool(len(every) and every.min() > 0 and np.ptp(every) > 0) and bool(
    every.max() > _WIDE * every.min()
  )


def _words(run, entry, row: str) -> str:
  values = [y[-1] for _, y in _lines(run, entry, row)]
  return f'{run.name} {curves.in_words(values, "{:.3g}".format)}'


def _table(entry, rows) -> list[Sequence]:
  """Returns each look's estimates with errors, intervals and products."""

  def lines(seed):
    series = seed.series.get(entry.name)
    for row in rows if series is not None else ():
      block = row.rpartition('/')[0]
      products = f'{block}/products' if block else 'products'
      names = (row, *(_beside(row, end) for end in _ENDS), products)
      for look, step in enumerate(series.step):
        cells = [
          *(canvas.digits([series.values[name][look]])[0]
            if name in series.values else '' for name in names)
        ]  # fmt: skip
        yield step, row, *cells

  return canvas.table(
    entry.runs, ('quantity', 'value', *_ENDS, 'products'), lines
  )


def _numbers(entry, rows) -> list[Sequence[str]]:
  """Returns what one look has found: a line a row, with its interval."""

  def of(run, row):
    values = [y[-1] for _, y in _lines(run, entry, row)]
    text = curves.in_words(values, '{:.4g}'.format)
    if len(values) != 1:
      return text
    ends = [_lines(run, entry, _beside(row, end)) for end in ('low', 'high')]
    if not all(ends):
      return text
    low, high = (lines[0][1][-1] for lines in ends)
    return f'{text} ({low:.4g} to {high:.4g})'

  return [
    ['', *(run.name for run in entry.runs)],
    *([label(row), *(of(run, row) for run in entry.runs)] for row in rows),
  ]
