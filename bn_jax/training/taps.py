"""Reads and replaces values inside a network, which needs no code for it.

A network names the modules whose outputs enter nonlinearities (`models.taps`).
flax can return the output of a module, and replace it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.core import tracers

from bn_jax import keys, trees, types


def activations(
  module: nn.Module,
  dtype: jnp.dtype,
  paths: Mapping[str, str],
  state: types.TrainState,
  batch: types.Batch,
  statistics: str,
  names: Sequence[str],
) -> dict[str, jax.Array]:
  """Returns {layer: input of its nonlinearity, [N, ..., C]}.

  Args:
    dtype: of the images in the network.
    paths: name of a layer -> path of the module whose output enters the
      nonlinearity.
    statistics: 'batch', with the noise of the next step, or 'running'.
    names: of the layers, keys of `paths`.
  """
  captured_paths = {paths[name] for name in names}
  _, collections = _apply(
    module,
    dtype,
    state,
    batch,
    statistics,
    ('intermediates',),
    capture_intermediates=lambda inner, method: (
      method == '__call__' and '/'.join(inner.path) in captured_paths
    ),
  )
  outputs = {}
  for name in names:
    calls = trees.below(collections['intermediates'], paths[name])['__call__']
    outputs[name] = calls[-1]  # the last; the first may be its parent class's
  return outputs


def perturbed(
  paths: Mapping[str, str],
  perturbations: Mapping[str, jax.Array],
  call: Callable[[], Any],
) -> tuple[Any, dict[str, jax.Array]]:
  """Calls a network with perturbations of the inputs of nonlinearities.

  Args:
    perturbations: name of a layer -> what is added to it, [N, ..., C].
    call: applies a flax network, without arguments and not jitted.

  Returns:
    (what call returns, {layer: perturbed input of its nonlinearity}).
  """
  names, inputs = {paths[name]: name for name in perturbations}, {}
  trace = tracers.current_trace()

  def perturb(call, args, keywords, context):
    y = call(*args, **keywords)
    name = names.get('/'.join(context.module.path))
    if name is None or context.method_name != '__call__':
      return y
    _check_open(name, trace)
    inputs[name] = y + perturbations[name].astype(y.dtype)
    return inputs[name]

  with nn.intercept_methods(perturb):
    return call(), inputs


def affines(
  paths: Mapping[str, str], state: types.TrainState
) -> dict[str, tuple[jax.Array, jax.Array]]:
  """Returns {layer: (scale, bias)}, [C], of norms with running statistics."""
  pairs = {}
  for name, path in paths.items():
    averages = trees.below(state.batch_stats, path)
    if 'mean' in averages:
      pairs[name] = _scale_and_bias(state.params, path, len(averages['mean']))
  return pairs


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
  """Returns (xhat, zhat), the outputs of two norms before scale and bias.

  Args:
    values: what replaces xhat, [N, ..., C]; None leaves it.
    source: the layer of xhat, a key of `paths`.
    target: the layer of zhat, likewise.
  """
  normalised = {}
  trace = tracers.current_trace()

  def replace(call, args, keywords, context):
    y = call(*args, **keywords)
    path = '/'.join(context.module.path)
    is_end = path in (paths[source], paths[target])
    if not is_end or context.method_name != '__call__':
      return y
    _check_open(path, trace)
    scale, bias = (
      # Of the last axis; or of several, as in flax's attention.
      jnp.expand_dims(value, range(y.ndim - value.ndim))
      for value in _scale_and_bias(state.params, path, y.shape[-1])
    )
    normalised[path] = (y - bias) / scale
    if path == paths[source] and values is not None:
      normalised[path] = values
    return (scale * normalised[path] + bias).astype(y.dtype)

  with nn.intercept_methods(replace):
    _apply(module, dtype, state, batch, statistics)
  return normalised[paths[source]], normalised[paths[target]]


def _check_open(name: str, trace: Any) -> None:
  """Raises ValueError inside a transform of JAX that began after `trace`."""
  if tracers.current_trace() != trace:
    raise ValueError(
      f'the activations of {name} lie inside nn.remat or another transform, '
      'where they can be read but not replaced; allowed: layers outside, or '
      'the network without it'
    )


def _apply(module, dtype, state, batch, statistics, also=(), **keywords):
  """Returns (outputs, written collections); 'batch' has the step's noise."""
  is_training = statistics == 'batch'
  return module.apply(
    {'params': state.params, 'batch_stats': state.batch_stats},
    # As in `problem._forward`.
    trees.unpadded(batch.images, batch.mask).astype(dtype),
    statistics=statistics,
    mask=batch.mask,
    rngs=keys.streams(keys.of_step(state)) if is_training else None,
    mutable=['batch_stats', *also],
    **keywords,
  )


def _scale_and_bias(
  params: Mapping[str, Any], path: str, channels: int
) -> tuple[jax.Array, jax.Array]:
  """Returns scale and bias of a module, [C]; 1 and 0 where it has none."""
  arrays = trees.below(params, path)
  scale = arrays['scale'] if 'scale' in arrays else jnp.ones(channels)
  return scale, arrays['bias'] if 'bias' in arrays else jnp.zeros(channels)
