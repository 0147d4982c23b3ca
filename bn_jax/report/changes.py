"""The figure of drift: Figure 8 of Santurkar et al. (2018)."""

from collections.abc import Sequence

import numpy as np
from matplotlib import figure as mpl

from bn_jax.report import (
  activations,
  curves,
  drift,
  figures,
  over_seeds,
  strokes,
)

# column of the table -> how it is read off a seed, label.
_ROWS = {
  'mean': (
    lambda *place: drift.changes(*place, 'mean'),
    'Change of mean',
  ),
  'variance': (
    lambda *place: drift.changes(*place, 'var'),
    'Change of variance',
  ),
  'distance': (drift.distances, 'Distance W1'),
  'mean_from_first': (
    lambda *place: drift.changes(*place, 'mean', paired=drift.from_first),
    'Mean, from first',
  ),
  'variance_from_first': (
    lambda *place: drift.changes(*place, 'var', paired=drift.from_first),
    'Variance, from first',
  ),
}


def figure(runs: Sequence[curves.Run]) -> figures.Figure | None:
  """How moments of activations change between looks, a column a layer."""
  named = activations.named(runs)
  if not named:
    return None
  layers = activations.layers(named)

  def draw(narrow: bool) -> mpl.Figure:
    drawing, axes = figures.panels(len(_ROWS), len(layers), narrow)
    for column, layer in enumerate(layers):
      figures.label_top(axes[0, column], layer)
      for row, (read, label) in enumerate(_ROWS.values()):
        _draw(axes[row, column], named, layer, read)
        figures.label_left(axes[row, column], label)
        figures.label_steps(axes[row, column], row == len(_ROWS) - 1)
    for row in range(len(_ROWS)):
      figures.scale_logarithmically(axes[row, 0])
      for axis in axes[row]:
        strokes.divergences(axis, [(index, run) for index, run, _ in named])
    strokes.legend(drawing, [(index, run.name) for index, run, _ in named])
    return drawing

  return figures.Figure(
    name='drift',
    title='Drift of activations',
    caption='By how much the inputs to a nonlinearity move from one look to '
    'the next: |change of the mean| and |change of the variance|, averaged '
    'over the channels of the layer, and the Wasserstein distance W1 between '
    'the histograms of all channels together; and how far mean and variance '
    'have moved from those of the first look. In the units of the activations '
    f'(variances: squared). {activations.conditions_of(named)} Logarithmic '
    'axes, shared by the columns. '
    + over_seeds.sentence([run for _, run, _ in named], logarithmic=True),
    alt='Change of mean and variance of activations, and distance between '
    f'histograms, over training, one column a layer ({", ".join(layers)}). '
    f'Median change of the mean from look to look, {layers[-1]}: '
    + ', '.join(_median(run, name, layers[-1]) for _, run, name in named),
    draw=draw,
    table=_table(named, layers),
  )


def _draw(axis, named, layer, read) -> None:
  for index, run, name in named:
    found = [read(seed, name, layer) for seed in run.seeds]
    found = [line for line in found if len(line[0])]
    over_seeds.draw(axis, found, index, logarithmic=True)


def _median(run, name, layer) -> str:
  medians = [drift.median_change(s, name, layer, 'mean') for s in run.seeds]
  medians = [median for median in medians if np.isfinite(median)]
  shown = f'{np.mean(medians):.3g}' if medians else 'not measured'
  return f'{run.name} {shown}'


def _table(named, layers):
  rows = [('run', 'seed', 'step', 'layer', *_ROWS)]
  for _, run, name in named:
    for seed in run.seeds:
      for layer in layers:
        found = [read(seed, name, layer) for read, _ in _ROWS.values()]
        steps = found[0][0]
        for step, *numbers in zip(steps, *(values for _, values in found)):
          shown = [f'{number:.6g}' for number in numbers]
          rows.append((run.name, seed.seed, step, layer, *shown))
  return rows
