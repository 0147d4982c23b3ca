"""Draws the regression task of the deep linear network: from x to Ax.

Santurkar et al. (2018), appendix A: A is 10 x 10 and i.i.d. Gaussian, x is
Gaussian, with 1,000 samples. The paper gives no scale for either; here both are
standard normal by default. The loss, a sum over the samples, then begins at
about 1e5, the paper's at 3.5e4 to 5.6e4: its scale must have been smaller, or
its loss halved (keyword `factor` of the loss squared_error).
"""

import jax
import jax.numpy as jnp
import numpy as np

from bn_jax import checks, types
from bn_jax.data.batches import examples, in_memory, order
from bn_jax.data.disk import facts

_MOST = 2**28  # numbers of A and x together: 2 GB in float64


def make(
  *,
  dimension: int = 10,
  num_examples: int = 1000,
  matrix_scale: float = 1.0,
  input_scale: float = 1.0,
  seed: int = 0,
) -> examples.Source:
  """Returns the task as a dataset; the test split has N samples, too.

  Args:
    dimension: D of x and of Ax.
    num_examples: N, samples to train on.
    matrix_scale: standard deviation of A's entries.
    input_scale: standard deviation of x's entries.
    seed: of A and x, apart from the seeds of runs.

  Raises:
    ValueError: a keyword out of its range.
  """
  checks.count('dimension', dimension)
  checks.count('num_examples', num_examples)
  count = dimension * (dimension + 2 * num_examples)
  if count > _MOST:
    raise ValueError(
      f'dimension is {dimension}, num_examples is {num_examples}: {count:,} '
      f'numbers; allowed: {_MOST:,}'
    )
  checks.number('matrix_scale', matrix_scale, above=0)
  checks.number('input_scale', input_scale, above=0)
  checks.whole('seed', seed)
  sizes = facts.Facts((dimension,), dimension, num_examples, num_examples)

  def load() -> examples.Dataset:
    a, *inputs = drawn(dimension, num_examples, seed)
    a *= matrix_scale
    return examples.Dataset(
      *(in_memory.Resident(_split(input_scale * x, a)) for x in inputs)
    )

  return examples.Source(
    facts=sizes,
    load=load,
    shapes=lambda batch_size: _shapes(num_examples, dimension),
    sampler=lambda batch_size: order.sampler(
      num_examples=num_examples, batch_size=batch_size
    ),
  )


def drawn(
  dimension: int, num_examples: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Draws (A [D, D], training x [N, D], test x [N, D]), standard normal."""
  generator = np.random.default_rng(seed)
  a = generator.standard_normal((dimension, dimension))
  x = generator.standard_normal((2, num_examples, dimension))
  return a, x[0], x[1]


def _split(x: np.ndarray, a: np.ndarray) -> types.Split:
  dimension = len(a)
  return types.Split(
    images=jnp.asarray(x, jnp.float32),
    labels=jnp.asarray(x @ a.T, jnp.float32),
    mean=jnp.zeros(dimension),
    std=jnp.ones(dimension),
  )


def _shapes(count: int, dimension: int) -> types.Split:
  array = jax.ShapeDtypeStruct((count, dimension), jnp.float32)
  vector = jax.ShapeDtypeStruct((dimension,), jnp.float32)
  return types.Split(array, array, vector, vector)
