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
TAIL = 10  # times the median of a seed that diverged: there its tail begins
FRAMES = 60  # of a slider at most: a page holds the numbers of each


class Axis(NamedTuple):
  """What an axis shows.

  Attributes:
    label: with its unit.
    name: of its column in the table.
    logarithmic: whether it is, if anything on it is above 0.
    within: what the quantity cannot leave; intervals end there.
    limits: of the axis; None is those of what is drawn. An end that is None, or
      lies beyond what is drawn, is that of what is drawn.
    fixed: whether `limits` are the ends whatever is drawn.
    percent: whether 0.5 is 50 %.
    names: of the whole numbers from 1 on, where these are the values.
    ticks: where they are, as far as there is room; () is round numbers.
  """

  label: str
  name: str
  logarithmic: bool = False
  within: seeds.Range | None = None
  limits: tuple[float, float] | None = None
  fixed: bool = False
  percent: bool = False
  names: tuple[str, ...] = ()
  ticks: tuple[float, ...] = ()


STEPS = Axis('Training step', 'step')


class Key(NamedTuple):
  """Whose marks are drawn alike: a run's, or a layer's within a panel.

  Attributes:
    index: of its colour, dash and marker.
    label: in the legend.
    run: whether it is a run.
    diverged: the steps at which its seeds did.
  """

  index: int
  label: str
  run: bool = True
  diverged: tuple[int, ...] = ()


class Scale(NamedTuple):
  """What colours mean: from dark, `low`, to light, `high`."""

  label: str
  low: float
  high: float
  logarithmic: bool = False
  colours: str = 'viridis'


class Curve(NamedTuple):
  """What one seed has of a quantity along an axis.

  Attributes:
    seed: its number; None of what is of no seed.
    x, y: [T].
    high: [T], the upper edge of a band whose lower edge is y; None of a line.
    step: of the look, where x is not the step.
    diverged: whether its seed has: the tail of such a curve stretches no axis.
  """

  seed: int | None
  x: np.ndarray
  y: np.ndarray
  high: np.ndarray | None = None
  step: int | None = None
  diverged: bool = False


class Lines(NamedTuple):
  """A quantity: a line, or a band, a seed, and their mean.

  Attributes:
    key: its `Key`, by index; None is grey, behind all others.
    quantity: its name in the table.
    curves: one a seed, or more.
    style: 'line'; 'thin' is dotted, and beside a line; 'further' thin and
      solid; 'hidden' stands in the table alone.
    window: of the mean over the last so many points that is drawn thick, with
      the points themselves thin; 1 is none.
    paired: whether point i of a seed belongs to point i of the others, whose x
      may differ.
    names: of the whole numbers from 1 on, where these are x.
  """

  key: int | None
  quantity: str
  curves: tuple[Curve, ...]
  style: str = 'line'
  window: int = 1
  paired: bool = False
  names: tuple[str, ...] = ()


class Bars(NamedTuple):
  """Thin bars with caps: the mean over seeds of both ends of an interval."""

  key: int
  quantity: str
  curves: tuple[Curve, ...]


class Rule(NamedTuple):
  """A straight line across a panel.

  Attributes:
    at: the value of y, or the steps ... of x if `vertical`.
    key: whose colour it has, thin and dotted; None is grey and dashed.
  """

  at: float
  key: int | None = None


class Points(NamedTuple):
  """Marks that stand alone.

  Attributes:
    shape: 'hollow', 'ring', 'cross', 'plus', 'dot'.
    x: [N].
    y: [N]; None puts them at the share `place` of the height.
  """

  key: int
  shape: str
  x: Sequence[float]
  y: Sequence[float] | None = None
  place: float = 0.97


class Reference(NamedTuple):
  """A curve that is not of a run, such as of a paper: in a greyed colour.

  Attributes:
    key: whose colour.
    quantity: its name in the table.
    x, low, high: [T]; a line where both are equal.
  """

  key: int
  quantity: str
  x: np.ndarray
  low: np.ndarray
  high: np.ndarray


class Cells(NamedTuple):
  """A map: values as colours.

  Attributes:
    x, y: the edges of its cells, [X + 1] and [Y + 1].
    values: [Y, X]; nan stays white.
    written: whether numbers stand in cells that have room.
    step: of the look, where x is not the step.
    seed: its number, or 'mean'.
    at_x, at_y: [X] and [Y], of what the values are; None is of the middles.
  """

  quantity: str
  x: np.ndarray
  y: np.ndarray
  values: np.ndarray
  scale: Scale
  written: bool = False
  step: int | None = None
  seed: int | str = ''
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
  """Histograms one above the other, each scaled to its own maximum.

  Attributes:
    edges: [B + 1].
    steps: [T], of the looks.
    heights: [T, B].
    drawn: indices of those that a still picture has.
  """

  key: int
  quantity: str
  seed: int
  edges: np.ndarray
  steps: Sequence[int]
  heights: np.ndarray
  drawn: Sequence[int]


class Contours(NamedTuple):
  """A surface over a plane.

  Attributes:
    x, y: [X], [Y].
    values: [X, Y]; what is not finite is hatched.
    way: [T, 2], points on it, of which `way_values` [T] are the values; both
      None without one.
  """

  quantity: str
  x: np.ndarray
  y: np.ndarray
  values: np.ndarray
  scale: Scale
  seed: int
  step: int
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
  """Marks on one pair of axes.

  Attributes:
    title: above it, in the topmost of a column where it is the same below.
    note: below the title.
    run: the name of the run of which all of it is; '' of several.
    about: what its rows are of in the table, such as a layer.
    diverged: the steps at which seeds of `run` did, where no key is a run.
  """

  x: Axis
  y: Axis
  marks: tuple[Mark, ...]
  title: str = ''
  note: str = ''
  run: str = ''
  about: str = ''
  diverged: tuple[int, ...] = ()


class Figure(NamedTuple):
  """One figure of the report.

  Attributes:
    name: of its files.
    title: of its section.
    caption: what is drawn and how it is defined; conditions that the page
      does not state for all figures.
    rows: its panels; () where the page has `numbers` in their place. None
      leaves a place empty.
    keys: those of its marks, in the order of the legend.
    shares: whether panels of a row have one y axis, and all have one x axis.
    abreast: panels side by side at most, on a page and on a telephone.
    undrawn: panels that stand in the table alone.
    frames: (step, rows) of every look, for the slider of the page's script,
      where `rows` show some of them; () where they show all.
    numbers: of a measure that has looked once, so that there are no curves: a
      header of runs, and a row a quantity.
    reference: what the `Reference` marks are; '' without any.
  """

  name: str
  title: str
  caption: str
  rows: tuple[tuple[Panel | None, ...], ...] = ()
  keys: tuple[Key, ...] = ()
  shares: bool = True
  abreast: tuple[int, int] = ABREAST
  undrawn: tuple[Panel, ...] = ()
  frames: tuple[tuple[int, tuple[tuple[Panel | None, ...], ...]], ...] = ()
  numbers: Sequence[Sequence[str]] = ()
  reference: str = ''

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


def without_tails(figure: Figure) -> Figure:
  """Returns a figure whose y axes are not set by how seeds diverged.

  Such an axis holds all that is finite of other seeds, and of one that diverged
  what is at most `TAIL` times its median: 1e32 would make all else a flat line.
  Axes with limits keep theirs.
  """
  rows = []
  for row in figure.rows:
    groups = [row] if figure.shares else [(panel,) for panel in row]
    rows.append(sum(map(_without_tails, groups), ()))
  return figure._replace(rows=tuple(rows))


def _without_tails(panels: tuple[Panel | None, ...]) -> tuple:
  """Returns panels that share a y axis, with its limits where a tail is cut."""
  shown = [panel for panel in panels if panel is not None]
  marks = [mark for panel in shown for mark in panel.marks]
  lines = [m for m in marks if isinstance(m, Lines) and m.style != 'hidden']
  every = [curve for mark in lines for curve in mark.curves]
  whole = [_finite(curve) for curve in every]
  kept = [
    _before_tail(values) if curve.diverged else values
    for curve, values in zip(every, whole)
  ]
  if sum(map(len, kept)) == sum(map(len, whole)):
    return panels
  kept += [_finite(Curve(None, m.x, m.low, m.high)) for m in marks
           if isinstance(m, Reference)]  # fmt: skip
  y = shown[0].y
  place, back = (np.log, np.exp) if y.logarithmic else (np.array, float)
  values = np.concatenate(kept)
  values = place(values[values > 0] if y.logarithmic else values)
  if y.limits is not None or not len(values):
    return panels
  low, high = values.min(), values.max()
  margin = 0.05 * (high - low) or 1.0
  limits = float(back(low - margin)), float(back(high + margin))
  y = y._replace(limits=limits)
  return tuple(panel and panel._replace(y=y) for panel in panels)


def _finite(curve: Curve) -> np.ndarray:
  """Returns all finite values of a line, or of both edges of a band."""
  edges = [curve.y] if curve.high is None else [curve.y, curve.high]
  values = np.concatenate([np.asarray(edge, float) for edge in edges])
  return values[np.isfinite(values)]


def _before_tail(values: np.ndarray) -> np.ndarray:
  sizes = np.sort(np.abs(values[values != 0]))
  # Of an even number the lower one: of two values the last is the tail.
  median = sizes[(len(sizes) - 1) // 2] if len(sizes) else 0.0
  return values[np.abs(values) <= TAIL * median]


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
