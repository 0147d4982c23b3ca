"""Makes the table and the alternative text of a figure from its record.

A table has one number a row: whose it is, what it is, where it stands.
"""

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from bn_jax.report.drawing import record, static
from bn_jax.report.results import conditions, curves, seeds

# Rows above which a table has every k-th point of long curves: spreadsheets
# hold a million, and bn_jax.frame gives all.
_LONGEST = 400_000
_SHORT = 200  # points of a curve that has all of them: such as of few looks
# Begins a cell that a spreadsheet runs, and is no number.
_FORMULA = re.compile(r'(?![+-](inf|nan|[\d.]+(e[+-]?\d+)?)$)[=+@-]')
_TO_QUOTE = re.compile('[",\r\n]')
_ENDS = ('_min', '_max')  # of the quantity of a band


def of(figure: record.Figure) -> list[Sequence]:
  """Returns a header and rows: run, seed, panel, quantity, where, value.

  Columns that no row needs are left out. The mean over several seeds is of seed
  'mean'; where it has an interval, its ends are of seed 'low' and 'high'.
  """
  head, blocks = _blocks(figure)
  rows = [tuple(head)]
  for cells in blocks:
    length = len(cells['value'])
    block = [cells.get(name, '') for name in head]
    rows += zip(
      *(cell if isinstance(cell, list) else [cell] * length for cell in block)
    )
  return rows


def csv_of(figure: record.Figure) -> bytes:
  """Returns the table `of` a figure as CSV, faster than row by row."""
  head, blocks = _blocks(figure)
  parts = [as_csv([head])]
  for cells in blocks:
    block = [cells.get(name, '') for name in head]
    line = ','.join(
      '%s' if isinstance(cell, list) else _cell(cell).replace('%', '%%')
      for cell in block
    )
    lists = [
      cell if name == 'value' else _cells(cell)
      for name, cell in zip(head, block)
      if isinstance(cell, list)
    ]
    parts.append(''.join(map(f'{line}\n'.__mod__, zip(*lists))).encode())
  return b''.join(parts)


def _blocks(figure: record.Figure) -> tuple[list[str], list[dict]]:
  """Returns a header, and blocks of rows: name -> a cell, or one each row."""
  panels = [*figure.panels, *figure.undrawn]
  names = {key.index: key for key in figure.keys}
  axes = [panel.x.name for panel in panels]
  axes += [p.y.name for p in panels for m in p.marks if type(m) in _ON_PLANES]
  where = tuple(dict.fromkeys(axes))
  head = ('run', 'seed', 'panel', 'key', 'step', *where, 'quantity', 'value')
  every = 1 + sum(map(_count, panels)) // _LONGEST
  blocks = [
    block
    for panel in panels
    for mark in panel.marks
    if type(mark) in _ROWS
    for block in _told(panel, mark, names, every)
    if len(block['value'])
  ]
  needed = {name for block in blocks for name in block if block[name] != ''}
  needed |= {'run', 'value', 'quantity'}
  return [name for name in dict.fromkeys(head) if name in needed], blocks


def alternative(figure: record.Figure) -> str:
  """Returns what a figure shows, for those who cannot see it.

  Of the first panel, or the first of each run: from which value to which each
  line goes, or what colours or histograms span.
  """
  labels = dict.fromkeys(panel.y.label for panel in figure.panels)
  against = dict.fromkeys(panel.x.label for panel in figure.panels)
  count = len(figure.panels)
  text = (
    f'{conditions.listed(labels)} against {conditions.listed(against)}'
    f'{f", {count} panels" if count > 1 else ""}.'
  ).replace('\n', ' ')
  names = {key.index: key.label for key in figure.keys}
  finds = []
  for panel in figure.panels:
    for mark in panel.marks:
      if isinstance(mark, record.Lines):
        is_told = mark.style == 'line' and mark.key is not None
        finds += _ends_of(panel, mark, names) if is_told else ()
      elif hasattr(mark, 'scale'):
        finds += _range_of(panel, mark)
      elif isinstance(mark, record.Ridges):
        finds.append(_middle_of(panel, mark))
    if finds and (not panel.run or len(finds) >= len(figure.keys)):
      break
  return ' '.join([text, *finds])


def as_numbers(
  figure: record.Figure,
  runs: Sequence[curves.Run],
  label_of: Callable[[record.Panel], str] = lambda panel: panel.title,
) -> record.Figure:
  """Returns a figure with `numbers` in the place of its panels.

  Of a measure that has looked once, so that there are no curves: the last value
  of each line, a row a panel, or a layer in it. Of bands both ends; of one seed
  with its interval, if it has one.
  """
  names = {key.index: key for key in figure.keys}
  texts = {}  # label of a row -> {run: text}
  for panel in figure.panels:
    for mark in panel.marks:
      key = names.get(getattr(mark, 'key', None))
      if key is None or getattr(mark, 'style', '') != 'line':
        continue
      whose = key.label if key.run else panel.run
      row = label_of(panel) + (f', {key.label}' if not key.run else '')
      text = ' to '.join(dict.fromkeys(map(_in_words, _lasts(mark))))
      texts.setdefault(row, {})[whose] = text + _interval(panel, mark)
  rows = [
    [row, *(cells.get(run.name, 'not measured') for run in runs)]
    for row, cells in texts.items()
  ]
  return figure._replace(
    rows=(),
    undrawn=(*figure.panels, *figure.undrawn),
    numbers=[['', *(run.name for run in runs)], *rows],
  )


def _lasts(mark: record.Lines | record.Bars) -> list[list[float]]:
  """Returns the last value of each seed; of a band, of each of its edges."""
  ends = ['y'] if mark.curves[0].high is None else ['y', 'high']
  return [[getattr(curve, end)[-1] for curve in mark.curves] for end in ends]


def _in_words(values: Sequence[float]) -> str:
  return curves.in_words(values, '{:.3g}'.format)


def _interval(panel: record.Panel, mark: record.Lines) -> str:
  """Returns ' (8 to 12)': the ends of a run's bars, of one seed."""
  bars = [
    ' to '.join(map(_in_words, _lasts(other)))
    for other in panel.marks
    if isinstance(other, record.Bars) and other.key == mark.key
  ]
  return f' ({bars[0]})' if bars and len(mark.curves) == 1 else ''


def digits(numbers: Iterable[float]) -> list[str]:
  """Returns numbers as cells of a table: six digits of each."""
  return [f'{number:.6g}' for number in numbers]


def as_csv(rows: Sequence[Sequence]) -> bytes:
  """Returns a table as CSV; a cell that a spreadsheet would run is quoted."""
  return ''.join(f'{",".join(map(_cell, row))}\n' for row in rows).encode()


def _count(panel: record.Panel) -> int:
  counts = (
    np.size(mark.heights)
    if isinstance(mark, record.Ridges)
    else sum(len(curve.x) for curve in getattr(mark, 'curves', ()))
    for mark in panel.marks
  )
  return sum(counts)


def _told(panel, mark, names, every: int) -> Iterator[dict]:
  """Yields blocks of the rows of a mark, with whose they are."""
  key = names.get(getattr(mark, 'key', None))
  whose = {'run': panel.run, 'panel': panel.about}
  if key is not None and key.run:
    whose['run'] = key.label
  elif key is not None:
    whose['key'] = key.label
  for block in _ROWS[type(mark)](panel, mark, every):
    yield {**whose, **block}


def _of_lines(panel, mark, every: int) -> Iterator[dict]:
  parts = [(c.seed, c.x, (c.y, c.high), c.step) for c in mark.curves]
  is_line = isinstance(mark, record.Lines)
  several = len({curve.seed for curve in mark.curves}) > 1
  if several and not (is_line and mark.style == 'hidden'):
    # Of the points themselves, not of their trailing mean.
    raw = mark._replace(window=1) if is_line else mark
    edges = static.means(raw, panel.y)
    kinds = ['mean']
    if seeds.shows_interval(len(mark.curves)):
      kinds += ['low', 'high']
    step = mark.curves[0].step
    for kind in kinds if edges else ():
      both = [getattr(edge, kind) for edge in edges] + [None]
      parts.append((kind, edges[0].x, both[:2], step))
  for seed, x, (low, high), step in parts:
    edges = [(mark.quantity, low)]
    if high is not None:
      edges = [(mark.quantity + end, y) for end, y in zip(_ENDS, (low, high))]
    stride = every if len(x) > _SHORT else 1
    places = _places(x[::stride], getattr(mark, 'names', ()))
    for quantity, values in edges:
      yield {
        'seed': '' if seed is None else seed,
        'step': '' if step is None else step,
        panel.x.name: places,
        'quantity': quantity,
        'value': digits(values[::stride]),
      }


def _of_references(panel, mark, every: int) -> Iterator[dict]:
  for end, values in zip(_ENDS, (mark.low, mark.high)):
    yield {
      'seed': 'paper', 'quantity': f'{mark.quantity}{end}',
      panel.x.name: digits(mark.x), 'value': digits(values),
    }  # fmt: skip


def _of_cells(panel, mark, every: int) -> Iterator[dict]:
  places = [
    _middles(edges, axis) if at is None else _places(at)
    for edges, at, axis in (
      (mark.x, mark.at_x, panel.x), (mark.y, mark.at_y, panel.y))
  ]  # fmt: skip
  fixed = {'seed': mark.seed}
  if mark.step is not None:
    fixed['step'] = mark.step
  yield from _on_plane(panel, mark, *places, mark.values.T, fixed)


def _of_contours(panel, mark, every: int) -> Iterator[dict]:
  fixed = {'seed': mark.seed, 'step': mark.step}
  yield from _on_plane(
    panel, mark, digits(mark.x), digits(mark.y), mark.values, fixed
  )
  if mark.way is not None:
    yield {
      **fixed, 'step': list(map(int, mark.way_steps)),
      'quantity': f'{mark.quantity}_of_checkpoint',
      panel.x.name: digits(mark.way[:, 0]),
      panel.y.name: digits(mark.way[:, 1]),
      'value': digits(mark.way_values),
    }  # fmt: skip


def _on_plane(panel, mark, x, y, values_XY, fixed) -> Iterator[dict]:
  at_x, at_y = map(list, zip(*itertools.product(x, y)))
  yield {
    **fixed, panel.x.name: at_x, panel.y.name: at_y,
    'quantity': mark.quantity, 'value': digits(np.ravel(values_XY)),
  }  # fmt: skip


def _of_ridges(panel, mark, every: int) -> Iterator[dict]:
  middles = digits((mark.edges[1:] + mark.edges[:-1]) / 2)[::every]
  for step, heights in zip(mark.steps, mark.heights):
    yield {
      'seed': mark.seed, 'step': step, panel.x.name: middles,
      'quantity': mark.quantity, 'value': digits(heights[::every]),
    }  # fmt: skip


_ROWS: dict[type, Callable] = {
  record.Lines: _of_lines,
  record.Bars: _of_lines,
  record.Reference: _of_references,
  record.Cells: _of_cells,
  record.Contours: _of_contours,
  record.Ridges: _of_ridges,
}
_ON_PLANES = (record.Cells, record.Contours)


def _middles(edges: np.ndarray, axis: record.Axis) -> list[str]:
  """Returns the middles of cells; the names, where these are the values."""
  if axis.names:
    return list(axis.names)
  if axis.logarithmic:
    return digits(np.sqrt(edges[1:] * edges[:-1]))
  return digits((edges[1:] + edges[:-1]) / 2)


def _places(x: np.ndarray, names: Sequence[str] = ()) -> list:
  """Returns where points are, whole numbers whole, or the names of these."""
  x = np.asarray(x, float)
  if names:
    return [names[int(number) - 1] for number in x]
  is_whole = np.array_equal(x, np.round(x), equal_nan=True)
  if is_whole and np.isfinite(x).all():
    return list(map(int, x))
  return digits(x)


def _ends_of(panel, mark: record.Lines, names) -> list[str]:
  """Returns 'batch, conv1: 2.3 to 0.01.'"""
  texts = []
  for edge in static.means(mark, panel.y):
    finite_T = np.isfinite(edge.mean)
    x, y = edge.x[finite_T], edge.mean[finite_T]
    texts.append(f'{y[0]:.3g} to {y[-1]:.3g}' if len(y) else '')
    if len(y) and panel.x.name != record.STEPS.name and not mark.names:
      texts[-1] = f'{y[0]:.3g} at {x[0]:.3g} to {y[-1]:.3g} at {x[-1]:.3g}'
      # A barrier or a valley: what such lines are drawn for.
      for word, place in (('lowest', y.argmin()), ('highest', y.argmax())):
        if f' {y[place]:.3g} at ' not in f' {texts[-1]}':
          texts[-1] += f', {word} {y[place]:.3g} at {x[place]:.3g}'
  whose = (panel.run, names.get(mark.key), panel.about or panel.title)
  whose = ', '.join(dict.fromkeys(filter(None, whose)))
  if not any(texts):
    return [f'{whose}: nothing finite.']
  return [f'{whose}: {" and ".join(texts)}.']


def _range_of(panel, mark) -> list[str]:
  values = np.asarray(getattr(mark, 'values', getattr(mark, 'y', ())), float)
  values = values[np.isfinite(values)]
  whose = ', '.join(filter(None, (panel.run or panel.title, panel.note)))
  if not len(values):
    return [f'{whose}: nothing finite.']
  return [f'{whose}: {values.min():.3g} to {values.max():.3g}.']


def _middle_of(panel, mark: record.Ridges) -> str:
  """Returns 'batch, conv1, at step 100: the middle 70 % from -1 to 1.1.'"""
  below = np.cumsum(mark.heights[-1] * np.diff(mark.edges))
  below = np.concatenate([[0], below]) / max(below[-1], 1e-12)
  low, high = np.interp([0.15, 0.85], below, mark.edges)
  whose = ', '.join(filter(None, (panel.run, panel.about)))
  return (
    f'{whose}, at step {mark.steps[-1]}: the middle 70 % from {low:.3g} to '
    f'{high:.3g}.'
  )


def _cell(cell) -> str:
  """Returns a cell of a CSV; what a spreadsheet would run is quoted."""
  is_run = isinstance(cell, str) and _FORMULA.match(cell)
  text = f"'{cell}" if is_run else str(cell)
  if _TO_QUOTE.search(text):
    return '"' + text.replace('"', '""') + '"'
  return text


def _cells(column: Sequence) -> Iterable:
  """Returns `_cell` of each; of numbers, and of what many rows share, fast."""
  if not isinstance(column[0], str):
    return column
  cells = {cell: _cell(cell) for cell in set(column)}
  return map(cells.__getitem__, column)
