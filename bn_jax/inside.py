"""What happens inside a network, for measures; the network knows nothing of it.

A network says where its nonlinearities are entered (`models.taps`); flax can
tell what a module at some place makes, and put something else there.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from bn_jax import keys, types


def activations(
  module: nn.Module,
  dtype: jnp.dtype,
  paths: Mapping[str, str],
  state: types.TrainState,
  batch: types.Batch,
  statistics: str,
  names: Sequence[str],
) -> dict[str, jax.Array]:
  """name -> what enters the nonlinearity of that layer, [N, ..., C].

  Args:
    module: the network.
    dtype: of its images.
    paths: name of a layer -> path of the module that makes it.
    state: the network's parameters and statistics, and the step's key.
    batch: what goes through it.
    statistics: 'batch', with the noise of the step to come, or 'running'.
    names: of the layers.
  """
  wanted = {paths[name] for name in names}
  _, seen = _applied(
    module,
    dtype,
    state,
    batch,
    statistics,
    ('intermediates',),
    capture_intermediates=lambda inner, method: (
      method == '__call__' and '/'.join(inner.path) in wanted
    ),
  )
  outputs = {}
  for name in names:
    found = seen['intermediates']
    for key in paths[name].split('/'):
      found = found[key]
    outputs[name] = found['__call__'][-1]  # the last: of the whole module
  return outputs


def between(
  module: nn.Module,
  dtype: jnp.dtype,
  paths: Mapping[str, str],
  state: types.TrainState,
  batch: types.Batch,
  values: jax.Array | None,
  *,
  statistics: str,
  source: str,
  target: str,
) -> tuple[jax.Array, jax.Array]:
  """(xhat, zhat), what two layers' norms make before their scale and bias.

  Args:
    module, dtype, paths, state, batch, statistics: as of `activations`.
    values: like xhat, to take its place; None leaves it as it is.
    source: the layer of xhat.
    target: the layer of zhat.
  """
  seen = {}

  def step_in(call, args, keywords, context):
    y = call(*args, **keywords)
    path = '/'.join(context.module.path)
    is_end = path in (paths[source], paths[target])
    if not is_end or context.method_name != '__call__':
      return y
    scale, bias = _affine(state.params, path, y)
    seen[path] = (y - bias) / scale
    if path == paths[source] and values is not None:
      seen[path] = values
    return (scale * seen[path] + bias).astype(y.dtype)

  with nn.intercept_methods(step_in):
    _applied(module, dtype, state, batch, statistics)
  return seen[paths[source]], seen[paths[target]]


def _applied(module, dtype, state, batch, statistics, also=(), **keywords):
  """(logits, collections written) of a network that looks as it trains."""
  in_training = statistics == 'batch'
  return module.apply(
    {'params': state.params, 'batch_stats': state.batch_stats},
    batch.images.astype(dtype),
    mode=statistics,
    mask=batch.mask,
    rngs=keys.streams(keys.of_step(state)) if in_training else None,
    mutable=['batch_stats', *also],
    **keywords,
  )


def _affine(
  params: Mapping[str, Any], path: str, y: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Scale and bias of a module, those it has, to stand beside its output y."""
  own = params
  for key in path.split('/'):
    own = own.get(key, {})
  channels, last = y.shape[-1], (1,) * (y.ndim - 1) + (-1,)
  scale = own['scale'] if 'scale' in own else jnp.ones(channels)
  bias = own['bias'] if 'bias' in own else jnp.zeros(channels)
  return scale.reshape(last), bias.reshape(last)
