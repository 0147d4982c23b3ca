import numpy as np
from absl.testing import absltest, parameterized

from bn_jax.data import datasets, linear_task
from tests.fixtures import strict  # noqa: F401


class LinearTaskTest(parameterized.TestCase):
  def test_targets_are_a_times_x(self):
    source = datasets.make(
      'linear_task', matrix_scale=0.5, input_scale=2.0, seed=3
    )
    a, x, x_test = linear_task.drawn(10, 1000, 3)
    train, test = (examples.split for examples in source.load())
    np.testing.assert_allclose(train.images, 2 * x, rtol=1e-6)
    np.testing.assert_allclose(
      train.labels, 2 * x @ (0.5 * a).T, rtol=1e-5, atol=1e-5
    )
    np.testing.assert_allclose(test.images, 2 * x_test, rtol=1e-6)
    self.assertEqual(source.facts.num_train, 1000)

  def test_loss_of_zero_is_the_expected_sum(self):
    """E |A x|^2 = D^2 for standard normal entries, and 1,000 of them."""
    train, _ = datasets.make('linear_task').load()
    total = float((np.asarray(train.split.labels, np.float64) ** 2).sum())
    self.assertBetween(total, 0.7e5, 1.4e5)

  def test_inputs_are_used_as_they_are(self):
    source = datasets.make('linear_task', num_examples=8, dimension=3)
    train, _ = source.load()
    sampler = source.sampler(8)
    batch = sampler.take(train.split, np.arange(8))
    np.testing.assert_array_equal(batch.images, train.split.images)
    np.testing.assert_array_equal(batch.labels, train.split.labels)

  @parameterized.parameters(
    (dict(dimension=0), 'dimension is 0'),
    (dict(num_examples=0), 'num_examples is 0'),
    (dict(matrix_scale=0.0), 'matrix_scale is 0.0; allowed: above 0'),
    (dict(input_scale=float('inf')), 'input_scale is inf'),
    (dict(seed=-1), 'seed is -1'),
  )
  def test_refuses(self, keywords, message):
    with self.assertRaisesRegex(ValueError, message):
      datasets.make('linear_task', **keywords)


if __name__ == '__main__':
  absltest.main()
