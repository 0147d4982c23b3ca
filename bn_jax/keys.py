"""Derives random keys: by seed and purpose, or by seed, step and purpose."""

import jax

from bn_jax import types


def of(key: jax.Array, purpose: types.Purpose) -> jax.Array:
  """Returns the key for a purpose, from a seed's or a step's."""
  return jax.random.fold_in(key, int(purpose))


def of_step(state: types.TrainState) -> jax.Array:
  """Returns the key of the next step; fold in a purpose before use."""
  return jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)


def of_order(state: types.TrainState) -> jax.Array:
  """Returns the key from which each epoch's permutation is drawn."""
  return of(jax.random.wrap_key_data(state.key), types.Purpose.ORDER)


def streams(key: jax.Array) -> dict[str, jax.Array]:
  """Returns a network's random streams in training, from a step's key."""
  return {
    'noise': of(key, types.Purpose.NOISE),
    'dropout': of(key, types.Purpose.DROPOUT),
  }
