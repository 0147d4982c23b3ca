"""Finds the lines and planes over which the measure `surface` draws a grid."""

from typing import Any, NamedTuple

import jax
import numpy as np

from bn_jax import checks, keys, placement, types
from bn_jax.analysis import directions as directions_lib
from bn_jax.analysis import gradients
from bn_jax.analysis.top_eigenvalues import top_eigenvalues

DIRECTIONS = ('random', 'eigenvectors', 'trajectory')
# Of the grid around a trajectory, in widths of its box: 1/10 on every side.
_BOX = 1.2
MOST_PRODUCTS = 200  # with the Hessian, for eigenvectors
# Checkpoints of a trajectory whose own losses a plan counts: how many there
# will be is not known from a config.
COUNTED = 10
FEWEST = 3  # checkpoints of a trajectory: two lie on a line of any network


class Plane(NamedTuple):
  """What a grid is drawn over.

  Attributes:
    directions: K trees like the parameters.
    axes: the coordinates along each of them, [P] each.
    more: name -> array, what else is to be recorded.
  """

  directions: tuple[Any, ...]
  axes: tuple[np.ndarray, ...]
  more: dict[str, np.ndarray]


class Grid(NamedTuple):
  """The keywords of the measure that say where its points lie."""

  directions: str
  normalise: str
  dimensions: int
  points: int
  extent: float
  seed: int

  def check(self) -> None:
    """Raises ValueError for a keyword out of its range."""
    checks.one_of('directions', self.directions, DIRECTIONS)
    checks.one_of('normalise', self.normalise, directions_lib.NORMALISATIONS)
    checks.one_of('dimensions', self.dimensions, (1, 2))
    checks.count('points', self.points)
    if self.points < 2:
      raise checks.Refused('points', self.points, '2, 3, 4, ...')
    checks.number('extent', self.extent, above=0)
    checks.whole('seed', self.seed)

  def plane(self, loss_of, state, states, journal) -> Plane:
    """Returns the directions and coordinates at a state."""
    ticks = self.extent * np.linspace(-1, 1, self.points)
    if self.directions == 'trajectory':
      return _trajectory(
        loss_of, state, states, ticks, self.dimensions, journal
      )
    axes = (ticks,) * self.dimensions
    if self.directions == 'eigenvectors':
      return _eigenvectors(loss_of(state), state, axes, journal)
    return _random(state.params, self.seed, self.normalise, axes)


def _random(params, seed: int, normalise: str, axes) -> Plane:
  """Returns random directions, the same for a seed at every step."""
  key = keys.of(jax.random.key(seed), types.Purpose.MEASURE)
  drawn = directions_lib.random_directions(params, len(axes), key, normalise)
  is_left_out = normalise == 'filter'
  zeros = directions_lib.zero_filters(params) if is_left_out else 0
  return Plane(drawn, axes, {'zero_filters': np.array(zeros)})


def _eigenvectors(loss, state, axes, journal) -> Plane:
  """Returns the eigenvectors of the largest eigenvalues of the Hessian."""
  more = None if journal is None else journal.kept('eigenvectors')
  if more is None:
    key = keys.of(keys.of_step(state), types.Purpose.MEASURE)
    result = top_eigenvalues(
      loss, state.params, len(axes), key=key, eigenvectors=True,
      most_products=MOST_PRODUCTS,
    )  # fmt: skip
    more = {
      name: np.asarray(result[name], float)
      for name in ('eigenvalues', 'residuals', 'converged')
    }
    for k, direction in enumerate(placement.host(result['eigenvectors'])):
      for i, leaf in enumerate(jax.tree.leaves(direction)):
        more[f'{k}/{i}'] = leaf
    if journal is not None:
      journal.keep('eigenvectors', more)
  more, structure = dict(more), jax.tree.structure(state.params)
  directions = tuple(
    _signed(
      structure.unflatten(
        [more.pop(f'{k}/{i}') for i in range(structure.num_leaves)]
      )
    )
    for k in range(len(axes))
  )
  return Plane(directions, axes, more)


def _signed(direction):
  """Returns an eigenvector, which has no sign, with its largest number > 0."""
  ends = [(x.max(), x.min()) for x in jax.tree.leaves(direction) if x.size]
  high, low = max(high for high, _ in ends), min(low for _, low in ends)
  return jax.tree.map(np.negative, direction) if -low > high else direction


def _trajectory(loss_of, state, states, ticks, dimensions, journal) -> Plane:
  """Returns the plane of the checkpoints up to a state, and their losses.

  Args:
    loss_of: state -> its loss, a function of its parameters.
    ticks: coordinates in units of half a box around the trajectory.
    journal: keeps the losses of the checkpoints.
  """
  last = int(state.step)
  steps = [step for step in states.steps() if step < last]
  if len(steps) + 1 < FEWEST:
    raise ValueError(
      f'a trajectory of {len(steps) + 1} checkpoints up to step {last}; '
      f'allowed: {FEWEST} or more'
    )
  path, losses = [], []
  # What diverged stays so: the last shows it before any loss is computed.
  directions_lib.check_finite(state.params, f'the checkpoint of step {last}')
  for step in (*steps, last):
    one = state if step == last else states.at(str(step))
    directions_lib.check_finite(one.params, f'the checkpoint of step {step}')
    value = gradients.value(loss_of(one), one.params, journal, f'path_{step}')
    losses.append(placement.host(value))
    path.append(placement.host(one.params))
  plane = directions_lib.trajectory_plane(path, count=dimensions)
  axes = []
  for along_T in plane.coordinates.T:
    low, high = along_T.min(), along_T.max()
    axes.append((low + high + _BOX * (high - low) * ticks) / 2)
  return Plane(
    plane.directions,
    tuple(axes),
    {
      'path': plane.coordinates,
      'path_steps': np.array([*steps, last]),
      'path_loss': np.array(losses),
      'variance': plane.variance,
    },
  )
