"""One update: draw a batch, take its gradient wherever it lies, step, record.

The same code is the step on one device and on many. Where a program sees the
whole batch, `Spread` does nothing; inside pmap and shard_map it sees its part,
and gradients and metrics are averaged over the devices.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from bn_jax import keys, trees, types
from bn_jax import spread as spread_lib


def metrics(*, classifies: bool) -> tuple[str, ...]:
  """Names of what is recorded of every step.

  Row t of the ring belongs to the parameters before update t and to batch t.
  """
  accuracy = ('accuracy',) if classifies else ()
  return (
    'objective', 'data_loss', 'penalty', *accuracy, 'gradient_norm',
    'learning_rate',
  )  # fmt: skip


def make(
  objective: Callable[..., tuple[jax.Array, dict[str, Any]]],
  optimizer: types.Optimizer,
  sampler: types.Sampler,
  *,
  spread: spread_lib.Spread = spread_lib.ALONE,
  micro_batches: int = 1,
) -> Callable[[types.TrainState, types.Split], types.TrainState]:
  """The function (state, split) -> state after one update.

  Args:
    objective: as `Problem.objective`, its mean over devices being the whole's.
    optimizer: turns gradients into updates.
    sampler: draws batch t.
    spread: how a batch lies on devices.
    micro_batches: into how many equal, contiguous parts a batch is cut, whose
      gradients are taken one after the other, and averaged. Each begins with
      the running statistics from before the step; what they make of them is
      averaged, which for running means is one update by the mean.
  """
  gradient_of = jax.value_and_grad(objective, has_aux=True)

  def step(state, split):
    index_B, order = sampler.draw(state.order, keys.of_order(state))
    size = len(index_B) // micro_batches
    key = keys.of_step(state)
    changing = keys.of(key, types.Purpose.AUGMENTATION)

    def of_part(number):
      first = number * size + spread.first(size)
      index = lax.dynamic_slice_in_dim(index_B, first, spread.own(size))
      batch = spread.laid(sampler.take(split, index, changing, first))
      (value, aux), gradient = gradient_of(
        state.params, state.batch_stats, batch, key, first
      )
      batch_stats = aux.pop('batch_stats')
      return gradient, {'objective': value, **aux}, batch_stats

    gradient, row, batch_stats = _mean_over(micro_batches, of_part)
    # Every device knows the whole batch's statistics already.
    gradient, row = spread.mean((gradient, row))
    row |= {
      'gradient_norm': trees.norm(gradient),
      'learning_rate': optimizer.learning_rate(state.opt_state, state.step),
    }
    updates, opt_state = optimizer.update(
      gradient, state.opt_state, state.params
    )
    new = state._replace(
      step=state.step + 1,
      params=optax.apply_updates(state.params, updates),
      batch_stats=batch_stats,
      opt_state=opt_state,
      order=order,
    )
    return _recorded(_unless_broken(new, state, row), row)

  return step


def _mean_over(count: int, of_part: Callable[[Any], Any]) -> Any:
  """The mean of a tree over parts 0, 1, ..., one after the other."""
  if count == 1:
    return of_part(0)

  def body(total, number):
    return jax.tree.map(jnp.add, total, of_part(number)), None

  zeros = jax.tree.map(
    lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(of_part, 0)
  )
  total, _ = lax.scan(body, zeros, jnp.arange(count))
  return jax.tree.map(lambda x: (x / count).astype(x.dtype), total)


def _unless_broken(
  new: types.TrainState, old: types.TrainState, row: dict[str, jax.Array]
) -> types.TrainState:
  """The new state, or the old one for good once a row was not finite.

  A non-finite loss or gradient must not enter the parameters; once seen, it
  stays seen: the step counter stands still and further calls change nothing.
  """
  finite = old.finite & jnp.isfinite(row['objective'] + row['gradient_norm'])
  return trees.select(finite, new, old)._replace(finite=finite)


def _recorded(
  kept: types.TrainState, row: dict[str, jax.Array]
) -> types.TrainState:
  """The state with the metrics of the step just made in its ring."""
  # A frozen state has not counted the step that broke.
  step = kept.step - kept.finite
  ring = {
    name: values.at[step % values.shape[0]].set(row[name])
    for name, values in kept.ring.items()
  }
  return kept._replace(ring=ring)
