"""Measures the loss along one direction for several seeds in one program."""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from bn_jax import keys, types
from bn_jax.analysis import along_steps as steps_lib
from bn_jax.analysis import chunks, gradients


def of_seeds(
  *,
  step_factors: Sequence[float],
  step_sizes: Sequence[float],
  direction: str,
  statistics: str,
  spread: str,
  per_layer: bool,
  curvature: bool,
  chunk_size: int | None,
  group_size: int | None,
) -> Callable[..., Any] | None:
  """Returns `measure` for several seeds: all points of all in one program.

  The keywords are those of `measure`, checked by it.
  """
  is_whole = chunk_size is None and group_size is None and spread == 'batch'
  if per_layer or not is_whole or direction not in steps_lib.DIRECTIONS:
    return None

  def of_one(problem, batch_of, state_and_sizes, shared):
    state, sizes = state_and_sizes
    batch = batch_of(state, shared)
    loss = chunks.argument(problem.loss(state, batch, statistics))
    key = keys.of(keys.of_step(state), types.Purpose.MEASURE)
    return _traced(loss, state.params, sizes, direction, key, curvature)

  def bind(problem: types.Problem, mapped: Callable[..., Any], batch_of):
    rates_of = mapped(lambda state, shared: problem.learning_rate(state))
    curves_of = mapped(functools.partial(of_one, problem, batch_of))

    def look(states: types.TrainState, shared: Iterable[Any]) -> list[dict]:
      (shared,) = shared
      rates = np.asarray(rates_of(states, shared), float)
      steps = rates[:, None] * step_factors
      if step_sizes:
        steps = np.tile(np.asarray(step_sizes, float), (len(rates), 1))
      # At a rate of 0 no step is asked for: those of size 1 are left out.
      sizes = np.where(steps > 0, steps, 1.0)
      with jax.default_matmul_precision('highest'):
        arrays = curves_of((states, jnp.asarray(sizes)), shared)
      arrays = jax.device_get(arrays)
      return [
        _of_seed(jax.tree.map(lambda x: x[i], arrays), steps[i])  # noqa: B023
        for i in range(len(rates))
      ]

    return look

  return bind


def _traced(loss, params, sizes, direction, key, curvature):
  """Returns (curves [E], whether each step moves [E], values at params)."""
  value_0, gradient_0 = gradients.value_and_gradient(loss, params)
  vector = steps_lib.direct(params, direction, key)(gradient_0)
  lengths = steps_lib.lengths(gradient_0, vector, ())

  def point(size):
    moved = steps_lib.descended(params, size, vector)
    pairs = zip(jax.tree.leaves(moved), jax.tree.leaves(params))
    is_moved = jnp.stack([(new != old).any() for new, old in pairs]).any()
    value, gradient = gradients.value_and_gradient(loss, moved)
    row = steps_lib.compared(
      value, gradient, value_0, gradient_0, lengths, size, ()
    )
    return row, is_moved

  rows, is_moved = lax.map(point, sizes)
  at_start = {'loss_0': value_0, 'gradient_norm_0': lengths['gradient']}
  if curvature:
    product = gradients.hessian_product(loss, params, vector)
    at_start |= steps_lib.curvature(product, vector)
  return rows, is_moved, at_start


def _of_seed(arrays, steps: np.ndarray) -> dict[str, np.ndarray]:
  """Returns what `along_gradient` does, of the arrays of `_traced`."""
  rows, is_moved, at_start = arrays
  curves = {'step_size': steps.astype(rows['loss'].dtype), **rows}
  for name in ('beta', 'lipschitz'):
    curves[name] = np.where(is_moved, curves[name], np.nan)
  names = ('loss_0', 'beta_0', 'curvature', 'gradient_norm_0')
  curves |= {name: at_start[name] for name in names if name in at_start}
  if not steps.all():
    return steps_lib.without_steps(curves, len(steps))
  return curves
