import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from bn_jax.analysis.curvature import lanczos
from tests.fixtures import strict  # noqa: F401

SIZE = 30


def setUpModule():
  # What is compared does not hang on optimization; compiling takes the time.
  jax.config.update('jax_disable_most_optimizations', True)


def tearDownModule():
  jax.config.update('jax_disable_most_optimizations', False)


class Dense(NamedTuple):
  """A matrix as an operator."""

  size: int
  product: Any
  products: Any
  numbers: float = 1.0
  linearise: Any = None


@jax.jit
def times(matrix, vector):
  return matrix @ vector


def times_each(matrix, vectors):
  return vectors @ matrix.T


def dense(matrix, dtype=jnp.float32):
  matrix = jnp.asarray(matrix, dtype)
  return Dense(
    len(matrix),
    functools.partial(times, matrix),
    functools.partial(times_each, matrix),
  )


def reduced(matrix, start, steps, side_by_side):
  """The tridiagonal matrix from one start; or as the second of two."""
  operator = dense(matrix, start.dtype)
  if not side_by_side:
    return lanczos.tridiagonal(operator, start, steps)
  starts = jnp.stack([jnp.ones_like(start).at[0].set(3), start])
  return lanczos.tridiagonals(operator, starts, steps)[1]


def with_eigenvalues(values):
  """(a symmetric matrix, its eigenvectors in columns)."""
  rng = np.random.default_rng(7)
  vectors = np.linalg.qr(rng.normal(size=(len(values), len(values))))[0]
  return (vectors * values) @ vectors.T, vectors


def signs(size, dtype=jnp.float32, key=0):
  return jax.random.rademacher(jax.random.key(key), (size,), dtype)


def spread(matrix):
  """The nodes and weights of a tridiagonal matrix."""
  return lanczos.nodes_and_weights(matrix, len(matrix.alphas))


BOTH = parameterized.named_parameters(('alone', False), ('side_by_side', True))
INDEFINITE = np.linspace(-1, 2, SIZE) ** 3


class KnownAnswersTest(parameterized.TestCase):
  @BOTH
  def test_nodes_at_n_steps_are_the_eigenvalues(self, side_by_side):
    matrix, vectors = with_eigenvalues(INDEFINITE)
    start = signs(SIZE)
    got = reduced(matrix, start, 2 * SIZE, side_by_side)
    nodes, weights = spread(got)
    np.testing.assert_allclose(nodes, INDEFINITE, atol=2e-6)
    parts = np.square(vectors.T @ np.asarray(start)) / SIZE
    # Of eigenvalues that nearly coincide float32 knows but the sum of weights.
    np.testing.assert_allclose(
      np.cumsum(weights)[::3], np.cumsum(parts)[::3], atol=2e-2
    )
    self.assertEqual(got.residual, 0)

  @BOTH
  def test_moments_of_the_quadrature_are_those_of_the_vector(
    self, side_by_side
  ):
    with jax.enable_x64(True):
      matrix, _ = with_eigenvalues(INDEFINITE)
      start = signs(SIZE, jnp.float64)
      got = reduced(matrix, start, 6, side_by_side)
      nodes, weights = spread(got)
    v = np.asarray(start)
    for k in range(12):  # 2 m - 1 is the last that m nodes have
      want = v @ np.linalg.matrix_power(matrix, k) @ v / (v @ v)
      np.testing.assert_allclose(weights @ nodes**k, want, rtol=1e-10)

  @BOTH
  def test_the_relation_of_lanczos(self, side_by_side):
    matrix, _ = with_eigenvalues(INDEFINITE)
    got = reduced(matrix, signs(SIZE), 12, side_by_side)
    basis = np.asarray(got.basis, np.float64)
    np.testing.assert_allclose(basis @ basis.T, np.eye(12), atol=1e-6)
    small = np.diag(got.alphas)
    small += np.diag(got.betas, 1) + np.diag(got.betas, -1)
    rest = basis @ matrix - small @ basis
    np.testing.assert_allclose(rest[:-1], 0, atol=3e-6)
    following = got.residual * np.asarray(got.following)
    np.testing.assert_allclose(rest[-1], following, atol=3e-6)

  @BOTH
  def test_an_outlier_has_one_copy(self, side_by_side):
    """Without orthogonalisation there are three at 60 steps in float32."""
    values = np.append(np.linspace(0, 1, 399), 100.0)
    got = reduced(np.diag(values), signs(400), 60, side_by_side)
    nodes, weights = spread(got)
    self.assertEqual((nodes > 1.01).sum(), 1)
    np.testing.assert_allclose(nodes[-1], 100, rtol=1e-6)
    np.testing.assert_allclose(weights[-1], 1 / 400, rtol=1e-5)
    np.testing.assert_allclose(weights @ nodes, values.mean(), rtol=1e-6)


class EndOfTheSpaceTest(parameterized.TestCase):
  @parameterized.product(
    ({'values': np.ones(SIZE), 'nodes': [1]},
     {'values': np.zeros(SIZE), 'nodes': [0]},
     {'values': np.eye(SIZE)[3] * 5, 'nodes': [0, 5]},
     {'values': np.r_[-1.0, np.zeros(SIZE - 2), 3], 'nodes': [-1, 0, 3]},
     {'values': np.repeat([-4.0, 1, 2], SIZE // 3), 'nodes': [-4, 1, 2]}),
    side_by_side=(True, False),
    dtype=('float32', 'float64'),
  )  # fmt: skip
  def test_is_cut_there(self, values, nodes, side_by_side, dtype):
    with jax.enable_x64(dtype == 'float64'):
      matrix, vectors = with_eigenvalues(values)
      start = signs(SIZE, dtype)
      got = reduced(matrix, start, SIZE, side_by_side)
    self.assertLen(got.alphas, len(nodes))
    self.assertLen(got.betas, len(nodes) - 1)
    self.assertEqual(got.basis.shape, (len(nodes), SIZE))
    self.assertEqual(got.residual, 0)
    np.testing.assert_array_equal(got.following, 0)
    found, weights = lanczos.nodes_and_weights(got, 5)
    np.testing.assert_allclose(found[: len(nodes)], nodes, atol=2e-6)
    self.assertTrue(np.isnan(found[len(nodes) :]).all())
    parts = np.square(vectors.T @ np.asarray(start)) / SIZE
    for node, weight in zip(nodes, weights):
      part = parts[np.isclose(values, node)].sum()
      np.testing.assert_allclose(weight, part, atol=1e-5)
    np.testing.assert_array_equal(weights[len(nodes) :], 0)

  @parameterized.parameters('float32', 'float64')
  def test_weights_that_do_nothing_add_no_eigenvalues(self, dtype):
    """Rounding is then the same in many numbers, and lies in the basis."""
    values = np.repeat([5.0, 3, -2, 1, 0.5, 0.1], 2)
    matrix = np.zeros((200, 200))
    matrix[:12, :12], _ = with_eigenvalues(values)
    with jax.enable_x64(dtype == 'float64'):
      start = signs(200, dtype)
      got = reduced(matrix, start, 200, False)
    self.assertLessEqual(len(got.alphas), 13)
    nodes, weights = spread(got)
    distance = np.abs(nodes[:, None] - np.append(values, 0)).min(axis=1)
    np.testing.assert_allclose(distance, 0, atol=5e-6)
    # A double eigenvalue may come twice, by rounding, and share its weight.
    vectors = np.linalg.eigh(matrix)[1]
    parts = np.square(vectors.T @ np.asarray(start)) / 200
    for value in (*values, 0):
      near = np.isclose(np.linalg.eigvalsh(matrix), value, atol=1e-3)
      weight = weights[np.isclose(nodes, value, atol=1e-3)].sum()
      np.testing.assert_allclose(weight, parts[near].sum(), atol=1e-5)

  @BOTH
  def test_a_loss_that_is_not_finite_has_no_nodes(self, side_by_side):
    got = reduced(np.full((4, 4), np.nan), jnp.ones(4), 3, side_by_side)
    nodes, weights = lanczos.nodes_and_weights(got, 3)
    self.assertTrue(np.isnan(nodes).all())
    np.testing.assert_array_equal(weights, 0)


class ProgramTest(parameterized.TestCase):
  @parameterized.product(probes=(1, 3), ends=(False, True))
  def test_does_what_python_does(self, probes, ends):
    """Where the space ends too, after four steps."""
    values = np.repeat([5.0, 2, 1, -1], 5) if ends else np.arange(20.0)
    operator = dense(with_eigenvalues(values)[0])
    matrix = operator.product.args[0]
    linearise = jax.tree_util.Partial(
      lambda matrix: (functools.partial(times, matrix), None), matrix
    )
    starts = jax.random.normal(jax.random.key(0), (probes, 20))
    got, want = (
      lanczos.tridiagonals(operator._replace(linearise=way), starts, 8)
      for way in (linearise, None)
    )
    self.assertLen(got, probes)
    for one, other in zip(got, want):
      self.assertLen(one.alphas, 4 if ends else 8)
      for name in ('alphas', 'betas', 'residual'):
        np.testing.assert_allclose(
          getattr(one, name), getattr(other, name), rtol=1e-4, atol=1e-4
        )
      np.testing.assert_allclose(one.basis, other.basis, atol=1e-3)


class ArgumentsTest(parameterized.TestCase):
  @parameterized.parameters(
    (8, 8, 3, 100), (2**11, 2**11, 2**10, 2), (8, 2**22 + 1, 3, 1),
    (8, np.inf, 3, 1),
  )  # fmt: skip
  def test_vectors_side_by_side(self, size, numbers, steps, least):
    operator = Dense(size, None, None, numbers)
    got = lanczos.fitting(operator, steps)
    self.assertGreaterEqual(got, least)
    self.assertTrue(least > 2 or got == least)

  @parameterized.parameters(
    (jnp.ones(3), 2, r'the start vector has shape \(3,\); .* takes \(4,\)'),
    (jnp.zeros(4), 2, 'the start vector has norm 0; allowed: above 0'),
    (jnp.full(4, jnp.nan), 2, 'the start vector has norm nan; allowed'),
    (jnp.ones(4), 0, 'steps is 0; allowed: 1, 2, 3'),
  )
  def test_refuses(self, start, steps, message):
    with self.assertRaisesRegex(ValueError, message):
      lanczos.tridiagonal(dense(np.eye(4)), start, steps)


if __name__ == '__main__':
  absltest.main()
