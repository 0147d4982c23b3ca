"""Makes a Problem of a network, an optimizer and a way to draw batches.

  objective(params) = data_loss(params) + penalty(params)

The data loss is the mean (or sum) of the losses of a batch's examples. The
penalty (weight decay) is a separate term, so that both are recorded.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from bn_jax import keys, losses, placement, trees, types
from bn_jax.optim import average
from bn_jax.training import step
from bn_jax.training import taps as taps_lib

_PRODUCTS = ('dot_general', 'conv_general_dilated')  # names of JAX's primitives


def make(
  module: nn.Module,
  optimizer: types.Optimizer,
  *,
  sampler: types.Sampler,
  penalty: Callable[[Any], jax.Array],
  image_shape: tuple[int, ...],
  layers: Callable[[nn.Module, Any], tuple],
  taps: Sequence[tuple[str, str]],
  loss: losses.Loss | None = None,
  ring_size: int = 20,
  compute_dtype: jnp.dtype = jnp.float32,
  spread: placement.Spread = placement.ALONE,
  group_size: int | None = None,
  noisy: bool = False,
  micro_batches: int = 1,
  remat: bool = False,
  max_skips: int | None = None,
  ema: float | None = None,
  keeps_statistics: Callable[[Any], bool] = lambda batch_stats: False,
  population: Callable[..., Any] | None = None,
  adapted: Callable[..., jax.Array] | None = None,
) -> types.Problem:
  """Returns the Problem of training a network.

  Args:
    module: called as `module(x, statistics=..., mask=..., first=...)`; the loss
      takes its output.
    penalty: params -> the term added to the data loss.
    image_shape: (height, width, channels) of the input, or (D,) of a vector.
    layers: (module, variables) -> ordered ((name, paths), ...).
    taps: ordered ((layer, path of the module whose output enters the layer's
      nonlinearity), ...).
    loss: of the data; None is the cross-entropy.
    ring_size: K, the rows of metrics that the device holds. When all are full,
      the loop waits for the device and reads them.
    compute_dtype: of images, and so of activations and products; parameters,
      statistics and losses are float32 at least.
    spread: how batches lie on devices; the module's norms must have the same.
    group_size: on how many examples, itself included, the output of an example
      depends with statistics 'batch'; None is the whole batch.
    noisy: whether the module's norms add noise after normalizing.
    micro_batches, max_skips, ema: see `step.make`.
    remat: whether the step's backward pass recomputes everything but products
      and statistics, to save memory.
    keeps_statistics: batch_stats -> whether they can be estimated.
    population, adapted: `norms.population_statistics` and `norms.adapted`, of
      the module; None for a network that keeps none.
  """
  average.check(ema)
  loss = loss or losses.cross_entropy()
  forward = functools.partial(_forward, module, compute_dtype)
  objective = functools.partial(_objective, forward, loss, penalty, spread)
  step_objective = functools.partial(objective, micro_batches, 'batch')
  skips = max_skips is not None
  metrics = step.metrics(classifies=loss.classifies, skips=skips)
  init = functools.partial(
    _init, module, optimizer, sampler, image_shape, metrics, ring_size,
    ema is not None,
  )  # fmt: skip
  return types.Problem(
    init=jax.jit(init),
    batch=jax.jit(functools.partial(_next_batch, sampler, spread)),
    following=jax.jit(lambda state: _draw(sampler, state)[1]),
    step=step.make(
      _recomputing(step_objective) if remat else step_objective, optimizer,
      sampler, spread=spread, micro_batches=micro_batches, max_skips=max_skips,
      ema=ema,
    ),
    updates=_updates_of(optimizer),
    learning_rate=functools.partial(_learning_rate, optimizer),
    rate_factors=optimizer.factors,
    layers=lambda state: layers(module, {'params': state.params}),
    group_size=group_size,
    **_of_statistics(keeps_statistics, population, adapted, compute_dtype),
    **_of_params(objective, dict(taps)),
    split=_split_of(forward, functools.partial(_data_loss, loss, spread),
                    penalty),
    **_of_network(module, compute_dtype, forward, loss, dict(taps), noisy),
  )  # fmt: skip


def _learning_rate(optimizer, state):
  return optimizer.learning_rate(state.opt_state, step.updates_made(state))


def _of_statistics(keeps, population, adapted, dtype) -> dict[str, Callable]:
  """Returns the functions of a Problem that are about kept statistics."""

  def outputs(state, batch, size):
    variables = {'params': state.params, 'batch_stats': state.batch_stats}
    inputs = trees.unpadded(batch.images, batch.mask).astype(dtype)
    return adapted(variables, inputs, size=size, mask=batch.mask)

  return {
    'keeps_statistics': lambda state: keeps(state.batch_stats),
    'population': lambda state, inputs, **keywords: population(
      {'params': state.params, 'batch_stats': state.batch_stats},
      inputs,
      **keywords,
    ),
    'adapted': jax.jit(outputs, static_argnums=2),
  }


def _of_params(objective, paths) -> dict[str, Callable]:
  """Returns the functions of a Problem that measures differentiate."""
  objectives = {
    statistics: functools.partial(objective, 1, statistics)
    for statistics in ('batch', 'running')
  }
  # Built once, so that all Partials of one function are one compiled program.
  of_params = {
    (of, statistics, penalised): functools.partial(of, function, penalised)
    for statistics, function in objectives.items()
    for penalised in (False, True)
    for of in (_loss, _scores)
  }

  perturbed = {
    statistics: functools.partial(_perturbed, function, paths)
    for statistics, function in objectives.items()
  }

  def bound(
    of, state, batch, statistics, penalised=True, *, first=0, share=1.0
  ):
    return jax.tree_util.Partial(
      of_params[of, statistics, penalised],
      state.batch_stats,
      batch,
      keys.of_step(state),
      (first, share),
    )

  return {
    'objective': objectives['batch'],
    'loss': functools.partial(bound, _loss),
    'scores': functools.partial(bound, _scores),
    'perturbed': lambda state, batch, statistics: jax.tree_util.Partial(
      perturbed[statistics], state.batch_stats, batch, keys.of_step(state)
    ),
  }


def _of_network(module, compute_dtype, forward, loss, paths, noisy) -> dict:
  """Returns the functions of a Problem that compute a network's values."""
  return {
    'evaluate': jax.jit(
      functools.partial(_evaluate, forward, loss), static_argnames='statistics'
    ),
    'outputs': jax.jit(
      functools.partial(_outputs, forward), static_argnames='statistics'
    ),
    'taps': tuple(paths),
    'activations': jax.jit(
      functools.partial(taps_lib.activations, module, compute_dtype, paths),
      static_argnums=(2, 3),
    ),
    # With noise, yhat cannot be computed from the output of a norm.
    'affine': functools.partial(taps_lib.affines, {} if noisy else paths),
    'between': jax.jit(
      functools.partial(taps_lib.between, module, compute_dtype, paths),
      static_argnames=('statistics', 'source', 'target'),
    ),
  }


def _init(
  module, optimizer, sampler, image_shape, metrics, ring_size, averages,
  seed: int,
):  # fmt: skip
  image = jnp.zeros((1, *image_shape), jnp.float32)
  key = jax.random.key(seed)
  parameter_key = keys.of(key, types.Purpose.PARAMETERS)
  variables = dict(module.init(parameter_key, image, statistics='running'))
  if 'params' not in variables:
    raise ValueError('the network has no parameters; allowed: one or more')
  params = variables.pop('params')
  batch_stats = variables.pop('batch_stats', {})
  return types.TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    batch_stats=batch_stats,
    opt_state=optimizer.init(params),
    key=jax.random.key_data(key),
    order=sampler.init(keys.of(key, types.Purpose.ORDER)),
    ring={name: jnp.zeros(ring_size, jnp.float32) for name in metrics},
    finite=jnp.ones((), bool),
    skipped=jnp.zeros((), jnp.int32),
    average=average.begin(params, batch_stats) if averages else (),
  )


def _forward(
  module, dtype, statistics, params, batch_stats, batch, key=None, first=0
):
  """Returns (outputs, batch_stats after the call)."""
  variables = {'params': params, 'batch_stats': batch_stats}
  keywords = {'statistics': statistics, 'mask': batch.mask, 'first': first}
  # Ours do so too, but a network may be somebody else's.
  images = trees.unpadded(batch.images, batch.mask).astype(dtype)
  if statistics == 'running':
    return module.apply(variables, images, **keywords), batch_stats
  outputs, new = module.apply(
    variables,
    images,
    **keywords,
    rngs=None if key is None else keys.streams(key),
    mutable=['batch_stats'],
  )
  return outputs, new.get('batch_stats', {})


def _objective(
  forward, loss, penalty, spread, parts, statistics, params, batch_stats, batch,
  key, first=0, share=1.0,
):  # fmt: skip
  """Returns the objective of a piece of a batch, and its terms.

  A batch is cut into `parts` micro-batches, and each of these over devices into
  pieces. The mean of the pieces' objectives is the objective of the batch, and
  so with gradients, if micro-batches have equally many real examples. If the
  batch is itself a `share` of a larger one, the objective of the larger one is
  the sum of share * objective.
  """
  outputs, stats = forward(statistics, params, batch_stats, batch, key, first)
  data_loss, accuracy = _data_loss(
    loss, spread, batch.labels, batch.mask, share, outputs, parts
  )
  aux = {
    'data_loss': data_loss,
    'penalty': penalty(params),
    'batch_stats': stats,
    **accuracy,
  }
  return data_loss + aux['penalty'], aux


def _data_loss(loss, spread, labels, mask, share, outputs, parts=1):
  """Returns the data loss of outputs, and of a classifier its accuracy."""
  sums = losses.sums(loss, outputs, labels, mask)
  mean_count = spread.mean(sums['count'])
  pieces = parts * (spread.parts if spread.axis_name else 1)
  weight = pieces / share if loss.total else 1 / mean_count
  accuracy = (
    {'accuracy': sums['correct'] / mean_count} if loss.classifies else {}
  )
  return sums['loss'] * weight, accuracy


def _split_of(forward, data_loss, penalty) -> Callable[..., types.SplitLoss]:
  """Returns `Problem.split`; its functions are built once, as in `loss`."""

  def convex(labels, mask, share, outputs):
    return data_loss(labels, mask, share, outputs)[0]

  outputs_of = {
    statistics: functools.partial(_outputs_of_params, forward, statistics)
    for statistics in ('batch', 'running')
  }

  def split(state, batch, statistics, penalised=True, *, first=0, share=1.0):
    return types.SplitLoss(
      jax.tree_util.Partial(
        outputs_of[statistics],
        state.batch_stats,
        batch._replace(labels=None),
        keys.of_step(state),
        first,
      ),
      jax.tree_util.Partial(convex, batch.labels, batch.mask, share),
      jax.tree_util.Partial(penalty) if penalised else None,
    )

  return split


def _outputs_of_params(
  forward, statistics, batch_stats, batch, key, first, params
):
  """Returns the outputs of training, with its noise, as in the objective."""
  return forward(statistics, params, batch_stats, batch, key, first)[0]


def _loss(objective, penalised, batch_stats, batch, key, part, params):
  """Returns the objective (penalised) or the data loss alone, []."""
  value, aux = objective(params, batch_stats, batch, key, *part)
  return value if penalised else aux['data_loss']


def _scores(objective, penalised, batch_stats, batch, key, part, params):
  """Returns what `_loss` returns and, of a classifier, the accuracy."""
  value, aux = objective(params, batch_stats, batch, key, *part)
  accuracy = {k: aux[k] for k in ('accuracy',) if k in aux}
  return {'loss': value if penalised else aux['data_loss'], **accuracy}


def _perturbed(
  objective, paths, batch_stats, batch, key, params, perturbations
):
  """Returns (data loss, inputs of nonlinearities), both with perturbations."""
  (_, aux), activations = taps_lib.perturbed(
    paths, perturbations, lambda: objective(params, batch_stats, batch, key)
  )
  return aux['data_loss'], activations


def _updates_of(optimizer):
  """Returns `Problem.updates` of an optimizer."""

  def update_with(value_fn, state, gradient, value):
    extra = {'value': value, 'grad': gradient, 'value_fn': value_fn}
    return optimizer.update(
      gradient, state.opt_state, state.params,
      **(extra if optimizer.extra else {}),
    )[0]  # fmt: skip

  @jax.jit
  def update(state, gradient, value):
    return update_with(lambda _: value, state, gradient, value)

  ascent = optimizer.ascent and jax.jit(optimizer.ascent)
  uses = []  # whether an update uses (value, value_fn); once it was traced

  def updates(state, gradient, look=None):
    if not uses:
      uses.append(_uses(update_with, state, gradient))
    (uses_value, uses_function), value = uses[0], 0.0
    if (uses_value or ascent) and look is None:
      raise ValueError(
        'this optimizer wants more of the objective than a gradient; give look'
      )
    if ascent:
      _, gradient = look(ascent(state.params, gradient))
    if uses_value:
      value, _ = look(state.params)
    if uses_function:  # not jitted, since a look may take chunk after chunk
      return update_with(lambda p: look(p)[0], state, gradient, value)
    return update(state, gradient, value)

  return updates


def _uses(update_with, state, gradient) -> tuple[bool, bool]:
  """Returns whether an update uses value or value_fn, and whether value_fn.

  All that optax chains takes both, and most of it uses neither.
  """
  calls = []

  def traced(value, state, gradient):
    def value_fn(_):
      calls.append(value)
      return value

    return update_with(value_fn, state, gradient, value)

  jaxpr = jax.make_jaxpr(traced)(jnp.zeros(()), state, gradient).jaxpr
  read = [*jaxpr.outvars, *(x for eqn in jaxpr.eqns for x in eqn.invars)]
  uses_value = any(x is jaxpr.invars[0] for x in read)
  return uses_value or bool(calls), bool(calls)


def _recomputing(objective):
  """Returns the objective; its backward pass recomputes what costs little.

  Products and the statistics of norms are kept in memory.
  """
  policies = jax.checkpoint_policies
  policy = policies.save_from_both_policies(
    lambda primitive, *_, **__: primitive.name in _PRODUCTS,
    policies.save_only_these_names('moments'),
  )
  return jax.checkpoint(objective, policy=policy)


def _draw(sampler, state):
  return sampler.draw(state.order, keys.of_order(state))


def _next_batch(sampler, spread, state, split):
  index_B, _ = _draw(sampler, state)
  key = keys.of(keys.of_step(state), types.Purpose.AUGMENTATION)
  return spread.laid(sampler.take(split, index_B, key))


def _evaluate(forward, loss, state, batch, statistics='running'):
  outputs, _ = forward(statistics, state.params, state.batch_stats, batch)
  return losses.sums(loss, outputs, batch.labels, batch.mask)


def _outputs(forward, state, batch, *, statistics):
  """Returns the network's outputs for a batch, [B, K], without random noise."""
  outputs, _ = forward(statistics, state.params, state.batch_stats, batch)
  return outputs
