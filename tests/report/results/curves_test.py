import math

import numpy as np
from absl.testing import absltest, parameterized

from bn_jax.report.results import curves
from tests.fixtures import strict  # noqa: F401


def series(**values):
  values = {name: np.array(v, float) for name, v in values.items()}
  return curves.Series(np.arange(len(next(iter(values.values())))), values)


def seed(accuracy):
  return curves.Seed(0, {}, {'train': series(accuracy=accuracy)}, {}, {})


class CurvesTest(parameterized.TestCase):
  def test_trailing_mean(self):
    values = np.arange(7.0)
    mean = curves.trailing_mean(values, 3)
    np.testing.assert_allclose(mean, [np.nan, np.nan, 1, 2, 3, 4, 5])
    self.assertTrue(np.isnan(curves.trailing_mean(values, 8)).all())

  def test_steps_to_is_the_step_of_the_last_batch_of_the_twenty(self):
    """50 batches at 0, then 1: the mean of 20 is 0.9 with the 18th."""
    rising = seed([0.0] * 50 + [1.0] * 30)
    self.assertEqual(curves.steps_to(rising, 0.90), 50 + 18 - 1)
    self.assertEqual(curves.steps_to(rising, 1.00), 50 + 20 - 1)

  def test_steps_to_is_not_moved_by_rounding(self):
    """Twenty times 0.9 is 17.999999999999996 or so when added up."""
    self.assertLess(np.convolve([0.9] * 20, np.ones(20), 'valid') / 20, 0.9)
    self.assertEqual(curves.steps_to(seed([0.9] * 40), 0.9), 19)

  def test_steps_to_what_is_never_reached(self):
    self.assertEqual(curves.steps_to(seed([0.5] * 100), 0.9), math.inf)
    self.assertEqual(curves.steps_to(seed([1.0] * 19), 0.9), math.inf)
    nothing = curves.Seed(0, {}, {}, {}, {})
    self.assertEqual(curves.steps_to(nothing, 0.9), math.inf)

  def test_final_accuracy_is_of_the_last_twenty(self):
    values = [0.0] * 30 + [1.0] * 5 + [0.6] * 15
    self.assertAlmostEqual(curves.final_train_accuracy(seed(values)), 0.7)
    self.assertTrue(math.isnan(curves.final_train_accuracy(seed([1.0] * 9))))

  def test_band_leaves_nan_out(self):
    nan = math.nan
    low, high = curves.band(np.array([[3, 1, 2], [nan, 5, 4], [nan, nan, nan]]))
    np.testing.assert_array_equal(low, [1, 4, nan])
    np.testing.assert_array_equal(high, [3, 5, nan])

  def test_medians_of_bands(self):
    look = series(loss=[[1, 2], [1, 4], [1, 11], [np.nan, np.nan]])
    made = curves.Seed(0, {}, {'landscape': look}, {}, {})
    self.assertEqual(curves.median_width(made, 'landscape', 'loss'), 3)
    self.assertEqual(curves.median_upper(made, 'landscape', 'loss'), 4)
    self.assertTrue(math.isnan(curves.median_upper(made, 'other', 'loss')))

  @parameterized.parameters(
    # Quantiles of Student's t from a printed table: 12.706, 4.303, 2.776.
    ([1, 3], 2, 12.706), ([1, 2, 3], 2, 4.303 / math.sqrt(3)),
    ([0, 1, 2, 3, 4], 2, 2.776 * math.sqrt(2.5 / 5)),
  )  # fmt: skip
  def test_interval(self, values, mean, half):
    got = curves.mean_and_interval(values)
    np.testing.assert_allclose(got, (mean, half), rtol=1e-3)

  def test_a_mean_over_seeds_is_of_what_is_finite(self):
    read = lambda number: [1.0, math.nan, math.inf, 3.0][number]
    self.assertEqual(curves.mean_over(range(4), read), 2)
    self.assertTrue(math.isnan(curves.mean_over([1, 2], read)))

  def test_one_seed_has_no_interval(self):
    mean, half = curves.mean_and_interval([4.0])
    self.assertEqual(mean, 4.0)
    self.assertTrue(math.isnan(half))


if __name__ == '__main__':
  absltest.main()
