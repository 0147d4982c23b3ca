"""Measures the noise of mini-batch gradients against the gradient itself.

McCandlish, Kaplan, Amodei et al. (2018), "An Empirical Model of Large-Batch
Training", arXiv:1812.06162, appendix A.1: from the squared norms of gradients
at two batch sizes come unbiased estimates of both. Batches much smaller than
their ratio are mostly noise; much larger ones hardly better than it.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from bn_jax import checks, types
from bn_jax.analysis import chunks, gradients, mini_batches
from bn_jax.analysis import kind as kind_lib

_LEAST = 2  # mini-batches: of one there is no spread


def gradient_noise(
  losses: Sequence[chunks.Loss],
  params: Any,
  batch_size: int,
  *,
  memory: float = mini_batches.MEMORY,
  journal: types.Journal | None = None,
) -> dict[str, np.ndarray]:
  """Estimates |G|^2, tr(Sigma) and their ratio from M mini-batch gradients.

  G is the expected gradient, Sigma the covariance of the gradient of one
  example, b = batch_size, B = M b, g_big the mean of the M gradients:

    small             the mean over mini-batches of |g_b|^2
    big               |g_big|^2
    squared_gradient  (B big - b small) / (B - b)
    covariance_trace  (small - big) / (1/b - 1/B)
    noise_scale       covariance_trace / squared_gradient, in examples

  The first two are unbiased where mini-batches are drawn independently:
  E |g_b|^2 = |G|^2 + tr(Sigma) / b. Of the ratio of two estimates this cannot
  be said. Each has a standard error by the jackknife, which leaves out one
  mini-batch after the other.

  squared_gradient, and with it noise_scale, is below 0 where there are too few
  examples to tell the gradient from its noise; it is left as it is, so that
  means over looks are unbiased. Average the two before their ratio is taken.

  With batch statistics over each mini-batch, G is the expected gradient of a
  mini-batch of b, and B the mean of M of these, not one batch of B: that would
  have other statistics, and another expected gradient.

  It costs M gradients.

  Args:
    losses: the losses of M >= 2 mini-batches, each params -> a real scalar (the
      mean over its examples), or what `chunked` returns.
    params: any tree of floating-point arrays.
    batch_size: b, the examples of each.
    memory: bytes of gradients that may lie side by side on the host; where not
      all M fit, some are computed more than once.
    journal: keeps each gradient.

  Returns:
    noise_scale, squared_gradient, covariance_trace, small, big; and of the
    first three NAME_standard_error, nan for two mini-batches: [] each.

  Raises:
    ValueError: less than two losses, a batch size or memory out of its range;
      parameters that are not floating point; a loss that is not a real scalar
      or that JAX cannot differentiate.
  """
  mini_batches.check_losses(losses, _LEAST)
  checks.count('batch_size', batch_size)
  mini_batches.check_memory(memory)
  params = gradients.checked(params)
  product_MM = mini_batches.inner_products(losses, params, memory, journal)
  return {
    name: np.asarray(value)
    for name, value in _estimated(product_MM, batch_size).items()
  }


def measure(
  *,
  batch_size: int | None = None,
  statistics: str = 'batch',
  penalised: bool = True,
  memory: float = mini_batches.MEMORY,
) -> types.Measure:
  """Measures |G|^2, tr(Sigma) and the gradient noise scale, in examples.

  Args:
    batch_size: examples of a mini-batch, which are taken in order; None is an
      eighth of all.
    statistics: 'batch' (each mini-batch normalised by itself: the noise is of
      the mean of mini-batches of this size) or 'running' (of any batch).
    penalised: whether the loss has its penalty, as the one of training has.
    memory: bytes of gradients that may lie side by side on the host.

  Returns:
    A measure of exactly one batch without padding, of two whole mini-batches or
    more; its arrays are those of `gradient_noise`.
  """
  mini_batches.check(batch_size, statistics, penalised, memory)

  @kind_lib.of_one_batch
  def look(problem, state, batch, journal):
    losses = mini_batches.losses(
      problem, state, batch, batch_size, statistics,
      penalised=penalised, least=_LEAST, of_mean=True,
    )  # fmt: skip
    size = len(batch.labels) // len(losses)
    return gradient_noise(
      losses, state.params, size, memory=memory, journal=journal
    )

  return look


def _estimated(product_MM: np.ndarray, size: int) -> dict[str, Any]:
  """Returns the arrays of `gradient_noise`, from inner products."""
  count = len(product_MM)
  squares_M, total = np.diag(product_MM), product_MM.sum()
  small, big = squares_M.mean(), total / count**2
  values = _of_norms(small, big, count, size)
  # Without mini-batch m its row and its column are left out of the sums.
  others = count - 1
  left_M = _of_norms(
    (squares_M.sum() - squares_M) / others,
    (total - 2 * product_MM.sum(axis=1) + squares_M) / others**2,
    others,
    size,
  )
  return {
    **values,
    'small': small,
    'big': big,
    **{f'{k}_standard_error': _jackknife(v) for k, v in left_M.items()},
  }


def _of_norms(small, big, count: int, size: int) -> dict[str, Any]:
  """Returns the estimates from |g|^2 of mini-batches and of their mean."""
  with np.errstate(divide='ignore', invalid='ignore'):
    # One mini-batch alone has no spread: 0 / 0.
    trace = size * np.divide(count * (small - big), count - 1)
    squared = big - trace / (count * size)
    return {
      'noise_scale': np.divide(trace, squared),
      'squared_gradient': squared,
      'covariance_trace': trace,
    }


def _jackknife(left_M: np.ndarray) -> float:
  """Returns the standard error, from estimates that leave out one piece."""
  with np.errstate(invalid='ignore'):  # of an estimate that is not finite
    return math.sqrt((len(left_M) - 1) * left_M.var())


KIND = kind_lib.Kind(
  make=measure,
  title='Gradient noise',
  quantities={
    'noise_scale': 'Noise scale, in examples',
    'squared_gradient': '|G|², estimated',
    'covariance_trace': 'tr(Σ), estimated',
    'small': 'Mean |g|², mini-batches',
    'big': '|g|² of their mean',
    'noise_scale_standard_error': 'Standard error of the scale',
    'squared_gradient_standard_error': 'Standard error of |G|²',
    'covariance_trace_standard_error': 'Standard error of tr(Σ)',
  },
  caption='From the squared norms of the gradients of mini-batches of b '
  'examples, and of that of all B together, come |G|² of the expected '
  'gradient, (B |g_B|² − b |g_b|²) / (B − b), the trace of the covariance Σ of '
  'the gradient of one example, (|g_b|² − |g_B|²) / (1/b − 1/B), and their '
  'ratio tr(Σ) / |G|², the noise scale: batches much smaller than it are '
  'mostly noise (McCandlish et al., 2018). |G|² is estimated without bias, so '
  'that it can be below 0, and with it the noise scale: then there are too few '
  'examples to tell the gradient from its noise.',
  ranges={
    'covariance_trace': (0.0, None),
    'small': (0.0, None),
    'big': (0.0, None),
    'noise_scale_standard_error': (0.0, None),
    'squared_gradient_standard_error': (0.0, None),
    'covariance_trace_standard_error': (0.0, None),
  },
  cost=lambda section, layers: kind_lib.Cost(1),
  fitted=functools.partial(mini_batches.fitted, least=_LEAST),
)
