"""Holds what a figure shows, before anything is drawn: marks on axes.

A figure says once what each seed recorded, and of which run, quantity and look
it is. From that come the drawing (`static`), the table and the alternative text
(`tables`), and the data of the page's script (`interactive`); each of them has
a function a kind of mark. Means over seeds are taken there, by `results.seeds`.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from bn_jax.report.results import curves, looks, seeds

# Of panels abreast at most, on a page and on a telephone.
ABREAST = (4, 2)
FRAMES = 60  # of a slider at most: a page holds the numbers of each


class Axis(NamedTuple):
  """What an axis shows."""

  label: str  # with its unit
  name: str  # of its column in the table
  logarithmic: bool = False  # whether it is, if anything on it is above 0
  # What the quantity cannot leave; intervals end there.
  within: seeds.Range | None = None
  # Of the axis; None is those of what is drawn. An end that is None, or lies
  # beyond what is drawn, is that of what is drawn.
  limits: tuple[float, float] | None = None
  fixed: bool = False  # whether `limits` are the ends whatever is drawn
  percent: bool = False  # whether 0.5 is 50 %
  # Of the whole numbers from 1 on, where these are the values.
  names: tuple[str, ...] = ()
  # Where they are, as far as there is room; () is round numbers.
  ticks: tuple[float, ...] = ()


STEPS = Axis('Training step', 'step')


class Key(NamedTuple):
  """Whose marks are drawn alike: a run's, or a layer's within a panel."""

  index: int  # of its colour, dash and marker
  label: str  # in the legend
  run: bool = True  # whether it is a run
  diverged: tuple[int, ...] = ()  # the steps at which its seeds did


class Scale(NamedTuple):
  """What colours mean: from dark, `low`, to light, `high`."""

  label: str
  low: float
  high: float
  logarithmic: bool = False
  colours: str = 'viridis'


class Curve(NamedTuple):
  """What one seed has of a quantity along an axis."""

  seed: int | None  # its number; None of what is of no seed
  x: np.ndarray  # [T]
  y: np.ndarray  # [T]
  # [T], the upper edge of a band whose lower edge is y; None of a line.
  high: np.ndarray | None = None
  step: int | None = None  # of the look, where x is not the step
  # Whether its seed has: the tail of such a curve stretches no axis.
  diverged: bool = False


class Lines(NamedTuple):
  """A quantity: a line, or a band, a seed, and their mean."""

  key: int | None  # its `Key`, by index; None is grey, behind all others
  quantity: str  # its name in the table
  curves: tuple[Curve, ...]  # one a seed, or more
  # 'line'; 'thin' is dotted, and beside a line; 'further' thin and solid;
  # 'hidden' stands in the table alone.
  style: str = 'line'
  # Of the mean over the last so many points that is drawn thick, with the
  # points themselves thin; 1 is none.
  window: int = 1
  # Whether point i of a seed belongs to point i of the others, whose x may
  # differ.
  paired: bool = False
  # Of the whole numbers from 1 on, where these are x.
  names: tuple[str, ...] = ()


class Bars(NamedTuple):
  """Thin bars with caps: the mean over seeds of both ends of an interval."""

  key: int
  quantity: str
  curves: tuple[Curve, ...]


class Rule(NamedTuple):
  """A straight line across a panel."""

  at: float  # the value of y
  # Whose colour it has, thin and dotted; None is grey and dashed.
  key: int | None = None


class Points(NamedTuple):
  """Marks that stand alone."""

  key: int
  shape: str  # 'hollow', 'ring', 'cross', 'plus', 'dot'
  x: Sequence[float]  # [N]
  # [N]; None puts them at the share `place` of the height.
  y: Sequence[float] | None = None
  place: float = 0.97


class Reference(NamedTuple):
  """A curve that is not of a run, such as of a paper: in a greyed colour."""

  key: int  # whose colour
  quantity: str  # its name in the table
  x: np.ndarray  # [T]
  low: np.ndarray  # [T]
  high: np.ndarray  # [T]; a line where it equals low


class Cells(NamedTuple):
  """A map: values as colours."""

  quantity: str
  x: np.ndarray  # the edges of its cells, [X + 1]
  y: np.ndarray  # [Y + 1]
  values: np.ndarray  # [Y, X]; nan stays white
  scale: Scale
  written: bool = False  # whether numbers stand in cells that have room
  step: int | None = None  # of the look, where x is not the step
  seed: int | str = ''  # its number, or 'mean'
  # [X] and [Y], of what the values are; None is of the middles.
  at_x: np.ndarray | None = None
  at_y: np.ndarray | None = None


class Fan(NamedTuple):
  """Lines that are coloured by a number each: lines [L, E], value [L]."""

  quantity: str
  x: np.ndarray
  y: np.ndarray
  value: np.ndarray
  scale: Scale


class Ridges(NamedTuple):
  """Histograms one above the other, each scaled to its own maximum."""

  key: int
  quantity: str
  seed: int
  edges: np.ndarray  # [B + 1]
  steps: Sequence[int]  # [T], of the looks
  heights: np.ndarray  # [T, B]
  drawn: Sequence[int]  # indices of those that a still picture has


class Contours(NamedTuple):
  """A surface over a plane."""

  quantity: str
  x: np.ndarray  # [X]
  y: np.ndarray  # [Y]
  values: np.ndarray  # [X, Y]; what is not finite is hatched
  scale: Scale
  seed: int
  step: int
  # [T, 2], points on it, of which `way_values` [T] are the values; both None
  # without one.
  way: np.ndarray | None = None
  way_steps: np.ndarray | None = None
  way_values: np.ndarray | None = None


class Hatched(NamedTuple):
  """Spans of x, [N, 2], where nothing is finite."""

  spans: np.ndarray


class Words(NamedTuple):
  """A short text at shares of width and height; beside a panel from 1 on."""

  text: str
  x: float
  y: float


Mark = (
  Lines | Bars | Rule | Points | Reference | Cells | Fan | Ridges | Contours
  | Hatched | Words
)  # fmt: skip


class Panel(NamedTuple):
  """Marks on one pair of axes."""

  x: Axis
  y: Axis
  marks: tuple[Mark, ...]
  # Above it, in the topmost of a column where it is the same below.
  title: str = ''
  note: str = ''  # below the title
  run: str = ''  # the name of the run of which all of it is; '' of several
  about: str = ''  # what its rows are of in the table, such as a layer
  # The steps at which seeds of `run` did, where no key is a run.
  diverged: tuple[int, ...] = ()


class Figure(NamedTuple):
  """One figure of the report."""

  name: str  # of its files
  title: str  # of its section
  # What is drawn and how it is defined; conditions that the page does not state
  # for all figures.
  caption: str
  # Its panels; () where the page has `numbers` in their place. None leaves a
  # place empty.
  rows: tuple[tuple[Panel | None, ...], ...] = ()
  keys: tuple[Key, ...] = ()  # those of its marks, in the order of the legend
  # Whether panels of a row have one y axis, and all have one x axis.
  shares: bool = True
  # Panels side by side at most, on a page and on a telephone.
  abreast: tuple[int, int] = ABREAST
  undrawn: tuple[Panel, ...] = ()  # panels that stand in the table alone
  # (step, rows) of every look, for the slider of the page's script, where
  # `rows` show some of them; () where they show all.
  frames: tuple[tuple[int, tuple[tuple[Panel | None, ...], ...]], ...] = ()
  # Of a measure that has looked once, so that there are no curves: a header of
  # runs, and a row a quantity.
  numbers: Sequence[Sequence[str]] = ()
  reference: str = ''  # what the `Reference` marks are; '' without any

  @property
  def panels(self) -> list[Panel]:
    """Returns the panels that are drawn, row by row."""
    return [panel for row in self.rows for panel in row if panel is not None]


def caption(*sentences: str | bool | None) -> str:
  """Returns sentences as one text, without those that are '', False or None."""
  return ' '.join(filter(None, sentences))


def of_entry(
  entry: looks.Entry, name: str, title: str, caption: str, **parts
) -> Figure:
  """Returns a figure that is called after an entry.

  `parts` are other fields of a `Figure`; unless told, its keys are the runs.
  """
  parts = {'keys': keys_of(entry.indexed), **parts}
  name, title = f'{name}{entry.suffix}', f'{title}{entry.note}'
  return Figure(name, title, caption, **parts)


def hidden(panel: Panel) -> Panel:
  """Returns a panel whose lines stand in the table alone."""
  lines = (mark for mark in panel.marks if isinstance(mark, Lines))
  marks = tuple(mark._replace(style='hidden') for mark in lines)
  return panel._replace(marks=marks)


def keys_of(indexed: Iterable[tuple[int, curves.Run]]) -> tuple[Key, ...]:
  """Returns the keys of (index, run)."""
  return tuple(
    Key(index, run.name, diverged=divergences(run)) for index, run in indexed
  )


def divergences(run: curves.Run) -> tuple[int, ...]:
  """Returns the steps at which seeds of a run diverged."""
  return tuple(
    seed.manifest['step'] for seed in run.seeds if curves.has_diverged(seed)
  )


def names(labels: Sequence[str]) -> tuple[Key, ...]:
  """Returns keys that are not runs, such as layers, the first colour first."""
  return tuple(Key(index, label, False) for index, label in enumerate(labels))


def lines(
  key: int | None,
  quantity: str,
  run: curves.Run,
  read,
  **keywords,
) -> tuple[Lines, ...]:
  """Returns the lines of a run's seeds, or () where none has any.

  Args:
    read: seed -> (x, y) or (x, low, high), [T] each; None, or of length 0,
      where it has nothing.
  """
  every = [
    Curve(
      seed.seed, *map(np.asarray, numbers), diverged=curves.has_diverged(seed)
    )
    for seed in run.seeds
    if (numbers := read(seed)) is not None and len(numbers[0])
  ]
  return (Lines(key, quantity, tuple(every), **keywords),) if every else ()
