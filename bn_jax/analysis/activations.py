"""How the inputs of nonlinearities are distributed, and how that drifts.

Ioffe and Szegedy (2015), Figure 1 (b, c): quantiles of one unit over training;
Santurkar et al. (2018), Figure 2 (right), histograms, and Figure 8, changes of
the moments. The network says which of its layers feed a nonlinearity; where
there is no normalization, its place in the network is the same.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence

import jax
import numpy as np

from bn_jax import distributions, errors, placement, types
from bn_jax.analysis import kind as kind_lib

LEVELS = (0.15, 0.5, 0.85)  # of the 2015 paper's Figure 1


def measure(
  *, layers: Sequence[str] = (), statistics: str = 'batch'
) -> types.Measure:
  """Moments, quantiles and histograms of the inputs to nonlinearities.

  With statistics 'batch' the network is as it trains, its noise included (the
  noise of the step that comes next).

  Args:
    layers: names such as 'conv3'; none is the first, the middle and the last.
    statistics: 'batch' or 'running'.

  Returns:
    A measure of any number of batches, merged as if they were one (although
    batch statistics are those of each batch). For each layer NAME: NAME/mean,
    NAME/var, [C]; NAME/quantiles, [Q, C], at `levels`, [Q]; NAME/histogram,
    of all channels together, over `edges` (see `distributions`); NAME/positive,
    [C], the share of values above 0 (where it is 0, a ReLU makes the unit dead
    on these data); NAME/count, the values of a channel.
  """
  kind_lib.check_choice('statistics', statistics, kind_lib.STATISTICS)
  given = tuple(layers)

  def look(
    problem: types.Problem,
    state: types.TrainState,
    batches: Iterable[types.Batch],
    journal: types.Journal | None = None,
  ) -> dict[str, np.ndarray]:
    chosen = chosen_layers(problem.taps, given)
    done, merged = _taken_up(journal, chosen)
    for batch in itertools.islice(batches, done, None):
      with jax.default_matmul_precision('highest'):
        values = problem.activations(state, batch, statistics, chosen)
      values, mask = placement.host((values, batch.mask))
      for name in chosen:
        part = distributions.of(values[name], mask)
        old = merged.get(name)
        merged[name] = distributions.merge(old, part) if old else part
      done += 1
      if journal is not None:
        journal.keep('merged', _kept(merged) | {'batches': np.array(done)})
    return _arrays(merged)

  return look


def chosen_layers(
  known: Sequence[str], given: Sequence[str]
) -> tuple[str, ...]:
  """The layers to look at, in forward order.

  Raises:
    ValueError: a name that is not known.
  """
  for name in given:
    if name not in known:
      said = errors.unknown('layer', name, known)
      raise ValueError(f'{said} (layers that feed a nonlinearity)')
  if given:
    return tuple(name for name in known if name in given)
  ends = (known[0], known[len(known) // 2], known[-1])
  return tuple(dict.fromkeys(ends))


def drift(
  before: distributions.Distribution, after: distributions.Distribution
) -> dict[str, np.ndarray]:
  """How far distributions moved between two times, per channel.

  Santurkar et al. (2018), Figure 8, and the distance between the two.

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


def _kept(
  merged: Mapping[str, distributions.Distribution],
) -> dict[str, np.ndarray]:
  """Distributions as arrays of a journal."""
  return {
    f'{name}/{field}': np.asarray(value)
    for name, found in merged.items()
    for field, value in found._asdict().items()
  }


def _taken_up(
  journal: types.Journal | None, chosen: Sequence[str]
) -> tuple[int, dict[str, distributions.Distribution]]:
  """How many batches a journal has merged, and what came of them."""
  kept = None if journal is None else journal.kept('merged')
  if kept is None:
    return 0, {}
  merged = {}
  for name in chosen:
    fields = [
      kept[f'{name}/{field}'] for field in distributions.Distribution._fields
    ]
    merged[name] = distributions.Distribution(int(fields[0]), *fields[1:])
  return int(kept['batches']), merged


def _arrays(
  merged: Mapping[str, distributions.Distribution],
) -> dict[str, np.ndarray]:
  arrays = {'levels': np.array(LEVELS), 'edges': distributions.EDGES}
  for name, found in merged.items():
    quantiles_CQ = distributions.quantiles(found.histogram, LEVELS)
    arrays |= {
      f'{name}/count': np.array(found.count),
      f'{name}/positive': found.positive / max(found.count, 1),
      f'{name}/mean': found.mean,
      f'{name}/var': found.var,
      f'{name}/quantiles': quantiles_CQ.T,
      f'{name}/histogram': found.histogram.sum(axis=0),
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
