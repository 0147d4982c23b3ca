"""Averages parameters and statistics over the updates of training."""

from typing import Any

import jax
import jax.numpy as jnp

from bn_jax import checks, types


def begin(params: Any, batch_stats: Any) -> types.Average:
  """Returns the average before the first update: what training begins with."""
  return types.Average(jnp.zeros(()), params, batch_stats)


def add(
  average: types.Average, decay: float, params: Any, batch_stats: Any
) -> types.Average:
  """Returns the average after one more update.

    weight_t = 1 + decay * weight_(t - 1),  weight_0 = 0
    average_t = average_(t - 1) + (x_t - average_(t - 1)) / weight_t

  This is the mean of x_1 to x_t, each with `decay` times the weight of the next
  one: what Adam's means are after their correction, 1 - decay^t, which would
  lose digits here. Counters, which are whole numbers, are those of x_t.
  """
  weight = 1 + decay * average.weight

  def added(mean, x):
    if not jnp.issubdtype(x.dtype, jnp.inexact):
      return x
    # The first one as it is: what training begins with would cost it digits.
    later = (mean + (x - mean) / weight).astype(x.dtype)
    return jnp.where(average.weight > 0, later, x)

  return types.Average(
    weight.astype(average.weight.dtype),
    jax.tree.map(added, average.params, params),
    jax.tree.map(added, average.batch_stats, batch_stats),
  )


def check(ema: float | None) -> None:
  """Checks the decay of an average; raises checks.Refused."""
  checks.number('ema', ema, above=0, below=1, also=(None,))
