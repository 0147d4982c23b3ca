"""Estimates the statistics of the training set, for inference.

Ioffe and Szegedy (2015), Algorithm 2, steps 8 to 12: with the parameters fixed,
over training batches of m values a channel,

  E[x] = E_B[mean_B]        Var[x] = m/(m-1) E_B[var_B]

The running averages that training keeps are a substitute "to track the accuracy
as it trains". Other statistics, such as scale_p of `lp_norm`, are averaged as
the mean is.
"""

import functools
import itertools
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import traverse_util

from bn_jax import checks, placement, types

VARIANCES = ('within', 'pooled')
# By one of these a layer is known to keep statistics of batches.
_ESTIMATED = ('mean', 'var')
# What a journal keeps of the tally of a layer, beside its means.
_FIELDS = ('_count', '_in_groups', '_within', '_between', '_has_variance')
_MEAN = 'mean_of_'

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
  journal: types.Journal | None = None,
  name: str = 'population',
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
    journal: keeps the sums of each pass, under `name` and its number, after
      each batch. Batches that it has are taken and not computed again.

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
  statistics = 'running' if layerwise else 'batch'
  number = 0
  while True:
    sums = _Sums(variance, journal, f'{name}/{number}')
    population = _pass(module, variables, batches, sums, statistics)
    stats = population.batch_stats
    if not layerwise or _same(stats, variables['batch_stats']):
      return population
    # A layer's statistics are final in the pass after the one in which those of
    # all layers below became so.
    variables = {**variables, 'batch_stats': stats}
    number += 1


def keeps_statistics(batch_stats: Mapping[str, Any]) -> bool:
  """Returns whether any layer keeps statistics that can be estimated.

  Args:
    batch_stats: arrays or their shapes; a layer may keep something else there.
  """
  return any(
    path[-1] in _ESTIMATED for path in traverse_util.flatten_dict(batch_stats)
  )


def _pass(module, variables, batches, sums, statistics) -> Population:
  """Returns the statistics of all layers, from one pass over the batches."""
  for batch in itertools.islice(batches, sums.batches, None):
    x, mask = batch if isinstance(batch, tuple) else (batch, None)
    with jax.default_matmul_precision('highest'):
      moments = _moments(module, variables, x, mask, statistics)
    examples = len(x) if mask is None else int(_examples(mask))
    sums.add(_by_layer(placement.host(moments)), examples)
  if not sums.batches:
    raise ValueError('there are no batches; allowed: one or more')
  tallies = sums.tallies
  has_stats = 'batch_stats' in variables
  flat: dict[Any, Any] = traverse_util.flatten_dict(
    variables['batch_stats'] if has_stats else {}
  )
  for *path, name in flat:
    if name in _ESTIMATED and tuple(path) not in tallies:
      raise ValueError(
        f"{'/'.join(path)} keeps statistics, but does not hand out a batch's: "
        'it lies inside nn.scan, or is a norm that nobody here knows; allowed: '
        "statistics='running'"
      )
  if not tallies:
    raise ValueError(
      'the network keeps no batch statistics; layers that do: batch, noisy, '
      'batch_renorm, evonorm_b0, iternorm, l1, l2, linf, lp'
    )
  for path, tally in tallies.items():
    for name, value in tally.result('/'.join(path)).items():
      if (*path, name) in flat:  # EvoNorm B0 keeps the variance alone
        flat[*path, name] = _like(flat[*path, name], value)
  batch_stats = traverse_util.unflatten_dict(flat)
  return Population(batch_stats, sums.batches, sums.examples)


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


class _Sums:
  """The tallies of all layers in one pass; a journal keeps them.

  Attributes:
    tallies: path of a layer -> its tally.
    batches, examples: how many there were.
  """

  def __init__(self, variance: str, journal: types.Journal | None, name: str):
    self._variance, self._journal, self._name = variance, journal, name
    self.tallies: dict[Path, _Tally] = {}
    self.batches = self.examples = 0
    arrays = None if journal is None else journal.kept(name)
    for key, array in (arrays or {}).items():
      path, is_of_layer, field = key.rpartition('/')
      if is_of_layer:
        layer = tuple(path.split('/')) if path else ()
        self._tally(layer).resume(field, array)
      else:
        setattr(self, field, int(array))

  def add(self, layers: Mapping[Path, Mapping], examples: int) -> None:
    """Adds the moments of one batch, of each layer [G, C] each."""
    for path, moments in layers.items():
      self._tally(path).add(moments)
    self.batches += 1
    self.examples += examples
    if self._journal is not None:
      counts = {'batches': self.batches, 'examples': self.examples}
      of_layers = {
        '/'.join((*path, field)) if path else f'/{field}': array
        for path, tally in self.tallies.items()
        for field, array in tally.arrays().items()
      }
      self._journal.keep(self._name, counts | of_layers)

  def _tally(self, path: Path) -> '_Tally':
    return self.tallies.setdefault(path, _Tally(self._variance))


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
    self._within: Any = 0.0  # sums of squares
    self._between: Any = 0.0
    self._has_variance = False

  def arrays(self) -> dict[str, Any]:
    """Returns all that it is, by names without a slash."""
    means = {f'{_MEAN}{name}': mean for name, mean in self._means.items()}
    return {field: getattr(self, field) for field in _FIELDS} | means

  def resume(self, field: str, array: np.ndarray) -> None:
    """Takes one of `arrays` back."""
    if field in _FIELDS:
      setattr(self, field, array[()])
    else:
      self._means[field.removeprefix(_MEAN)] = array

  def add(self, statistics: Mapping[str, np.ndarray]) -> None:
    """Adds the groups of one batch, [G, C] each."""
    statistics = dict(statistics)
    count_G = statistics.pop('count')
    var_GC = statistics.pop('var', None)
    self._has_variance = var_GC is not None
    for group, count in enumerate(count_G):
      if count:
        self._add_means({k: v[group] for k, v in statistics.items()}, count)
      if count > 1 and var_GC is not None:
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
