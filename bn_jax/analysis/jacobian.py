"""Singular values of the Jacobian from one normalised layer to the next.

Ioffe and Szegedy (2015), "Batch Normalization", arXiv:1502.03167, section 3.3:
of zhat = F(xhat), both normalised, the paper conjectures that the Jacobian has
singular values close to 1, "which is known to be beneficial for training"
(Saxe, McClelland and Ganguli, 2014, arXiv:1312.6120). For xhat and zhat
Gaussian and uncorrelated and F linear, J J' = I follows.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bn_jax import errors, placement, types
from bn_jax.analysis import kind as kind_lib

_LARGEST = 2**24  # numbers of a Jacobian: 4096 x 4096 take a minute
_AT_ONCE = 64  # columns


def singular_values(
  function: Callable[[jax.Array], jax.Array], x: jax.Array
) -> np.ndarray:
  """Singular values of d function / d x, the largest first, in float64.

  The matrix is formed, in forward mode, a column for each number of x.

  Args:
    function: of one array of any shape, to one of any shape.
    x: where to differentiate, floating point.

  Returns:
    [K], K the smaller of the two sizes; nan where the Jacobian is not finite.

  Raises:
    ValueError: a Jacobian of more than 2^24 numbers.
  """
  y = jax.eval_shape(function, x)
  if x.size * y.size > _LARGEST:
    raise ValueError(
      f'the Jacobian has {y.size:,} x {x.size:,} numbers; allowed: '
      f'{_LARGEST:,} in all'
    )

  @jax.jit
  def columns(index_I):
    def column(index):
      along = jnp.zeros(x.size, x.dtype).at[index].set(1)
      return jax.jvp(function, (x,), (along.reshape(x.shape),))[1].ravel()

    return jax.vmap(column)(index_I)

  with jax.default_matmul_precision('highest'):
    parts = [
      columns(jnp.arange(first, first + _AT_ONCE) % x.size)
      for first in range(0, x.size, _AT_ONCE)
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
  """Singular values from each normalised layer to the one after it.

  xhat and zhat are what the norms make before their scale and bias; a
  nonlinearity and a layer lie between, or a pool too. The Jacobian is that of
  one example.

  Args:
    layers: where to begin, such as 'conv3'; none is every layer but the last
      whose Jacobian has 2^24 numbers or less.
    examples: the first so many of the batch, one after the other.
    statistics: 'running', by which examples do not see each other; or 'batch',
      the other examples held fixed, at the cost of the whole batch a column.

  Returns:
    A measure of exactly one batch: for each pair of layers A-B,
    A-B/singular_values, [examples, K], the largest first.

  Raises:
    ValueError: no example, or other statistics.
  """
  if statistics not in ('batch', 'running'):
    raise ValueError(
      f"statistics is {statistics!r}; allowed: 'batch', 'running'"
    )
  if type(examples) is not int or examples < 1:
    raise ValueError(f'examples is {examples}; allowed: 1, 2, 3, ...')
  given = tuple(layers)

  def look(
    problem: types.Problem,
    state: types.TrainState,
    batches: Iterable[types.Batch],
    journal: types.Journal | None = None,
  ) -> dict[str, np.ndarray]:
    (batch,) = batches
    found = {}
    for source, target in zip(problem.taps, problem.taps[1:]):
      if given and source not in given:
        continue
      between = _Between(problem, state, batch, statistics, source, target)
      if not given and between.size() > _LARGEST:
        continue
      pair = f'{source}-{target}'
      kept = None if journal is None else journal.kept(pair)
      if kept is None:
        shown = range(min(examples, len(batch.labels)))
        values = np.stack([between.of_example(i) for i in shown])
        kept = {'singular_values': values}
        if journal is not None:
          journal.keep(pair, kept)
      found[f'{pair}/singular_values'] = kept['singular_values']
    if not found:
      raise errors.ConfigError(
        'measure jacobian: every Jacobian is too large, or no layer follows; '
        f'allowed: {_LARGEST:,} numbers'
      )
    return found

  return look


class _Between:
  """From one tap of a network to the next."""

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
    """Numbers of the Jacobian of one example."""
    shapes = jax.eval_shape(lambda: self._normalised(self._batch))
    values, result = shapes
    return values.size * result.size // len(self._batch.labels) ** 2

  def of_example(self, i: int) -> np.ndarray:
    """Singular values of the Jacobian of example i."""
    batch, own = self._batch, i
    if self._arguments['statistics'] == 'running':
      batch, own = jax.tree.map(lambda leaf: leaf[i : i + 1], batch), 0
    values, _ = self._normalised(batch)

    def function(x):
      changed = values.at[own].set(x)
      return self._problem.between(
        self._state, batch, changed, **self._arguments
      )[1][own]

    return singular_values(function, values[own])

  def _normalised(self, batch: types.Batch) -> tuple[jax.Array, jax.Array]:
    """(xhat, zhat) as they are in the network."""
    return self._problem.between(self._state, batch, None, **self._arguments)


KIND = kind_lib.Kind(
  make=measure,
  title='Jacobians from layer to layer',
  quantities={'singular_values': 'Singular values'},
  arrays=True,
  cost=lambda section, layers: (
    'a forward-mode product for each number of an activation'
  ),
)
