"""Loss and accuracy over a whole split, with the running statistics."""

from collections.abc import Iterable

import jax
import numpy as np

from bn_jax import types


def measure() -> types.Measure:
  """Mean data loss and accuracy over all real examples, each counted once.

  The network is the one for inference: normalised by its running averages.

  Returns:
    A measure of any number of batches, padded ones included: loss (without
    penalty), accuracy in [0, 1], and count, the number of examples.
  """

  def look(
    problem: types.Problem,
    state: types.TrainState,
    batches: Iterable[types.Batch],
  ) -> dict[str, np.ndarray]:
    with jax.default_matmul_precision('highest'):
      sums = [problem.evaluate(state, batch) for batch in batches]
    sums = jax.device_get(sums)
    # In float64: a float32 running sum over 10,000 losses loses digits.
    total = {
      name: np.sum([part[name] for part in sums], dtype=np.float64)
      for name in sums[0]
    }
    return {
      'loss': total['loss'] / total['count'],
      'accuracy': total['correct'] / total['count'],
      'count': total['count'],
    }

  return look
