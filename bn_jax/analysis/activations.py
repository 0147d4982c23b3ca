"""Measures distributions of the inputs to nonlinearities, and their drift.

Ioffe and Szegedy (2015), Figure 1 (b, c): quantiles of one unit over training;
Santurkar et al. (2018), Figure 2 (right), histograms, and Figure 8, changes of
the moments. The network names the layers that feed a nonlinearity: the same
names with and without normalization.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from bn_jax import checks, distributions, errors, placement, types
from bn_jax.analysis import kind as kind_lib

LEVELS = (0.15, 0.5, 0.85)  # the quantiles of the 2015 paper's Figure 1


def measure(
  *,
  layers: Sequence[str] = (),
  statistics: str = 'batch',
  unit: bool = False,
) -> types.Measure:
  """Measures moments, quantiles and histograms of inputs to nonlinearities.

  Args:
    layers: names such as 'conv3'; () is the first, the middle and the last.
    statistics: 'batch', with the noise of the next training step, or 'running'.
    unit: whether the page shows the quantiles of one unit over training.

  Returns:
    A measure of any number of batches, merged as if they were one (with batch
    statistics, each is normalised by its own). For each layer NAME, of C units
    (channels): NAME/mean, NAME/var, [C]; NAME/quantiles, [Q, C], at `levels`,
    [Q]; NAME/histogram, [E + 1], the numbers of values of all units together
    between `edges`, [E], and outside; NAME/positive, [C], the share of values
    above 0 (a unit with 0 is dead behind a ReLU); NAME/count, [], the number of
    values of a unit.
  """
  checks.one_of('statistics', statistics, kind_lib.STATISTICS)
  checks.names('layers', layers, 'layers')
  checks.flag('unit', unit)
  names = tuple(layers)

  def look(
    problem: types.Problem,
    state: types.TrainState,
    batches: Iterable[types.Batch],
    journal: types.Journal | None = None,
  ) -> dict[str, np.ndarray]:
    selection = chosen_layers(problem.taps, names)
    count, totals = _resumed(journal, selection)
    for batch in itertools.islice(batches, count, None):
      with jax.default_matmul_precision('highest'):
        values = problem.activations(state, batch, statistics, selection)
      values, mask = placement.host((values, batch.mask))
      _merge(totals, values, mask)
      count += 1
      if journal is not None:
        journal.keep('merged', _fields(totals) | {'batches': np.array(count)})
    return _arrays(totals)

  return look


def of_seeds(
  *, layers: Sequence[str], statistics: str, unit: bool
) -> Callable[..., Any]:
  """Returns `measure` for several seeds, a program for each batch of all."""
  del unit  # of the page alone

  def bind(problem: types.Problem, mapped: Callable[..., Any], batch_of):
    selection = chosen_layers(problem.taps, layers)

    @mapped
    def values_of(state, shared):
      batch = batch_of(state, shared)
      values = problem.activations(state, batch, statistics, selection)
      return values, batch.mask

    def look(states: types.TrainState, shared: Iterable[Any]) -> list[dict]:
      totals = [{} for _ in range(len(states.step))]
      for one in shared:
        with jax.default_matmul_precision('highest'):
          arrays = values_of(states, one)
        arrays = jax.device_get(arrays)
        for seed, own in enumerate(totals):
          _merge(own, *jax.tree.map(lambda x: x[seed], arrays))  # noqa: B023
      return [_arrays(own) for own in totals]

    return look

  return bind


def _merge(
  totals: dict[str, distributions.Distribution],
  values: Mapping[str, np.ndarray],
  mask: np.ndarray | None,
) -> None:
  """Adds the values of a batch to the distributions of their layers."""
  for name, array in values.items():
    part = distributions.of(array, mask)
    previous = totals.get(name)
    totals[name] = distributions.merge(previous, part) if previous else part


def chosen_layers(taps: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
  """Returns the layers to look at, in forward order.

  Args:
    taps: the layers that feed a nonlinearity, in forward order.
    names: () is the first, the middle and the last.

  Raises:
    ValueError: a name that is not among the taps, or no taps.
  """
  if not taps:
    raise ValueError(
      'the network has no layers that feed a nonlinearity; allowed: modules '
      "with a parameter 'kernel', outside nn.scan and nn.WeightNorm"
    )
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
  """Computes how far the distributions of C units moved between two times.

  Returns:
    mean_change, |mean' - mean|, and variance_change, |var' - var|, as in
    Santurkar et al. (2018), Figure 8; wasserstein, the distance W1 of a unit's
    distributions, in the scale of its values; [C] each.
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
  totals: Mapping[str, distributions.Distribution],
) -> dict[str, np.ndarray]:
  """Returns distributions as {layer/field: array}, for a journal."""
  return {
    f'{name}/{field}': np.asarray(value)
    for name, distribution in totals.items()
    for field, value in distribution._asdict().items()
  }


def _resumed(
  journal: types.Journal | None, layers: Sequence[str]
) -> tuple[int, dict[str, distributions.Distribution]]:
  """Returns how many batches a journal has, and their merged distributions."""
  arrays = None if journal is None else journal.kept('merged')
  if arrays is None:
    return 0, {}
  totals = {}
  for name in layers:
    fields = [
      arrays[f'{name}/{field}'] for field in distributions.Distribution._fields
    ]
    totals[name] = distributions.Distribution(int(fields[0]), *fields[1:])
  return int(arrays['batches']), totals


def _arrays(
  totals: Mapping[str, distributions.Distribution],
) -> dict[str, np.ndarray]:
  arrays = {'levels': np.array(LEVELS), 'edges': distributions.EDGES}
  for name, total in totals.items():
    quantiles_CQ = distributions.quantiles(total.histogram, LEVELS)
    arrays |= {
      f'{name}/count': np.array(total.count),
      f'{name}/positive': total.positive / max(total.count, 1),
      f'{name}/mean': total.mean,
      f'{name}/var': total.var,
      f'{name}/quantiles': quantiles_CQ.T,
      f'{name}/histogram': total.histogram.sum(axis=0),
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
  shown=('unit',),
  cost=lambda section, layers: kind_lib.Cost(values=1),
  of_seeds=of_seeds,
  forward=_forward,
)
