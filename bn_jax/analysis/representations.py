"""Measures how many directions hidden vectors fill, how orthogonal they are.

H is the matrix of the hidden vectors of N examples, [N, D], not centred, with
singular values s. Without normalization a deep random network makes all
examples parallel: H tends to rank 1; with Batch Normalization its rank stays
(Daneshmand et al., 2020, arXiv:2003.01652), and examples become orthogonal
(Daneshmand, Joudaki and Bach, 2021, arXiv:2106.03970).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bn_jax import checks, types
from bn_jax.analysis import hidden as hidden_lib
from bn_jax.analysis import kind as kind_lib

_LEAST = 2  # examples: one vector has rank 1 and no other to be orthogonal to
_QUANTITIES = {
  'effective_rank': 'Effective rank',
  'stable_rank': 'Stable rank',
  'participation_ratio': 'Participation ratio',
  'soft_rank': 'Soft rank',
  'orthogonality_gap': 'Orthogonality gap',
}


def representations(
  hidden: Mapping[str, Any], *, threshold: float = 0.01
) -> dict[str, np.ndarray]:
  """Computes ranks and the orthogonality gap of each layer's hidden vectors.

  Of H, [N, D], the rows the vectors of N examples, with singular values s_i:

    effective_rank       exp(-sum p_i log p_i), p_i = s_i / sum s (Roy and
                         Vetterli, 2007)
    stable_rank          sum s^2 / max s^2
    participation_ratio  (sum s^2)^2 / sum s^4, the r(H) of Daneshmand et al.
                         (2020)
    soft_rank            how many s_i^2 are threshold times their mean or more,
                         over the min(N, D) of them. With D <= N and units of
                         mean square 1, as behind a norm, it is the rank_tau of
                         Daneshmand et al. (2020), how many eigenvalues of
                         H'H / N are tau = threshold or more.
    orthogonality_gap    |H H' / |H|^2 - I / N|, Frobenius norms (Daneshmand,
                         Joudaki and Bach, 2021)

  The gap is sqrt(1 / participation_ratio - 1 / N): 0 where all examples are
  orthogonal and equally long, sqrt(1 - 1 / N) where all are parallel, and never
  below sqrt(1 / D - 1 / N). All are the same for a H Q, a not 0, Q orthogonal.

  The Gram matrix, the smaller of H H' and H'H, and its eigenvalues are computed
  in float64. An s_i of less than sqrt(eps * min(N, D)) of the largest, 2.4e-7
  with 256, counts as 0: it is the rounding of these products.

  Args:
    hidden: name -> [N, ...], flattened to [N, D], in forward order.
    threshold: of soft_rank, above 0.

  Returns:
    [L] each, in the order of hidden; nan for a layer whose vectors are all 0 or
    not finite.

  Raises:
    ValueError: no layers; values that are not floating point, or of one example
      only; a threshold that is not above 0.
  """
  checks.number('threshold', threshold, above=0.0)
  hidden_lib.check_layers(hidden)
  rows = [_ranks(name, x, threshold) for name, x in hidden.items()]
  return {name: np.array([row[name] for row in rows]) for name in _QUANTITIES}


def measure(
  *,
  layers: Sequence[str] = (),
  examples: int = 256,
  threshold: float = 0.01,
  statistics: str = 'batch',
) -> types.Measure:
  """Measures rank and orthogonality of what enters the nonlinearities.

  Args:
    layers: names such as 'conv5'; () is all that feed a nonlinearity.
    examples: the first so many of the batch at most, all of which goes through
      the network. Two or more.
    threshold: of soft_rank.
    statistics: 'batch' (the function that training descends) or 'running'.

  Returns:
    A measure of exactly one batch whose first examples are no padding: for each
    layer NAME, what `representations` says of it, NAME/effective_rank and the
    others, all []. Convolutions: [N, H, W, C] as [N, H * W * C].
  """
  checks.names('layers', layers, 'layers')
  hidden_lib.check_examples(examples, _LEAST)
  checks.number('threshold', threshold, above=0.0)
  checks.one_of('statistics', statistics, kind_lib.STATISTICS)
  layer_names = tuple(layers)

  @kind_lib.of_one_batch
  def look(problem, state, batch, journal):
    del journal  # passes through the network are all
    kind_lib.check_unpadded(batch, examples)
    hidden = hidden_lib.of_problem(
      problem, state, batch, statistics, layer_names, examples
    )
    return {
      f'{name}/{quantity}': value
      for name, vectors in hidden
      for quantity, value in _ranks(name, vectors, threshold).items()
    }

  return look


def _ranks(
  name: str, values: Any, threshold: float
) -> dict[str, float | np.floating]:
  """Returns the quantities of one layer, by the squares of singular values."""
  hidden_ND = hidden_lib.matrix(name, values, _LEAST)
  examples, units = hidden_ND.shape
  largest = np.max([np.abs(x).max() for x in hidden_lib.blocks(hidden_ND)])
  if not 0 < largest < np.inf:  # nan too
    return dict.fromkeys(_QUANTITIES, np.nan)
  # The largest becomes 1, so that no square overflows or vanishes.
  if units > examples:
    blocks = (block / largest for block in hidden_lib.blocks(hidden_ND))
    gram: Any = sum(block @ block.T for block in blocks)
  else:
    scaled_ND = hidden_ND.astype(np.float64) / largest
    gram = scaled_ND.T @ scaled_ND
  square_K = np.linalg.eigvalsh(gram)
  is_rounding = square_K < len(gram) * np.finfo(float).eps * square_K[-1]
  square_K = np.where(is_rounding, 0.0, square_K)
  share_K = square_K / square_K.sum()
  singular_K = np.sqrt(square_K[square_K > 0])
  p_K = singular_K / singular_K.sum()
  # The eigenvalues of H H' / |H|^2 - I / N; those that are missing are -1 / N.
  gap_N = np.full(examples, -1 / examples)
  gap_N[: len(share_K)] += share_K
  return {
    'effective_rank': np.exp(-np.sum(p_K * np.log(p_K))),
    'stable_rank': 1 / share_K[-1],
    'participation_ratio': 1 / np.sum(share_K**2),
    'soft_rank': np.sum(share_K * len(share_K) >= threshold, dtype=float),
    'orthogonality_gap': np.linalg.norm(gap_N),
  }


KIND = kind_lib.Kind(
  make=measure,
  title='Hidden representations',
  quantities=_QUANTITIES,
  caption='Of the hidden vectors of N examples, the rows of H, with singular '
  'values s: the effective rank exp(−Σ p log p), p = s / Σs (Roy and Vetterli, '
  '2007); the stable rank Σs² / max s²; the participation ratio (Σs²)² / Σs⁴; '
  'the soft rank, how many s² reach a share of their mean (both: Daneshmand et '
  'al., 2020); and the orthogonality gap |HHᵀ / |H|² − I/N| (Daneshmand, '
  'Joudaki and Bach, 2021), 0 where all examples are orthogonal and equally '
  'long.',
  ranges=dict.fromkeys(_QUANTITIES, (0.0, None)),
  cost=lambda section, layers: kind_lib.Cost(values=1),
  forward=hidden_lib.forward,
)
