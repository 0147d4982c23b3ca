"""Lays out figures, alike for all: style, panels, labels, tables, files.

A name of a run may have 100 characters, and its working directory in front: it
is broken into lines, and shortened in the middle.
"""

import functools
import io
import re

import matplotlib
import numpy as np
from matplotlib import figure as mpl
from matplotlib import font_manager, textpath, ticker
from PIL import Image

# Inches of a drawing at most. A page scales it to its own width, so that the
# letters of a wider drawing are too small to read.
_WIDE = 10.8
_SVG_PATH = re.compile(rb' d="([^"]*)"')
_SVG_LINES = re.compile(rb'(?:M[-\d. \n]*(?:L[-\d. \n]*)*(?:z\s*)?)+')
_SVG_PLACE = re.compile(r' ([xy])="(-?\d+\.\d\d)\d*"')
_SVG_FONTS = re.compile(r"(font-family: '[^',]*')[^;\"]*")
_SVG_MARKERS = re.compile(r'<g([^>]*)>((?:<use [^>]*/>){2,})</g>')
_SVG_STYLE = re.compile(r' style="[^"]*"')
_SVG_BLANKS = re.compile(r'(?<=>)\s+(?=<)')
_SVG_ID = re.compile(r' id="([^"]*)"')
_SVG_LINK = re.compile(r'(?:href="#|url\(#)([^")]*)')
# Colours of Matplotlib's -> those of the page, which are others in the dark.
_OF_PAGE = {
  '#000000': 'currentColor',
  '#ffffff': 'var(--back)',
  '#dddddd': 'var(--line)',
}
# Bytes above which a PNG gets 256 colours: smaller, its shades less exact.
_LARGE = 300_000
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
  'svg.fonttype': 'none',  # text stays text: it is selected and read aloud
  'pdf.fonttype': 42,
}
_NAME_LINES = 3  # of the name of a run at most: more would shrink its panel
_FEW = 3  # ticks below a panel of a telephone
_SETTLED = {'figure.constrained_layout.use': False}


def style():
  """Returns the context in which figures are drawn and rendered."""
  return matplotlib.rc_context(_STYLE)


class Drawing(mpl.Figure):
  """Shows itself in a notebook, which asks no figure of Matplotlib to do so."""

  def _repr_png_(self) -> bytes:
    return rendered(self, 'png')


def settled(drawing: mpl.Figure) -> mpl.Figure:
  """Lays a drawing out, once for all of its renderings, and returns it.

  Matplotlib would lay it out twice for each: most of the time of a report.
  """
  layout = drawing.get_layout_engine()
  if layout is None:
    drawing.draw_without_rendering()
  else:  # without the rest of drawing, of which a rendering does its own
    layout.execute(drawing)
  with matplotlib.rc_context(_SETTLED):
    drawing.set_layout_engine(None)
  return drawing


def rendered(drawing: mpl.Figure, kind: str) -> bytes:
  """Returns the drawing as 'png', 'pdf' or 'svg', the same bytes each time."""
  # The style asks for a layout, which the first rendering would do again.
  with style(), matplotlib.rc_context(_SETTLED):
    content = io.BytesIO()
    stamp = {'png': 'Software', 'pdf': 'CreationDate', 'svg': 'Date'}[kind]
    drawing.savefig(content, format=kind, dpi=160, metadata={stamp: None})
  if kind == 'svg':
    return _SVG_PATH.sub(_in_few_digits, content.getvalue())
  is_large = kind == 'png' and content.tell() > _LARGE
  return _in_few_colours(content) if is_large else content.getvalue()


def inline(drawing: mpl.Figure, name: str, attributes: str) -> str:
  """Returns the drawing as an <svg> that stands among others on a page.

  Args:
    name: begins its ids: two figures must not share one.
    attributes: further ones of the element, as text.
  """
  text = rendered(drawing, 'svg').decode()
  text = text[text.index('<svg') :]
  box = re.search(r'viewBox="([^"]*)"', text)[1]
  body = text[text.index('>') + 1 :]
  body = re.sub(r'<metadata>.*?</metadata>', '', body, flags=re.DOTALL)
  body = re.sub(r'<style.*?</style>', '', body, flags=re.DOTALL)
  linked = set(_SVG_LINK.findall(body))
  body = _SVG_ID.sub(
    lambda found: f' id="{name}-{found[1]}"' if found[1] in linked else '', body
  )
  body = _SVG_LINK.sub(
    lambda found: found[0].replace(f'#{found[1]}', f'#{name}-{found[1]}'), body
  )
  for colour, of_page in _OF_PAGE.items():
    body = re.sub(colour, of_page, body, flags=re.IGNORECASE)
  body = _SVG_BLANKS.sub('', body).replace('xlink:href="#', 'href="#')
  body = _SVG_PLACE.sub(r' \1="\2"', body)
  body = _SVG_MARKERS.sub(
    _in_one_style, _SVG_FONTS.sub(r'\1, sans-serif', body)
  )
  return f'<svg viewBox="{box}" {attributes}>{body.strip()}'


def _in_few_digits(path: re.Match) -> bytes:
  """Returns a path of an SVG in tenths of a point, each from the one before.

  One with curves, such as of a marker, in hundredths.
  """
  lines = path[1].decode().split('M')[1:]
  if not _SVG_LINES.fullmatch(path[1]):
    return re.sub(rb'(\.\d\d)\d+', rb'\1', path[0])
  parts = []
  for line in lines:
    numbers = np.fromstring(line.replace('L', '').rstrip('z \n'), sep=' ')
    tenths = np.rint(10 * numbers).astype(int).reshape(-1, 2)
    steps = np.diff(tenths, axis=0)
    steps = steps[steps.any(axis=1)] if len(steps) > 1 else steps
    parts.append(f'M{_tenths(tenths[0])}')
    parts.append(f'l{_tenths(steps.ravel())}' if len(steps) else '')
    parts.append('z' * ('z' in line))
  return f' d="{"".join(parts)}"'.encode()


def _in_one_style(group: re.Match) -> str:
  """Returns a group of markers with the style that they share, told once."""
  styles = set(_SVG_STYLE.findall(group[2]))
  if len(styles) > 1 or 'style=' in group[1]:
    return group[0]
  markers = _SVG_STYLE.sub('', group[2])
  return f'<g{group[1]}{"".join(styles)}>{markers}</g>'


def _tenths(numbers: np.ndarray) -> str:
  """Returns 1.5-2 .3 for 15, -20, 3."""
  texts = ' '.join(f'{number / 10:g}' for number in numbers.tolist())
  return re.sub(r'(?<![\d.])0\.', '.', texts).replace(' -', '-')


def _in_few_colours(png: io.BytesIO) -> bytes:
  """Returns the same picture in the 256 colours that suit it best."""
  content = io.BytesIO()
  with Image.open(png) as picture:
    few = picture.convert('RGB').quantize(256, dither=Image.Dither.NONE)
    few.save(content, 'png', optimize=True, dpi=picture.info['dpi'])
  return content.getvalue()


def grid(rows: int, columns: int, narrow: bool):
  """Returns a drawing and its [rows, columns] axes."""
  # Of a panel: a telephone shows four inches, so that two stand abreast.
  inches = (2.0 if columns > 1 else 3.8) if narrow else 3.6
  inches = min(inches, _WIDE / columns)
  height = 2.1 if rows > 2 else 2.9
  drawing = Drawing(figsize=(inches * columns, height * rows))
  return drawing, drawing.subplots(rows, columns, squeeze=False)


def panels(rows: int, columns: int, narrow: bool, shared: bool, abreast: int):
  """Returns a drawing and its [rows, columns] axes.

  If shared, the panels of a row have one y axis, and all have one x axis. More
  than `abreast` columns continue in a block below.
  """
  blocks = -(-columns // abreast)
  wide = -(-columns // blocks)
  drawing, grid_axes = grid(rows * blocks, wide, narrow)
  axes = np.empty((rows, columns), object)
  for axis in grid_axes.flat:
    axis.set_visible(False)
  for row, column in np.ndindex(rows, columns):
    axis = grid_axes[column // wide * rows + row, column % wide]
    axis.set_visible(True)
    axes[row, column] = axis
    if shared and (row or column):
      axis.sharex(axes[0, 0])
    if shared and column:
      axis.sharey(axes[row, 0])
      axis.tick_params(labelleft=column % wide == 0)
  return drawing, axes


def cell_edges(middles: np.ndarray) -> np.ndarray:
  """Returns the edges of the cells of a map around T points, [T + 1]."""
  if len(middles) < 2:
    return np.concatenate([middles - 0.5, middles + 0.5])
  between = (middles[1:] + middles[:-1]) / 2
  first, last = 2 * middles[0] - between[0], 2 * middles[-1] - between[-1]
  return np.concatenate([[first], between, [last]])


def grow(drawing: mpl.Figure, legend) -> None:
  """Makes room for a legend outside of the axes."""
  height = legend.get_window_extent().height / drawing.dpi
  drawing.set_figheight(drawing.get_figheight() + height)


def ticks_below(narrow: bool) -> int:
  """Returns for how many ticks a logarithmic x axis has room."""
  return _FEW if narrow else 6


def label_top(axis, name: str, note: str = '') -> None:
  """Writes the name of a run above a panel, and a note below the name."""
  inches = axis.get_position().width * axis.figure.get_figwidth()
  axis.set_title(f'{fitted(name, 72 * inches)}\n{note}'.rstrip())


def width(text: str) -> float:
  """Returns the width of a text in a figure, in points."""
  return sum(map(_advance, text))


def fitted(name: str, points: float) -> str:
  """Returns a name in at most three lines, each at most `points` wide."""
  text, length = name, len(name)
  while len(rows := _wrapped(text, points)) > _NAME_LINES:
    length -= 1
    text = f'{name[: (length + 1) // 2]}…{name[-(length // 2) :]}'
  return '\n'.join(rows)


def scale_logarithmically(axis, which: str = 'y', count: int = 9) -> None:
  """Makes an axis logarithmic, with ticks at 1, 10, 100 or 1, 2, 5, 10.

  It stays linear if nothing above zero is drawn, such as of a run that diverged
  at once.
  """
  sharing = getattr(axis, f'get_shared_{which}_axes')().get_siblings(axis)
  dimension = 'xy'.index(which)
  limits = [other.dataLim for other in sharing]
  low = min(limit.minpos[dimension] for limit in limits)
  high = max(limit.max[dimension] for limit in limits)
  if not np.isfinite(low):
    return
  if np.isclose(low, high, rtol=1e-9, atol=0):
    # One number: Matplotlib widens equal limits, but not nearly equal ones.
    getattr(axis, f'set_{which}lim')(low / 10, high * 10)
  label_logarithmically(axis, which, count)


def label_logarithmically(axis, which: str, count: int = 9) -> None:
  """Puts at most `count` such ticks on an axis whose limits are above 0."""
  if getattr(axis, f'get_{which}scale')() != 'log':
    getattr(axis, f'set_{which}scale')('log')
  low, high = getattr(axis, f'get_{which}lim')()
  scale = axis.xaxis if which == 'x' else axis.yaxis
  # Over more than two decades and a half, 2 and 5 would crowd the axis; over
  # more than one the x axis of a telephone.
  widest = 300 if count > _FEW else 12
  steps = (1.0,) if high > widest * low else (1.0, 2.0, 5.0)
  scale.set_major_locator(ticker.LogLocator(subs=steps, numticks=count))
  short = lambda value, _: f'{value:g}'.replace('e-0', 'e-')
  scale.set_major_formatter(ticker.FuncFormatter(short))
  scale.set_minor_formatter(ticker.NullFormatter())


def _wrapped(text: str, points: float) -> list[str]:
  """Returns lines at most `points` wide, broken after -_./ where possible."""
  rows = ['']
  for character in text:
    last = rows[-1]
    if last and width(last + character) > points:
      head = re.match(r'(.*[-_./])?', last)[0] or last
      rows[-1:] = [head, last[len(head) :]]
    rows[-1] += character
  return rows


def wrapped(text: str, points: float) -> str:
  """Returns lines at most `points` wide, broken between words."""
  rows = ['']
  for word in text.split():
    longer = f'{rows[-1]} {word}'.lstrip()
    if rows[-1] and width(longer) > points:
      rows.append(word)
    else:
      rows[-1] = longer
  return '\n'.join(rows)


@functools.cache
def _advance(character: str) -> float:
  measure = textpath.text_to_path.get_text_width_height_descent
  return measure(character, font_manager.FontProperties(size=10), False)[0]
