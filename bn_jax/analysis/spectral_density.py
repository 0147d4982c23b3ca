"""Estimates the density of the eigenvalues of a loss's Hessian.

Stochastic Lanczos quadrature (Ubaru, Chen and Saad, 2017); on networks
Ghorbani, Krishnan and Xiao (2019), "An Investigation into Neural Net
Optimization via Hessian Eigenvalue Density", arXiv:1901.10159: the Hessian has
outliers, with most of the gradient in their space, and Batch Normalization
suppresses them.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from bn_jax import checks, keys, spectra, types
from bn_jax.analysis import chunks
from bn_jax.analysis import kind as kind_lib
from bn_jax.analysis.curvature import blocks as blocks_lib
from bn_jax.analysis.curvature import lanczos, matrices, pieces


def spectral_density(
  loss: chunks.Loss,
  params: Any,
  order: int = 90,
  samples: int = 10,
  key: jax.Array | None = None,
  *,
  matrix: str = 'hessian',
  block: blocks_lib.Block | None = None,
  journal: types.Journal | None = None,
) -> dict[str, np.ndarray]:
  """Computes the density of a spectrum by stochastic Lanczos quadrature.

  A probe is a vector of random signs. From each, `order` steps of Lanczos'
  method give nodes theta and weights w, a Gauss quadrature of the spectrum as
  this probe sees it: sum_j w_j theta_j^k = v'H^k v / v'v for k < 2 order. The
  density is `spectra.curve` of them, the nodes convolved with a Gaussian whose
  width is 1 % of the spectrum.

  Args:
    loss: params -> a real scalar; what `chunked` returns; or a Split.
    params: any tree of floating-point arrays.
    order: products a probe. More than the n parameters are n; a probe ends
      sooner where it touches fewer distinct eigenvalues, as of a matrix of low
      rank.
    samples: probes, 2 or more: the band is over them.
    key: of the probes; None: that of seed 0.
    matrix: 'hessian', or 'gauss_newton', for which the loss is a Split.
    block: the parameters whose block of the matrix is looked at; None: all.
    journal: keeps the nodes of each probe, or of several side by side.

  Returns:
    grid, density: [M], eigenvalues and the share of eigenvalues by unit; its
      integral is 1; interval: [M, 2], the smallest and the largest density over
      probes; width: [], of the Gaussian; nodes, weights: [samples, order], nan
      and 0 where a probe ended sooner; largest, smallest: [], of all nodes,
      within the spectrum; products: [], of the matrix and a vector. All
      float64 but products. Nodes are nan where the loss is not finite.

  Raises:
    ValueError: a keyword out of its range; parameters that are not floating
      point; a loss that is not a real scalar or that JAX cannot differentiate
      twice, or is no Split where one is needed.
  """
  _check(order, samples)
  key = jax.random.key(0) if key is None else key
  values = _quadratures(
    matrices.operator(matrix, loss, params, block),
    order, samples, key, journal, 'probes',
  )  # fmt: skip
  curve = spectra.curve(values['nodes'], values['weights'])
  return {
    'grid': curve.grid,
    'density': curve.density,
    'interval': np.stack([curve.low, curve.high], axis=1),
    'width': np.asarray(curve.width),
    **values,
  }


def measure(
  *,
  order: int = 60,
  samples: int = 4,
  matrix: str = 'hessian',
  blocks: Sequence[str] = ('all',),
  layers: Sequence[str] = (),
  penalised: bool = False,
  statistics: str = 'batch',
  chunk_size: int | str | None = 'auto',
  group_size: int | None = None,
) -> types.Measure:
  """Measures nodes and weights of the spectrum, of which reports make curves.

  Args:
    order: products a probe; see `spectral_density`.
    samples: probes, other ones at each step of training.
    matrix: 'hessian' or 'gauss_newton'.
    blocks: of 'all', 'norms' (their scales and shifts) and 'others'; each costs
      order * samples products.
    layers: names of layers, each a block of its own.
    penalised: whether the penalty is added, which only shifts eigenvalues where
      all parameters have it.
    statistics: 'batch' (the function that training descends) or 'running'.
    chunk_size: examples at a time; 'auto' is as many as fit, None is all.
    group_size: examples that share batch statistics; None: as in the network.

  Returns:
    A measure of exactly one batch: nodes, weights: [samples, order]; largest,
    smallest, products: []; of block NAME other than 'all' as NAME/nodes.
  """
  _check(order, samples)
  options = matrices.Options(
    matrix, blocks, layers, penalised, statistics, chunk_size, group_size
  )

  @kind_lib.of_one_batch
  def look(problem, state, batch, journal):
    key = keys.of(keys.of_step(state), types.Purpose.MEASURE)
    return {
      block.key(name): value
      for block, operator in options.operators(problem, state, batch)
      for name, value in _quadratures(
        operator, order, samples, key, journal, block.key('probes')
      ).items()
    }

  return look


def _check(order: Any, samples: Any) -> None:
  checks.count('order', order)
  if not checks.is_size(samples) or samples < 2:
    raise checks.Refused('samples', samples, '2, 3, 4, ...: the band needs two')


def _quadratures(
  operator, order, samples, key, journal, name
) -> dict[str, np.ndarray]:
  """Returns nodes and weights of all probes; the journal keeps each group."""
  group = lanczos.fitting(operator, order)

  def of_probes(numbers):
    probes = matrices.signs(operator, key, numbers)
    return _of_group(operator, probes, order)

  arrays = pieces.of_vectors(journal, name, samples, group, of_probes)
  smallest, largest = spectra.ends(arrays['nodes'])
  return {
    **arrays,
    'largest': np.asarray(largest),
    'smallest': np.asarray(smallest),
    'products': np.asarray(arrays['products'].sum()),
  }


def _of_group(operator, probes, order) -> dict[str, np.ndarray]:
  matrices_of_group = lanczos.tridiagonals(operator, probes, order)
  pairs = [lanczos.nodes_and_weights(one, order) for one in matrices_of_group]
  nodes, weights = map(np.array, zip(*pairs))
  products = np.array([len(one.alphas) for one in matrices_of_group])
  return {'nodes': nodes, 'weights': weights, 'products': products}


KIND = kind_lib.Kind(
  make=measure,
  title='Spectrum of the Hessian',
  quantities={
    'nodes': 'Nodes of the quadrature: eigenvalues',
    'weights': 'Their weights: shares of eigenvalues',
    'largest': 'Largest node',
    'smallest': 'Smallest node',
    'products': 'Products of the matrix and a vector',
  },
  layers='all',
  cost=lambda section, layers: kind_lib.Cost(
    products=section['order']
    * section['samples']
    * (len(section['blocks']) + len(section['layers'])),
    vectors=section['order'],
  ),
)
