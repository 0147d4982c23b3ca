"""The figures of activations: how they are distributed, and how they drift.

Figures 2 (right) and 8 of Santurkar et al. (2018).
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

KIND = 'activations'
_TIMES = 8  # histograms of a ridge plot
_POINTS = 90  # of each


def _moments(value, paired=itertools.pairwise):
  """Reads how a moment changes, for a row."""
  return functools.partial(reductions.changes, value=value, paired=paired)


_ROWS = (
  by_layer.Row('mean', 'Change of mean', _moments('mean')),
  by_layer.Row('variance', 'Change of variance', _moments('var')),
  by_layer.Row('distance', 'Distance W1', reductions.distances),
  by_layer.Row(
    'mean_from_first', 'Mean, from first',
    _moments('mean', reductions.from_first),
  ),
  by_layer.Row(
    'variance_from_first', 'Variance, from first',
    _moments('var', reductions.from_first),
  ),
)  # fmt: skip


def figure(
  runs: Sequence[curves.Run], key: str | None = None
) -> canvas.Figure | None:
  """Histograms of activations over training, a column a run, a row a layer."""
  seen = looked(runs, key)
  if seen is None:
    return None
  rows, key = layers_of(seen), seen.key

  def draw(narrow: bool) -> mpl.Figure:
    size = len(rows), len(seen.indexed)
    drawing, axes = canvas.panels(*size, narrow, shared=False)
    counts = [
      len(_evenly(run, key, layer)) for run in seen.runs for layer in rows
    ]
    for row, layer in enumerate(rows):
      limits = _limits(seen, layer)
      for column, (index, run) in enumerate(seen.indexed):
        axis = axes[row, column]
        _draw_ridges(axis, _evenly(run, key, layer), layer, limits, index)
        axis.set_ylim(-0.2, max(counts) + 0.9)
        if row == 0:
          canvas.label_top(axis, run.name, _ending(shown(run, key)))
        canvas.label_left(axis, f'{layer}: step')
        axis.set_xlabel('Activation' if row == len(rows) - 1 else '')
        axis.set_xlim(*limits)
    return drawing

  seeds = sorted({shown(run, key).seed for run in seen.runs})
  return canvas.Figure(
    name=f'activations{seen.suffix}',
    title=f'Distributions of activations{seen.note}',
    caption='Histograms of what enters the nonlinearity of a layer, all '
    'channels and positions together, at several steps of training (from '
    f'below upwards). {conditions_of(seen)} Each row of panels has one x '
    'axis, in the units of the activations; each histogram is scaled to its '
    f'own maximum. Seed {", ".join(map(str, seeds))}.',
    alt='Histograms of activations over training, one column a run, one row a '
    f'layer ({", ".join(rows)}). The middle 70 % of {rows[-1]} at the last '
    'look: ' + '; '.join(_middle(run, key, rows[-1]) for run in seen.runs),
    draw=draw,
    table=_table(seen, rows),
  )


def drift(
  runs: Sequence[curves.Run], key: str | None = None
) -> canvas.Figure | None:
  """How moments of activations change between looks, a column a layer."""
  seen = looked(runs, key)
  if seen is None or looks.once(seen):
    return None
  layers = layers_of(seen)
  return canvas.Figure(
    name=f'drift{seen.suffix}',
    title=f'Drift of activations{seen.note}',
    caption='By how much the inputs to a nonlinearity move from one look to '
    'the next: |change of the mean| and |change of the variance|, averaged '
    'over the channels of the layer, and the Wasserstein distance W1 between '
    'the histograms of all channels together; and how far mean and variance '
    'have moved from those of the first look. In the units of the activations '
    f'(variances: squared). {conditions_of(seen)} Logarithmic '
    'axes, shared by the columns. '
    + strokes.seeds_sentence(seen.runs, logarithmic=True),
    alt='Change of mean and variance of activations, and distance between '
    f'histograms, over training, one column a layer ({", ".join(layers)}). '
    f'Median change of the mean from look to look, {layers[-1]}: '
    + by_layer.medians(seen, layers[-1], _ROWS[0]),
    draw=lambda narrow: by_layer.drawing(seen, layers, _ROWS, narrow),
    table=by_layer.table(seen, layers, _ROWS),
  )


def looked(
  runs: Sequence[curves.Run], key: str | None = None
) -> looks.Looks | None:
  """The runs that have looked at activations; None for none."""
  found = looks.of(runs, KIND, key)
  if found is None:
    return None
  indexed = tuple(
    (index, run)
    for index, run in found.indexed
    if looks.activation_layers(run, found.key)
  )
  return found._replace(indexed=indexed) if indexed else None


def layers_of(seen: looks.Looks) -> list[str]:
  """The layers that any of the runs of `looked` looked at."""
  found = [looks.activation_layers(run, seen.key) for run in seen.runs]
  return list(dict.fromkeys(layer for layers in found for layer in layers))


def conditions_of(seen: looks.Looks) -> str:
  """On which data, with which statistics and precision, for a caption."""
  runs = seen.runs
  noisy = any(run.config['norm']['name'].startswith('nois') for run in runs)
  noise = 'the noise of the step that follows, ' if noisy else ''
  return (
    f'On {seen.said("data")} {looks.when(seen)}, with '
    f'{seen.said("statistics")} statistics, {noise}in float32 with products in '
    f'{seen.said("precision")} precision.'
  )


def shown(run: curves.Run, name: str) -> curves.Seed:
  """The first seed that has looked."""
  return next(seed for seed in run.seeds if seed.arrays.get(name))


def _ending(seed: curves.Seed) -> str:
  diverged = seed.manifest['status'] == 'diverged'
  return f'diverged at {seed.manifest["step"]}' if diverged else ''


def _evenly(run: curves.Run, name: str, layer: str) -> list[records.Record]:
  """At most so many of the looks, evenly spaced, with the first and last."""
  every = looks.activations(shown(run, name), name, layer)
  count = min(len(every), _TIMES)
  places = np.linspace(0, len(every) - 1, count).round().astype(int)
  return [every[place] for place in places]


def _limits(seen, layer: str) -> tuple[float, float]:
  """What holds 99 % of the values of each histogram that is drawn."""
  ends = [(-1e-3, 1e-3)]
  for run in seen.runs:
    for look in _evenly(run, seen.key, layer):
      counts = look.values[f'{layer}/histogram']
      ends.append(distributions.quantiles(counts, np.array([0.005, 0.995])))
  low, high = np.array(ends).T
  return float(np.nanmin(low)), float(np.nanmax(high))


def _draw_ridges(axis, ridges, layer, limits, index) -> None:
  grid = np.linspace(*limits, _POINTS + 1)
  middle = (grid[1:] + grid[:-1]) / 2
  heights = [
    _density(look.values[f'{layer}/histogram'], grid) for look in ridges
  ]
  colour = strokes.colour(index)
  for place in reversed(range(len(ridges))):
    # A density that is concentrated in one point would dwarf all others.
    scale = 1.6 / max(np.max(heights[place]), 1e-12)
    axis.fill_between(
      middle, place, place + scale * heights[place],
      facecolor=(colour, 0.35), edgecolor=colour, linewidth=0.6,
    )  # fmt: skip
  places = range(0, len(ridges), max(1, len(ridges) // 4))
  axis.set_yticks(list(places), [str(ridges[place].step) for place in places])
  axis.grid(axis='y', visible=False)


def _density(histogram: np.ndarray, grid: np.ndarray) -> np.ndarray:
  """A histogram on even bins, values even within the old ones."""
  below = np.cumsum(histogram[:-1]) / max(histogram.sum(), 1)
  return np.diff(np.interp(grid, distributions.EDGES, below)) / np.diff(grid)


def _middle(run, name, layer) -> str:
  seen = _evenly(run, name, layer)
  if not seen:
    return f'{run.name} was not looked at'
  counts = seen[-1].values[f'{layer}/histogram']
  low, high = distributions.quantiles(counts, np.array([0.15, 0.85]))
  return f'{run.name} from {low:.3g} to {high:.3g}'


def _table(seen, layers):
  levels = np.array(reductions.PERCENTILES)

  def rows(seed: curves.Seed) -> Iterator[Sequence]:
    for layer in layers:
      for look in looks.activations(seed, seen.key, layer):
        mean_C, var_C = (look.values[f'{layer}/{m}'] for m in ('mean', 'var'))
        histogram = look.values[f'{layer}/histogram']
        quantiles = distributions.quantiles(histogram, levels)
        pooled = var_C.mean() + mean_C.var()
        numbers = canvas.digits((mean_C.mean(), pooled, *quantiles))
        yield look.step, layer, *numbers

  columns = ('layer', 'mean', 'variance', 'q15', 'q50', 'q85')
  return canvas.table(seen.runs, columns, rows)
