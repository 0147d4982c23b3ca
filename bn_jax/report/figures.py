"""What the figures of the report share: style, colours, files."""

import csv
import io
from collections.abc import Callable, Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib import figure as mpl
from matplotlib import ticker

from bn_jax.report import curves

# Okabe and Ito's colours, told apart by the colour-blind; the first four have
# dashes of their own, told apart in print.
_COLOURS = (
  '#0072B2', '#D55E00', '#009E73', '#CC79A7',
  '#E69F00', '#56B4E9', '#7F7F7F', '#000000',
)  # fmt: skip
_DASHES = ('-', (0, (5, 1.5)), (0, (1.5, 1)), (0, (5, 1, 1, 1)))
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
  'savefig.facecolor': 'white',
  'svg.hashsalt': 'bn_jax',  # the same figure is the same file
  'pdf.fonttype': 42,
}


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
  with matplotlib.rc_context({'figure.constrained_layout.use': False}):
    drawing.set_layout_engine(None)
  return drawing


def rendered(drawing: mpl.Figure, kind: str) -> bytes:
  """The drawing as 'png', 'pdf' or 'svg', the same bytes each time."""
  with style():
    content = io.BytesIO()
    stamp = {'png': 'Software', 'pdf': 'CreationDate', 'svg': 'Date'}[kind]
    drawing.savefig(content, format=kind, dpi=160, metadata={stamp: None})
    return content.getvalue()


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
  height = 2.1 if rows > 2 else 2.9
  drawing = mpl.Figure(figsize=(width * columns, height * rows))
  axes = drawing.subplots(rows, columns, squeeze=False, **keywords)
  return drawing, axes


def panels(rows: int, columns: int, narrow: bool, shared: bool = True):
  """A drawing and its [rows, columns] axes.

  If shared, a row has one y axis, and all of them have one x axis.

  On a narrow drawing the columns stand two by two, in blocks of rows.
  """
  wide = 2 if narrow and columns > 2 else columns
  blocks = -(-columns // wide)
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


def label_steps(axis, lowest: bool) -> None:
  """Steps below the lowest panel of a column, and only there."""
  axis.set_xlabel('Step' if lowest else '')
  axis.tick_params(labelbottom=lowest)


def look(index: int) -> dict:
  """Colour and dash of the run with this index, the same in all figures."""
  return {
    'color': _COLOURS[index % len(_COLOURS)],
    'linestyle': _DASHES[index % len(_DASHES)],
  }


def draw_legend(drawing: mpl.Figure, columns: int) -> None:
  """One legend for all axes, below them, where it hides no line."""
  named = {}
  for axis in drawing.axes:
    for handle, label in zip(*axis.get_legend_handles_labels()):
      named.setdefault(label, handle)
  drawing.legend(
    named.values(), named, loc='outside lower center', ncols=columns
  )


def scale_logarithmically(axis) -> None:
  """A logarithmic y axis whose ticks are 1, 10, 100 or 1, 2, 5, 10.

  It stays linear where nothing above zero is drawn: a run that diverged at
  once.
  """
  drawn = axis.get_shared_y_axes().get_siblings(axis)
  if not any(np.isfinite(other.dataLim.minposy) for other in drawn):
    return
  axis.set_yscale('log')
  low, high = axis.get_ylim()
  steps = (1.0,) if high > 300 * low else (1.0, 2.0, 5.0)
  axis.yaxis.set_major_locator(ticker.LogLocator(subs=steps, numticks=9))
  axis.yaxis.set_major_formatter(ticker.FuncFormatter(_short_power))
  axis.yaxis.set_minor_formatter(ticker.NullFormatter())


def mark_divergence(axis, run: curves.Run, index: int) -> None:
  """A dotted line where a seed of the run diverged."""
  for seed in run.seeds:
    if seed.manifest['status'] == 'diverged':
      step = seed.manifest['step']
      axis.axvline(step, color=look(index)['color'], linestyle=':')
      axis.annotate(
        f'diverged at {step}', (step, 0.5), xycoords=('data', 'axes fraction'),
        rotation=90, ha='right', va='center', fontsize=8,
      )  # fmt: skip


def batch_size(runs: Sequence[curves.Run]) -> str:
  """'128 examples', for a caption."""
  sizes = sorted({run.config['batch_size'] for run in runs})
  return ' or '.join(f'{size} examples' for size in sizes)


def _short_power(value: float, _) -> str:
  return f'{value:g}'.replace('e-0', 'e-')


def _harmless(cell):
  text = str(cell)
  if isinstance(cell, str) and text[:1] in '=+-@' and not _is_number(text):
    return "'" + text
  return text


def _is_number(text: str) -> bool:
  try:
    float(text)
  except ValueError:
    return False
  return True
