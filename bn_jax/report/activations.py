"""The figures of activations: Figures 2 (right) and 8 of Santurkar et al."""

from collections.abc import Sequence

import numpy as np
from matplotlib import figure as mpl

from bn_jax import distributions, records
from bn_jax.report import curves, drift, figures, over_seeds

_TIMES = 8  # histograms of a ridge plot
_POINTS = 90  # of each
_CHANGES = (
  ('mean', 'Change of mean'),
  ('var', 'Change of variance'),
  ('distance', 'Distance W1'),
)


def ridges(runs: Sequence[curves.Run]) -> figures.Figure | None:
  """Histograms of activations over training, a column a run, a row a layer."""
  named = _named(runs)
  if not named:
    return None
  layers = _layers(named)

  def draw(narrow: bool) -> mpl.Figure:
    drawing, axes = figures.panels(
      len(layers), len(named), narrow, shared=False
    )
    for row, layer in enumerate(layers):
      limits = _limits(named, layer)
      for column, (index, run, name) in enumerate(named):
        axis = axes[row, column]
        _draw_ridges(axis, run, index, name, layer, limits)
        axis.set_title(run.name if row == 0 else '')
        axis.set_ylabel(f'{layer}: step' if column == 0 else '')
        axis.set_xlim(*limits)
    return drawing

  shown = sorted({run.seeds[0].seed for _, run, _ in named})
  return figures.Figure(
    name='activations',
    title='Distributions of activations',
    caption='Histograms of what enters the nonlinearity of a layer, all '
    'channels and positions together, at several steps of training (from '
    f'below upwards), on {_data(named)}. {_conditions(named)} Each row of '
    'panels has one x axis, in the units of the activations; each histogram '
    f'is scaled to its own maximum. Seed {", ".join(map(str, shown))}.',
    alt='Histograms of activations over training, one column a run, one row a '
    f'layer ({", ".join(layers)})',
    draw=draw,
    table=_quantile_table(named, layers),
  )


def changes(runs: Sequence[curves.Run]) -> figures.Figure | None:
  """How moments of activations change between looks, a column a layer."""
  named = _named(runs)
  if not named:
    return None
  layers = _layers(named)

  def draw(narrow: bool) -> mpl.Figure:
    drawing, axes = figures.panels(len(_CHANGES), len(layers), narrow)
    for column, layer in enumerate(layers):
      axes[0, column].set_title(layer)
      for row, (value, label) in enumerate(_CHANGES):
        axis = axes[row, column]
        for index, run, name in named:
          lines = [_moved(seed, name, layer, value) for seed in run.seeds]
          lines = [line for line in lines if len(line[0])]
          over_seeds.draw(axis, lines, index, run.name, logarithmic=True)
        axis.set_ylabel(label if column == 0 else '')
        figures.label_steps(axis, row == len(_CHANGES) - 1)
    for row in range(len(_CHANGES)):
      figures.scale_logarithmically(axes[row, 0])
    figures.draw_legend(drawing, columns=2 if narrow else 4)
    return drawing

  return figures.Figure(
    name='drift',
    title='Drift of activations',
    caption='By how much the inputs to a nonlinearity move from one look to '
    'the next: |change of the mean| and |change of the variance|, averaged '
    'over the channels of the layer, and the Wasserstein distance W1 between '
    'the histograms of all channels together, in the units of the '
    f'activations, on {_data(named)}. {_conditions(named)} Logarithmic axes, '
    'shared by the columns. '
    + over_seeds.sentence([run for _, run, _ in named], logarithmic=True),
    alt='Change of mean and variance of activations, and distance between '
    f'histograms, over training, one column a layer ({", ".join(layers)})',
    draw=draw,
    table=_drift_table(named, layers),
  )


def _named(runs: Sequence[curves.Run]):
  """(index, run, measure) of the runs that have looked at activations."""
  return [
    (index, run, names[0])
    for index, run in enumerate(runs)
    if (names := curves.measure_named(run, 'activations'))
    and drift.layers(run, names[0])
  ]


def _layers(named) -> list[str]:
  """The layers that any of the runs looked at."""
  found = [drift.layers(run, name) for _, run, name in named]
  return list(dict.fromkeys(layer for layers in found for layer in layers))


def _chosen(looks: list[records.Record]) -> list[records.Record]:
  """At most so many of the looks, evenly spaced, with the first and last."""
  count = min(len(looks), _TIMES)
  places = np.linspace(0, len(looks) - 1, count).round().astype(int)
  return [looks[place] for place in places]


def _limits(named, layer: str) -> tuple[float, float]:
  """What holds 99 % of the values of each histogram that is drawn."""
  ends = [(-1e-3, 1e-3)]
  for _, run, name in named:
    for look in _chosen(drift.looks(run.seeds[0], name, layer)):
      counts = look.values[f'{layer}/histogram']
      ends.append(distributions.quantiles(counts, np.array([0.005, 0.995])))
  low, high = np.array(ends).T
  return float(np.nanmin(low)), float(np.nanmax(high))


def _draw_ridges(axis, run, index, name, layer, limits) -> None:
  looks = _chosen(drift.looks(run.seeds[0], name, layer))
  grid = np.linspace(*limits, _POINTS + 1)
  middle = (grid[1:] + grid[:-1]) / 2
  heights = [
    _density(look.values[f'{layer}/histogram'], grid) for look in looks
  ]
  colour = figures.look(index)['color']
  for place in reversed(range(len(looks))):
    # A density that is concentrated in one point would dwarf all others.
    scale = 1.6 / max(np.max(heights[place]), 1e-12)
    top = place + scale * heights[place]
    axis.fill_between(
      middle,
      place,
      top,
      facecolor=(colour, 0.35),
      edgecolor=colour,
      linewidth=0.6,
    )
  step = max(1, len(looks) // 4)
  places = range(0, len(looks), step)
  axis.set_yticks(list(places), [str(looks[place].step) for place in places])
  axis.grid(axis='y', visible=False)
  axis.set_ylim(-0.2, _TIMES + 0.9)


def _density(histogram: np.ndarray, grid: np.ndarray) -> np.ndarray:
  """A histogram on even bins, values even within the old ones."""
  below = np.cumsum(histogram[:-1]) / max(histogram.sum(), 1)
  return np.diff(np.interp(grid, distributions.EDGES, below)) / np.diff(grid)


def _moved(seed, name, layer, value):
  if value == 'distance':
    return drift.distances(seed, name, layer)
  return drift.changes(seed, name, layer, value)


def _quantile_table(named, layers):
  rows = [('run', 'seed', 'step', 'layer', 'mean', 'variance', 'q15', 'q50')]
  rows[0] += ('q85',)
  levels = np.array([0.15, 0.5, 0.85])
  for _, run, name in named:
    for seed in run.seeds:
      for layer in layers:
        for look in drift.looks(seed, name, layer):
          mean, var = look.values[f'{layer}/mean'], look.values[f'{layer}/var']
          pooled = var.mean() + mean.var()
          quantiles = distributions.quantiles(
            look.values[f'{layer}/histogram'], levels
          )
          numbers = (mean.mean(), pooled, *quantiles)
          shown = [f'{number:.6g}' for number in numbers]
          rows.append((run.name, seed.seed, look.step, layer, *shown))
  return rows


def _drift_table(named, layers):
  rows = [('run', 'seed', 'step', 'layer', 'mean', 'variance', 'distance')]
  for _, run, name in named:
    for seed in run.seeds:
      for layer in layers:
        moved = [_moved(seed, name, layer, value) for value, _ in _CHANGES]
        steps = moved[0][0]
        for step, *numbers in zip(steps, *(values for _, values in moved)):
          shown = [f'{number:.6g}' for number in numbers]
          rows.append((run.name, seed.seed, step, layer, *shown))
  return rows


def _data(named) -> str:
  places = [run.config['measures'][name]['data'] for _, run, name in named]
  return ' or '.join(dict.fromkeys(places))


def _conditions(named) -> str:
  """Which statistics and precision, for a caption."""
  _, run, name = named[0]
  statistics = run.config['measures'][name]['statistics']
  precision = run.seeds[0].manifest['precision']['measures']
  noise = 'the noise of the step that follows, ' if _has_noise(named) else ''
  return (
    f'{statistics.capitalize()} statistics, {noise}float32 with products in '
    f'{precision!r} precision.'
  )


def _has_noise(named) -> bool:
  return any(
    run.config['norm']['name'].startswith('nois') for _, run, _ in named
  )
