"""Distributions of the inputs to nonlinearities, and how they drift.

Ioffe and Szegedy (2015), Figure 1 (b, c): quantiles of one unit over training;
Santurkar et al. (2018), Figure 2 (right), histograms, and Figure 8, changes of
the moments. The network names the layers that feed a nonlinearity; they are the
same with and without normalization.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence

import jax
import numpy as np

from bn_jax import distributions, errors, placement, types
from bn_jax.analysis import kind as kind_lib

LEVELS = (0.15, 0.5, 0.85)  # the quantiles of the 2015 paper's Figure 1


def measure(
  *, layers: Sequence[str] = (), statistics: str = 'batch'
) -> types.Measure:
  """Measures moments, quantiles and histograms of inputs to nonlinearities.

  Args:
    layers: names such as 'conv3'; () is the first, the middle and the last.
    statistics: 'batch', with the noise of the next training step, or 'running'.

  Returns:
    A measure of any number of batches, merged as if they were one (although
    each is normalised by its own statistics). For each layer NAME: NAME/mean,
    NAME/var, [C]; NAME/quantiles, [Q, C], at `levels`, [Q]; NAME/histogram, of
    all channels together, over `edges` (see `distributions`); NAME/positive,
    [C], the share of values above 0 (a unit with 0 is dead behind a ReLU);
    NAME/count, the number of values of a channel.
  """
  kind_lib.check_choice('statistics', statistics, kind_lib.STATISTICS)
  names = tuple(layers)

  def look(
    problem: types.Problem,
    state: types.TrainState,
    batches: Iterable[types.Batch],
    journal: types.Journal | None = None,
  ) -> dict[str, np.ndarray]:
    chosen = chosen_layers(problem.taps, names)
    count, merged = _resumed(journal, chosen)
    for batch in itertools.islice(batches, count, None):
      with jax.default_matmul_precision('highest'):
        values = problem.activations(state, batch, statistics, chosen)
      values, mask = placement.host((values, batch.mask))
      for name in chosen:
        part = distributions.of(values[name], mask)
        old = merged.get(name)
        merged[name] = distributions.merge(old, part) if old else part
      count += 1
      if journal is not None:
        journal.keep('merged', _fields(merged) | {'batches': np.array(count)})
    return _arrays(merged)

  return look


def chosen_layers(taps: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
  """Returns the layers to look at, in forward order.

  Args:
    taps: the layers that feed a nonlinearity, in forward order.
    names: () is the first, the middle and the last.

  Raises:
    ValueError: a name that is not among the taps.
  """
  for name in names:
    if name not in taps:
      message = errors.unknown('layer', name, taps)
      raise ValueError(f'{message} (layers that feed a nonlinearity)')
  if names:
    return tuple(name for name in taps if name in names)
  return tuple(dict.fromkeys((taps[0], taps[len(taps) // 2], taps[-1])))


def drift(
  before: distributions.Distribution, after: distributions.Distribution
) -> dict[str, np.ndarray]:
  """Computes how far distributions moved between two times, per channel.

  Santurkar et al. (2018), Figure 8, and the distance of the distributions.

  Returns:
    mean_change [C], |mean' - mean|; variance_change [C], |var' - var|;
    wasserstein [C], W1 of the channel's values, in their units.
  """
  pairs = zip(before.histogram, after.histogram)
  return {
    'mean_change': np.abs(after.mean - before.mean),
    'variance_change': np.abs(after.var - before.var),
    'wasserstein': np.array(
      [distributions.wasserstein(a, b) for a, b in pairs]
    ),
  }


def _fields(
  merged: Mapping[str, distributions.Distribution],
) -> dict[str, np.ndarray]:
  """Returns distributions as arrays for a journal."""
  return {
    f'{name}/{field}': np.asarray(value)
    for name, distribution in merged.items()
    for field, value in distribution._asdict().items()
  }


def _resumed(
  journal: types.Journal | None, chosen: Sequence[str]
) -> tuple[int, dict[str, distributions.Distribution]]:
  """Returns how many batches a journal has merged, and their distributions."""
  arrays = None if journal is None else journal.kept('merged')
  if arrays is None:
    return 0, {}
  merged = {}
  for name in chosen:
    fields = [
      arrays[f'{name}/{field}'] for field in distributions.Distribution._fields
    ]
    merged[name] = distributions.Distribution(int(fields[0]), *fields[1:])
  return int(arrays['batches']), merged


def _arrays(
  merged: Mapping[str, distributions.Distribution],
) -> dict[str, np.ndarray]:
  arrays = {'levels': np.array(LEVELS), 'edges': distributions.EDGES}
  for name, values in merged.items():
    quantiles_CQ = distributions.quantiles(values.histogram, LEVELS)
    arrays |= {
      f'{name}/count': np.array(values.count),
      f'{name}/positive': values.positive / max(values.count, 1),
      f'{name}/mean': values.mean,
      f'{name}/var': values.var,
      f'{name}/quantiles': quantiles_CQ.T,
      f'{name}/histogram': values.histogram.sum(axis=0),
    }
  return arrays


def _forward(problem, state, batch, section):
  layers = tuple(section['layers']) or problem.taps[:1]
  return problem.activations, (state, batch, section['statistics'], layers)


KIND = kind_lib.Kind(
  make=measure,
  title='Activations',
  quantities={
    'mean': 'Mean of each unit',
    'var': 'Variance of each unit',
    'quantiles': 'Quantiles of each unit',
    'positive': 'Share of values above 0',
    'histogram': 'Values in each bin',
    'count': 'Values of a unit',
  },
  one_batch=False,
  arrays=True,
  cost=lambda section, layers: kind_lib.Cost(values=1),
  forward=_forward,
)
