"""Draws densities of spectra on a logarithmic axis, a column a step."""

from collections.abc import Collection, Iterator, Sequence

import numpy as np

from bn_jax import spectra
from bn_jax.report.drawing import first_last, over_steps, record
from bn_jax.report.results import curves, looks

MEASURE = 'spectral_density'
_STEPS = 3  # that are drawn: the first, one in the middle, the last
# Side by side; with three, letters would be smaller than in other figures.
ABREAST = (2, 2)
_BLOCKS = 4  # that are drawn, a row each
# Decades below the highest density at which the axis ends. The bell of one
# eigenvalue among a million is 6 below that of all of them.
_DECADES = 6.5
_COARSE = 4  # of the points of a curve, those that a frame of a slider has
_MATRICES = {
  'hessian': 'the Hessian',
  'gauss_newton': 'the Gauss-Newton matrix',
}


def figure(entry: looks.Entry) -> record.Figure | None:
  """Draws the density of each run, with the band over its random vectors."""
  names = blocks(entry)
  if not names:
    return None
  steps = drawn_steps(entry)
  others = [step for step in looks.steps(entry) if step not in steps]

  def rows(steps: Sequence[int], every: int) -> tuple:
    return tuple(
      tuple(_panel(entry, block, step, every) for step in steps)
      for block in names[:_BLOCKS]
    )

  return record.of_entry(
    entry,
    'spectrum',
    f'Spectrum of {matrix(entry)}',
    _caption(entry, names),
    rows=rows(steps, 1),
    # A spectrum that is wide at one step would hide the others.
    shares=False,
    abreast=ABREAST,
    undrawn=tuple(
      record.hidden(_panel(entry, block, step, 1 if step in steps else 0))
      for block in names
      for step in (*steps, *others)
      if step not in steps or block not in names[:_BLOCKS]
    ),
    frames=first_last.frames(
      entry, lambda step: rows([step], _COARSE), len(steps)
    ),
  )


def curve(
  run: curves.Run, name: str, block: str, step: int, every: int = 1
) -> spectra.Curve | None:
  """Returns the density of a block at a step, over all seeds' random vectors.

  None where no seed has looked, or one was not finite.

  Args:
    every: of the points of its grid, each so many-th.
  """
  pairs = [_quadrature(seed, name, block, step) for seed in run.seeds]
  pairs = [pair for pair in pairs if pair is not None]
  if not pairs:
    return None
  nodes, weights = (np.concatenate(arrays) for arrays in zip(*pairs))
  if not np.isfinite(nodes).any(axis=1).all():
    return None
  grid = spectra.grid_of(nodes, spectra.width_of(nodes))
  return spectra.curve(nodes, weights, grid[::every])


def blocks(entry: looks.Entry) -> list[str]:
  """Returns '' for all parameters, and 'NAME/' of blocks that were measured."""
  rows = over_steps.recorded(entry, ['nodes'])
  return [row.removesuffix('nodes') for row in rows]


def drawn_steps(entry: looks.Entry) -> list[int]:
  """Returns the first step, one in the middle and the last, of all looks."""
  every = looks.steps(entry)
  return [every[place] for place in looks.evenly(len(every), _STEPS)]


def matrix(entry: looks.Entry) -> str:
  """Returns 'the Hessian', or the matrices that an entry's runs have."""
  recorded = entry.values('matrix')
  names = [words for name, words in _MATRICES.items() if name in recorded]
  return ' or '.join(names) or _MATRICES['hessian']


def loss(entry: looks.Entry) -> str:
  """Returns whose matrix it is: with or without the penalty."""
  recorded = entry.values('penalised')
  if recorded == ['True']:
    return 'the objective, with its penalty'
  some = ' in some of the runs' if 'True' in recorded else ''
  return f'the data loss, without penalty{some}'


def _quadrature(seed, name, block, step):
  """Returns (nodes, weights) of a look, [samples, order] each, or None."""
  look = first_last.at(seed, name, step)
  names = f'{block}nodes', f'{block}weights'
  found = look and first_last.values(seed, name, look[0], *names)
  return tuple(np.asarray(of, float) for of in found) if found else None


def _caption(entry: looks.Entry, blocks: Sequence[str]) -> str:
  rows = ', '.join(block.rstrip('/') or 'all parameters' for block in blocks)
  return record.caption(
    f'The density of the eigenvalues of {matrix(entry)} of {loss(entry)}, by '
    'stochastic Lanczos quadrature: each random vector gives eigenvalues with '
    'weights, and each of these is drawn as a Gaussian whose width σ is '
    f'{100 * spectra.WIDTH:g} % of the spectrum of that run and step (from the '
    'smallest to the largest eigenvalue, or the largest by size if that is '
    'more): what is narrower, such as the bulk beside an outlier of 100 times '
    'its size, is drawn as one bell. Lines are the mean over vectors and '
    'seeds, bands reach from the smallest to the largest of them.',
    list(blocks) != ['']
    and 'A row a block of parameters, whose own block of the matrix it is.',
    len(blocks) > _BLOCKS and f'The CSV has more of them: {rows}.',
    f'Logarithmic vertical axes, cut {_DECADES:g} decades below the highest '
    'value; each panel has its own. The CSV has eigenvalues and weights, and '
    'what is drawn.',
    looks.circumstances(entry),
  )


def _panel(entry, block: str, step: int, every: int) -> record.Panel:
  """Returns densities, and for the table the nodes and weights they rest on.

  Args:
    every: of the points of densities, each so many-th; 0 for none.
  """
  densities = {
    index: density
    for index, run in entry.indexed
    if every
    and (density := curve(run, entry.name, block, step, every)) is not None
  }
  marks = [
    mark
    for index, density in densities.items()
    for mark in _marks(index, density, step)
  ]
  for index, run in entry.indexed:
    marks += _nodes(entry, index, run, block, step)
  block = block.rstrip('/')
  x, y = _axes(f'Density, {block}' if block else 'Density', densities.values())
  return record.Panel(x, y, tuple(marks), f'Step {step}', about=block)


def _axes(
  label: str, densities: Collection[spectra.Curve]
) -> tuple[record.Axis, record.Axis]:
  """Returns axes that end at what is drawn above the lowest density."""
  x, y = record.Axis('Eigenvalue', 'eigenvalue'), record.Axis(label, 'density')
  highest = max((density.high.max() for density in densities), default=0.0)
  if not highest > 0:
    return x, y
  lowest = highest * 10**-_DECADES
  shown = np.concatenate([d.grid[d.high > lowest] for d in densities])
  margin = 0.05 * (shown.max() - shown.min())
  ends = float(shown.min() - margin), float(shown.max() + margin)
  return (
    x._replace(limits=ends, fixed=True),
    y._replace(
      logarithmic=True, limits=(float(lowest), float(highest * 2)), fixed=True
    ),
  )


def _marks(index: int, density: spectra.Curve, step: int) -> tuple:
  """Returns the band over vectors and their mean: of all seeds together."""
  # A logarithmic axis has no place for 0, between two outliers.
  floor = density.high.max() * 10 ** -(_DECADES + 2)
  low, mean, high = (
    np.maximum(x, floor) for x in (density.low, density.density, density.high)
  )
  band, line = (
    record.Curve(None, density.grid, *of, step=step)
    for of in ((low, high), (mean,))
  )
  return (
    record.Lines(index, 'density_of_vector', (band,), 'further'),
    record.Lines(index, 'density', (line,)),
  )


def _nodes(entry, index: int, run, block: str, step: int) -> Iterator:
  """Yields what each random vector gave: weights against eigenvalues."""
  of_vector = {}
  for seed in run.seeds:
    pair = _quadrature(seed, entry.name, block, step) or ((), ())
    for vector, (nodes, weights) in enumerate(zip(*pair)):
      finite = np.isfinite(nodes)
      of_vector.setdefault(vector, []).append(
        record.Curve(seed.seed, nodes[finite], weights[finite], step=step)
      )
  for vector, every in of_vector.items():
    yield record.Lines(
      index, f'weight_of_vector_{vector}', tuple(every), 'hidden'
    )
