"""Finds directions in which the surface of a loss is looked at.

Li, Xu, Taylor, Studer and Goldstein (2018), "Visualizing the Loss Landscape of
Neural Nets", arXiv:1712.09913: random directions whose filters have the norms
of the network's own, so that networks of other scales can be compared (section
4), and the plane of a trajectory (section 7).
"""

import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bn_jax import checks, trees
from bn_jax.analysis import gradients

NORMALISATIONS = ('filter', 'layer', 'none')
# Numbers of all checkpoints that are taken at a time, in float64.
_BLOCK = 2**18
# Of the variance along the second direction by that along the first: below it,
# points lie on a line but for the rounding of their float32 numbers.
_FLAT = 1e-12
# Names of arrays that have a number for each channel.
_BY_CHANNEL = ('bias', 'scale', 'shift', 'offset', 'beta', 'gamma')


class Plane(NamedTuple):
  """The plane, or the line, in which most of a trajectory lies.

  Attributes:
    directions: K trees like the parameters, of length 1, orthogonal.
    coordinates: [T, K] of all points along them; those of the last are 0.
    variance: [K], the share of each in the sum of squares of all differences;
      their sum is that of the plane.
  """

  directions: tuple[Any, ...]
  coordinates: np.ndarray
  variance: np.ndarray


def random_directions(
  params: Any,
  count: int,
  key: jax.Array,
  normalise: str | None = 'filter',
  *,
  filter_axis: int = -1,
) -> tuple[Any, ...]:
  """Draws Gaussian directions and gives their filters the norms of the weights.

    'filter'  d_f |w_f| / |d_f| for each filter f, the weights of one output
    'layer'   d_l |w_l| / |d_l| for each array of weights l
    None      d as it is drawn, 'none' too

  The first two leave out biases and the scale and shift of a norm: their
  direction is 0. These are the arrays of fewer than two axes, and those called
  bias, scale, shift, offset, beta or gamma of which at most one axis is longer
  than 1: the bias of Equinox's Conv2d is [C, 1, 1]. A kernel [1, C], of a dense
  layer of one input, stays in. 0 too is the direction of a filter whose weights
  are all 0 (`zero_filters` counts them).

  Args:
    params: any tree of floating-point arrays.
    count: how many directions.
    key: a random key; direction i is the same whatever the count.
    normalise: 'filter', 'layer', 'none' or None.
    filter_axis: the axis of an array of weights that counts its outputs: -1,
      the last, as in Flax, or 0, the first, as in Equinox and PyTorch.

  Returns:
    A tuple of trees like params.

  Raises:
    ValueError: parameters that are not floating point; a count below 1, an
      unknown normalisation or axis.
  """
  checks.count('count', count)
  checks.one_of('normalise', normalise, (*NORMALISATIONS, None))
  checks.one_of('filter_axis', filter_axis, (-1, 0))
  params = gradients.checked(params)
  return tuple(
    _random(jax.random.fold_in(key, i), params, normalise, filter_axis)
    for i in range(count)
  )


def zero_filters(params: Any, *, filter_axis: int = -1) -> int:
  """Returns how many filters have no direction, as all their weights are 0."""
  checks.one_of('filter_axis', filter_axis, (-1, 0))
  return sum(
    int((_norms(w, filter_axis) == 0).sum())
    for path, w in zip(trees.paths(params), jax.tree.leaves(params))
    if _has_filters(path, w)
  )


def trajectory_plane(
  points: Sequence[Any], *, count: int = 2, centred: bool = False
) -> Plane:
  """Computes the plane of most variance of theta_t - theta_T through theta_T.

  Its directions are the first principal components of the differences from the
  last point, by their [T, T] matrix of inner products; there is never one of
  parameters x parameters. A share says little by itself: a long random walk in
  many dimensions has 8/pi^2 = 81 % of its differences in the first component
  (90 % in the plane), and 6/pi^2 = 61 % (76 %) where the mean is subtracted.

  Args:
    points: T trees of parameters in the order of training, 3 at least for a
      plane. On the host they need no memory of the device.
    count: 2 for a plane, 1 for a line, or more.
    centred: whether the mean of the points is subtracted before components are
      taken. The plane passes through theta_T all the same.

  Raises:
    ValueError: too few points, other shapes; a point that is not finite; points
      that are all the same, or lie in fewer dimensions than `count`.
  """
  checks.count('count', count)
  checks.flag('centred', centred)
  points = list(points)
  if len(points) <= count:
    raise ValueError(
      f'{len(points)} checkpoint{"s" * (len(points) != 1)} for a trajectory in '
      f'{count} dimension{"s" * (count != 1)}; allowed: {count + 1} or more'
    )
  for point in points:
    gradients.check_like(points[-1], point, 'checkpoint')
  for t, point in enumerate(points):
    check_finite(point, f'checkpoint {t}')
  gram_TT = sum(block @ block.T for *_, block in _differences(points))
  mean_TT = np.eye(len(points)) - (1 / len(points) if centred else 0)
  values, vectors = np.linalg.eigh(mean_TT @ gram_TT @ mean_TT)
  values_K = values[::-1][:count]
  if not values_K[-1] > _FLAT * values_K[0]:
    rank = int((values_K > _FLAT * max(values_K[0], 0)).sum())
    raise ValueError(
      f'the {len(points)} checkpoints lie in {rank} dimensions (0: all are the '
      f'same); allowed: {count} or more dimensions'
    )
  weight_TK = mean_TT @ vectors[:, ::-1][:, :count] / np.sqrt(values_K)
  coordinates_TK = gram_TT @ weight_TK
  # An eigenvector has no sign of its own: its farthest point is positive.
  farthest = np.abs(coordinates_TK).argmax(0)
  weight_TK *= np.sign(coordinates_TK[farthest, range(count)])
  return Plane(
    _combined(points, weight_TK),
    gram_TT @ weight_TK,
    values_K / values.sum(),
  )


def check_finite(point: Any, name: str) -> None:
  """Raises ValueError unless all parameters of a point are finite.

  Args:
    name: what the message calls the point.
  """
  for path, leaf in zip(trees.paths(point), jax.tree.leaves(point)):
    if not np.isfinite(np.asarray(leaf, np.float64)).all():
      raise ValueError(
        f'{name} is not finite, the first such parameter is {path!r}; allowed: '
        'a trajectory of finite checkpoints'
      )


def _differences(points) -> Iterator[tuple[int, slice, np.ndarray]]:
  """Yields (leaf, its columns, theta_t - theta_T there [T, columns])."""
  leaves_of = [jax.tree.leaves(point) for point in points]
  for i, last in enumerate(leaves_of[-1]):
    flat = [np.asarray(leaves[i]).reshape(-1) for leaves in leaves_of]
    width = max(1, _BLOCK // len(points))
    for first in range(0, np.size(last), width):
      columns = slice(first, first + width)
      block = np.stack([leaf[columns] for leaf in flat]).astype(np.float64)
      yield i, columns, block - block[-1:]


def _combined(points, weight_TK: np.ndarray) -> tuple[Any, ...]:
  """Returns sum_t weight_tk (theta_t - theta_T) for each k, trees."""
  leaves, structure = jax.tree.flatten(points[-1])
  count = weight_TK.shape[1]
  sums = [np.zeros((count, np.size(leaf)), jnp.result_type(leaf))
          for leaf in leaves]  # fmt: skip
  for i, columns, block in _differences(points):
    sums[i][:, columns] = weight_TK.T @ block
  return tuple(
    structure.unflatten(
      [rows[k].reshape(np.shape(leaf)) for rows, leaf in zip(sums, leaves)]
    )
    for k in range(count)
  )


@functools.partial(jax.jit, static_argnums=(2, 3))
def _random(key, params, normalise, filter_axis):
  leaves, structure = jax.tree.flatten(params)
  directions = []
  for i, (path, w) in enumerate(zip(trees.paths(params), leaves)):
    dtype = jnp.promote_types(w.dtype, jnp.float32)
    d = jax.random.normal(jax.random.fold_in(key, i), w.shape, dtype)
    if normalise in ('filter', 'layer'):
      if not _has_filters(path, w):
        d = jnp.zeros_like(d)
      else:
        axis = filter_axis if normalise == 'filter' else None
        d = d * (_norms(w, axis) / _norms(d, axis))
    directions.append(d.astype(w.dtype))
  return structure.unflatten(directions)


def _has_filters(path: str, w: jax.Array) -> bool:
  """Returns whether an array is weights: no bias, scale or shift of a norm."""
  if jnp.ndim(w) < 2:
    return False
  name = path.removesuffix('/value').rpartition('/')[2]
  return name not in _BY_CHANNEL or sum(n > 1 for n in w.shape) > 1


def _norms(w: jax.Array, filter_axis: int | None) -> jax.Array:
  """Returns the norm of each filter, or of the whole array, of w's rank."""
  w = jnp.asarray(w)
  kept = None if filter_axis is None else filter_axis % w.ndim
  axes = tuple(axis for axis in range(w.ndim) if axis != kept)
  return jnp.sqrt(
    jnp.sum(
      jnp.square(w.astype(jnp.promote_types(w.dtype, jnp.float32))),
      axes,
      keepdims=True,
    )
  )


def lengths(directions: Sequence[Any]) -> np.ndarray:
  """Returns the Euclidean length of each direction, [K]."""
  return np.array([np.asarray(trees.norm(d)) for d in directions])
