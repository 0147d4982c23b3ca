"""Random keys: one seed, then what for, then the step."""

import jax

from bn_jax import types


def of(key: jax.Array, purpose: types.Purpose) -> jax.Array:
  """The key for one purpose."""
  return jax.random.fold_in(key, int(purpose))


def of_step(state: types.TrainState) -> jax.Array:
  """The key of the next step; whoever uses it folds in a purpose first."""
  return jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)


def of_order(state: types.TrainState) -> jax.Array:
  """The key by which the epochs of this seed are permuted."""
  return of(jax.random.wrap_key_data(state.key), types.Purpose.ORDER)


def streams(key: jax.Array) -> dict[str, jax.Array]:
  """The random streams of a network in training, from the key of a step."""
  return {
    'noise': of(key, types.Purpose.NOISE),
    'dropout': of(key, types.Purpose.DROPOUT),
  }
