"""What happens inside a network, for measures; the network knows nothing of it.

A network says where its nonlinearities are entered (`models.taps`); flax can
tell what a module at some place makes, and put something else there.
"""

from collections.abc import Callable, Mapping, Sequence
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


def perturbed(
  paths: Mapping[str, str],
  perturbations: Mapping[str, jax.Array],
  call: Callable[[], Any],
) -> tuple[Any, dict[str, jax.Array]]:
  """call() with something added to what enters nonlinearities.

  Args:
    paths: name of a layer -> path of the module that makes it.
    perturbations: name of a layer -> what is added, [N, ..., C].
    call: applies the network.

  Returns:
    (what it returns, name -> what entered the nonlinearity).
  """
  names, seen = {paths[name]: name for name in perturbations}, {}

  def step_in(call, args, keywords, context):
    y = call(*args, **keywords)
    name = names.get('/'.join(context.module.path))
    if name is None or context.method_name != '__call__':
      return y
    seen[name] = y + perturbations[name].astype(y.dtype)
    return seen[name]

  with nn.intercept_methods(step_in):
    return call(), seen


def affines(
  paths: Mapping[str, str], state: types.TrainState
) -> dict[str, tuple[jax.Array, jax.Array]]:
  """name -> (scale, bias), [C] each, of layers whose norm keeps statistics."""
  found = {}
  for name, path in paths.items():
    kept, own = (
      _below(tree, path) for tree in (state.batch_stats, state.params)
    )
    if 'mean' in kept:
      channels = len(kept['mean'])
      scale = own['scale'] if 'scale' in own else jnp.ones(channels)
      found[name] = scale, own['bias'] if 'bias' in own else jnp.zeros(channels)
  return found


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
    statistics=statistics,
    mask=batch.mask,
    rngs=keys.streams(keys.of_step(state)) if in_training else None,
    mutable=['batch_stats', *also],
    **keywords,
  )


def _affine(
  params: Mapping[str, Any], path: str, y: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Scale and bias of a module, those it has, to stand beside its output y."""
  own = _below(params, path)
  channels, last = y.shape[-1], (1,) * (y.ndim - 1) + (-1,)
  scale = own['scale'] if 'scale' in own else jnp.ones(channels)
  bias = own['bias'] if 'bias' in own else jnp.zeros(channels)
  return scale.reshape(last), bias.reshape(last)


def _below(tree: Mapping[str, Any], path: str) -> Mapping[str, Any]:
  """What lies at a path, {} for nothing."""
  for key in path.split('/'):
    tree = tree.get(key, {})
  return tree
