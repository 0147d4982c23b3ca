"""Statistics of the training set, for inference.

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

VARIANCES = ('within', 'pooled')

Path = tuple[str, ...]


class Population(NamedTuple):
  """What `population_statistics` finds.

  Attributes:
    batch_stats: the collection, its statistics those of the population.
    batches: how many were used.
    examples: how many they held, padding left out.
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
  """The batch_stats of a network by which it should infer.

  Batches are taken one at a time; of each only its moments are kept, in
  float64. They may lie on several devices. Random parts (noise, dropout) are
  off. Running averages of training have no influence, nor has their momentum.

  Args:
    module: called as `module(x, statistics=..., mask=...)`, with norms of this
      package.
    variables: its collections, batch_stats among them.
    batches: each x, or (x, mask), of the size m of training, since with
      statistics 'batch' upper layers see what lower ones made of it.
    variance: 'within', m/(m-1) times the mean of the batches' (groups')
      variances, as in Algorithm 2; or 'pooled', that of all values together,
      over their number (Wu and Johnson, 2021, "Rethinking Batch in BatchNorm",
      arXiv:2105.07576, section 3: "precise BN"). They differ by the variance of
      the batches' means.
    layerwise: False takes all layers at once, each batch normalised by its own
      statistics throughout. True is the literal reading: a layer is measured
      when those below it infer already. That takes a pass over the batches for
      each layer (it ends when a pass changes nothing), so `batches` must be
      something that can be gone through again, such as a list.

  Raises:
    ValueError: no batches, or an iterator where several passes are taken; a
      network that keeps no batch statistics; an unknown variance; a layer that
      has seen no group of two real values.
  """
  if variance not in VARIANCES:
    raise ValueError(
      f'variance is {variance!r}; allowed: {", ".join(map(repr, VARIANCES))}'
    )
  if layerwise and iter(batches) is batches:
    raise ValueError(
      'batches can be gone through once; allowed with layerwise: a list'
    )
  if not layerwise:
    return _pass(module, variables, batches, variance, 'batch')
  while True:
    found = _pass(module, variables, batches, variance, 'running')
    if _same(found.batch_stats, variables['batch_stats']):
      return found
    # A pass in which the layers below have had their last values settles one.
    variables = {**variables, 'batch_stats': found.batch_stats}


def _pass(module, variables, batches, variance, statistics) -> Population:
  """The statistics of all layers, over the batches once."""
  tallies: dict[Path, _Tally] = {}
  count = examples = 0
  for batch in batches:
    x, mask = batch if isinstance(batch, tuple) else (batch, None)
    with jax.default_matmul_precision('highest'):
      moments = _moments(module, variables, x, mask, statistics)
    for path, of_layer in _by_layer(jax.device_get(moments)).items():
      tallies.setdefault(path, _Tally(variance)).add(of_layer)
    count += 1
    examples += len(x) if mask is None else int(_examples(mask))
  if not count:
    raise ValueError('there are no batches; allowed: one or more')
  if not tallies:
    raise ValueError(
      'the network keeps no batch statistics; layers that do: batch, noisy, '
      'batch_renorm, l1, l2, linf, lp'
    )
  flat = traverse_util.flatten_dict(variables['batch_stats'])
  for path, tally in tallies.items():
    for name, value in tally.result('/'.join(path)).items():
      flat[*path, name] = _like(flat[*path, name], value)
  return Population(traverse_util.unflatten_dict(flat), count, examples)


@functools.partial(jax.jit, static_argnums=(0, 4))
def _moments(module, variables, x, mask, statistics):
  """The collection 'moments' of one batch."""
  _, new = module.apply(
    variables, x, statistics=statistics, mask=mask, mutable=['moments']
  )
  return new.get('moments', {})


def _by_layer(moments: Mapping[str, Any]) -> dict[Path, dict[str, np.ndarray]]:
  """Path of each layer -> statistic -> per group, in float64."""
  layers: dict[Path, dict[str, np.ndarray]] = {}
  for (*path, _, name), value in traverse_util.flatten_dict(moments).items():
    layers.setdefault(tuple(path), {})[name] = np.asarray(value, np.float64)
  return layers


class _Tally:
  """Statistics of one layer, over the groups so far, weighted by their counts.

  The mean and what it is of between groups are merged by differences (Chan,
  Golub and LeVeque, 1983).
  """

  def __init__(self, variance: str):
    self._factor = {
      'within': lambda count: count / (count - 1),
      'pooled': lambda count: 1.0,
    }[variance]
    self._pooled = variance == 'pooled'
    self._count = 0.0  # of all values, and of those in groups of two or more
    self._in_groups = 0.0
    self._means: dict[str, Any] = {}
    self._within = self._between = 0.0  # sums of squares
    self._has_variance = False

  def add(self, statistics: Mapping[str, np.ndarray]) -> None:
    """Takes the groups of one batch, [G, C] each."""
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
    before, self._count = self._count, self._count + count
    for name, value_C in values_C.items():
      apart_C = value_C - self._means.setdefault(name, value_C)
      self._means[name] = self._means[name] + apart_C * (count / self._count)
      if name == 'mean':
        self._between += apart_C**2 * (before * count / self._count)

  def result(self, layer: str) -> dict[str, np.ndarray]:
    """Statistic -> [C]."""
    if not self._count or (self._has_variance and not self._in_groups):
      raise ValueError(f'{layer} has seen no group of two real values')
    if not self._has_variance:
      return self._means
    if self._pooled:
      var_C = (self._within + self._between) / self._count
    else:
      var_C = self._within / self._in_groups
    return {**self._means, 'var': var_C}


def _examples(mask: jax.Array) -> int:
  """How many examples of a batch have a real value."""
  return np.asarray(mask).reshape(len(mask), -1).any(axis=1).sum()


def _like(old: Any, value: np.ndarray) -> jax.Array:
  """value where and as the old one lies."""
  new = jnp.asarray(value, old.dtype)
  return jax.device_put(new, old.sharding) if hasattr(old, 'sharding') else new


def _same(a: Any, b: Any) -> bool:
  pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b))
  return all(np.array_equal(x, y) for x, y in pairs)
