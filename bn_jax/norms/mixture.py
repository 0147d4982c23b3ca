"""Normalises test batches by a mixture of their statistics and the kept ones.

Schneider et al. (2020), "Improving robustness against common corruptions by
covariate shift adaptation", arXiv:2006.16971, section 3, with n examples in the
batch and kept statistics that count as N of them:

  mean = N/(N+n) kept mean + n/(N+n) mean of the batch
  var  = N/(N+n) kept var  + n/(N+n) var of the batch

Both are linear, so var is not that of the two sets taken together, which would
have a term (kept mean - mean of the batch)^2 more. N = 0 is the batch alone
(Nado et al., 2020, arXiv:2006.10963), and N to infinity the kept statistics.
"""

import functools
from collections.abc import Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import traverse_util

from bn_jax.norms import running, transform

# What layers that nobody here knows are taken to keep of batches.
_STATISTICS = ('mean', 'var')


def adapted(
  module: nn.Module,
  variables: Mapping[str, Any],
  x: jax.Array,
  *,
  size: float,
  mask: jax.Array | None = None,
) -> jax.Array:
  """Returns a network's outputs for a test batch, by which its norms adapt.

  Every norm with running statistics, of this package or flax's BatchNorm, mixes
  whatever it keeps with the same of the batch that reaches it, group by group,
  and normalises as with statistics 'running': noise is off, and what Batch
  Renormalization and frozen norms do in training has no part in it. All other
  layers compute as for inference.

  Args:
    module: called as `module(x, statistics=..., mask=...)`.
    size: N; 0 is the statistics of the batch alone. n counts the examples that
      the mask leaves.
    mask: bool, [B]; False is padding, which reaches no statistic.

  Raises:
    ValueError: N > 0 and a layer that keeps statistics and does not hand out
      those of a batch. With N = 0 such a layer does what it does in training.
  """
  mixing = _Mixing(size, mask)
  statistics = 'running' if size else 'batch'
  with nn.intercept_methods(mixing.interceptor):
    y = module.apply(variables, x, statistics=statistics, mask=mask)
  if size:
    mixing.check(variables)
  return cast(jax.Array, y)


class _Mixing:
  """One call of a network, in which norms adapt to the batch."""

  def __init__(self, size: float, mask: jax.Array | None):
    self._size, self._mask = size, mask
    self._is_inside = False  # of a norm, which calls itself with its mixture
    self._ours: set[tuple[str, ...]] = set()  # paths of those that adapt
    self._flax: set[tuple[str, ...]] = set()

  def interceptor(self, call, arguments, keywords, context):
    """Calls a method; of a norm, with the mixture in place of what it keeps."""
    module = context.module
    if context.method_name != '__call__' or self._is_inside:
      return call(*arguments, **keywords)
    if isinstance(module, running.RunningNorm):
      self._ours.add(module.path)
      keywords = {'mask': self._mask, **keywords}
      return self._inside(self._of_ours, module, *arguments, **keywords)
    y = call(*arguments, **keywords)
    # One of ours may have been called in its place (`models.replace_norms`).
    if not isinstance(module, nn.BatchNorm) or module.path in self._ours:
      return y
    self._flax.add(module.path)
    if not self._size:  # then it is called as in training
      return y
    return self._inside(self._of_flax, module, *arguments, **keywords)

  def _inside(self, function, *arguments, **keywords):
    self._is_inside = True
    try:
      return function(*arguments, **keywords)
    finally:
      self._is_inside = False

  def check(self, variables: Mapping[str, Any]) -> None:
    """Raises ValueError for a layer whose statistics were not mixed."""
    for collection, *path, name in traverse_util.flatten_dict(variables):
      is_kept = collection == 'batch_stats' and name in _STATISTICS
      if is_kept and tuple(path) not in self._ours | self._flax:
        raise ValueError(
          f'{"/".join(path)} keeps statistics, but does not hand out those of '
          'a batch, as a norm that nobody here knows; allowed: those of the '
          'batch alone, or the running ones'
        )

  def _of_ours(self, module, x, *, mask=None, **keywords):
    """Returns the output of a norm of this package, group by group."""
    del keywords  # statistics, and where the batch begins, which noise wants
    layer, variables = module.clone(parent=None), module.variables
    call = functools.partial(layer.apply, statistics='running')
    y, new = call(variables, x, mask=mask, mutable=['moments'])
    if 'moments' not in new:  # it keeps nothing of a batch to normalise by
      return y
    moments = dict(new['moments']['batch'])
    groups = len(moments.pop('count'))
    stats_G = self._mixed(
      variables['batch_stats'], moments, self._examples(len(x), mask, groups)
    )

    def of_group(stats, x, mask):
      return call({**variables, 'batch_stats': stats}, x, mask=mask)

    if groups == 1:
      return of_group(jax.tree.map(lambda s: s[0], stats_G), x, mask)
    cut = lambda x: x.reshape(groups, -1, *x.shape[1:])
    y = jax.vmap(of_group)(stats_G, cut(x), jax.tree.map(cut, mask))
    return y.reshape(x.shape)

  def _of_flax(self, module, x, *arguments, **keywords):
    """Returns the output of flax's BatchNorm; it takes batches as one group."""
    mask = self._mask
    if mask is not None and len(x) != len(mask):
      raise ValueError(
        f'{"/".join(module.path)} sees {len(x)} rows for {len(mask)} examples, '
        'and cannot leave padding out; allowed: batches without padding'
      )
    moments = transform.moments(x, axis=module.axis, mask=mask)._asdict()
    del moments['count']
    variables = module.variables
    stats_1 = self._mixed(
      variables['batch_stats'], moments, self._examples(len(x), mask, 1)
    )
    stats = jax.tree.map(lambda s: s[0], stats_1)
    return module.clone(parent=None, axis_name=None).apply(
      {**variables, 'batch_stats': stats}, x, *arguments, **keywords
    )

  def _examples(self, count, mask, groups) -> jax.Array:
    """Returns n, the number of real examples of each group, [G] float32."""
    real = jnp.ones((count, 1), bool) if mask is None else mask
    real_N = real.reshape(count, -1).any(axis=1)
    return real_N.reshape(groups, -1).sum(axis=1, dtype=jnp.float32)

  def _mixed(self, kept, moments_G, n_G) -> dict[str, jax.Array]:
    """Returns what a norm keeps, [G, ...], mixed with the batch's."""

    def of_group(moments, n):
      share = n / jnp.maximum(self._size + n, 1e-30)  # 0 of padding alone
      stats = dict(kept)  # also a count of updates, which stays
      for name in set(kept) & set(moments):  # of some, less is kept
        mixed = (1 - share) * kept[name] + share * moments[name]
        stats[name] = mixed.astype(kept[name].dtype)
      return stats

    return jax.vmap(of_group)(moments_G, n_G)
