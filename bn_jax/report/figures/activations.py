"""Draws how activations are distributed, and how they drift.

As in Figures 2 (right) and 8 of Santurkar et al. (2018).
"""

import functools
import itertools
from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib import figure as mpl

from bn_jax import distributions
from bn_jax.report.drawing import by_layer, canvas, strokes
from bn_jax.report.results import curves, looks, reductions
from bn_jax.storage import records

MEASURE = 'activations'
_TIMES = 8  # histograms of a panel at most: more would hide each other
_BINS = 90  # of each: a panel of 2.7 inches shows no more
# Of each, in distances between two: neighbours overlap, so that moves show.
_HEIGHT = 1.6
# Quantiles at which the x axis ends: to show the tails of one histogram whole
# would make the others as narrow as lines.
_X_RANGE = np.array([0.005, 0.995])


def _moments(moment, paired=itertools.pairwise):
  """Returns a reader of how a moment changes, for a row."""
  return functools.partial(reductions.changes, moment=moment, paired=paired)


_ROWS = (
  by_layer.Row('mean', 'Change of mean', _moments('mean')),
  by_layer.Row('variance', 'Change of variance', _moments('var')),
  by_layer.Row('distance', 'Wasserstein distance', reductions.distances),
  by_layer.Row(
    'mean_from_first', 'Change of mean\nsince the start',
    _moments('mean', reductions.from_first),
  ),
  by_layer.Row(
    'variance_from_first', 'Change of variance\nsince the start',
    _moments('var', reductions.from_first),
  ),
)  # fmt: skip


def figure(
  runs: Sequence[curves.Run], name: str | None = None
) -> canvas.Figure | None:
  """Draws histograms over training, a column a run, a row a layer."""
  entry = measured(runs, name)
  if entry is None:
    return None
  layers, name = _layers(entry), entry.name

  def draw(narrow: bool) -> mpl.Figure:
    size = len(layers), len(entry.indexed)
    drawing, axes = canvas.panels(*size, narrow, shared=False)
    counts = [
      len(_evenly(run, name, layer)) for run in entry.runs for layer in layers
    ]
    for row, layer in enumerate(layers):
      limits = _limits(entry, layer)
      for column, (index, run) in enumerate(entry.indexed):
        axis = axes[row, column]
        _draw_ridges(axis, _evenly(run, name, layer), layer, limits, index)
        # A margin below, and above room for the uppermost histogram.
        axis.set_ylim(-0.2, max(counts) + 0.9)
        if row == 0:
          canvas.label_top(axis, run.name, _ending(first_seed(run, name)))
        canvas.label_left(axis, f'{layer}: step')
        axis.set_xlabel('Activation' if row == len(layers) - 1 else '')
        axis.set_xlim(*limits)
    return drawing

  return canvas.Figure(
    name=f'activations{entry.suffix}',
    title=f'Distributions of activations{entry.note}',
    caption='Histograms of the inputs to the nonlinearity of a layer, over all '
    'channels and positions, at several training steps, the earliest at the '
    'bottom. Panels of a row share their x axis, in the units of the '
    'activations; each histogram is scaled to its own maximum.'
    f'{_one_seed(entry)} {looks.circumstances(entry)}',
    alt='Histograms of activations over training, one column a run, one row a '
    f'layer ({", ".join(layers)}). The middle 70 % of {layers[-1]} at the last '
    'measurement: '
    + '; '.join(_middle(run, name, layers[-1]) for run in entry.runs),
    draw=draw,
    table=_table(entry, layers),
  )


def drift(
  runs: Sequence[curves.Run], name: str | None = None
) -> canvas.Figure | None:
  """Draws how far moments of activations move, a column a layer."""
  entry = measured(runs, name)
  if entry is None or looks.once(entry):
    return None
  layers = _layers(entry)
  # Between two looks there is one change.
  is_single = max(len(looks.steps_of(s, entry.name)) for s in entry.seeds) == 2
  axes = 'Logarithmic vertical axes, the same in all columns. '
  return canvas.Figure(
    name=f'drift{entry.suffix}',
    title=f'Drift of activations{entry.note}',
    caption='How far the inputs to a nonlinearity move from one measurement to '
    'the next: |change of the mean| and |change of the variance| of a channel, '
    'averaged over the channels of the layer; and the Wasserstein distance W1 '
    'between the histograms of all channels together. "Since the start": how '
    'far mean and variance are from those of the first measurement. In the '
    'units of the activations (variances: squared). '
    f'{looks.told(entry) if is_single else axes}{looks.circumstances(entry)}',
    alt='Change of mean and variance of activations, and distance between '
    f'histograms, over training, one column a layer ({", ".join(layers)}). '
    'Median change of the mean from one measurement to the next, '
    f'{layers[-1]}: ' + by_layer.medians(entry, layers[-1], _ROWS[0]),
    draw=None
    if is_single
    else lambda narrow: by_layer.drawing(entry, layers, _ROWS, narrow),
    table=by_layer.table(entry, layers, _ROWS),
    # The one before is the first: the other rows are the same numbers.
    numbers=by_layer.numbers(entry, layers, _ROWS[:3]) if is_single else (),
  )


def measured(
  runs: Sequence[curves.Run], name: str | None = None
) -> looks.Entry | None:
  """Returns an entry of activations, of the runs that have looks; or None."""
  entry = looks.of(runs, MEASURE, name)
  if entry is None:
    return None
  indexed = tuple(
    (index, run)
    for index, run in entry.indexed
    if looks.activation_layers(run, entry.name)
  )
  return entry._replace(indexed=indexed) if indexed else None


def first_seed(run: curves.Run, name: str) -> curves.Seed:
  """Returns the first seed that has looked."""
  return next(seed for seed in run.seeds if seed.arrays.get(name))


def _layers(entry: looks.Entry) -> list[str]:
  """Returns the layers that any run has looked at."""
  by_run = [looks.activation_layers(run, entry.name) for run in entry.runs]
  return list(dict.fromkeys(layer for layers in by_run for layer in layers))


def _one_seed(entry: looks.Entry) -> str:
  """Returns of which seed the histograms are, where there are several."""
  if max(len(run.seeds) for run in entry.runs) == 1:
    return ''
  seeds = sorted({first_seed(run, entry.name).seed for run in entry.runs})
  return f' Of seed {" or ".join(map(str, seeds))} alone.'


def _ending(seed: curves.Seed) -> str:
  diverged = seed.manifest['status'] == 'diverged'
  return f'diverged at {seed.manifest["step"]}' if diverged else ''


def _evenly(run: curves.Run, name: str, layer: str) -> list[records.Record]:
  """Returns at most `_TIMES` looks, evenly spaced, with the first and last."""
  looks_T = looks.activations(first_seed(run, name), name, layer)
  count = min(len(looks_T), _TIMES)
  indices = np.linspace(0, len(looks_T) - 1, count).round().astype(int)
  return [looks_T[index] for index in indices]


def _limits(entry, layer: str) -> tuple[float, float]:
  """Returns the range of the values of every histogram that is drawn."""
  ends = [(-1e-3, 1e-3)]  # at least: activations that are all 0 have no width
  for run in entry.runs:
    for look in _evenly(run, entry.name, layer):
      counts = look.values[f'{layer}/histogram']
      ends.append(distributions.quantiles(counts, _X_RANGE))
  low, high = np.array(ends).T
  return float(np.nanmin(low)), float(np.nanmax(high))


def _draw_ridges(axis, ridges, layer, limits, index) -> None:
  grid = np.linspace(*limits, _BINS + 1)
  middles = (grid[1:] + grid[:-1]) / 2
  heights = [
    _density(look.values[f'{layer}/histogram'], grid) for look in ridges
  ]
  colour = strokes.colour(index)
  for row in reversed(range(len(ridges))):
    # Each to its own maximum: one of a single bin would dwarf the others.
    scale = _HEIGHT / max(np.max(heights[row]), 1e-12)
    axis.fill_between(
      middles, row, row + scale * heights[row],
      facecolor=(colour, 0.35), edgecolor=colour, linewidth=0.6,
    )  # fmt: skip
  ticks = list(range(0, len(ridges), max(1, len(ridges) // 4)))
  axis.set_yticks(ticks, [str(ridges[tick].step) for tick in ticks])
  axis.grid(axis='y', visible=False)


def _density(histogram: np.ndarray, grid: np.ndarray) -> np.ndarray:
  """Returns the density on an even grid, taken as constant in each old bin."""
  below = np.cumsum(histogram[:-1]) / max(histogram.sum(), 1)
  return np.diff(np.interp(grid, distributions.EDGES, below)) / np.diff(grid)


def _middle(run, name, layer) -> str:
  ridges = _evenly(run, name, layer)
  if not ridges:
    return f'{run.name} was not measured'
  counts = ridges[-1].values[f'{layer}/histogram']
  low, high = distributions.quantiles(counts, np.array([0.15, 0.85]))
  return f'{run.name} from {low:.3g} to {high:.3g}'


def _table(entry, layers):
  levels = np.array(reductions.PERCENTILES)

  def rows(seed: curves.Seed) -> Iterator[Sequence]:
    for layer in layers:
      for look in looks.activations(seed, entry.name, layer):
        mean_C, var_C = (look.values[f'{layer}/{m}'] for m in ('mean', 'var'))
        histogram = look.values[f'{layer}/histogram']
        quantiles = distributions.quantiles(histogram, levels)
        pooled = var_C.mean() + mean_C.var()
        numbers = canvas.digits((mean_C.mean(), pooled, *quantiles))
        yield look.step, layer, *numbers

  columns = ('layer', 'mean', 'variance', 'q15', 'q50', 'q85')
  return canvas.table(entry.runs, columns, rows)
