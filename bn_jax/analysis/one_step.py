"""Measures the loss after one step, against the learning rate of that step.

Bjorck, Gomes, Selman and Weinberger (2018), "Understanding Batch
Normalization", arXiv:1806.02375: at initialisation, networks without it already
diverge at learning rates at which networks with it still descend.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from bn_jax import trees, types
from bn_jax.analysis import chunks, gradients
from bn_jax.analysis import kind as kind_lib

RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0)


def one_step_loss(
  loss: chunks.Loss,
  params: Any,
  learning_rates: Sequence[float],
  direction: Any = None,
  *,
  journal: types.Journal | None = None,
) -> dict[str, np.ndarray]:
  """Computes loss(params - r * direction) for each learning rate r.

  R rates cost R values and a gradient (with a tree as direction, another
  value), each compiled once.

  Args:
    loss: params -> a real scalar; or what `chunked` returns.
    params: any tree of floating-point arrays.
    learning_rates: R rates, each above 0.
    direction: a tree like params, or a function of the gradient that returns
      one; None is the gradient at params.
    journal: keeps each loss as soon as it is computed.

  Returns:
    learning_rate, loss: [R]; loss_0: [], at params.

  Raises:
    ValueError: no rates, or one that is not above 0 and finite; parameters that
      are not floating point, a direction unlike them; a loss that is not a real
      scalar or that JAX cannot differentiate.
  """
  rates = kind_lib.checked_sizes('learning_rates', learning_rates)
  params = gradients.checked(params)
  is_function = gradients.is_function(direction, params)
  if direction is None or is_function:
    loss_0, gradient = gradients.value_and_gradient(
      loss, params, journal, 'point_0'
    )
    direction = gradient if direction is None else direction(gradient)
  else:
    loss_0 = gradients.value(loss, params, journal, 'point_0')
  gradients.check_like(params, direction, 'direction')
  values = []
  for i, rate in enumerate(rates):
    if len(values) > 1:  # else Python runs ahead, with many points at once
      jax.block_until_ready(values[-2])
    point = _descended(params, rate, direction)
    values.append(gradients.value(loss, point, journal, f'loss_{i + 1}'))
  values, loss_0 = jax.device_get((values, loss_0))
  values = np.array(values)
  return {
    'learning_rate': np.asarray(rates, values.dtype),
    'loss': values,
    'loss_0': np.asarray(loss_0),
  }


def measure(
  *,
  learning_rates: Sequence[float] = RATES,
  statistics: str = 'batch',
  chunk_size: int | str | None = 'auto',
  group_size: int | None = None,
) -> types.Measure:
  """Measures the objective of one batch after a step along its gradient.

  Args:
    learning_rates: rates of the step; by default two a decade, from those that
      hardly change the loss to those at which networks diverge.
    statistics: 'batch' (the function that training descends) or 'running'.
    chunk_size: examples at a time; 'auto' is as many as fit, None is all.
    group_size: examples that share batch statistics; None: as in the network.

  Returns:
    A measure of exactly one batch; its arrays are those of `one_step_loss`.
  """
  rates = kind_lib.checked_sizes('learning_rates', learning_rates)
  objective = chunks.Objective(statistics, chunk_size, group_size)

  @kind_lib.of_one_batch
  def look(problem, state, batch, journal):
    loss = objective.of(problem, state, batch)
    return one_step_loss(loss, state.params, rates, journal=journal)

  return look


@jax.jit
def _descended(params, rate, direction):
  return trees.add_scaled(params, -rate, direction)


KIND = kind_lib.Kind(
  make=measure,
  title='Loss after one step',
  quantities={
    'loss': 'Loss after a step of each learning rate',
    'loss_0': 'Loss before it',
  },
  cost=lambda section, layers: kind_lib.Cost(
    1, values=len(section['learning_rates'])
  ),
)
