"""Measures eigenvalues at the ends of the Hessian's spectrum.

The largest is the sharpness, to which 2 / (learning rate) is compared: Cohen et
al. (2021), "Gradient Descent on Neural Networks Typically Occurs at the Edge of
Stability", arXiv:2103.00065. How much of the gradient lies in the space of the
top eigenvectors: Gur-Ari et al. (2018), arXiv:1812.04754.
"""

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bn_jax import checks, keys, trees, types
from bn_jax.analysis import by_layer, chunks, gradients
from bn_jax.analysis import kind as kind_lib
from bn_jax.analysis.curvature import blocks as blocks_lib
from bn_jax.analysis.curvature import (
  convergence,
  extremes,
  krylov,
  matrices,
  pieces,
)


def top_eigenvalues(
  loss: chunks.Loss,
  params: Any,
  k: int = 1,
  tolerance: float = 1e-3,
  key: jax.Array | None = None,
  *,
  ends: str = 'largest',
  matrix: str = 'hessian',
  block: blocks_lib.Block | None = None,
  eigenvectors: bool = False,
  most_products: int = 200,
  start: Any = None,
  journal: types.Journal | None = None,
) -> dict[str, Any]:
  """Computes the k largest or smallest eigenvalues of the Hessian of a loss.

  A value has converged when its residual |H v - value v|, with |v| = 1, is at
  most `tolerance` times the largest of them (the smallest values: times the
  largest |value| that is known). An eigenvalue lies within the residual of it.
  By Lanczos' method, restarted, until all have converged or the budget is
  spent. Nor is a single value taken before an eigenvalue that is further out,
  by a tenth of the largest |value|, would have shown with 99 %. With k above 1
  it goes on until values that occur twice have come out twice.

  Of a single value from a random start the residual is what the last step
  leaves, which is exact but for rounding; of others, and of networks that
  compute in bfloat16, a product says it.

  Args:
    loss: params -> a real scalar; what `chunked` returns; or a Split.
    params: any tree of floating-point arrays.
    k: values at each end, at most the number of parameters.
    tolerance: of residuals; in float32 at least 8e-6, where those of
      convolutional networks stall.
    key: of the random start, and of further ones; None is a fixed one.
    ends: 'largest', 'smallest' or 'both'.
    matrix: 'hessian' or 'gauss_newton', which needs a Split.
    block: a `Block` of some parameters; None is all.
    eigenvectors: whether to return them too.
    most_products: products of the matrix at most, at least 2 for each value.
    start: a tree like params, the first vector instead of a random one.
    journal: keeps the steps of a matrix whose products are programs of their
      own, which are those of large networks, or with convolutions, or of a
      loss in chunks; up to 2 GB of vectors.

  Returns:
    eigenvalues, residuals: [k] float64; converged: [k] bool; for the smallest
    ones smallest_eigenvalues, smallest_residuals, smallest_converged, the
    smallest first. What has not converged with products left is as exact as
    products are, as of a network that computes in bfloat16; where none were
    left, a copy of a value may be missing. products, []; iterations, the same
    without those of the residuals; gradient_share: the share of |gradient|^2
    in the span of the eigenvectors of the largest, nan for a gradient of 0.
    With eigenvectors=True also eigenvectors and smallest_eigenvectors: k trees
    like params each, of length 1, zeros outside of the block.

  Raises:
    ValueError: a keyword out of its range, more values than parameters, a start
      that is zero or unlike params; parameters that are not floating point; a
      loss that is no real scalar, that JAX cannot differentiate twice, or that
      is no Split for 'gauss_newton'.
  """
  _check(k, tolerance, ends, most_products)
  checks.flag('eigenvectors', eigenvectors)
  params = gradients.checked(params)
  _check_count(k, ends, most_products, params, block)
  operator = matrices.operator(matrix, loss, params, block)
  _check_tolerance(tolerance, operator.dtype)
  key = jax.random.key(0) if key is None else key
  vector = _start(operator, params, start, key)
  pairs, steps, products = extremes.pairs(
    operator, vector, key, is_random=start is None, count=k,
    ends=extremes.ENDS[ends], tolerance=tolerance, most_products=most_products,
    journal=journal,
  )  # fmt: skip
  return _record(pairs, steps, products, operator if eigenvectors else None)


def measure(
  *,
  k: int = 1,
  ends: str = 'largest',
  matrix: str = 'hessian',
  blocks: Sequence[str] = ('all',),
  layers: Sequence[str] = (),
  tolerance: float = 1e-3,
  most_products: int = 200,
  statistics: str = 'batch',
  penalised: bool = True,
  normalised: bool = False,
  chunk_size: int | str | None = 'auto',
  group_size: int | None = None,
) -> types.Measure:
  """Measures the largest or smallest eigenvalues of the loss's Hessian.

  Args:
    k: values at each end.
    ends: 'largest', 'smallest' or 'both'.
    matrix: 'hessian' or 'gauss_newton'.
    blocks: 'all' parameters, scale and shift of 'norms', and the 'others', each
      by themselves.
    layers: names of layers that are blocks of their own too, such as 'conv5'.
    tolerance: of residuals, in units of the largest eigenvalue.
    most_products: of the matrix, at most, for each block.
    statistics: 'batch' (the function that training descends) or 'running'.
    penalised: whether the loss has its penalty, as training has.
    normalised: whether of each of these layers, or of all if none is named, the
      kernel is measured in units of its length too; see `_of_kernel`.
    chunk_size: examples at a time; 'auto' is as many as fit, None is all.
    group_size: examples that share batch statistics; None: as in the network.

  Returns:
    A measure of exactly one batch: sharpness, the largest eigenvalue, []; the
    arrays of `top_eigenvalues`, converged as 0 or 1. Those of a block other
    than 'all' are called BLOCK/sharpness and so on; if normalised there are
    LAYER/normalised_sharpness, LAYER/normalised_converged and
    LAYER/normalised_products, [].
  """
  _check(k, tolerance, ends, most_products)
  options = matrices.Options(
    matrix, blocks, layers, penalised, statistics, chunk_size, group_size
  )
  checks.flag('normalised', normalised)
  find = functools.partial(
    top_eigenvalues, tolerance=tolerance, matrix=matrix,
    most_products=most_products,
  )  # fmt: skip

  def look(
    problem: types.Problem,
    state: types.TrainState,
    batches: Iterable[types.Batch],
    journal: types.Journal | None = None,
  ) -> dict[str, np.ndarray]:
    (batch,) = batches
    params = state.params
    every = options.blocks_of(problem, state)
    for block in every:
      _check_count(k, ends, most_products, params, block)
    of_kernels = options.layers_of(problem, state, every=normalised)
    kernels = blocks_lib.kernels(params, of_kernels) if normalised else {}
    loss = options.loss(problem, state, batch)
    key = keys.of(keys.of_step(state), types.Purpose.MEASURE)
    of_block = functools.partial(find, loss, params, key=key)
    values = {}
    for block in every:
      compute = functools.partial(of_block, k=k, ends=ends, block=block)
      values |= _of_block(block, _kept(journal, block.name, compute))
    for name, block in kernels.items():
      compute = functools.partial(of_block, block=block)
      row = _kept(journal, f'{name}_kernel', compute)
      values |= _of_kernel(name, row, blocks_lib.squared_norm(params, block))
    return {name: np.asarray(value, float) for name, value in values.items()}

  return look


def _check(k, tolerance, ends, most_products) -> None:
  """Checks the keywords of function and measure."""
  checks.count('k', k)
  checks.number('tolerance', tolerance, above=0, below=1)
  checks.one_of('ends', ends, tuple(extremes.ENDS))
  checks.count('most_products', most_products)


def _start(operator, params, start, key) -> jax.Array:
  """Returns the first vector; ValueError for one without length."""
  if start is None:
    return krylov.random(operator, key, 0)
  vector = operator.flatten(gradients.checked_like(params, start, 'start'))
  norm = float(trees.norm(vector))
  if not 0 < norm < np.inf:
    raise ValueError(
      f'the start has norm {norm:g}; allowed: above 0 and finite'
    )
  return vector


def _record(pairs, steps, products, operator) -> dict[str, Any]:
  """Returns the arrays of all ends; with an operator also vectors as trees."""
  result = {}
  for end, of_end in pairs.items():
    prefix = '' if end == 'largest' else 'smallest_'
    result |= _named(of_end, prefix, operator)
  result['products'] = np.asarray(products)
  result['iterations'] = np.asarray(steps)
  if 'largest' in pairs:
    result['gradient_share'] = np.asarray(pairs['largest'].share)
  return result


def _named(pairs, prefix: str, operator) -> dict[str, Any]:
  """Returns arrays of one end; with an operator also its vectors as trees."""
  result = {
    'eigenvalues': pairs.values,
    'residuals': pairs.residuals,
    'converged': pairs.converged,
  }
  if operator is not None:
    result['eigenvectors'] = tuple(
      operator.unflatten(vector, whole=True) for vector in pairs.vectors
    )
  return {f'{prefix}{name}': value for name, value in result.items()}


def _check_count(k, ends, most_products, params, block) -> None:
  """Raises ValueError for more values than parameters, or than products do."""
  size = blocks_lib.size(params, block)
  if k > size:
    where = ''
    if block is not None and block.name != 'all':
      where = f' of block {block.name!r}'
    raise ValueError(
      f'k is {k}; allowed: 1 to {size}, the number of parameters{where}'
    )
  least = 2 * k * len(extremes.ENDS[ends])
  if most_products < least:
    raise ValueError(
      f'most_products is {most_products}; allowed: at least {least}, two for '
      'each value'
    )


def _check_fits(
  section: kind_lib.Section, problem: types.Problem, state: types.TrainState
) -> None:
  """Raises ValueError for a section that a network is too small for."""
  layers = by_layer.chosen(problem.layers(state), section['layers'])
  k, ends, most = (section[key] for key in ('k', 'ends', 'most_products'))
  for block in blocks_lib.of(state.params, layers, section['blocks']):
    _check_count(k, ends, most, state.params, block)


def _check_tolerance(tolerance: float, dtype: jnp.dtype) -> None:
  """Raises ValueError for less than products can reach."""
  least = convergence.least_tolerance(dtype)
  if tolerance < least:
    raise ValueError(
      f'tolerance is {tolerance:g}; allowed: at least {least:.1g}, below which '
      f'residuals of {jnp.dtype(dtype)} are rounding'
      + ('; or parameters of float64' if dtype == jnp.float32 else '')
    )


def _kept(journal, name: str, compute) -> Mapping[str, Any]:
  """Returns what the journal has of a search, or goes on with it."""
  if journal is None:
    return compute()
  own = pieces.Under(journal, f'{name}_')
  row = pieces.piece(journal, name, functools.partial(compute, journal=own))
  # Only now, as a search without its steps would begin again.
  for k in range(int(row['iterations'])):
    own.drop(krylov.step_name(k))
  return row


def _of_block(block: blocks_lib.Block, row) -> dict[str, Any]:
  """Returns what records have of a block."""
  if 'eigenvalues' in row:
    row = {**row, 'sharpness': row['eigenvalues'][0]}
  return {block.key(name): value for name, value in row.items()}


def _of_kernel(name, row, squared_norm) -> dict[str, Any]:
  """Returns what records have of a kernel: lambda * |kernel|^2.

  lambda is the largest eigenvalue of the block of the kernel alone. Where a
  norm follows and takes out the kernel's length, scaling the kernel by a
  divides its block by a^2, and this number stays: the sharpness of the
  normalised kernel. A block with a bias or a norm's scale in it has no such
  law, nor has one with a penalty or with running statistics. Of other kernels
  it is a number in units of their length.
  """
  return {
    f'{name}/normalised_sharpness': row['eigenvalues'][0] * squared_norm,
    f'{name}/normalised_converged': row['converged'][0],
    f'{name}/normalised_products': row['products'],
  }


def _cost(section: kind_lib.Section, layers: int) -> kind_lib.Cost:
  """Returns the most that a look may take."""
  named = len(section['layers'])
  count = len(section['blocks']) + named
  if section['normalised']:
    count += named or layers
  return kind_lib.Cost(
    count,
    products=count * section['most_products'],
    vectors=extremes.most_rows(section['k']),
  )


KIND = kind_lib.Kind(
  make=measure,
  title='Largest eigenvalues of the Hessian',
  quantities={
    'sharpness': 'Largest eigenvalue',
    'eigenvalues': 'Largest eigenvalues',
    'residuals': 'Residuals |Hv - λv| of the largest',
    'converged': 'Whether the largest have converged',
    'smallest_eigenvalues': 'Smallest eigenvalues',
    'smallest_residuals': 'Residuals |Hv - λv| of the smallest',
    'smallest_converged': 'Whether the smallest have converged',
    'products': 'Products of the matrix and a vector',
    'iterations': "Steps of Lanczos' method",
    'normalised_sharpness': 'Largest eigenvalue of a kernel · |kernel|²',
    'normalised_converged': 'Whether that one has converged',
    'normalised_products': "Products of the kernel's matrix and a vector",
    'gradient_share': 'Share of |g|² in the span of the top eigenvectors',
  },
  layers='all',
  cost=_cost,
  check=_check_fits,
)
