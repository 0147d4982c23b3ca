import math

import numpy as np
from absl.testing import absltest, parameterized
from scipy import stats

from bn_jax.report.results import seeds

NAN = math.nan


class MeanTest(parameterized.TestCase):
  @parameterized.product(count=(2, 4, 5, 9), logarithmic=(False, True))
  def test_is_students_interval(self, count, logarithmic):
    """Against SciPy's, in float64; of logarithms on logarithmic axes."""
    values_ST = np.random.default_rng(count).lognormal(size=(count, 3))
    samples_ST = np.log(values_ST) if logarithmic else values_ST
    mean_T, error_T = samples_ST.mean(axis=0), stats.sem(samples_ST)
    ends = (
      mean_T, *stats.t.interval(0.95, count - 1, loc=mean_T, scale=error_T)
    )  # fmt: skip
    got = seeds.mean([(range(3), row) for row in values_ST], logarithmic)
    for part, want in zip((got.mean, got.low, got.high), ends):
      want = np.exp(want) if logarithmic else want
      np.testing.assert_allclose(part, want, rtol=1e-12)

  def test_at_every_x_over_those_that_are_finite_there(self):
    lines = [([0, 10, 20], [1.0, 2, 3]), ([0, 10], [3.0, NAN]), ([30], [NAN])]
    mean = seeds.mean(lines)
    np.testing.assert_array_equal(mean.x, [0, 10, 20, 30])
    np.testing.assert_array_equal(mean.mean, [2, 2, 3, NAN])
    half = 12.7062  # Student's t for one degree of freedom, times sqrt(2 / 2)
    np.testing.assert_allclose(mean.high, [2 + half, NAN, NAN, NAN], rtol=1e-5)
    np.testing.assert_allclose(mean.low, [2 - half, NAN, NAN, NAN], rtol=1e-5)

  def test_what_is_not_above_0_has_no_logarithm(self):
    lines = [([0, 1, 2], [1.0, 0, 0]), ([0, 1, 2], [100.0, -1, 5])]
    np.testing.assert_allclose(seeds.mean(lines, True).mean, [10, NAN, 5])

  def test_an_interval_ends_where_the_quantity_does(self):
    lines = [([0], [0.2]), ([0], [0.9])]
    mean = seeds.mean(lines, within=seeds.SHARE)
    self.assertEqual((mean.low, mean.high), (0, 1))
    self.assertAlmostEqual(mean.mean[0], 0.55)

  def test_few_seeds_are_shown_themselves(self):
    shown = [seeds.shows_interval(count) for count in (1, 2, 4, 5, 9)]
    self.assertEqual(shown, [False, False, False, True, True])


class PairedTest(absltest.TestCase):
  def test_points_of_seeds_belong_together_by_their_order(self):
    """At the ends of two seeds the learning rates may be different ones."""
    mean = seeds.paired([([4, 1], [2.0, 8]), ([1, 4], [2.0, 8])])
    np.testing.assert_allclose(mean.x, [1, 4])
    np.testing.assert_allclose(mean.mean, [4, 4])
    mean = seeds.paired([([1, 2], [1.0, 2]), ([4, 8], [1.0, NAN])])
    np.testing.assert_allclose(mean.x, [2, 4])
    np.testing.assert_allclose(mean.mean, [1, 2])

  def test_a_seed_of_another_grid_takes_no_part(self):
    mean = seeds.paired([([1, 4], [2.0, 8]), ([1, 2, 4], [1.0, 1, 1])])
    np.testing.assert_allclose(mean.mean, [2, 8])

  def test_what_is_not_above_0_has_no_place(self):
    mean = seeds.paired([([0, 1, 2], [1.0, 2, np.inf])])
    np.testing.assert_allclose(mean.mean, [NAN, 2, NAN])
    self.assertIsNone(seeds.paired([]))


if __name__ == '__main__':
  absltest.main()
