"""Densities of spectra: exact Hessians of small networks, and quadratics."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import absltest, parameterized

from bn_jax import analysis
from tests.analysis import journal_test
from tests.fixtures import (
  curved,
  same_bits,
  strict,  # noqa: F401
  toys,
)

ORDER, SAMPLES = 5, 3


def setUpModule():
  # What is compared does not hang on optimization; compiling takes the time.
  jax.config.update('jax_disable_most_optimizations', True)


def tearDownModule():
  jax.config.update('jax_disable_most_optimizations', False)


class NetworkTest(parameterized.TestCase):
  @parameterized.parameters(('batch', 'hessian'), ('running', 'gauss_newton'))
  def test_nodes_are_the_eigenvalues(self, statistics, matrix):
    self.check_nodes(statistics, matrix, 'conv1')

  @parameterized.product(
    statistics=('batch', 'running'), matrix=('hessian', 'gauss_newton')
  )
  @pytest.mark.slow
  def test_nodes_of_all_parameters(self, statistics, matrix):
    self.check_nodes(statistics, matrix, None)

  def check_nodes(self, statistics, matrix, layer):
    exact = curved.exact(statistics)
    state, dense = exact.state, getattr(exact, matrix)
    before = jax.tree.map(np.array, (state.params, state.batch_stats))
    look = analysis.make(
      'spectral_density', order=200, samples=2, matrix=matrix, penalised=True,
      statistics=statistics, blocks=() if layer else ('all',),
      layers=(layer,) if layer else (),
    )  # fmt: skip
    with jax.enable_x64(True):
      got = look(exact.problem, state, [exact.batch])
    if layer:
      got = {name.removeprefix(f'{layer}/'): x for name, x in got.items()}
      own = ['logits' not in path for path in paths_of(state.params)]
      dense = dense[np.ix_(own, own)]
    values = np.linalg.eigvalsh(dense)
    scale = np.abs(values).max()
    nodes, weights = got['nodes'], got['weights']
    self.assertEqual(nodes.shape, (2, 200))
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-6)
    for row, weight in zip(nodes, weights):
      there = weight > 1e-6
      distance = np.abs(row[there, None] - values).min(axis=1)
      np.testing.assert_allclose(distance, 0, atol=1e-5 * scale)
    # Each eigenvalue that is apart from others is a node of each probe.
    for value in values[np.abs(values) > 1e-2 * scale]:
      self.assertLess(np.nanmin(np.abs(nodes - value), axis=1).max(), 1e-4)
    self.assertAlmostEqual(got['largest'] / values[-1], 1, places=4)
    self.assertAlmostEqual(got['smallest'], values[0], delta=1e-5 * scale)
    self.assertLessEqual(got['products'], 2 * len(values))
    self.assertEqual(got['products'], np.isfinite(nodes).sum())
    same_bits.assert_same(
      jax.tree.map(np.array, (state.params, state.batch_stats)), before
    )

  @pytest.mark.slow
  def test_blocks(self):
    exact = curved.exact('batch')
    state, hessian = exact.state, exact.hessian
    look = analysis.make(
      'spectral_density', order=200, samples=2, blocks=('norms',),
      layers=('logits',), penalised=True,
    )  # fmt: skip
    with jax.enable_x64(True):
      got = look(exact.problem, state, [exact.batch])
    paths = paths_of(state.params)
    for name, word in (('norms', 'norm1'), ('logits', 'logits')):
      own = [word in path for path in paths]
      want = np.linalg.eigvalsh(hessian[np.ix_(own, own)])[-1]
      np.testing.assert_allclose(got[f'{name}/largest'], want, rtol=1e-4)
    self.assertNotIn('nodes', got)


def paths_of(params):
  """The path of each number of params."""
  leaves, _ = jax.tree_util.tree_flatten_with_path(params)
  return [
    jax.tree_util.keystr(path) for path, x in leaves for _ in range(x.size)
  ]


class QuadraticTest(parameterized.TestCase):
  def test_moments_are_those_of_each_probe(self):
    with jax.enable_x64(True):
      loss, params, hessian, _ = toys.quadratic(20)
      got = analysis.spectral_density(loss, params, ORDER, SAMPLES)
      moment = [
        (got['weights'] * got['nodes'] ** k).sum(axis=1)
        for k in range(2 * ORDER)
      ]
    np.testing.assert_allclose(moment[0], 1)
    np.testing.assert_array_less(moment[1] ** 2, moment[2])
    # v'Hv / v'v of random signs has the same diagonal, and other signs beside.
    diagonal = np.trace(hessian) / 20
    beside = np.abs(hessian).sum() / 20 - np.abs(np.diag(hessian)).sum() / 20
    np.testing.assert_array_less(np.abs(moment[1] - diagonal), beside)
    self.assertGreater(np.ptp(moment[1]), 0)  # the probes differ

  def test_the_density_is_that_of_the_eigenvalues(self):
    with jax.enable_x64(True):
      loss, params, hessian, _ = toys.quadratic(20)
      got = analysis.spectral_density(loss, params, 20, 300)
    values = np.linalg.eigvalsh(hessian)
    x, width = got['grid'][:, None], got['width']
    want = np.exp(-0.5 * ((x - values) / width) ** 2).mean(axis=1)
    want /= width * np.sqrt(2 * np.pi)
    np.testing.assert_allclose(got['density'], want, atol=0.15 * want.max())
    low, high = got['interval'].T
    self.assertTrue((low <= got['density']).all())
    self.assertTrue((got['density'] <= high).all())

  def test_a_key_gives_the_same_and_another_key_others(self):
    loss, params, *_ = toys.quadratic(20)
    look = functools.partial(
      analysis.spectral_density, loss, params, ORDER, SAMPLES
    )
    same_bits.assert_same(look(), look(jax.random.key(0)))
    other = look(jax.random.key(1))
    self.assertGreater(np.abs(look()['nodes'] - other['nodes']).max(), 1e-3)

  def test_a_flat_loss_has_one_node(self):
    got = analysis.spectral_density(lambda p: p.sum(), jnp.ones(9), 5, 2)
    np.testing.assert_array_equal(got['nodes'][:, 0], 0)
    self.assertTrue(np.isnan(got['nodes'][:, 1:]).all())
    self.assertEqual(got['products'], 2)
    self.assertTrue(np.isfinite(got['density']).all())

  def test_a_loss_that_is_not_finite(self):
    got = analysis.spectral_density(
      lambda p: (jnp.inf * p**2).sum(), jnp.ones(4), 3, 2
    )
    for name in ('nodes', 'density', 'largest'):
      self.assertTrue(np.isnan(got[name]).all(), name)

  @parameterized.parameters(
    ({'order': 0}, 'order is 0; allowed: 1, 2, 3'),
    ({'samples': 1}, 'samples is 1; allowed: 2, 3, 4, .* the band needs two'),
    (
      {'matrix': 'fisher'},
      "matrix is 'fisher'; allowed: hessian, gauss_newton",
    ),
    ({'matrix': 'gauss_newton'}, 'gauss_newton needs a Split'),
  )
  def test_refuses(self, keywords, message):
    with self.assertRaisesRegex(ValueError, message):
      analysis.spectral_density(
        lambda p: (p**2).sum(), jnp.ones(4), **{'order': 2, **keywords}
      )

  def test_refuses_no_matrix(self):
    with self.assertRaisesRegex(ValueError, r'blocks is \(\); allowed'):
      analysis.make('spectral_density', blocks=())


class ProgramsTest(parameterized.TestCase):
  @parameterized.parameters(1, 2)
  def test_goes_on_to_the_same_bits(self, left):
    convolution = functools.partial(jnp.convolve, jnp.ones(3))

    def loss(params):  # so that its probes are taken one after the other
      return (convolution(params) ** 4).sum()

    look = functools.partial(
      analysis.spectral_density, loss, jnp.arange(1.0, 8), 4, 3
    )
    whole, journal = look(), journal_test.Journal()
    self.assertGreater(np.ptp(whole['nodes'][:, 0]), 1e-3)  # of other probes
    journal.left = left
    with self.assertRaises(journal_test.Killed):
      look(journal=journal)
    self.assertLen(journal, left)
    journal.left = None
    same_bits.assert_same(look(journal=journal), whole)
    self.assertLen(journal, 3)
    journal.left = 1  # what is kept is not computed again
    same_bits.assert_same(look(journal=journal), whole)


if __name__ == '__main__':
  absltest.main()
