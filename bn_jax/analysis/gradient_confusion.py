"""Measures how far the gradients of mini-batches pull against each other.

Sankararaman, De, Xu, Huang and Goldstein (2020), "The Impact of Neural Network
Overparameterization on Gradient Confusion and Stochastic Gradient Descent",
arXiv:1904.06963: a bound eta >= 0 with <g_i, g_j> >= -eta for all pairs of
mini-batches; the smaller it is, the faster SGD converges.
"""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from bn_jax import types
from bn_jax.analysis import chunks, gradients, mini_batches
from bn_jax.analysis import kind as kind_lib

_LEAST = 2  # mini-batches: it is about pairs


def gradient_confusion(
  losses: Sequence[chunks.Loss],
  params: Any,
  *,
  memory: float = mini_batches.MEMORY,
  journal: types.Journal | None = None,
) -> dict[str, np.ndarray]:
  """Computes inner products and cosines of all pairs of mini-batch gradients.

    smallest_product  the minimum over pairs i < j of <g_i, g_j>
    confusion         max(0, -smallest_product), the least eta of the paper
    smallest_cosine   the minimum over pairs of <g_i, g_j> / (|g_i| |g_j|)
    mean_cosine       their mean
    gradient_norm     |g_i|
    inner_products    <g_i, g_j>

  It costs M gradients.

  Args:
    losses: the losses of M >= 2 mini-batches, each params -> a real scalar, or
      what `chunked` returns.
    params: any tree of floating-point arrays.
    memory: bytes of gradients that may lie side by side on the host; where not
      all M fit, some are computed more than once.
    journal: keeps each gradient.

  Returns:
    NumPy arrays: inner_products, [M, M]; gradient_norm, [M]; the others, [].
    Pairs with a gradient of 0 have no cosine and are left out; the cosines are
    nan where no pair has one. All are nan if a gradient is not finite, but for
    the norms and products of the others.

  Raises:
    ValueError: less than two losses, memory out of its range; parameters that
      are not floating point; a loss that is not a real scalar or that JAX
      cannot differentiate.
  """
  mini_batches.check_losses(losses, _LEAST)
  mini_batches.check_memory(memory)
  params = gradients.checked(params)
  product_MM = mini_batches.inner_products(losses, params, memory, journal)
  return {
    name: np.asarray(value) for name, value in _of_pairs(product_MM).items()
  }


def measure(
  *,
  batch_size: int | None = None,
  statistics: str = 'batch',
  penalised: bool = True,
  memory: float = mini_batches.MEMORY,
) -> types.Measure:
  """Measures how far gradients of mini-batches pull against each other.

  Args:
    batch_size: examples of a mini-batch, which are taken in order; None is an
      eighth of all.
    statistics: 'batch' (the function that training descends, each mini-batch
      normalised by itself) or 'running'.
    penalised: whether the loss has its penalty, as the one of training has; its
      gradient is in all, and draws cosines to 1.
    memory: bytes of gradients that may lie side by side on the host.

  Returns:
    A measure of exactly one batch without padding, of two whole mini-batches or
    more; its arrays are those of `gradient_confusion`, but inner_products.
  """
  mini_batches.check(batch_size, statistics, penalised, memory)

  @kind_lib.of_one_batch
  def look(problem, state, batch, journal):
    losses = mini_batches.losses(
      problem, state, batch, batch_size, statistics,
      penalised=penalised, least=_LEAST,
    )  # fmt: skip
    values = gradient_confusion(
      losses, state.params, memory=memory, journal=journal
    )
    del values['inner_products']  # [M, M] is no line of records
    return values

  return look


def _of_pairs(product_MM: np.ndarray) -> dict[str, Any]:
  """Returns the arrays of `gradient_confusion`, from inner products."""
  pairs = np.triu_indices(len(product_MM), 1)
  with np.errstate(invalid='ignore'):  # of gradients that are not finite
    norm_M = np.sqrt(np.diag(product_MM))
    product_P = product_MM[pairs]
    norms_P = (norm_M[:, None] * norm_M[None])[pairs]
    # A norm that is nan is not 0: its pairs stay, and what they enter is nan.
    has_cosine = norms_P != 0
    cosine_P = np.clip(product_P[has_cosine] / norms_P[has_cosine], -1, 1)
    smallest = product_P.min()
    return {
      'confusion': np.maximum(0, -smallest),
      'smallest_product': smallest,
      'smallest_cosine': cosine_P.min() if len(cosine_P) else np.nan,
      'mean_cosine': cosine_P.mean() if len(cosine_P) else np.nan,
      'gradient_norm': norm_M,
      'inner_products': product_MM,
    }


KIND = kind_lib.Kind(
  make=measure,
  title='Gradient confusion',
  quantities={
    'confusion': 'Confusion η',
    'smallest_product': 'Smallest <gᵢ, gⱼ>',
    'smallest_cosine': 'Smallest cosine',
    'mean_cosine': 'Mean cosine',
    'gradient_norm': '|g| of mini-batches',
  },
  caption='Inner products <gᵢ, gⱼ> and cosines of the gradients of all pairs '
  'of mini-batches. The confusion η = max(0, −smallest <gᵢ, gⱼ>) is the least '
  'bound with <gᵢ, gⱼ> ≥ −η for all pairs (Sankararaman et al., 2020): the '
  'smaller it is, the less they pull against each other.',
  ranges={
    'confusion': (0.0, None),
    'smallest_cosine': (-1.0, 1.0),
    'mean_cosine': (-1.0, 1.0),
    'gradient_norm': (0.0, None),
  },
  cost=lambda section, layers: kind_lib.Cost(1),
  fitted=functools.partial(mini_batches.fitted, least=_LEAST),
)
