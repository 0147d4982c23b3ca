"""Draws densities of spectra on a logarithmic axis, a column a step."""

from collections.abc import Collection, Iterator, Sequence

import numpy as np
from matplotlib import figure as mpl

from bn_jax import spectra
from bn_jax.report.drawing import canvas, strokes
from bn_jax.report.results import conditions, curves, looks

MEASURE = 'spectral_density'
_STEPS = 3  # that are drawn: the first, one in the middle, the last
# Side by side; with three, letters would be smaller than in other figures.
ABREAST = 2
_BLOCKS = 4  # that are drawn, a row each
# Decades below the highest density at which the axis ends. The bell of one
# eigenvalue among a million is 6 below that of all of them.
_DECADES = 6.5
_DRAWN = ('density', 'low', 'high')  # columns of the table
_MATRICES = {
  'hessian': 'the Hessian',
  'gauss_newton': 'the Gauss-Newton matrix',
}


def figure(
  runs: Sequence[curves.Run], name: str | None = None
) -> canvas.Figure | None:
  """Draws the density of each run, with the band over its random vectors."""
  entry = looks.of(runs, MEASURE, name)
  names = [] if entry is None else blocks(entry)
  if not names:
    return None
  steps = drawn_steps(entry)
  return canvas.Figure(
    name=f'spectrum{entry.suffix}',
    title=f'Spectrum of {matrix(entry)}{entry.note}',
    caption=_caption(entry, names),
    alt=f'Density of the eigenvalues of {matrix(entry)} on a logarithmic '
    'axis, a line a run. From the smallest to the largest eigenvalue at step '
    f'{steps[-1]}: '
    + '; '.join(_words(run, entry, names[0], steps[-1]) for run in entry.runs),
    draw=lambda narrow: _drawn(entry, names[:_BLOCKS], steps, narrow),
    table=_table(entry, names),
  )


def curve(
  run: curves.Run, name: str, block: str, step: int
) -> spectra.Curve | None:
  """Returns the density of a block at a step, over all seeds' random vectors.

  None where no seed has looked, or one was not finite.
  """
  pairs = [_quadrature(seed, name, block, step) for seed in run.seeds]
  pairs = [pair for pair in pairs if pair is not None]
  if not pairs:
    return None
  nodes, weights = (np.concatenate(arrays) for arrays in zip(*pairs))
  if not np.isfinite(nodes).any(axis=1).all():
    return None
  return spectra.curve(nodes, weights)


def blocks(entry: looks.Entry) -> list[str]:
  """Returns '' for all parameters, and 'NAME/' of blocks that were measured."""
  names = {}
  for seed in entry.seeds:
    series = seed.series.get(entry.name)
    for value in series.values if series is not None else ():
      if value == 'nodes' or value.endswith('/nodes'):
        names[value.removesuffix('nodes')] = None
  return list(names)


def drawn_steps(entry: looks.Entry) -> list[int]:
  """Returns the first step, one in the middle and the last, of all looks."""
  every = sorted(
    {t for s in entry.seeds for t in looks.steps_of(s, entry.name)}
  )
  places = np.linspace(0, len(every) - 1, min(_STEPS, len(every)))
  return [every[place] for place in places.round().astype(int)]


def matrix(entry: looks.Entry) -> str:
  """Returns 'the Hessian', or the matrices that an entry's runs have."""
  read = conditions.of(entry.measure, 'matrix', entry.name)
  recorded = conditions.by_value(entry.runs, read)
  names = [words for name, words in _MATRICES.items() if name in recorded]
  return ' or '.join(names) or _MATRICES['hessian']


def loss(entry: looks.Entry) -> str:
  """Returns whose matrix it is: with or without the penalty."""
  read = conditions.of(entry.measure, 'penalised', entry.name)
  recorded = conditions.by_value(entry.runs, read)
  if set(recorded) == {'True'}:
    return 'the objective, with its penalty'
  some = ' in some of the runs' if 'True' in recorded else ''
  return f'the data loss, without penalty{some}'


def _quadrature(seed, name, block, step):
  """Returns (nodes, weights) of a look, [samples, order] each, or None."""
  steps = looks.steps_of(seed, name)
  if step not in steps or not curves.recorded(seed, name, f'{block}nodes'):
    return None
  values = seed.series[name].values
  look = steps.index(step)
  return tuple(
    np.asarray(values[f'{block}{quantity}'][look], float)
    for quantity in ('nodes', 'weights')
  )


def _caption(entry: looks.Entry, blocks: Sequence[str]) -> str:
  rows = ', '.join(block.rstrip('/') or 'all parameters' for block in blocks)
  left_out = f' The CSV has more of them: {rows}.' * (len(blocks) > _BLOCKS)
  return (
    f'The density of the eigenvalues of {matrix(entry)} of {loss(entry)}, by '
    'stochastic Lanczos quadrature: each random vector gives eigenvalues with '
    'weights, and each of these is drawn as a Gaussian whose width σ is '
    f'{100 * spectra.WIDTH:g} % of the spectrum of that run and step (from the '
    'smallest to the largest eigenvalue, or the largest by size if that is '
    'more): what is narrower, such as the bulk beside an outlier of 100 times '
    'its size, is drawn as one bell. Lines are the mean over vectors and '
    'seeds, bands reach from the smallest to the largest of '
    f'them.{_rows_of(blocks)}{left_out} Logarithmic vertical axes, cut '
    f'{_DECADES:g} decades below the highest value; each panel has its own. '
    'The CSV has eigenvalues and weights, and what is drawn. '
    f'{looks.circumstances(entry)}'
  )


def _rows_of(blocks: Sequence[str]) -> str:
  if list(blocks) == ['']:
    return ''
  return ' A row a block of parameters, whose own block of the matrix it is.'


def _drawn(entry, blocks, steps, narrow: bool) -> mpl.Figure:
  # Not shared: a spectrum that is wide at one step would hide the others.
  drawing, axes = canvas.panels(
    len(blocks), len(steps), narrow, shared=False, abreast=ABREAST
  )
  for row, block in enumerate(blocks):
    for axis, step in zip(axes[row], steps):
      densities = {
        index: density
        for index, run in entry.indexed
        if (density := curve(run, entry.name, block, step)) is not None
      }
      for index, density in densities.items():
        _draw(axis, density, index)
      _limit(axis, densities.values())
      label = block.rstrip('/')
      canvas.label_left(axis, f'Density, {label}' if label else 'Density')
      axis.set_xlabel('Eigenvalue' if row == len(blocks) - 1 else '')
  for axis, step in zip(axes[0], steps):
    canvas.label_top(axis, f'Step {step}')
  strokes.legend_of(drawing, entry.indexed)
  return drawing


def _limit(axis, densities: Collection[spectra.Curve]) -> None:
  """Limits the axes of a panel to what is drawn above its lowest density."""
  highest = max((density.high.max() for density in densities), default=0.0)
  if highest > 0:
    lowest = highest * 10**-_DECADES
    axis.set_yscale('log')
    axis.set_ylim(lowest, highest * 2)
    canvas.label_logarithmically(axis, 'y')
    shown = np.concatenate([d.grid[d.high > lowest] for d in densities])
    margin = 0.05 * (shown.max() - shown.min())
    axis.set_xlim(shown.min() - margin, shown.max() + margin)


def _draw(axis, density: spectra.Curve, index: int) -> None:
  # A logarithmic axis has no place for 0, between two outliers.
  floor = density.high.max() * 10 ** -(_DECADES + 2)
  low, mean, high = (
    np.maximum(x, floor) for x in (density.low, density.density, density.high)
  )
  strokes.band(axis, density.grid, low, high, index, alpha=0.25, linewidth=0)
  strokes.line(axis, density.grid, mean, index, linewidth=1.2)


def _words(run, entry, block, step) -> str:
  ends = [
    spectra.ends(pair[0])
    for seed in run.seeds
    if (pair := _quadrature(seed, entry.name, block, step)) is not None
  ]
  if not ends:
    return f'{run.name} not measured'
  low, high = np.mean(ends, axis=0)
  return f'{run.name} {low:.3g} to {high:.3g}'


def _table(entry, blocks) -> list[Sequence]:
  """Returns nodes and weights of each look and vector, and what is drawn."""

  def rows(seed):
    for step in looks.steps_of(seed, entry.name):
      for block in blocks:
        pair = _quadrature(seed, entry.name, block, step)
        for vector, (nodes, weights) in enumerate(zip(*(pair or ((), ())))):
          for node, weight in zip(nodes, weights):
            if np.isfinite(node):
              cells = canvas.digits((node, weight))
              yield step, block.rstrip('/'), vector, *cells, '', '', ''

  columns = ('block', 'vector', 'eigenvalue', 'weight', *_DRAWN)
  return [*canvas.table(entry.runs, columns, rows), *_drawn_rows(entry, blocks)]


def _drawn_rows(entry, blocks) -> Iterator[Sequence]:
  """Yields density and band on the grid: of all seeds, so without a seed."""
  for run in entry.runs:
    for step in drawn_steps(entry):
      for block in blocks:
        density = curve(run, entry.name, block, step)
        ends = () if density is None else (density.low, density.high)
        for x, *row in (
          zip(density.grid, density.density, *ends) if ends else ()
        ):
          (x,), cells = canvas.digits([x]), canvas.digits(row)
          yield run.name, '', step, block.rstrip('/'), '', x, '', *cells
