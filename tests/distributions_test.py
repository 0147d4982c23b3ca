import numpy as np
from absl.testing import absltest, parameterized
from scipy import stats

from bn_jax import distributions
from tests.fixtures import (
  same_bits,
  strict,  # noqa: F401
)


def normal(count, channels=3, mean=0.0, std=1.0, seed=0):
  generator = np.random.default_rng(seed)
  return generator.normal(mean, std, size=(count, channels)).astype(np.float32)


class DistributionsTest(parameterized.TestCase):
  def test_moments_and_counts_of_feature_maps(self):
    x = normal(24).reshape(4, 3, 2, 3)
    found = distributions.of(x)
    rows = x.reshape(-1, 3).astype(np.float64)
    self.assertEqual(found.count, 24)
    np.testing.assert_allclose(found.mean, rows.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.var, rows.var(0), rtol=1e-12)
    for channel in range(3):
      inside, _ = np.histogram(rows[:, channel], distributions.EDGES)
      np.testing.assert_array_equal(
        found.histogram[channel, 1:-1], inside, err_msg=str(channel)
      )
    np.testing.assert_array_equal(found.histogram.sum(1), [24] * 3)

  @parameterized.parameters(((5, 7, 12),), ((1, 23),), ((24, 0),))
  def test_merged_is_as_if_seen_at_once(self, sizes):
    x = normal(24, mean=3.0) ** 3
    parts = np.split(x, np.cumsum(sizes)[:-1])
    merged = distributions.of(parts[0])
    for part in parts[1:]:
      merged = distributions.merge(merged, distributions.of(part))
    whole = distributions.of(x)
    self.assertEqual(merged.count, whole.count)
    same_bits.assert_same(merged.histogram, whole.histogram)
    np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-12)
    np.testing.assert_allclose(merged.var, whole.var, rtol=1e-12)

  def test_cells_are_those_of_a_search(self):
    """All signs and exponents, every edge and its neighbours, no numbers."""
    bits = np.arange(0, 2**32, 4099, dtype=np.uint64).astype(np.uint32)
    edges = distributions.EDGES.astype(np.float32)
    around = [np.nextafter(edges, np.float32(to)) for to in (-9e9, 9e9)]
    special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan], np.float32)
    values = np.concatenate([bits.view(np.float32), edges, *around, special])
    values = np.append(values, np.copysign(np.float32(np.nan), -1))
    with np.errstate(invalid='ignore'):  # of signalling nan
      wide = values.astype(np.float64)
    np.testing.assert_array_equal(
      distributions.cells(values),
      np.searchsorted(distributions.EDGES, wide, side='right'),
    )

  def test_padding_is_left_out(self):
    x = normal(6).reshape(6, 1, 3)
    mask = np.array([True, True, False, True, False, False])
    found, alone = distributions.of(x, mask), distributions.of(x[mask])
    same_bits.assert_same(found, alone)
    for wrong, said in (
      (mask.astype(int), 'mask is int64; allowed: an array of bool'),
      (mask[:5], r'mask has shape \(5,\); allowed: \(6,\)'),
    ):
      with self.assertRaisesRegex(ValueError, said):
        distributions.of(x, wrong)

  @parameterized.parameters('uint8', 'int32', 'bool', 'float16')
  def test_of_numbers_of_any_kind(self, dtype):
    x = np.abs(normal(24)).astype(dtype)
    found, want = distributions.of(x), distributions.of(x.astype(np.float64))
    same_bits.assert_same(found, want)

  def test_what_lies_outside_is_counted(self):
    x = np.array([[-2e3], [-1e3], [0.0], [2e3], [np.inf], [np.nan]])
    counts = distributions.of(x).histogram[0]
    self.assertEqual(counts[0], 1)
    self.assertEqual(counts[1], 1)  # an edge belongs to the bin above it
    self.assertEqual(counts[-1], 3)
    self.assertEqual(counts[distributions.CELLS // 2], 1)

  @parameterized.parameters((0, 1), (-3, 0.5), (0, 0.01), (100, 30))
  def test_quantiles_of_a_normal_distribution(self, mean, std):
    x = normal(200_000, 1, mean, std)
    levels = np.array([0.15, 0.5, 0.85])
    found = distributions.quantiles(distributions.of(x).histogram, levels)
    self.assertEqual(found.shape, (1, 3))
    # Exact to a fraction of a bin, which is 6 % wide.
    exact = np.quantile(x, levels)
    np.testing.assert_allclose(
      found[0], exact, atol=0.03 * np.abs(exact).max() + 1e-4
    )

  def test_quantile_within_a_bin_is_linear(self):
    counts = np.zeros(distributions.CELLS, int)
    counts[10] = 4
    low, high = distributions.EDGES[9:11]
    found = distributions.quantiles(counts, np.array([0.25, 0.5, 1.0]))
    np.testing.assert_allclose(
      found, [low + (high - low) * q for q in (0.25, 0.5, 1.0)], rtol=1e-12
    )

  def test_quantiles_of_nothing(self):
    nothing = np.zeros(distributions.CELLS, int)
    found = distributions.quantiles(nothing, np.array([0.5]))
    self.assertTrue(np.isnan(found).all())

  def test_wasserstein_of_a_shift_is_the_shift(self):
    x = normal(200_000, 1)
    before = distributions.of(x).histogram[0]
    for shift in (0.3, -0.3, 2.0):
      after = distributions.of(x + shift).histogram[0]
      got = distributions.wasserstein(before, after)
      self.assertAlmostEqual(got, abs(shift), delta=0.02)

  def test_wasserstein_equals_scipy_on_points(self):
    x, y = normal(5_000, 1, 0, 1), normal(7_000, 1, 0.5, 2, seed=1)
    exact = stats.wasserstein_distance(x[:, 0], y[:, 0])
    got = distributions.wasserstein(
      distributions.of(x).histogram[0], distributions.of(y).histogram[0]
    )
    self.assertAlmostEqual(got, exact, delta=0.02 * exact)

  def test_wasserstein_is_a_distance(self):
    a, b, c = (
      distributions.of(normal(500, 1, m, s, seed)).histogram[0]
      for seed, (m, s) in enumerate(((0, 1), (0.2, 0.8), (-1, 3)))
    )
    distance = distributions.wasserstein
    self.assertEqual(distance(a, a), 0)
    self.assertAlmostEqual(distance(a, b), distance(b, a), places=12)
    self.assertLessEqual(distance(a, c), distance(a, b) + distance(b, c))

  def test_wasserstein_where_the_difference_changes_sign_in_a_bin(self):
    """Halves in neighbouring bins against all in the one between them."""
    k = np.searchsorted(distributions.EDGES, 1.0) + 10
    a, b = np.zeros((2, distributions.CELLS), int)
    a[[k - 1, k + 1]] = 1
    b[k] = 2
    edges = distributions.EDGES
    # F_a - F_b: 0 to 1/2, then 1/2 to -1/2, then -1/2 to 0.
    width = np.diff(edges[k - 2 : k + 2])
    exact = width[0] / 4 + width[1] / 4 + width[2] / 4
    self.assertAlmostEqual(distributions.wasserstein(a, b), exact, places=12)


if __name__ == '__main__':
  absltest.main()
