import numpy as np
from absl.testing import absltest, parameterized

from bn_jax.data import selection
from tests.fixtures import strict  # noqa: F401


def labels(count=600, num_classes=10, seed=0):
  generator = np.random.default_rng(seed)
  return generator.integers(num_classes, size=count).astype(np.int32)


class SelectionTest(parameterized.TestCase):
  def test_nothing_asked_nothing_changed(self):
    given = labels()
    nothing = selection.make(num_classes=10)
    self.assertEqual(nothing, selection.NONE)
    kept, new = selection.of_classes(nothing, given)
    np.testing.assert_array_equal(given[kept], given)
    np.testing.assert_array_equal(new, given)
    np.testing.assert_array_equal(
      given[selection.of_subset(nothing, 600)], given
    )
    self.assertIs(selection.with_noise(nothing, given, 10), given)

  def test_classes_are_those_asked_for_in_their_new_order(self):
    given = labels()
    chosen = selection.make(num_classes=10, classes=(7, 2, 9))
    kept, new = selection.of_classes(chosen, given)
    np.testing.assert_array_equal(np.array([7, 2, 9])[new], given[kept])
    self.assertLen(kept, np.isin(given, (7, 2, 9)).sum())
    self.assertTrue((np.diff(kept) > 0).all())

  def test_a_range_of_classes(self):
    chosen = selection.make(num_classes=10, classes=range(2, 5))
    self.assertEqual(chosen.classes, (2, 3, 4))

  def test_a_class_that_a_split_lacks(self):
    chosen = selection.make(num_classes=10, classes=(1, 9))
    kept, new = selection.of_classes(chosen, np.array([0, 1, 2, 1]))
    np.testing.assert_array_equal(kept, [1, 3])
    np.testing.assert_array_equal(new, [0, 0])

  def test_a_subset_is_drawn_once_whatever_the_run(self):
    chosen = selection.make(num_classes=10, subset=50, seed=3)
    kept = selection.of_subset(chosen, 600)
    self.assertLen(set(kept), 50)
    self.assertTrue((np.diff(kept) > 0).all())
    np.testing.assert_array_equal(kept, selection.of_subset(chosen, 600))
    other = selection.of_subset(chosen._replace(seed=4), 600)
    self.assertTrue((kept != other).any())
    # From everywhere: the mean of 50 of 0..599 is 299.5, deviation 24.5 / ...
    self.assertBetween(kept.mean(), 200, 400)

  @parameterized.parameters(0.0, 0.1, 0.25, 1.0)
  def test_noise_makes_exactly_so_many_labels_another_class(self, share):
    given = labels(4000)
    chosen = selection.make(num_classes=10, label_noise=share)
    noisy = selection.with_noise(chosen, given, 10)
    self.assertEqual((noisy != given).sum(), round(share * 4000))
    self.assertBetween(noisy.min(), 0, 0)
    self.assertEqual(noisy.max(), 9)
    self.assertEqual(given.tolist(), labels(4000).tolist())  # not in place

  def test_every_other_class_is_equally_likely(self):
    given = np.zeros(9000, np.int32)
    chosen = selection.make(num_classes=10, label_noise=1.0)
    counts = np.bincount(selection.with_noise(chosen, given, 10), minlength=10)
    self.assertEqual(counts[0], 0)
    chi_square = ((counts[1:] - 1000) ** 2 / 1000).sum()
    self.assertLess(chi_square, 26.1)  # 8 degrees of freedom, one in a thousand

  @parameterized.parameters(
    (dict(classes=(0, 10)), 'classes names 10; allowed: 0 to 9'),
    (dict(classes=(0, 0)), 'each once'),
    (dict(classes=(3,)), 'two classes or more'),
    (dict(subset=0), 'subset is 0'),
    (dict(label_noise=1.5), 'label_noise is 1.5; allowed: 0 to 1'),
    (dict(seed=-1), 'selection_seed is -1'),
  )
  def test_refuses(self, keywords, message):
    with self.assertRaisesRegex(ValueError, message):
      selection.make(num_classes=10, **keywords)

  def test_refuses_more_than_there_are(self):
    chosen = selection.make(num_classes=10, subset=601)
    with self.assertRaisesRegex(ValueError, 'subset is 601; allowed: 1 to 600'):
      selection.of_subset(chosen, 600)


if __name__ == '__main__':
  absltest.main()
