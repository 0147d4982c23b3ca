"""What the figures of the report share: style, panels, labels, tables, files.

A name of a run may have 100 characters, and its working directory in front: it
is put in lines, and shortened in the middle.
"""

import csv
import functools
import io
import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib import figure as mpl
from matplotlib import font_manager, textpath, ticker
from PIL import Image

from bn_jax.report.results import curves

_WIDE = 10.8  # inches of a drawing at most: below, letters are too small
_COLUMNS = 4  # of such a drawing at most
_FORMULA = re.compile('[=+@-]')  # how what a spreadsheet runs begins
_SVG_PATH = re.compile(rb' d="[^"]*"')
_LARGE = 300_000  # bytes of a PNG, from which on it has 256 colours
_STYLE = {
  'font.size': 10,
  'axes.titlesize': 10,
  'axes.spines.top': False,
  'axes.spines.right': False,
  'axes.grid': True,
  'grid.color': '#DDDDDD',
  'grid.linewidth': 0.6,
  'axes.axisbelow': True,
  'legend.frameon': False,
  'lines.linewidth': 1.6,
  'figure.constrained_layout.use': True,
  'text.parse_math': False,  # a working directory may be called $a$
  'savefig.facecolor': 'white',
  'svg.hashsalt': 'bn_jax',  # the same figure is the same file
  'pdf.fonttype': 42,
}
_NAME_LINES = 3  # of the name of a run at most
_SETTLED = {'figure.constrained_layout.use': False}


class Figure(NamedTuple):
  """One figure of the report.

  Attributes:
    name: of its files.
    title: of its section.
    caption: definition, batch, statistics, precision, seeds.
    alt: what is drawn, for those who cannot see it.
    draw: narrow? -> the drawing, called within `style()`; narrow is for
      telephones.
    table: its numbers: a header and rows.
  """

  name: str
  title: str
  caption: str
  alt: str
  draw: Callable[[bool], mpl.Figure]
  table: list[Sequence]


def style():
  """The context in which figures are drawn and rendered."""
  return matplotlib.rc_context(_STYLE)


def settled(drawing: mpl.Figure) -> mpl.Figure:
  """The drawing with all places found, once for all of its renderings.

  Matplotlib would find them anew for each, twice: most of the time of a report.
  """
  drawing.draw_without_rendering()
  with matplotlib.rc_context(_SETTLED):
    drawing.set_layout_engine(None)
  return drawing


def rendered(drawing: mpl.Figure, kind: str) -> bytes:
  """The drawing as 'png', 'pdf' or 'svg', the same bytes each time."""
  # With layout in the style, the first rendering would bring it back.
  with style(), matplotlib.rc_context(_SETTLED):
    content = io.BytesIO()
    stamp = {'png': 'Software', 'pdf': 'CreationDate', 'svg': 'Date'}[kind]
    drawing.savefig(content, format=kind, dpi=160, metadata={stamp: None})
  if kind == 'svg':
    return _SVG_PATH.sub(_in_hundredths, content.getvalue())
  is_large = kind == 'png' and content.tell() > _LARGE
  return _in_few_colours(content) if is_large else content.getvalue()


def _in_hundredths(path: re.Match) -> bytes:
  """A path of an SVG in hundredths of a point instead of millionths."""
  return re.sub(rb'(\.\d\d)\d+', rb'\1', path[0])


def _in_few_colours(png: io.BytesIO) -> bytes:
  """The same picture in the 256 colours that suit it best."""
  content = io.BytesIO()
  with Image.open(png) as picture:
    few = picture.convert('RGB').quantize(256, dither=Image.Dither.NONE)
    few.save(content, 'png', optimize=True, dpi=picture.info['dpi'])
  return content.getvalue()


def table(
  runs: Sequence[curves.Run],
  columns: Sequence[str],
  rows: Callable[[curves.Seed], Iterable[Sequence]],
) -> list[Sequence]:
  """The numbers of a figure: a header, and the rows of each run and seed.

  Args:
    runs: that it shows.
    columns: behind run, seed and step.
    rows: seed -> (step, *cells), any number of them.
  """
  made = [('run', 'seed', 'step', *columns)]
  for run in runs:
    for seed in run.seeds:
      made += [(run.name, seed.seed, *row) for row in rows(seed)]
  return made


def digits(numbers: Iterable[float]) -> list[str]:
  """Numbers as cells of a table: six digits of each."""
  return [f'{number:.6g}' for number in numbers]


def as_csv(table: Sequence[Sequence]) -> bytes:
  """A table as CSV; a cell that a spreadsheet would run is quoted."""
  text = io.StringIO()
  writer = csv.writer(text, lineterminator='\n')
  for row in table:
    writer.writerow([_harmless(cell) for cell in row])
  return text.getvalue().encode()


def grid(rows: int, columns: int, narrow: bool, **keywords):
  """A drawing and its [rows, columns] axes."""
  width = (2.0 if columns > 1 else 3.8) if narrow else 3.6
  width = min(width, _WIDE / columns)
  height = 2.1 if rows > 2 else 2.9
  drawing = mpl.Figure(figsize=(width * columns, height * rows))
  axes = drawing.subplots(rows, columns, squeeze=False, **keywords)
  return drawing, axes


def panels(rows: int, columns: int, narrow: bool, shared: bool = True):
  """A drawing and its [rows, columns] axes.

  If shared, a row has one y axis, and all of them have one x axis.

  The columns stand in blocks of rows: four beside each other at most, two on a
  narrow drawing.
  """
  blocks = -(-columns // (2 if narrow else _COLUMNS))
  wide = -(-columns // blocks)
  drawing, grid_axes = grid(rows * blocks, wide, narrow)
  axes = np.empty((rows, columns), object)
  for place in grid_axes.flat:
    place.set_visible(False)
  for row in range(rows):
    for column in range(columns):
      axis = grid_axes[column // wide * rows + row, column % wide]
      axis.set_visible(True)
      axes[row, column] = axis
      if shared and (row or column):
        axis.sharex(axes[0, 0])
      if shared and column:
        axis.sharey(axes[row, 0])
        axis.tick_params(labelleft=column % wide == 0)
  return drawing, axes


def grow(drawing: mpl.Figure, legend) -> None:
  """Makes room for a legend outside of the axes."""
  height = legend.get_window_extent().height / drawing.dpi
  drawing.set_figheight(drawing.get_figheight() + height)


def ticks_below(narrow: bool) -> int:
  """How many ticks of a logarithmic x axis there is room for."""
  return 3 if narrow else 6


def label_top(axis, name: str, note: str = '') -> None:
  """The name of a run above a panel, in lines that fit, and a note below it."""
  inches = axis.get_position().width * axis.figure.get_figwidth()
  axis.set_title(f'{fitted(name, 72 * inches)}\n{note}'.rstrip())


def label_left(axis, text: str) -> None:
  """What the y axis shows, at the left of each block."""
  axis.set_ylabel(text if axis.get_subplotspec().is_first_col() else '')


def label_steps(axis, lowest: bool) -> None:
  """Steps below the lowest panel of a column, and only there."""
  axis.set_xlabel('Step' if lowest else '')
  axis.tick_params(labelbottom=lowest)


def width(text: str) -> float:
  """The width of a text in a figure, in points."""
  return sum(map(_advance, text))


def fitted(name: str, points: float) -> str:
  """A name in at most three lines of so many points."""
  shown, kept = name, len(name)
  while len(rows := _wrapped(shown, points)) > _NAME_LINES:
    kept -= 1
    shown = f'{name[: (kept + 1) // 2]}…{name[-(kept // 2) :]}'
  return '\n'.join(rows)


def scale_logarithmically(axis, which: str = 'y', count: int = 9) -> None:
  """A logarithmic axis whose ticks are 1, 10, 100 or 1, 2, 5, 10.

  It stays linear where nothing above zero is drawn: a run that diverged at
  once.
  """
  drawn = getattr(axis, f'get_shared_{which}_axes')().get_siblings(axis)
  place = 'xy'.index(which)
  limits = [other.dataLim for other in drawn]
  low = min(limit.minpos[place] for limit in limits)
  high = max(limit.max[place] for limit in limits)
  if not np.isfinite(low):
    return
  if np.isclose(low, high, rtol=1e-9, atol=0):
    # One number: Matplotlib widens what is equal, but not but for rounding.
    getattr(axis, f'set_{which}lim')(low / 10, high * 10)
  label_logarithmically(axis, which, count)


def label_logarithmically(axis, which: str, count: int = 9) -> None:
  """A logarithmic axis with so many such ticks, of limits above 0."""
  if getattr(axis, f'get_{which}scale')() != 'log':
    getattr(axis, f'set_{which}scale')('log')
  low, high = getattr(axis, f'get_{which}lim')()
  scale = axis.xaxis if which == 'x' else axis.yaxis
  steps = (1.0,) if high > 300 * low else (1.0, 2.0, 5.0)
  scale.set_major_locator(ticker.LogLocator(subs=steps, numticks=count))
  scale.set_major_formatter(ticker.FuncFormatter(_short_power))
  scale.set_minor_formatter(ticker.NullFormatter())


def _short_power(value: float, _) -> str:
  return f'{value:g}'.replace('e-0', 'e-')


def _wrapped(text: str, points: float) -> list[str]:
  """Lines of so many points, broken after one of -_./ where there is one."""
  rows = ['']
  for character in text:
    last = rows[-1]
    if last and width(last + character) > points:
      head = re.match(r'(.*[-_./])?', last)[0] or last
      rows[-1:] = [head, last[len(head) :]]
    rows[-1] += character
  return rows


@functools.cache
def _advance(character: str) -> float:
  measure = textpath.text_to_path.get_text_width_height_descent
  return measure(character, font_manager.FontProperties(size=10), False)[0]


def _harmless(cell):
  text = str(cell)
  if isinstance(cell, str) and _FORMULA.match(text) and not _is_number(text):
    return "'" + text
  return text


def _is_number(text: str) -> bool:
  try:
    float(text)
  except ValueError:
    return False
  return True
