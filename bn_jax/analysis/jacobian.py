"""Measures singular values of Jacobians from one normalised layer to the next.

Ioffe and Szegedy (2015), "Batch Normalization", arXiv:1502.03167, section 3.3:
for zhat = F(xhat), both normalised, the paper conjectures that the Jacobian has
singular values close to 1, "which is known to be beneficial for training"
(Saxe, McClelland and Ganguli, 2014, arXiv:1312.6120). If xhat and zhat are
Gaussian and uncorrelated and F is linear, then J J' = I.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bn_jax import checks, errors, placement, trees, types
from bn_jax.analysis import kind as kind_lib

# The most numbers that a Jacobian may have: 4096 x 4096 take a minute.
_LARGEST = 2**24
# Columns that are computed together. More would need more memory, since each
# column holds the activations' derivatives; fewer would take more calls.
_COLUMNS = 64


def singular_values(
  function: Callable[[jax.Array], jax.Array], x: jax.Array
) -> np.ndarray:
  """Computes the singular values of d function / d x, in float64.

  The Jacobian is computed in the dtype of x, in forward mode, a column for each
  number of x.

  Args:
    function: takes one array of any shape, and returns one.
    x: an array of any shape, floating point.

  Returns:
    [K], the largest first, K the number of rows or columns, whichever is
    smaller; nan for a Jacobian that is not finite.

  Raises:
    ValueError: x that is not floating point; a Jacobian of more than 2^24
      numbers.
  """
  trees.check_floating('x', x)
  y = jax.eval_shape(function, x)
  if x.size * y.size > _LARGEST:
    raise ValueError(
      f'the Jacobian has {y.size:,} x {x.size:,} numbers; allowed: '
      f'{_LARGEST:,} in all'
    )

  @jax.jit
  def columns(index_I):
    def column(index):
      unit = jnp.zeros(x.size, x.dtype).at[index].set(1)
      return jax.jvp(function, (x,), (unit.reshape(x.shape),))[1].ravel()

    return jax.vmap(column)(index_I)

  with jax.default_matmul_precision('highest'):
    parts = [
      columns(jnp.arange(first, first + _COLUMNS) % x.size)
      for first in range(0, x.size, _COLUMNS)
    ]
  jacobian = np.concatenate(placement.host(parts))[: x.size].astype(np.float64)
  if not np.isfinite(jacobian).all():
    return np.full(min(jacobian.shape), np.nan)
  return np.linalg.svd(jacobian, compute_uv=False)


def measure(
  *,
  layers: Sequence[str] = (),
  examples: int = 2,
  statistics: str = 'running',
) -> types.Measure:
  """Measures singular values from each normalised layer to the next one.

  xhat and zhat are the outputs of the norms before scale and bias; a
  nonlinearity, a layer and perhaps a pool lie between. The Jacobian is that of
  one example.

  Args:
    layers: the layers of xhat, such as 'conv3'; () is all whose Jacobian has
      2^24 numbers or less. The last layer has none.
    examples: the number of Jacobians, of the first examples of the batch.
    statistics: 'running', with which examples do not depend on each other; or
      'batch', with the other examples fixed: then a column costs as much as the
      whole batch.

  Returns:
    A measure of exactly one batch whose first examples are no padding: for each
    pair of layers A-B, A-B/singular_values, [examples, K], the largest first.

  Raises:
    ValueError: a number of examples that is not 1, 2, 3, ..., or other
      statistics.
  """
  checks.one_of('statistics', statistics, kind_lib.STATISTICS)
  checks.names('layers', layers, 'layers')
  checks.count('examples', examples)
  sources = tuple(layers)

  @kind_lib.of_one_batch
  def look(problem, state, batch, journal):
    kind_lib.check_unpadded(batch, examples)
    values = {}
    for source, target in zip(problem.taps, problem.taps[1:]):
      if sources and source not in sources:
        continue
      between = _Between(problem, state, batch, statistics, source, target)
      if not sources and between.size() > _LARGEST:
        continue
      pair = f'{source}-{target}'
      arrays = None if journal is None else journal.kept(pair)
      if arrays is None:
        count = min(examples, len(batch.labels))
        rows = [between.of_example(i) for i in range(count)]
        arrays = {'singular_values': np.stack(rows)}
        if journal is not None:
          journal.keep(pair, arrays)
      values[f'{pair}/singular_values'] = arrays['singular_values']
    if not values:
      raise errors.ConfigError(
        'measure jacobian: every Jacobian is too large, or the last layer has '
        f'none; allowed: layers before it, {_LARGEST:,} numbers at most'
      )
    return values

  return look


class _Between:
  """The map from a layer's xhat to the next layer's zhat, at a batch."""

  def __init__(
    self,
    problem: types.Problem,
    state: types.TrainState,
    batch: types.Batch,
    statistics: str,
    source: str,
    target: str,
  ):
    self._arguments: dict[str, Any] = dict(
      statistics=statistics, source=source, target=target
    )
    self._problem, self._state, self._batch = problem, state, batch

  def size(self) -> int:
    """Returns how many numbers the Jacobian of one example has."""
    xhat, zhat = jax.eval_shape(lambda: self._normalised(self._batch))
    return xhat.size * zhat.size // len(self._batch.labels) ** 2

  def of_example(self, i: int) -> np.ndarray:
    """Returns the singular values of the Jacobian of example i."""
    batch, index = self._batch, i
    if self._arguments['statistics'] == 'running':
      batch, index = jax.tree.map(lambda leaf: leaf[i : i + 1], batch), 0
    xhat, _ = self._normalised(batch)

    def function(x):
      new_xhat = xhat.at[index].set(x)
      return self._problem.between(
        self._state, batch, new_xhat, **self._arguments
      )[1][index]

    return singular_values(function, xhat[index])

  def _normalised(self, batch: types.Batch) -> tuple[jax.Array, jax.Array]:
    """Returns (xhat, zhat) of a batch in the network."""
    return self._problem.between(self._state, batch, None, **self._arguments)


def _ends(section: kind_lib.Section, taps: Sequence[str]) -> list[str]:
  """Returns the layers of xhat and zhat."""
  pairs = [
    pair
    for pair in itertools.pairwise(taps)
    if not section['layers'] or pair[0] in section['layers']
  ]
  if not pairs:
    raise ValueError(
      'jacobian looks from a layer to the next one that feeds a nonlinearity; '
      f'there is none behind {", ".join(section["layers"] or taps)}'
    )
  return [layer for pair in pairs for layer in pair]


KIND = kind_lib.Kind(
  make=measure,
  title='Jacobians from layer to layer',
  quantities={'singular_values': 'Singular values'},
  caption='Singular values of the Jacobian from one normalised layer to the '
  'next; Ioffe and Szegedy (2015, section 3.3) conjecture that they are close '
  'to 1.',
  ranges={'singular_values': (0.0, None)},
  arrays=True,
  cost=lambda section, layers: (
    'a forward-mode product for each number of an activation'
  ),
  replaces=_ends,
)
