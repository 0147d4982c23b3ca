import pathlib

import numpy as np
from absl.testing import absltest, parameterized

from bn_jax import errors
from bn_jax.data.disk import arrays, held_out
from tests.fixtures import strict  # noqa: F401


def made(y, **more):
  x = np.arange(len(y), dtype=np.float32)[:, None]
  return arrays.of('x.npz', pathlib.Path('/d'), {'x': x, 'y': y, **more})


def numbers(dataset, split):
  """Which examples a split has: the inputs of `made` are their numbers."""
  examples = dataset.records(split).read(range(dataset.splits[split]))
  return [int(x[0]) for x, _ in examples]


class HeldOutTest(parameterized.TestCase):
  @parameterized.product(share=(0.1, 0.25, 0.5, 0.9), seed=(0, 1))
  def test_each_example_once_and_each_class_its_share(self, share, seed):
    counts = (40, 7, 101, 2)
    y = np.random.default_rng(0).permutation(np.repeat(range(4), counts))
    dataset = held_out.of(made(y), share, seed)
    train, test = (numbers(dataset, split) for split in ('train', 'test'))
    self.assertEqual(sorted(train + test), list(range(len(y))))
    self.assertEqual(train, sorted(train))
    self.assertEqual(test, sorted(test))
    # Of two examples, 1.8 cannot be taken.
    self.assertLen(test, round(share * len(y)) - (share == 0.9))
    for label, count in enumerate(counts):
      held = np.sum(y[test] == label)
      self.assertBetween(held, np.floor(share * count), np.ceil(share * count))
      self.assertLess(held, count)
    np.testing.assert_array_equal(dataset.known_labels('test'), y[test])

  def test_the_seed_draws(self):
    y = np.arange(100) % 2
    draws = [numbers(held_out.of(made(y), 0.2, s), 'test') for s in (0, 0, 1)]
    self.assertEqual(draws[0], draws[1])
    self.assertNotEqual(draws[0], draws[2])

  def test_targets_are_drawn_as_they_come(self):
    dataset = held_out.of(made(np.zeros((50, 3))), None, 0)
    self.assertEqual(dataset.splits, {'train': 45, 'test': 5})
    self.assertEqual(dataset.known_labels('test').shape, (5, 3))

  def test_a_test_split_is_kept(self):
    base = made([0, 1], x_test=np.ones((1, 1), np.float32), y_test=[1])
    self.assertIs(held_out.of(base, None, 0), base)
    with self.assertRaisesRegex(ValueError, 'test_share is 0.1, and x.npz has'):
      held_out.of(base, 0.1, 0)

  def test_the_last_of_a_class_stays(self):
    dataset = held_out.of(made([0, 0, 0, 1]), 0.5, 0)
    self.assertEqual(dataset.splits, {'train': 2, 'test': 2})
    self.assertEqual(dataset.known_labels('test').tolist(), [0, 0])
    with self.assertRaisesRegex(errors.DataError, 'has 2 examples of 2 class'):
      held_out.of(made([0, 1]), 0.5, 0)


if __name__ == '__main__':
  absltest.main()
