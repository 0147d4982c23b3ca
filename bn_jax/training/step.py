"""Makes the step of training: draw a batch, differentiate, update, record.

The same code runs on one device and on many. Under `jit` a program sees the
whole batch. Under pmap and shard_map it sees the part of one device, and
gradients and metrics are averaged over the devices.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from bn_jax import keys, placement, trees, types
from bn_jax.optim import average


def metrics(*, classifies: bool, skips: bool = False) -> tuple[str, ...]:
  """Returns the names of the metrics of a step.

  Row t of the ring is about batch t and the parameters before update t, except
  `update_norm`, the length of update t, and `skipped`, which counts it too.

  Args:
    classifies: whether examples have labels, and so an accuracy.
    skips: whether updates that are not finite are left out, and counted.
  """
  accuracy = ('accuracy',) if classifies else ()
  skipped = ('skipped',) if skips else ()
  return (
    'objective', 'data_loss', 'penalty', *accuracy, 'gradient_norm',
    'learning_rate', 'update_norm', *skipped,
  )  # fmt: skip


def make(
  objective: Callable[..., tuple[jax.Array, dict[str, Any]]],
  optimizer: types.Optimizer,
  sampler: types.Sampler,
  *,
  spread: placement.Spread = placement.ALONE,
  micro_batches: int = 1,
  max_skips: int | None = None,
  ema: float | None = None,
) -> Callable[[types.TrainState, types.Split], types.TrainState]:
  """Returns the function (state, split) -> state after one update.

  Args:
    objective: as `Problem.objective`; the mean of its values on all devices and
      micro-batches is the objective of the whole batch.
    spread: how a batch lies on devices.
    micro_batches: into how many equal, contiguous parts a batch is cut. Their
      gradients are computed one after the other, and averaged. Each part
      updates the running statistics from before the step; the results are
      averaged, which for running means is one update by the parts' mean.
    max_skips: how many updates that are not finite are left out in all, before
      the next one stops training; None and 0 stop at the first. With a number,
      0 too, the row of a step has `skipped`.
    ema: the share that the state's average keeps at an update; None: it has no
      average.
  """
  gradient_of = jax.value_and_grad(objective, has_aux=True)

  def step(state, split):
    index_B, order = sampler.draw(state.order, keys.of_order(state))
    size = len(index_B) // micro_batches
    key = keys.of_step(state)
    augmentation_key = keys.of(key, types.Purpose.AUGMENTATION)

    def of_part(params, number):
      first = number * size + spread.first(size)
      index = lax.dynamic_slice_in_dim(index_B, first, spread.own(size))
      batch = spread.laid(sampler.take(split, index, augmentation_key, first))
      (value, aux), gradient = gradient_of(
        params, state.batch_stats, batch, key, first
      )
      batch_stats = aux.pop('batch_stats')
      return gradient, {'objective': value, **aux}, batch_stats

    def look(params):
      """Returns (gradient, row, statistics) of the batch at params."""
      gradient, row, batch_stats = _mean_over(
        micro_batches, functools.partial(of_part, params)
      )
      # The statistics are those of the whole batch on every device already.
      return *spread.mean((gradient, row)), batch_stats

    gradient, row, batch_stats = look(state.params)
    row |= {
      'gradient_norm': trees.norm(gradient),
      'learning_rate': optimizer.learning_rate(
        state.opt_state, updates_made(state)
      ),
    }
    updates, opt_state = _updates(optimizer, state, gradient, row, look)
    row['update_norm'] = trees.norm(updates)
    new = state._replace(
      step=state.step + 1,
      params=optax.apply_updates(state.params, updates),
      batch_stats=batch_stats,
      opt_state=opt_state,
      order=order,
    )
    if ema is not None:
      new = new._replace(
        average=average.add(state.average, ema, new.params, new.batch_stats)
      )
    new = _if_finite(new, state, row, max_skips or 0)
    if max_skips is not None:
      row['skipped'] = new.skipped
    return _recorded(new, row, state.finite)

  return step


def _updates(
  optimizer: types.Optimizer,
  state: types.TrainState,
  gradient: Any,
  row: dict[str, jax.Array],
  look: Callable[[Any], tuple],
) -> tuple[Any, Any]:
  """Returns (updates, opt_state); the statistics of further looks are dropped.

  Args:
    gradient: at the parameters, as the rest of `row`.
    look: params -> (gradient, row, statistics) of the same batch there.
  """
  if optimizer.ascent is not None:
    gradient, *_ = look(optimizer.ascent(state.params, gradient))
  extra = {}
  if optimizer.extra:
    extra = {
      'value': row['objective'],
      'grad': gradient,
      'value_fn': lambda params: look(params)[1]['objective'],
    }
  return optimizer.update(gradient, state.opt_state, state.params, **extra)


def _mean_over(count: int, of_part: Callable[[Any], Any]) -> Any:
  """Returns the mean of of_part(0), of_part(1), ..., one after the other."""
  if count == 1:
    return of_part(0)

  def body(total, number):
    return jax.tree.map(jnp.add, total, of_part(number)), None

  zeros = jax.tree.map(
    lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(of_part, 0)
  )
  total, _ = lax.scan(body, zeros, jnp.arange(count))
  return jax.tree.map(lambda x: (x / count).astype(x.dtype), total)


def updates_made(state: types.TrainState) -> jax.Array:
  """Returns the number of updates made: steps, less the updates left out.

  This is the optimizer's count, on which schedules depend.
  """
  return state.step - state.skipped


def _if_finite(
  new: types.TrainState,
  old: types.TrainState,
  row: dict[str, jax.Array],
  max_skips: int,
) -> types.TrainState:
  """Returns the new state if all of it is finite; else the old one.

  A loss may be finite and its gradient not, or both may be finite and the
  update or the statistics overflow. So everything that would be kept is
  checked. An update that is not finite is left out: the state is the old one,
  at the next step. After max_skips such updates, the next one freezes the
  state: from then on no call changes anything, not even the step counter.
  """
  new_values = (new.params, new.batch_stats, new.opt_state, new.average)
  is_good = _all_finite((row['objective'], row['gradient_norm'], new_values))
  is_skip = ~is_good & (old.skipped < max_skips)
  finite = old.finite & (is_good | is_skip)
  params, batch_stats, opt_state, mean = trees.select(
    old.finite & is_good,
    new_values,
    (old.params, old.batch_stats, old.opt_state, old.average),
  )
  return trees.select(finite, new, old)._replace(
    params=params,
    batch_stats=batch_stats,
    opt_state=opt_state,
    average=mean,
    finite=finite,
    skipped=old.skipped + (finite & ~is_good),
  )


def _all_finite(tree: Any) -> jax.Array:
  """Returns whether all numbers of a tree are finite, [] bool."""
  finite = [
    jnp.isfinite(leaf).all()
    for leaf in jax.tree.leaves(tree)
    if jnp.issubdtype(leaf.dtype, jnp.inexact)
  ]
  # The place of the first False. A chain of `and`, which XLA makes of `all`
  # too, would be copied into the program of each array that is chosen by it:
  # programs would grow as the square of the number of arrays.
  return jnp.argmin(jnp.stack([*finite, jnp.zeros((), bool)])) == len(finite)


def _recorded(
  state: types.TrainState, row: dict[str, jax.Array], finite: jax.Array
) -> types.TrainState:
  """Returns the state after a step, with the metrics of the step in its ring.

  A state that was frozen before this call (`finite` is False) keeps the row of
  the step that was not finite, since the batch may be another one by now.
  """
  # A frozen state has not counted the step that was not finite.
  step = state.step - state.finite
  ring = {
    name: values.at[step % values.shape[0]].set(row[name])
    for name, values in state.ring.items()
  }
  return state._replace(ring=trees.select(finite, ring, state.ring))
