"""Estimates the statistics of the training set, for inference.

Ioffe and Szegedy (2015), Algorithm 2, steps 8 to 12: with the parameters fixed,
over training batches of m values a channel,

  E[x] = E_B[mean_B]        Var[x] = m/(m-1) E_B[var_B]

The running averages that training keeps are a substitute "to track the accuracy
as it trains". Other statistics, such as scale_p of `lp_norm`, are averaged as
the mean is.
"""

import functools
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import traverse_util

from bn_jax import checks, placement

VARIANCES = ('within', 'pooled')

Path = tuple[str, ...]


class Population(NamedTuple):
  """The result of `population_statistics`.

  Attributes:
    batch_stats: the collection, with the statistics of the population.
    batches: the number of batches.
    examples: the number of examples in them, without padding.
  """

  batch_stats: Any
  batches: int
  examples: int


def population_statistics(
  module: nn.Module,
  variables: Mapping[str, Any],
  batches: Iterable[Any],
  *,
  variance: str = 'within',
  layerwise: bool = False,
) -> Population:
  """Computes the batch_stats of a network for inference.

  Batches are taken one at a time, and may lie on several devices; only their
  moments are added up, in float64. Noise and dropout are off. The running
  averages of training and their momentum have no influence.

  Args:
    module: called as `module(x, statistics=..., mask=...)`, with norms of this
      package.
    batches: each x, or (x, mask). They should have the size m of training: with
      statistics 'batch' the outputs of a layer, and so the statistics of the
      next, depend on m.
    variance: 'within', m/(m-1) times the mean of the batches' (groups')
      variances, as in Algorithm 2; or 'pooled', the biased variance of all
      values together (Wu and Johnson, 2021, "Rethinking Batch in BatchNorm",
      arXiv:2105.07576, section 3: "precise BN"). Pooled adds the variance of
      the batches' means, and has no factor m/(m-1).
    layerwise: False measures all layers at once, each batch normalised by its
      own statistics throughout. True is the literal reading: a layer is
      measured when those below already use their population statistics. That
      takes a pass over the batches for each layer, until a pass changes
      nothing, so `batches` must be iterable again, such as a list.

  Raises:
    ValueError: no batches, or an iterator where several passes are needed; a
      network that keeps no batch statistics, or a layer that does not hand
      those of a batch out; an unknown variance; a layer without a group of two
      real values.
  """
  checks.one_of('variance', variance, VARIANCES)
  checks.flag('layerwise', layerwise)
  if layerwise and iter(batches) is batches:
    raise ValueError(
      'batches can be gone through once; allowed with layerwise: a list'
    )
  if not layerwise:
    return _pass(module, variables, batches, variance, 'batch')
  while True:
    population = _pass(module, variables, batches, variance, 'running')
    if _same(population.batch_stats, variables['batch_stats']):
      return population
    # A layer's statistics are final in the pass after the one in which those of
    # all layers below became so.
    variables = {**variables, 'batch_stats': population.batch_stats}


def keeps_statistics(batch_stats: Mapping[str, Any]) -> bool:
  """Returns whether any layer keeps statistics that can be estimated.

  Args:
    batch_stats: arrays or their shapes; a layer may keep something else there.
  """
  return any(
    path[-1] == 'mean' for path in traverse_util.flatten_dict(batch_stats)
  )


def _pass(module, variables, batches, variance, statistics) -> Population:
  """Returns the statistics of all layers, from one pass over the batches."""
  tallies: dict[Path, _Tally] = {}
  batch_count = examples = 0
  for batch in batches:
    x, mask = batch if isinstance(batch, tuple) else (batch, None)
    with jax.default_matmul_precision('highest'):
      moments = _moments(module, variables, x, mask, statistics)
    for path, layer in _by_layer(placement.host(moments)).items():
      tallies.setdefault(path, _Tally(variance)).add(layer)
    batch_count += 1
    examples += len(x) if mask is None else int(_examples(mask))
  if not batch_count:
    raise ValueError('there are no batches; allowed: one or more')
  has_stats = 'batch_stats' in variables
  flat = traverse_util.flatten_dict(
    variables['batch_stats'] if has_stats else {}
  )
  for *path, name in flat:
    if name == 'mean' and tuple(path) not in tallies:
      raise ValueError(
        f"{'/'.join(path)} keeps statistics, but does not hand out a batch's: "
        'it lies inside nn.scan, or is a norm that nobody here knows; allowed: '
        "statistics='running'"
      )
  if not tallies:
    raise ValueError(
      'the network keeps no batch statistics; layers that do: batch, noisy, '
      'batch_renorm, l1, l2, linf, lp'
    )
  for path, tally in tallies.items():
    for name, value in tally.result('/'.join(path)).items():
      flat[*path, name] = _like(flat[*path, name], value)
  batch_stats = traverse_util.unflatten_dict(flat)
  return Population(batch_stats, batch_count, examples)


@functools.partial(jax.jit, static_argnums=(0, 4))
def _moments(module, variables, x, mask, statistics):
  """Returns the collection 'moments' of one batch."""
  _, new = module.apply(
    variables, x, statistics=statistics, mask=mask, mutable=['moments']
  )
  return new.get('moments', {})


def _by_layer(moments: Mapping[str, Any]) -> dict[Path, dict[str, np.ndarray]]:
  """Returns {layer's path: {statistic: its values per group}}, in float64."""
  layers: dict[Path, dict[str, np.ndarray]] = {}
  for (*path, _, name), value in traverse_util.flatten_dict(moments).items():
    layers.setdefault(tuple(path), {})[name] = np.asarray(value, np.float64)
  return layers


class _Tally:
  """Statistics of one layer, over the groups so far, weighted by their counts.

  Means and the variance between groups are merged by differences (Chan, Golub
  and LeVeque, 1983).
  """

  def __init__(self, variance: str):
    self._factor = {
      'within': lambda count: count / (count - 1),
      'pooled': lambda count: 1.0,
    }[variance]
    self._pooled = variance == 'pooled'
    self._count = 0.0  # of all real values
    self._in_groups = 0.0  # of those in groups of two or more, with a variance
    self._means: dict[str, Any] = {}
    self._within = self._between = 0.0  # sums of squares
    self._has_variance = False

  def add(self, statistics: Mapping[str, np.ndarray]) -> None:
    """Adds the groups of one batch, [G, C] each."""
    statistics = dict(statistics)
    count_G = statistics.pop('count')
    var_GC = statistics.pop('var', None)
    self._has_variance = var_GC is not None
    for group, count in enumerate(count_G):
      if count:
        self._add_means({k: v[group] for k, v in statistics.items()}, count)
      if count > 1 and self._has_variance:
        self._in_groups += count
        self._within += count * self._factor(count) * var_GC[group]

  def _add_means(self, values_C: Mapping[str, np.ndarray], count) -> None:
    count_before, self._count = self._count, self._count + count
    for name, value_C in values_C.items():
      change_C = value_C - self._means.setdefault(name, value_C)
      self._means[name] = self._means[name] + change_C * (count / self._count)
      if name == 'mean':
        self._between += change_C**2 * (count_before * count / self._count)

  def result(self, layer: str) -> dict[str, np.ndarray]:
    """Returns {statistic: its value, [C]}; ValueError without enough data."""
    if not self._count or (self._has_variance and not self._in_groups):
      raise ValueError(f'{layer} has no group of two real values; allowed: one')
    if not self._has_variance:
      return self._means
    if self._pooled:
      var_C = (self._within + self._between) / self._count
    else:
      var_C = self._within / self._in_groups
    return {**self._means, 'var': var_C}


def _examples(mask: jax.Array) -> int:
  """Returns how many examples of a batch have a real value."""
  real = placement.host(mask)
  return real.reshape(len(real), -1).any(axis=1).sum()


def _like(old: Any, value: np.ndarray) -> jax.Array:
  """Returns value with the dtype of old, on the same devices."""
  new = jnp.asarray(value, old.dtype)
  return placement.put(new, old.sharding) if hasattr(old, 'sharding') else new


def _same(a: Any, b: Any) -> bool:
  pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b))
  return all(np.array_equal(x, y) for x, y in pairs)
