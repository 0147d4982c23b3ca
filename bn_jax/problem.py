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

from bn_jax import trees, types

# What is recorded of every step; row t of the ring belongs to the parameters
# before update t and to batch t.
METRICS = (
  'objective',
  'data_loss',
  'penalty',
  'accuracy',
  'gradient_norm',
  'learning_rate',
)


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
) -> types.Problem:
  """The Problem of training a classifier.

  Args:
    module: called as `module(x, mode=..., mask=...)`, returns logits.
    optimizer: turns gradients into updates.
    sampler: draws batch t.
    penalty: params -> the term added to the data loss.
    image_shape: (height, width, channels) of the input.
    layers: (module, variables) -> ordered ((name, paths), ...).
    taps: ordered ((layer, path of the module whose output enters the layer's
      nonlinearity), ...).
    ring_size: K, how many rows of metrics stay on the device.
  """
  objectives = {
    mode: functools.partial(_objective, module, penalty, mode)
    for mode in ('batch', 'running')
  }
  # Made once, so that all Partials over one of them are one program.
  losses = {
    mode: functools.partial(_loss, objective)
    for mode, objective in objectives.items()
  }
  draw = functools.partial(_draw, sampler)
  image = jnp.zeros((1, *image_shape), jnp.float32)

  def learning_rate(state):
    return optimizer.learning_rate(state.opt_state, state.step)

  return types.Problem(
    init=jax.jit(
      functools.partial(_init, module, optimizer, sampler, image, ring_size)
    ),
    objective=objectives['batch'],
    loss=lambda state, batch, statistics: jax.tree_util.Partial(
      losses[statistics], state.batch_stats, batch, _step_key(state)
    ),
    batch=jax.jit(lambda state, split: draw(state, split)[0]),
    step=functools.partial(_step, objectives['batch'], optimizer, draw),
    evaluate=jax.jit(functools.partial(_evaluate, module)),
    learning_rate=learning_rate,
    layers=lambda state: layers(module, {'params': state.params}),
    taps=tuple(name for name, _ in taps),
    activations=jax.jit(
      functools.partial(_activations, module, dict(taps)), static_argnums=(2, 3)
    ),
  )


def _init(module, optimizer, sampler, image, ring_size, seed: int):
  key = jax.random.key(seed)
  parameter_key = _for(key, types.Purpose.PARAMETERS)
  variables = dict(module.init(parameter_key, image, mode='running'))
  params = variables.pop('params')
  return types.TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    batch_stats=variables.pop('batch_stats', {}),
    opt_state=optimizer.init(params),
    key=jax.random.key_data(key),
    order=sampler.init(_for(key, types.Purpose.ORDER)),
    ring={name: jnp.zeros(ring_size, jnp.float32) for name in METRICS},
    finite=jnp.ones((), bool),
  )


def _forward(module, mode, params, batch_stats, batch, key):
  """(logits, batch_stats as they are afterwards)."""
  variables = {'params': params, 'batch_stats': batch_stats}
  keywords = {'mode': mode, 'mask': batch.mask}
  if mode == 'running':
    return module.apply(variables, batch.images, **keywords), batch_stats
  logits, new = module.apply(
    variables,
    batch.images,
    **keywords,
    rngs=_rngs(key),
    mutable=['batch_stats'],
  )
  return logits, new.get('batch_stats', {})


def _objective(module, penalty, mode, params, batch_stats, batch, key):
  logits, new = _forward(module, mode, params, batch_stats, batch, key)
  sums = _sums(logits, batch)
  data_loss = sums['loss'] / sums['count']
  aux = {
    'data_loss': data_loss,
    'penalty': penalty(params),
    'accuracy': sums['correct'] / sums['count'],
    'batch_stats': new,
  }
  return data_loss + aux['penalty'], aux


def _loss(objective, batch_stats, batch, key, params):
  """The objective alone; whatever statistics this look makes are dropped."""
  return objective(params, batch_stats, batch, key)[0]


def _draw(sampler, state, split):
  key = _for(jax.random.wrap_key_data(state.key), types.Purpose.ORDER)
  return sampler.draw(state.order, key, split)


def _step(objective, optimizer, draw, state, split):
  batch, order = draw(state, split)
  (value, aux), gradient = jax.value_and_grad(objective, has_aux=True)(
    state.params, state.batch_stats, batch, _step_key(state)
  )
  row = {
    'objective': value,
    'gradient_norm': trees.norm(gradient),
    'learning_rate': optimizer.learning_rate(state.opt_state, state.step),
    **{name: aux[name] for name in ('data_loss', 'penalty', 'accuracy')},
  }
  updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
  new = state._replace(
    step=state.step + 1,
    params=optax.apply_updates(state.params, updates),
    batch_stats=aux['batch_stats'],
    opt_state=opt_state,
    order=order,
  )
  # A non-finite loss or gradient must not enter the parameters; once seen, it
  # stays seen: the step counter stands still and further calls change nothing.
  finite = state.finite & jnp.isfinite(value + row['gradient_norm'])
  kept = trees.select(finite, new, state)
  return kept._replace(ring=_write(state, row), finite=finite)


def _evaluate(module, state, batch):
  logits, _ = _forward(
    module, 'running', state.params, state.batch_stats, batch, None
  )
  return _sums(logits, batch)


def _activations(module, paths, state, batch, statistics, names):
  """name -> what enters the nonlinearity of that layer, [N, ..., C]."""
  wanted = {paths[name] for name in names}
  variables = {'params': state.params, 'batch_stats': state.batch_stats}
  rngs = _rngs(_step_key(state)) if statistics == 'batch' else None
  _, seen = module.apply(
    variables,
    batch.images,
    mode=statistics,
    mask=batch.mask,
    rngs=rngs,
    mutable=['batch_stats', 'intermediates'],
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


def _rngs(key: jax.Array) -> dict[str, jax.Array]:
  """The random streams of a network in training."""
  return {
    'noise': _for(key, types.Purpose.NOISE),
    'dropout': _for(key, types.Purpose.DROPOUT),
  }


def _for(key: jax.Array, purpose: types.Purpose) -> jax.Array:
  return jax.random.fold_in(key, int(purpose))


def _step_key(state: types.TrainState) -> jax.Array:
  """The key of this step; whoever uses it folds in a purpose first."""
  return jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)


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


def _write(state: types.TrainState, row: dict) -> dict[str, jax.Array]:
  """The ring with the metrics of this step in their place."""
  return {
    name: values.at[state.step % values.shape[0]].set(row[name])
    for name, values in state.ring.items()
  }
