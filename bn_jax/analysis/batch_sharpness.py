"""Measures the curvature of each mini-batch along its own gradient.

Andreyev and Beneventano (2024), "Edge of Stochastic Stability: Revisiting the
Edge of Stability for SGD", arXiv:2412.20553: under plain SGD it is this
quantity, and not the largest eigenvalue, that rises to 2 / learning rate and
stays there.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from bn_jax import checks, placement, trees, types
from bn_jax.analysis import chunks, gradients, mini_batches
from bn_jax.analysis import kind as kind_lib


def batch_sharpness(
  losses: Sequence[chunks.Loss],
  params: Any,
  *,
  journal: types.Journal | None = None,
) -> dict[str, np.ndarray]:
  """Computes g'Hg and |g|^2 of each of M mini-batches, and both their ratios.

  With g and H the gradient and the Hessian of the loss of one mini-batch:

    numerator[m]     g'H g
    denominator[m]   |g|^2
    mean_of_ratios   the mean over m of numerator / denominator
    ratio_of_means   the mean numerator by the mean denominator
    batch_sharpness  mean_of_ratios
    standard_error   of it: the standard deviation of the ratios / sqrt(M)

  Both reductions have borne the name. The paper's later versions (Definition 3
  of that of January 2026, as quoted: it was read in excerpts) and the authors'
  code since have the mean of ratios; their code of 2025 had the ratio of means.

  Each mini-batch costs a gradient and a Hessian product, in one program.

  Args:
    losses: the losses of M mini-batches, each params -> a real scalar, or what
      `chunked` returns; `jax.tree_util.Partial`s of one function are compiled
      once.
    params: any tree of floating-point arrays.
    journal: keeps the two numbers of each mini-batch.

  Returns:
    NumPy arrays, [M] and []; ratios are nan where a gradient is 0, and
    standard_error for a single mini-batch.

  Raises:
    ValueError: no losses; parameters that are not floating point; a loss that
      is not a real scalar or that JAX cannot differentiate twice.
  """
  mini_batches.check_losses(losses)
  params = gradients.checked(params)
  rows, terms = [], None
  for i, loss in enumerate(losses):
    row = None if journal is None else journal.kept(f'terms_{i}')
    if row is None:
      jax.block_until_ready(terms)  # else Python runs ahead of the device
      row = terms = _terms(loss, params, journal, i)
      if journal is not None:
        row = placement.host(row)
        journal.keep(f'terms_{i}', row)
    rows.append(row)
  rows = placement.host(rows)
  return _reduced(*(np.array([row[name] for row in rows]) for name in _TERMS))


def measure(
  *,
  batch_size: int = 128,
  statistics: str = 'batch',
  penalised: bool = True,
) -> types.Measure:
  """Measures the curvature of mini-batches along their own gradients.

  Args:
    batch_size: examples of a mini-batch, which are taken in order; configs and
      `analyze` want two or more of them, and a direct call takes all examples
      where they are fewer. Give that of training: the quantity depends on it.
    statistics: 'batch' (the function that training descends, each mini-batch
      normalised by itself) or 'running'.
    penalised: whether the loss has its penalty, as the one of training has.

  Returns:
    A measure of exactly one batch without padding, of whole mini-batches; its
    arrays are those of `batch_sharpness`, mean_of_ratios by that name alone.
  """
  checks.count('batch_size', batch_size)
  checks.one_of('statistics', statistics, kind_lib.STATISTICS)
  checks.flag('penalised', penalised)

  @kind_lib.of_one_batch
  def look(problem, state, batch, journal):
    losses = mini_batches.losses(
      problem, state, batch, min(batch_size, len(batch.labels)), statistics,
      penalised=penalised,
    )  # fmt: skip
    values = batch_sharpness(losses, state.params, journal=journal)
    del values['mean_of_ratios']  # which is batch_sharpness
    return values

  return look


_TERMS = ('numerator', 'denominator')


def _terms(loss, params, journal, i) -> dict[str, Any]:
  """Returns g'Hg and |g|^2 of one mini-batch."""
  (first, *others), _ = chunks.parts_of(loss)
  with jax.default_matmul_precision('highest'):
    if others:
      # The product needs the gradient of all chunks.
      _, gradient = gradients.value_and_gradient(
        loss, params, journal, f'gradient_{i}'
      )
      product = gradients.hessian_product(
        loss, params, gradient, journal, f'product_{i}'
      )
      return _inner(gradient, product)
    try:
      return gradients.explained(_of_one, first, params)
    except TypeError as error:
      # A custom_vjp has no forward mode; reverse over reverse needs none.
      if 'custom_vjp' not in str(error):
        raise
      return gradients.explained(_of_one_backwards, first, params)


@jax.jit
def _inner(gradient, product):
  numbers = trees.vdot(gradient, product), trees.vdot(gradient, gradient)
  return dict(zip(_TERMS, numbers))


@jax.jit
def _of_one(loss, params):
  # In one program, so that the product does not compute the gradient again: of
  # a VGG-11 the two cost 2.95 times a gradient's FLOPs, one by one 3.95 times.
  gradient, derivative = jax.linearize(_gradient_of(loss), params)
  return _inner(gradient, derivative(gradient))


@jax.jit
def _of_one_backwards(loss, params):
  gradient, derivative = jax.vjp(_gradient_of(loss), params)
  return _inner(gradient, derivative(gradient)[0])


def _gradient_of(loss):
  return jax.grad(lambda params: gradients.real_scalar(loss(params)))


def _reduced(
  numerator_M: np.ndarray, denominator_M: np.ndarray
) -> dict[str, np.ndarray]:
  """Returns the arrays of `batch_sharpness`, from its two of [M]."""
  # In float64: 0 / 0 is nan, and so is what comes from it.
  with np.errstate(divide='ignore', invalid='ignore'):
    numerator, denominator = np.float64(numerator_M), np.float64(denominator_M)
    ratio_M = np.where(denominator > 0, numerator / denominator, np.nan)
    total = denominator.sum()
    of_means = numerator.sum() / total if total > 0 else math.nan
    spread = ratio_M.std(ddof=1) if len(ratio_M) > 1 else math.nan
  numbers = {
    'batch_sharpness': ratio_M.mean(),
    'mean_of_ratios': ratio_M.mean(),
    'ratio_of_means': of_means,
    'standard_error': spread / math.sqrt(len(ratio_M)),
  }
  dtype = numerator_M.dtype
  return {
    **{name: np.asarray(value, dtype) for name, value in numbers.items()},
    'numerator': numerator_M,
    'denominator': denominator_M,
  }


def _fitted(section, count, group_size) -> kind_lib.Section:
  """Returns a section that has two mini-batches or more: one has no spread."""
  size = section['batch_size']
  if count <= size:
    raise ValueError(
      f'batch_size is {size}, and data {section["data"]!r} has {count} '
      'examples; allowed: two mini-batches or more, as of data '
      f"'train:{8 * size}', or a smaller batch_size"
    )
  return mini_batches.fitted(section, count, group_size, least=2)


KIND = kind_lib.Kind(
  make=measure,
  title='Batch Sharpness',
  quantities={
    'batch_sharpness': "Mean of g'Hg / |g|²",
    'ratio_of_means': "Mean g'Hg / mean |g|²",
    'standard_error': 'Standard error',
    'numerator': "g'Hg of mini-batches",
    'denominator': '|g|² of mini-batches',
  },
  cost=lambda section, layers: kind_lib.Cost(1, products=1),
  fitted=_fitted,
)
