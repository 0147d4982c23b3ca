"""Directions: filters by hand, and walks whose components are known."""

from unittest import mock

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from bn_jax import analysis, trees
from bn_jax.analysis import directions
from tests.fixtures import (
  same_bits,
  strict,  # noqa: F401
  toys,
)


def weights():
  generator = np.random.default_rng(0)
  conv = generator.normal(size=(3, 3, 2, 4)).astype(np.float32)
  conv[..., 1] = 0  # a filter that is 0
  dense = generator.normal(size=(5, 3)).astype(np.float32)
  return {
    'conv': {'kernel': jnp.asarray(conv), 'bias': jnp.ones(4)},
    'norm': {'scale': jnp.ones(4), 'bias': jnp.zeros(4)},
    'out': {'kernel': jnp.asarray(dense), 'bias': jnp.ones(3)},
  }


class RandomTest(parameterized.TestCase):
  def test_filters_have_the_norms_of_the_weights(self):
    params = weights()
    drawn, raw = (
      analysis.random_directions(params, 1, jax.random.key(1), how)[0]
      for how in ('filter', None)
    )
    for name, outputs in (('conv', 4), ('out', 3)):
      got, d, w = (np.float64(t[name]['kernel']) for t in (drawn, raw, params))
      for f in range(outputs):
        want = d[..., f] * np.linalg.norm(w[..., f]) / np.linalg.norm(d[..., f])
        np.testing.assert_allclose(got[..., f], want, rtol=2e-6)
    self.assertGreater(np.abs(drawn['conv']['kernel'][..., 0]).min(), 0)
    self.assertEqual(np.abs(drawn['conv']['kernel'][..., 1]).max(), 0)
    self.assertEqual(directions.zero_filters(params), 1)
    for layer, name in (
      ('conv', 'bias'), ('norm', 'scale'), ('norm', 'bias'), ('out', 'bias'),
    ):  # fmt: skip
      self.assertEqual(np.abs(drawn[layer][name]).max(), 0)
      self.assertGreater(np.abs(raw[layer][name]).min(), 0)

  def test_layers_have_the_norms_of_the_weights(self):
    params = weights()
    drawn, raw = (
      analysis.random_directions(params, 1, jax.random.key(1), how)[0]
      for how in ('layer', 'none')
    )
    for name in ('conv', 'out'):
      got, d, w = (np.float64(t[name]['kernel']) for t in (drawn, raw, params))
      want = d * np.linalg.norm(w) / np.linalg.norm(d)
      np.testing.assert_allclose(got, want, rtol=2e-6)
    self.assertEqual(np.abs(drawn['norm']['scale']).max(), 0)

  def test_first_axis_counts_outputs_elsewhere(self):
    """Of Equinox and PyTorch: the same as of the transposed weights."""
    w = weights()['out']['kernel']
    (got,) = analysis.random_directions(
      {'w': w.T}, 1, jax.random.key(1), filter_axis=0
    )
    np.testing.assert_allclose(
      np.linalg.norm(got['w'], axis=1), np.linalg.norm(w, axis=0), rtol=1e-6
    )
    self.assertEqual(
      directions.zero_filters({'w': jnp.zeros((2, 3))}, filter_axis=0), 2
    )

  @parameterized.parameters('filter', 'layer')
  def test_biases_of_other_libraries_are_no_weights(self, how):
    """Equinox's Conv2d has a bias [C, 1, 1]; a dense kernel [1, C] is one."""
    params = eqx.filter(
      {
        'conv': eqx.nn.Conv2d(3, 4, 3, key=jax.random.key(0)),
        'norm': eqx.nn.GroupNorm(2, 4),
        'dense': eqx.nn.Linear(1, 3, key=jax.random.key(1)),
        'scale': jnp.ones((1, 1, 4)),
        'bias': jnp.ones((4, 4)),  # of no channel: a table of them
      },
      eqx.is_inexact_array,
    )
    drawn, *_ = analysis.random_directions(
      params, 1, jax.random.key(1), how, filter_axis=0
    )
    moved = {
      path
      for path, d in zip(trees.paths(drawn), jax.tree.leaves(drawn))
      if np.abs(d).max() > 0
    }
    self.assertEqual(moved, {'conv/weight', 'dense/weight', 'bias'})

  def test_zero_filters_are_of_weights_alone(self):
    params = {
      'conv': {'bias': jnp.zeros((4, 1, 1)), 'weight': jnp.ones((4, 2, 3, 3))},
      'dense': {'kernel': jnp.zeros((1, 3)), 'bias': jnp.zeros((1, 3))},
    }
    self.assertEqual(directions.zero_filters(params), 3)

  def test_each_is_normal_and_another(self):
    params = {'a': jnp.zeros((100, 100)), 'b': jnp.zeros(10_000)}
    both = analysis.random_directions(params, 2, jax.random.key(0), None)
    first = analysis.random_directions(params, 1, jax.random.key(0), None)
    same_bits.assert_same(first[0], both[0])
    numbers = np.array([toys.flat(d) for d in both]).reshape(4, -1)
    # 10,000 normal numbers each: four standard errors.
    np.testing.assert_allclose(numbers.mean(1), 0, atol=0.04)
    np.testing.assert_allclose(np.corrcoef(numbers), np.eye(4), atol=0.04)
    np.testing.assert_allclose(numbers.std(1), 1, atol=0.03)

  @parameterized.parameters(
    ({'count': 0}, 'count is 0; allowed: 1, 2, 3'),
    ({'normalise': 'filters'}, "normalise is 'filters'; allowed: filter, l"),
    ({'filter_axis': 1}, 'filter_axis is 1; allowed: -1, 0'),
    ({'params': {'w': jnp.ones(2, int)}}, "parameter 'w' is int32"),
  )
  def test_refuses(self, keywords, said):
    given = {'params': weights(), 'count': 1, 'key': jax.random.key(0)}
    with self.assertRaisesRegex(ValueError, said):
      analysis.random_directions(**{**given, **keywords})


def walk(steps):
  """Points of a walk whose steps are orthogonal and all of length 1.

  In many dimensions every random walk tends to it. Its matrix of inner products
  with the end is min(s, t), that of the second difference inverted.
  """
  return [
    {'a': point[:10], 'b': {'c': point[10:]}}
    for point in np.tri(steps + 1, steps, -1)
  ]


class TrajectoryTest(parameterized.TestCase):
  @parameterized.parameters(False, True)
  def test_walk(self, centred):
    """Shares in closed form: 1 / (4 sin^2) over their sum."""
    steps = 40
    with jax.enable_x64(True):
      plane = analysis.trajectory_plane(walk(steps), centred=centred)
    k = np.array([1, 2])
    if centred:
      angles, total = k * np.pi / (2 * (steps + 1)), steps * (steps + 2) / 6
    else:
      angles = (2 * k - 1) * np.pi / (4 * steps + 2)
      total = steps * (steps + 1) / 2
    want = 1 / (4 * np.sin(angles) ** 2) / total
    np.testing.assert_allclose(plane.variance, want, rtol=1e-10)

  @parameterized.parameters((False, 8 / np.pi**2), (True, 6 / np.pi**2))
  def test_long_random_walk(self, centred, want):
    """In 20,000 dimensions, of 100 steps: within 2 % of the limit."""
    generator = np.random.default_rng(0)
    points = generator.normal(size=(101, 20_000)).astype(np.float32).cumsum(0)
    plane = analysis.trajectory_plane(list(points), centred=centred)
    np.testing.assert_allclose(plane.variance[0], want, rtol=0.02)

  @parameterized.parameters((1, False), (2, False), (2, True), (3, False))
  def test_directions_and_coordinates(self, count, centred):
    """An orthonormal basis; coordinates are what one finds with it."""
    generator = np.random.default_rng(1)
    points = [
      {'a': jnp.float32(generator.normal(size=(3, 4))), 'b': jnp.float32(i)}
      for i in range(6)
    ]
    plane = analysis.trajectory_plane(points, count=count, centred=centred)
    basis = np.array([toys.flat(d) for d in plane.directions])
    np.testing.assert_allclose(basis @ basis.T, np.eye(count), atol=2e-7)
    moves = np.array([toys.flat(p) - toys.flat(points[-1]) for p in points])
    np.testing.assert_allclose(plane.coordinates, moves @ basis.T, atol=2e-6)
    np.testing.assert_array_equal(plane.coordinates[-1], 0)
    matrix = moves - centred * moves.mean(0)
    singular = np.linalg.svd(matrix, compute_uv=False)
    np.testing.assert_allclose(
      plane.variance, singular[:count] ** 2 / (singular**2).sum(), rtol=1e-6
    )
    same_bits.assert_same(
      jax.tree.map(jnp.shape, plane.directions[0]),
      jax.tree.map(jnp.shape, points[0]),
    )

  def test_points_in_a_plane(self):
    """All variance is in the plane, and each point at its coordinates."""
    u, v = np.linalg.qr(np.random.default_rng(2).normal(size=(9, 2)))[0].T
    where = np.array([[4, 1], [-3, 2], [2, -1], [0, 0]])
    points = [5 + a * u + b * v for a, b in where]
    plane = analysis.trajectory_plane(points)
    np.testing.assert_allclose(plane.variance.sum(), 1, rtol=1e-12)
    back = plane.coordinates @ np.array(plane.directions) + points[-1]
    np.testing.assert_allclose(back, points, atol=1e-12)

  def test_many_numbers_are_taken_in_blocks(self):
    points = list(np.random.default_rng(3).normal(size=(5, 300)))
    want = analysis.trajectory_plane(points)
    with mock.patch.object(directions, '_BLOCK', 64):
      got = analysis.trajectory_plane(points)
    np.testing.assert_allclose(got.coordinates, want.coordinates, rtol=1e-12)
    np.testing.assert_allclose(got.directions, want.directions, rtol=1e-12)

  @parameterized.parameters(
    (walk(1), '2 checkpoints for a trajectory in 2 dimensions; allowed: 3 or'),
    ([{'a': np.ones(3)}] * 4, 'the 4 checkpoints lie in 0 dimensions'),
    ([np.arange(3.0) * t for t in range(4)], '4 checkpoints lie in 1 dimen'),
    (
      [{'w': np.ones(3)}, {'w': np.ones(4)}, {'w': np.ones(4)}],
      r"the checkpoint of 'w' has shape \(3,\); the parameter has \(4,\)",
    ),
    (
      [{'v': np.ones(3)}, {'w': np.ones(4)}, {'w': np.ones(4)}],
      'the checkpoint is another tree than the parameters',
    ),
    (
      [{'v': np.ones(2), 'w': np.array([t, np.inf**t])} for t in range(3)],
      "^checkpoint 1 is not finite, the first such parameter is 'w'; allowed",
    ),
  )
  def test_refuses(self, points, said):
    with self.assertRaisesRegex(ValueError, said):
      analysis.trajectory_plane(points)


if __name__ == '__main__':
  absltest.main()
