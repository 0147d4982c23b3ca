"""Loss and accuracy over a whole split, with the running statistics."""

from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np

from bn_jax import losses, types

_NAMES = {'loss': 'loss', 'correct': 'accuracy', 'correct5': 'top5'}


def measure() -> types.Measure:
  """Mean data loss and accuracy over all real examples, each counted once.

  The network is the one for inference: normalised by its running averages.

  Returns:
    A measure of any number of batches, padded ones included: loss (without
    penalty, the mean over examples) and count, the number of examples; of a
    classifier also accuracy in [0, 1] and, with more than five classes, top5,
    the share whose label is among the five largest outputs.
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
    return means(total)

  return look


def means(total: dict[str, float]) -> dict[str, float]:
  """Sums over examples, as `Problem.evaluate` names them, as means."""
  count = total['count']
  found = {
    name: total[given] / count
    for given, name in _NAMES.items()
    if given in total
  }
  return {**found, 'count': count}


def of_log_probabilities(
  log_probabilities: jax.Array, labels: jax.Array, mask: jax.Array | None = None
) -> dict[str, jax.Array]:
  """Sums over the real examples of a batch, from class probabilities.

  Args:
    log_probabilities: [B, K], such as of a mean over crops or networks.
    labels: [B] int32.
    mask: [B] bool, False for padding; None: all are real.

  Returns:
    loss: -log of the label's probability; correct, correct5 (with more than
    five classes), count; of equal probabilities the first counts as larger.
  """
  found = losses.cross_entropy().of_examples(log_probabilities, labels)
  real_B = jnp.ones(labels.shape, bool) if mask is None else mask
  sums = {n: jnp.where(real_B, v, 0).sum() for n, v in found.items()}
  return {**sums, 'count': real_B.sum(dtype=log_probabilities.dtype)}
