import numpy as np
from absl.testing import absltest, parameterized

from bn_jax import spectra


class CurveTest(parameterized.TestCase):
  def test_is_the_mean_over_probes_of_gaussians_at_the_nodes(self):
    nodes, weights = [[0.0, 2.0], [1.0, 2.0]], [[0.5, 0.5], [0.9, 0.1]]
    grid = np.linspace(-1, 3, 41)
    got = spectra.curve(nodes, weights, grid, width=0.3)

    def bell(mean):
      return np.exp(-((grid - mean) ** 2) / 0.18) / np.sqrt(0.18 * np.pi)

    rows = [0.5 * bell(0) + 0.5 * bell(2), 0.9 * bell(1) + 0.1 * bell(2)]
    np.testing.assert_allclose(got.density, np.mean(rows, axis=0))
    np.testing.assert_allclose(got.low, np.minimum(*rows))
    np.testing.assert_allclose(got.high, np.maximum(*rows))
    np.testing.assert_array_equal(got.grid, grid)

  def test_its_integral_is_one(self):
    nodes = np.array([[-3.0, 0, 0.1, 50], [-2.0, 0.05, 49, np.nan]])
    weights = np.array([[0.1, 0.5, 0.3, 0.1], [0.2, 0.6, 0.2, 0]])
    got = spectra.curve(nodes, weights)
    self.assertAlmostEqual(np.trapezoid(got.density, got.grid), 1, places=5)
    self.assertAlmostEqual(got.width, 0.53)
    np.testing.assert_allclose(
      got.grid[[0, -1]], [-3 - 5 * 0.53, 50 + 5 * 0.53]
    )
    mean = np.mean([(a * b)[b > 0].sum() for a, b in zip(nodes, weights)])
    moment = np.trapezoid(got.grid * got.density, got.grid)
    self.assertAlmostEqual(moment, mean, places=4)

  @parameterized.parameters(
    ([[1.0, np.nan]], 0.01),  # the identity
    ([[-4.0]], 0.04),
    ([[0.0]], 0.01),
    ([[99.0, 100.0]], 1.0),
    ([[np.nan]], 0.01),
  )
  def test_width(self, nodes, width):
    self.assertAlmostEqual(spectra.width_of(nodes), width)

  def test_a_probe_without_nodes_has_no_density(self):
    got = spectra.curve([[np.nan] * 2, [0.0, 1.0]], [[0, 0], [0.5, 0.5]])
    self.assertTrue(np.isnan(got.density).all())


if __name__ == '__main__':
  absltest.main()
