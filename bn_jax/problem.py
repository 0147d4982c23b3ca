"""A network, an optimizer and a way to draw batches, as one set of functions.

  objective(params) = mean over the batch of the cross-entropy + penalty(params)

The penalty (weight decay) is a term of its own, so that data_loss can be read
beside the objective.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from bn_jax import inside, keys, types, update
from bn_jax import spread as spread_lib

_PRODUCTS = ('dot_general', 'conv_general_dilated')


def make(
  module: nn.Module,
  optimizer: types.Optimizer,
  *,
  sampler: types.Sampler,
  penalty: Callable[[Any], jax.Array],
  image_shape: tuple[int, int, int],
  layers: Callable[[nn.Module, Any], tuple],
  taps: Sequence[tuple[str, str]],
  ring_size: int = 20,
  compute_dtype: jnp.dtype = jnp.float32,
  spread: spread_lib.Spread = spread_lib.ALONE,
  micro_batches: int = 1,
  remat: bool = False,
) -> types.Problem:
  """The Problem of training a classifier.

  Args:
    module: called as `module(x, mode=..., mask=..., first=...)`, returns
      logits.
    optimizer: turns gradients into updates.
    sampler: draws batch t.
    penalty: params -> the term added to the data loss.
    image_shape: (height, width, channels) of the input.
    layers: (module, variables) -> ordered ((name, paths), ...).
    taps: ordered ((layer, path of the module whose output enters the layer's
      nonlinearity), ...).
    ring_size: K, how many rows of metrics stay on the device.
    compute_dtype: of images, and so of activations and products; parameters,
      statistics and losses are float32 at least.
    spread: how batches lie on devices; the module's norms must have the same.
    micro_batches: into how many a batch of the step is cut, see `update.make`.
    remat: whether the step's backward pass finds everything but products and
      statistics anew, for memory.
  """
  forward = functools.partial(_forward, module, compute_dtype)
  objectives = {
    mode: functools.partial(_objective, forward, penalty, spread, mode)
    for mode in ('batch', 'running')
  }
  # Made once, so that all Partials over one of them are one program.
  losses = {
    mode: functools.partial(_loss, objective)
    for mode, objective in objectives.items()
  }
  trained = _recomputing(objectives['batch']) if remat else objectives['batch']
  image = jnp.zeros((1, *image_shape), jnp.float32)

  def learning_rate(state):
    return optimizer.learning_rate(state.opt_state, state.step)

  return types.Problem(
    init=jax.jit(
      functools.partial(_init, module, optimizer, sampler, image, ring_size)
    ),
    objective=objectives['batch'],
    loss=lambda state, batch, statistics: jax.tree_util.Partial(
      losses[statistics], state.batch_stats, batch, keys.of_step(state)
    ),
    batch=jax.jit(functools.partial(_next_batch, sampler, spread)),
    following=jax.jit(lambda state: _drawn(sampler, state)[1]),
    step=update.make(
      trained, optimizer, sampler, spread=spread, micro_batches=micro_batches
    ),
    evaluate=jax.jit(functools.partial(_evaluate, forward)),
    learning_rate=learning_rate,
    layers=lambda state: layers(module, {'params': state.params}),
    taps=tuple(name for name, _ in taps),
    activations=jax.jit(
      functools.partial(inside.activations, module, compute_dtype, dict(taps)),
      static_argnums=(2, 3),
    ),
    between=jax.jit(
      functools.partial(inside.between, module, compute_dtype, dict(taps)),
      static_argnames=('statistics', 'source', 'target'),
    ),
  )


def _init(module, optimizer, sampler, image, ring_size, seed: int):
  key = jax.random.key(seed)
  parameter_key = keys.of(key, types.Purpose.PARAMETERS)
  variables = dict(module.init(parameter_key, image, mode='running'))
  params = variables.pop('params')
  return types.TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    batch_stats=variables.pop('batch_stats', {}),
    opt_state=optimizer.init(params),
    key=jax.random.key_data(key),
    order=sampler.init(keys.of(key, types.Purpose.ORDER)),
    ring={name: jnp.zeros(ring_size, jnp.float32) for name in update.METRICS},
    finite=jnp.ones((), bool),
  )


def _forward(
  module, dtype, mode, params, batch_stats, batch, key=None, first=0
):
  """(logits, batch_stats as they are afterwards)."""
  variables = {'params': params, 'batch_stats': batch_stats}
  keywords = {'mode': mode, 'mask': batch.mask, 'first': first}
  images = batch.images.astype(dtype)
  if mode == 'running':
    return module.apply(variables, images, **keywords), batch_stats
  logits, new = module.apply(
    variables,
    images,
    **keywords,
    rngs=keys.streams(key),
    mutable=['batch_stats'],
  )
  return logits, new.get('batch_stats', {})


def _objective(
  forward, penalty, spread, mode, params, batch_stats, batch, key, first=0
):
  """The objective; of a part of a batch, such that their mean is the whole's.

  So the gradient is the mean of the parts' gradients, however many examples of
  each are real.
  """
  logits, new = forward(mode, params, batch_stats, batch, key, first)
  sums = _sums(logits, batch)
  mean_count = spread.mean(sums['count'])
  data_loss = sums['loss'] / mean_count
  aux = {
    'data_loss': data_loss,
    'penalty': penalty(params),
    'accuracy': sums['correct'] / mean_count,
    'batch_stats': new,
  }
  return data_loss + aux['penalty'], aux


def _loss(objective, batch_stats, batch, key, params):
  """The objective alone; whatever statistics this look makes are dropped."""
  return objective(params, batch_stats, batch, key)[0]


def _recomputing(objective):
  """The objective, of which products and statistics alone are kept.

  They are what costs time; all between them is recomputed in the backward pass.
  """
  policies = jax.checkpoint_policies
  policy = policies.save_from_both_policies(
    lambda primitive, *_, **__: primitive.name in _PRODUCTS,
    policies.save_only_these_names('moments'),
  )
  return jax.checkpoint(objective, policy=policy)


def _drawn(sampler, state):
  return sampler.draw(state.order, keys.of_order(state))


def _next_batch(sampler, spread, state, split):
  index_B, _ = _drawn(sampler, state)
  return spread.laid(sampler.take(split, index_B))


def _evaluate(forward, state, batch):
  logits, _ = forward('running', state.params, state.batch_stats, batch)
  return _sums(logits, batch)


def _sums(logits: jax.Array, batch: types.Batch) -> dict[str, jax.Array]:
  """Sums over the real examples: cross-entropy, correct ones, their number."""
  logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
  loss_B = optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels)
  correct_B = (logits.argmax(-1) == batch.labels).astype(logits.dtype)
  real_B = jnp.ones(batch.labels.shape, bool)
  real_B = real_B if batch.mask is None else batch.mask
  return {
    'loss': jnp.where(real_B, loss_B, 0).sum(),
    'correct': jnp.where(real_B, correct_B, 0).sum(),
    'count': real_B.sum(dtype=logits.dtype),
  }
