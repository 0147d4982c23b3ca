"""Compares the hidden vectors of layers, of one network or of two checkpoints.

Linear centred kernel alignment, CKA (Kornblith et al., 2019, arXiv:1905.00414):
of two layers with the Gram matrices K and L of the same N examples, centred,

  CKA = <K, L> / (|K| |L|).

It is 1 where one layer is the other turned, scaled and shifted. But it is
biased upwards: of independent vectors with many units it is far above 0, the
more so the fewer examples there are. The debiased CKA (Nguyen, Raghu and
Kornblith, 2021, arXiv:2010.15327) takes the unbiased estimates of <K, L> of
Song et al. (2012), without their diagonals; it is near 0 for independent
layers, at times below.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from bn_jax import checks, types
from bn_jax.analysis import hidden as hidden_lib
from bn_jax.analysis import kind as kind_lib

_LEAST = 4  # examples: the unbiased estimate divides by N (N - 3)
_SAME = ('cka', 'debiased_cka')  # of a layer with itself at another checkpoint
_EACH = ('cka_with', 'debiased_cka_with')  # of a layer with every layer


def cka(
  hidden: Mapping[str, Any], other: Mapping[str, Any] | None = None
) -> dict[str, np.ndarray]:
  """Computes the linear CKA of each layer with each, in float64.

  With the Gram matrix K = X X' of a layer's hidden vectors X, [N, D], and L
  that of the other layer's:

    cka           <HKH, HLH> / (|HKH| |HLH|), H = I - 11'/N, Frobenius norms
    debiased_cka  h(K, L) / sqrt(h(K, K) h(L, L)), where h is the unbiased
                  estimate of Song et al. (2012): with K and L without their
                  diagonals, N (N - 3) h(K, L) = tr(KL) + 1'K1 1'L1 / ((N - 1)
                  (N - 2)) - 2 / (N - 2) 1'KL1

  Args:
    hidden: name -> [N, ...], flattened to [N, D], of L layers.
    other: the same for M layers, which can be other ones, of the same examples
      in the same order; None is hidden.

  Returns:
    [L, M] each: rows are the layers of hidden. nan for a layer that is not
    finite, or whose vectors differ by no more than rounding of their dtype;
    debiased_cka also where all examples are equally far from each other.

  Raises:
    ValueError: no layers; values that are not floating point, of fewer than
      four examples, or of different numbers of them.
  """
  for layers in (hidden,) if other is None else (hidden, other):
    hidden_lib.check_layers(layers)
  rows = _directions(hidden.items())
  return _cosines(rows, rows if other is None else _directions(other.items()))


def measure(
  *,
  layers: Sequence[str] = (),
  to: str = '',
  examples: int = 256,
  statistics: str = 'batch',
) -> types.Measure:
  """Measures the CKA of what enters the nonlinearities, layer with layer.

  Args:
    layers: names such as 'conv5'; () is all that feed a nonlinearity.
    to: another checkpoint of the same network: a step of the same run, such as
      0, the beginning; or another run after training, runs/a/batchnorm/seed1 or
      with a step, runs/a/batchnorm/seed1:250. '' compares the layers of this
      network with each other.
    examples: the first so many of the batch at most, all of which goes through
      the network. Four or more; a matrix of so many numbers squared is kept for
      each layer.
    statistics: 'batch' (the function that training descends) or 'running'.

  Returns:
    A measure of exactly one batch whose first examples are no padding. For each
    of L layers NAME, in forward order: NAME/cka_with, NAME/debiased_cka_with,
    [L], with each layer of the other checkpoint, or of this network; and with
    `to` NAME/cka and NAME/debiased_cka, [], with the same layer there.
  """
  checks.names('layers', layers, 'layers')
  if not isinstance(to, str) or to == kind_lib.EVERY:
    raise checks.Refused(
      'to', to, "'', a step such as '0' or '250', or a run: "
      "'runs/a/batchnorm/seed1', 'runs/a/batchnorm/seed1:250'"
    )  # fmt: skip
  hidden_lib.check_examples(examples, _LEAST)
  checks.one_of('statistics', statistics, kind_lib.STATISTICS)
  layer_names = tuple(layers)

  @kind_lib.of_one_batch
  def look(problem, state, batch, journal, states: Any = None):
    del journal  # passes through each network are all
    kind_lib.check_unpadded(batch, examples)
    rows, *others = (
      _directions(
        hidden_lib.of_problem(
          problem, at, batch, statistics, layer_names, examples
        )
      )
      for at in (state, *([states.at(to)] if to else []))
    )
    columns = others[0] if to else rows
    return _by_layer(tuple(rows), _cosines(rows, columns), bool(to))

  return look


def _by_layer(
  layers: Sequence[str], values: Mapping[str, np.ndarray], has_other: bool
) -> dict[str, np.ndarray]:
  """Returns the rows of the matrices, and of two checkpoints the diagonals."""
  rows = {}
  for i, layer in enumerate(layers):
    for same, each in zip(_SAME, _EACH):
      if has_other:
        rows[f'{layer}/{same}'] = values[same][i, i]
      rows[f'{layer}/{each}'] = values[same][i]
  return rows


def _cosines(
  rows: Mapping[str, np.ndarray], columns: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
  """Returns both CKAs of each layer of rows with each of columns, [L, M]."""
  lengths = {pair.shape[1] for pair in (*rows.values(), *columns.values())}
  if len(lengths) > 1:
    sizes = map(str, map(math.isqrt, sorted(lengths)))
    raise ValueError(
      f'hidden vectors of {" and ".join(sizes)} examples; allowed: those of '
      'the same examples'
    )
  of_rows, of_columns = (
    np.stack(list(layers.values()), axis=1) for layers in (rows, columns)
  )
  return {name: of_rows[k] @ of_columns[k].T for k, name in enumerate(_SAME)}


def _directions(layers: Iterable[tuple[str, Any]]) -> dict[str, np.ndarray]:
  """Returns both centred Gram matrices of each layer, [2, N * N], of norm 1.

  Of one layer after the other: where they come from an iterator, no more than
  one is in memory.
  """
  pairs = {}
  for name, values in layers:
    gram = _gram(hidden_lib.matrix(name, values, _LEAST))
    pairs[name] = np.stack(
      [_unit(gram, gram), _unit(_without_diagonal(gram), gram)]
    )
  return pairs


def _gram(vectors_ND: np.ndarray) -> np.ndarray:
  """Returns X X' of the vectors less their mean, the largest number 1, [N, N].

  Centred vectors change neither CKA, and nothing is lost to the rounding of a
  large mean. All nan where they are not finite, or no further apart than
  rounding.
  """

  def centred():
    for block in hidden_lib.blocks(vectors_ND):
      with np.errstate(invalid='ignore', over='ignore'):
        yield np.abs(block).max(), block - block.mean(0)[None]

  largest, farthest = np.max(
    [(size, np.abs(block).max()) for size, block in centred()], axis=0
  )
  rounding = float(jnp.finfo(vectors_ND.dtype).eps) * largest
  scale = farthest if farthest > rounding else np.nan
  blocks = (block / scale for _, block in centred())
  return sum(block @ block.T for block in blocks)  # pyright: ignore[reportReturnType]  # of one or more


def _without_diagonal(gram: np.ndarray) -> np.ndarray:
  """Returns the U-centred Gram matrix, [N, N].

  h(K, L) of Song et al. (2012) is <U(K), U(L)> / (N (N - 3)) (Szekely and
  Rizzo, 2014).
  """
  n = len(gram)
  gram = gram - np.diag(np.diag(gram))
  sum_N = gram.sum(0)
  mean_N = sum_N / (n - 2)
  gram = gram - mean_N[None] - mean_N[:, None]
  gram = gram + sum_N.sum() / ((n - 1) * (n - 2))
  return gram - np.diag(np.diag(gram))


def _unit(centred: np.ndarray, gram: np.ndarray) -> np.ndarray:
  """Returns a matrix over its norm, [N * N]; nan where it is but rounding."""
  norm = np.linalg.norm(centred)
  is_rounding = norm <= len(gram) * np.finfo(float).eps * np.linalg.norm(gram)
  return centred.ravel() / (np.nan if is_rounding else norm)


KIND = kind_lib.Kind(
  make=measure,
  title='Similarity of layers (CKA)',
  quantities={
    'cka': 'CKA with the other checkpoint',
    'debiased_cka': 'Debiased CKA with the other checkpoint',
    'cka_with': 'CKA with each layer',
    'debiased_cka_with': 'Debiased CKA with each layer',
  },
  ranges={'cka': (0.0, 1.0), 'debiased_cka': (None, 1.0)},
  cost=lambda section, layers: kind_lib.Cost(values=1 + bool(section['to'])),
  forward=hidden_lib.forward,
  others=lambda section: (section['to'],) if section['to'] else (),
)
