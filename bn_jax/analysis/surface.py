"""Computes a loss over a grid of directions around its parameters.

Goodfellow, Vinyals and Saxe (2015), arXiv:1412.6544, on a line; Li et al.
(2018), arXiv:1712.09913, in a plane, with the directions of `directions`.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from bn_jax import checks, placement, types
from bn_jax.analysis import chunks, gradients, planes
from bn_jax.analysis import directions as directions_lib
from bn_jax.analysis import kind as kind_lib
from bn_jax.analysis import points as points_lib


def surface(
  loss: chunks.Loss,
  params: Any,
  directions: Sequence[Any],
  coordinates: Sequence[Any],
  *,
  together: int | str = 'auto',
  devices: Sequence[jax.Device] = (),  # pyright: ignore[reportInvalidTypeForm]  # jaxlib has no types
  journal: types.Journal | None = None,
) -> dict[str, np.ndarray]:
  """Computes loss(params + sum_k c_k d_k) for all c of a grid.

  P points cost P values of the loss, compiled once; if `loss` is a
  `jax.tree_util.Partial` of one function, that serves all batches. What is not
  finite stays in its cell.

  Args:
    loss: params -> a real scalar; or a dict of real scalars with 'loss' among
      them and such as 'accuracy' beside it; or what `chunked` returns.
    params: any tree of floating-point arrays.
    directions: K trees like params, one or more.
    coordinates: of each direction its coordinates, in any order; of one
      direction a list of numbers will do.
    together: points side by side in one program. 'auto' is 1 for a loss that
      has a convolution or a callback; else as many as fit into 16 MB with all
      that one point computes. Between numbers of points, sums may differ in
      their last digits.
    devices: devices that compute `together` points each at a time; () computes
      where params lie.
    journal: keeps the points computed so far.

  Returns:
    loss, and what else the dict holds: [P_1, ..., P_K], in the order of the
    coordinates.

  Raises:
    ValueError: no directions, or of other shapes than the parameters; other
      than K lists of finite numbers; parameters that are not floating point; a
      loss that is not a real scalar.
  """
  params = gradients.checked(params)
  directions = checked_directions(params, directions)
  axes = _checked_coordinates(coordinates, len(directions))
  checks.count('together', together, also=('auto',))
  grid_PK = np.stack(np.meshgrid(*axes, indexing='ij'), -1)
  values = points_lib.values(
    loss, params, directions, grid_PK.reshape(-1, len(axes)),
    together=together, devices=devices, journal=journal,
  )  # fmt: skip
  shape = grid_PK.shape[:-1]
  return {name: values_P.reshape(shape) for name, values_P in values.items()}


def checked_directions(params: Any, directions: Sequence[Any]) -> tuple:
  """Returns directions as `surface` takes them; ValueError for others."""
  is_one = jax.tree.structure(directions) == jax.tree.structure(params)
  if is_one or not isinstance(directions, list | tuple) or not directions:
    what = 'a tree like the parameters' if is_one else checks.shown(directions)
    raise ValueError(
      f'directions is {what}; allowed: a list or tuple of trees like the '
      'parameters, one or more'
    )
  names = [f'direction {k}' for k in range(len(directions))]
  return tuple(
    gradients.checked_like(params, direction, name)
    for direction, name in zip(directions, names)
  )


def _checked_coordinates(coordinates, count: int) -> list[np.ndarray]:
  """Returns the coordinates of each direction, [P_k] in float64 each."""
  axes = checks.plain(coordinates)
  if not isinstance(axes, list | tuple):
    axes = [axes]
  if count == 1 and axes and all(map(checks.is_number, axes)):
    axes = [axes]
  if axes and all(map(checks.is_number, axes)):
    raise ValueError(
      f'coordinates is {checks.shown(axes)}; allowed: a list for each '
      f'direction, {count} here'
    )
  if len(axes) != count:
    raise ValueError(
      f'coordinates has {len(axes)} lists for {count} '
      f'direction{"s" * (count != 1)}; allowed: one for each'
    )
  axes = [checks.plain(axis) for axis in axes]
  for k, axis in enumerate(axes):
    checks.sequence(
      f'coordinates[{k}]', axis,
      lambda c: checks.is_number(c) and np.isfinite(checks.plain(c)),
      'one or more finite numbers', least=1,
    )  # fmt: skip
  return [np.array(axis, np.float64) for axis in axes]


def measure(
  *,
  directions: str = 'random',
  normalise: str = 'filter',
  dimensions: int = 2,
  points: int = 21,
  extent: float = 1.0,
  seed: int = 0,
  statistics: str = 'batch',
  penalised: bool = True,
  spread: str = 'batch',
  chunk_size: int | str | None = 'auto',
  group_size: int | None = None,
) -> types.Measure:
  """Measures the loss of one batch over a grid around the parameters.

  Args:
    directions: 'random', normal vectors, the same at every step of training;
      'eigenvectors', of length 1, of the largest eigenvalues of the Hessian; or
      'trajectory', in which the checkpoints so far differ most; afterwards.
    normalise: of random directions, what gets the norm of the weights: each
      'filter', or each 'layer', biases and norms being left out; or 'none'.
    dimensions: 1 for a line, 2 for a plane.
    points: P of the grid along each direction.
    extent: to how many lengths of a direction the grid goes to either side; of
      a trajectory, 1 is the box around its points with a tenth of its width on
      every side.
    seed: draws the random directions.
    statistics: 'batch' (the function that training descends) or 'running',
      those of the parameters, which stay the same over the grid.
    penalised: whether the penalty on the weights is added.
    spread: what is divided among devices: the 'batch', for one point after the
      other, or the 'points', with the whole batch on each device.
    chunk_size: examples at a time; 'auto' is as many as fit, None is all.
    group_size: examples that share batch statistics; None: as in the network.

  Returns:
    A measure of exactly one batch: x, y [P] (y in a plane), the coordinates of
    the grid; loss and, of a classifier, accuracy [P, P] at (x, y), or [P];
    loss_0 [] at the parameters; scales [K], the lengths of the directions. Of
    random ones zero_filters [], how many filters are 0; of eigenvectors
    eigenvalues, residuals and converged [K]; of a trajectory path [T, K], its
    coordinates, path_steps [T], path_loss [T], of each checkpoint itself (with
    running statistics, its own), and variance [K], the shares of the directions
    in the squares of its distances from the end.
  """
  grid = planes.Grid(directions, normalise, dimensions, points, extent, seed)
  grid.check()
  objective = chunks.Objective(statistics, chunk_size, group_size, penalised)
  points_lib.check_spread(spread, objective.chunk_size)

  @kind_lib.of_one_batch
  def look(problem, state, batch, journal, states=None):
    loss_of = lambda state: objective.of(problem, state, batch)
    plane = grid.plane(loss_of, state, states, journal)
    loss = loss_of(state)
    at_0 = gradients.value(loss, state.params, journal, 'loss_0')
    devices = points_lib.devices_of(state.step) if spread == 'points' else ()
    return {
      **dict(zip('xy', plane.axes)),
      **surface(
        objective.scores(problem, state, batch), state.params,
        plane.directions, plane.axes,
        devices=devices, journal=journal,
      ),
      'loss_0': placement.host(at_0),
      'scales': directions_lib.lengths(plane.directions),
      **plane.more,
    }  # fmt: skip

  return look


def _cost(section: kind_lib.Section, layers: int) -> kind_lib.Cost:
  del layers
  is_spectral = section['directions'] == 'eigenvectors'
  path = planes.COUNTED * (section['directions'] == 'trajectory')
  return kind_lib.Cost(
    values=1 + section['points'] ** section['dimensions'] + path,
    products=planes.MOST_PRODUCTS * is_spectral,
  )


KIND = kind_lib.Kind(
  make=measure,
  title='Surface of the loss',
  quantities={
    'loss': 'Loss over the grid',
    'accuracy': 'Accuracy over the grid',
    'loss_0': 'Loss at the parameters',
    'path_loss': 'Loss of each checkpoint',
    'eigenvalues': 'Eigenvalues of the directions',
    'variance': 'Share of the variance of the trajectory',
    'zero_filters': 'Filters whose weights are all 0',
  },
  arrays=True,
  cost=_cost,
  others=lambda section: (
    (kind_lib.EVERY,) if section['directions'] == 'trajectory' else ()
  ),
  fewest=lambda section: (
    planes.FEWEST if section['directions'] == 'trajectory' else 1
  ),
)
