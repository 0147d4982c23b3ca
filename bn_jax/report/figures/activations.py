"""Draws how activations are distributed, and how they drift.

As in Figures 2 (right) and 8 of Santurkar et al. (2018).
"""

import functools
import itertools
from collections.abc import Sequence

import numpy as np

from bn_jax import distributions
from bn_jax.report.drawing import by_layer, record
from bn_jax.report.results import curves, looks, reductions
from bn_jax.storage import records

MEASURE = 'activations'
_TIMES = 8  # histograms of a panel at most: more would hide each other
_BINS = 90  # of each: a panel of 2.7 inches shows no more
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


def figure(entry: looks.Entry) -> record.Figure | None:
  """Draws histograms over training, a column a run, a row a layer."""
  entry = measured(entry)
  if entry is None:
    return None
  layers = _layers(entry)
  first_seeds = {first_seed(run, entry.name).seed for run in entry.runs}
  return record.of_entry(
    entry,
    'activations',
    'Distributions of activations',
    record.caption(
      'Histograms of the inputs to the nonlinearity of a layer, over all '
      'channels and positions, at several training steps, the earliest at the '
      'bottom. Panels of a row share their x axis, in the units of the '
      'activations; each histogram is scaled to its own maximum.',
      entry.has_several_seeds
      and f'Of seed {" or ".join(map(str, sorted(first_seeds)))} alone.',
      looks.circumstances(entry),
    ),
    rows=tuple(_row(entry, layer) for layer in layers),
    shares=False,
    undrawn=tuple(_moments_of(entry, layer) for layer in layers),
  )


def drift(entry: looks.Entry) -> record.Figure | None:
  """Draws how far moments of activations move, a column a layer."""
  entry = measured(entry)
  if entry is None or looks.once(entry):
    return None
  layers = _layers(entry)
  # Between two looks there is one change.
  is_single = max(len(looks.steps_of(s, entry.name)) for s in entry.seeds) == 2
  axes = 'Logarithmic vertical axes, the same in all columns.'
  panels = by_layer.panels(entry, layers, _ROWS)
  # The one before is the first then: the other rows are the same numbers.
  rows, others = (panels[:3], panels[3:]) if is_single else (panels, ())
  made = record.of_entry(
    entry,
    'drift',
    'Drift of activations',
    record.caption(
      'How far the inputs to a nonlinearity move from one measurement to the '
      'next: |change of the mean| and |change of the variance| of a channel, '
      'averaged over the channels of the layer; and the Wasserstein distance '
      'W1 between the histograms of all channels together. "Since the start": '
      'how far mean and variance are from those of the first measurement. In '
      'the units of the activations (variances: squared).',
      looks.told(entry) if is_single else axes,
      looks.circumstances(entry),
    ),
    rows=rows,
    undrawn=sum(others, ()),
  )
  return by_layer.as_numbers(made, entry) if is_single else made


def measured(entry: looks.Entry) -> looks.Entry | None:
  """Returns an entry of activations, of the runs that have looks; or None."""
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


def _row(entry: looks.Entry, layer: str) -> tuple[record.Panel | None, ...]:
  """Returns the histograms of a layer, a panel a run; None without any."""
  firsts = [first_seed(run, entry.name) for run in entry.runs]
  of_runs = []  # the looks of first seeds, as many as a slider has at most
  for seed in firsts:
    every = looks.activations(seed, entry.name, layer)
    places = looks.evenly(len(every), record.FRAMES)
    of_runs.append([every[place] for place in places])
  most = min(_TIMES, max(map(len, of_runs)))
  value, grid = f'{layer}/histogram', _grid(of_runs, layer)
  # A margin below, and above room for the uppermost histogram.
  limits = (-0.2, most + 0.9)
  return tuple(
    record.Panel(
      record.Axis('Activation', 'activation'),
      record.Axis(f'{layer}: step', 'look', limits=limits, fixed=True),
      (
        record.Ridges(
          index, 'density', seed.seed, grid,
          [look.step for look in every],
          np.array([_density(look.values[value], grid) for look in every]),
          looks.evenly(len(every), _TIMES),
        ),
      ),
      title=run.name, run=run.name, about=layer,
      note=f'diverged at {seed.manifest["step"]}' * curves.has_diverged(seed),
    )
    if every else None
    for (index, run), seed, every in zip(entry.indexed, firsts, of_runs)
  )  # fmt: skip


def _grid(
  of_runs: Sequence[Sequence[records.Record]], layer: str
) -> np.ndarray:
  """Returns edges that hold the values of every histogram, [B + 1]."""
  every = [look.values[f'{layer}/histogram'] for of in of_runs for look in of]
  ends = [distributions.quantiles(counts, _X_RANGE) for counts in every]
  # At least: activations that are all 0 have no width.
  low, high = np.array([(-1e-3, 1e-3), *ends]).T
  return np.linspace(np.nanmin(low), np.nanmax(high), _BINS + 1)


def _density(histogram: np.ndarray, grid: np.ndarray) -> np.ndarray:
  """Returns the density on an even grid, taken as constant in each old bin."""
  below = np.cumsum(histogram[:-1]) / max(histogram.sum(), 1)
  return np.diff(np.interp(grid, distributions.EDGES, below)) / np.diff(grid)


def _moments_of(entry: looks.Entry, layer: str) -> record.Panel:
  """Returns moments and percentiles over steps, of all seeds, for the table."""
  levels = np.array(reductions.PERCENTILES)
  names = ('mean', 'variance', *(f'q{100 * level:.0f}' for level in levels))

  def of(seed: curves.Seed) -> tuple[np.ndarray, np.ndarray]:
    every, numbers = looks.activations(seed, entry.name, layer), []
    for look in every:
      mean_C, var_C, counts = (
        look.values[f'{layer}/{of}'] for of in ('mean', 'var', 'histogram')
      )
      variance = var_C.mean() + mean_C.var()
      quantiles = distributions.quantiles(counts, levels)
      numbers.append((mean_C.mean(), variance, *quantiles))
    return np.array([look.step for look in every]), np.array(numbers)

  marks = []
  for index, run in entry.indexed:
    found = {seed.seed: of(seed) for seed in run.seeds}
    found = {seed: pair for seed, pair in found.items() if len(pair[0])}
    for place, name in enumerate(names if found else ()):
      every = tuple(
        record.Curve(seed, step_T, numbers_TN[:, place])
        for seed, (step_T, numbers_TN) in found.items()
      )
      marks.append(record.Lines(index, name, every, 'hidden'))
  axis = record.Axis('Activation', 'moment')
  return record.Panel(record.STEPS, axis, tuple(marks), about=layer)
