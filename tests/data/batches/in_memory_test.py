import collections
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import absltest, parameterized
from sklearn import datasets

from bn_jax import errors, types
from bn_jax.data import reading
from bn_jax.data.batches import in_memory, order
from bn_jax.data.disk import facts
from tests.fixtures import strict  # noqa: F401


def numbered_split(count):
  """A split whose pixel is the number of its example."""
  images = np.arange(count, dtype=np.uint8).reshape(-1, 1, 1, 1)
  ones = jnp.ones(1)
  return types.Split(jnp.asarray(images), jnp.arange(count), jnp.zeros(1), ones)


class OrderTest(parameterized.TestCase):
  def draw(self, seed, steps, count=10, batch_size=4, **keywords):
    """The labels of the first batches, and the state after them."""
    split, key = numbered_split(count), jax.random.key(seed)
    sampler = order.sampler(
      num_examples=count, batch_size=batch_size, **keywords
    )
    draw = jax.jit(sampler.draw)
    state, batches = sampler.init(key), []
    for _ in range(steps):
      index, state = draw(state, key)
      batch = sampler.take(split, index)
      np.testing.assert_array_equal(batch.images.ravel(), batch.labels)
      batches.append(np.asarray(batch.labels))
    return np.array(batches), state

  @parameterized.parameters((10, 4), (10, 10), (12, 4), (7, 1), (5, 3))
  def test_batches_are_the_concatenated_permutations(self, count, batch_size):
    steps = 3 * count // batch_size + 1
    batches, _ = self.draw(3, steps, count, batch_size)
    key = jax.random.key(3)
    epochs = [
      jax.random.permutation(jax.random.fold_in(key, e), jnp.arange(count))
      for e in range(steps * batch_size // count + 1)
    ]
    want = np.concatenate(epochs)[: steps * batch_size]
    np.testing.assert_array_equal(batches.ravel(), want)

  def test_a_seed_is_its_batches_and_no_other_seed(self):
    first, _ = self.draw(0, 5)
    again, _ = self.draw(0, 5)
    other, _ = self.draw(1, 5)
    np.testing.assert_array_equal(first, again)
    self.assertTrue((first != other).any())

  @parameterized.parameters(1, 1000, 5000)  # no, one and two rounds of sorting
  def test_a_permutation_is_that_of_jax(self, count):
    key = jax.random.key(count)
    got = order.permutation(count, key)
    want = jax.random.permutation(key, jnp.arange(count, dtype=jnp.int32))
    np.testing.assert_array_equal(got, want, strict=True)

  def test_a_saved_order_goes_on_the_same(self):
    whole, _ = self.draw(0, 9)
    key = jax.random.key(0)
    sampler = order.sampler(num_examples=10, batch_size=4)
    _, state = self.draw(0, 4)
    index, _ = sampler.draw(state, key)
    np.testing.assert_array_equal(index, whole[4])

  @parameterized.parameters((10, 4, 2), (12, 4, 3), (9, 1, 9), (5, 5, 1))
  def test_fixed_batches_are_those_of_the_first_epoch(self, count, size, whole):
    fixed, _ = self.draw(3, 4 * whole, count, size, fixed_batches=True)
    free, _ = self.draw(3, whole, count, size)
    epochs = [tuple(map(tuple, e)) for e in fixed.reshape(4, whole, size)]
    np.testing.assert_array_equal(epochs[0], free)
    for epoch in epochs:
      self.assertEqual(sorted(epoch), sorted(epochs[0]))
    if whole > 8:
      self.assertLen(set(epochs), 4)

  @parameterized.parameters(0, -1, 11)
  def test_refuses_a_batch_outside_the_split(self, batch_size):
    with self.assertRaisesRegex(ValueError, 'allowed: 1 to 10'):
      order.sampler(num_examples=10, batch_size=batch_size)


class PaddedBatchesTest(parameterized.TestCase):
  @parameterized.parameters(1, 3, 10, 16)
  def test_every_example_once(self, batch_size):
    batches = in_memory.padded_batches(
      numbered_split(10), batch_size=batch_size
    )
    seen = []
    for batch in batches:
      self.assertLen(batch.labels, batch_size)
      seen.extend(np.asarray(batch.labels)[np.asarray(batch.mask)])
    self.assertEqual(seen, list(range(10)))


class DigitsTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.folder = tempfile.TemporaryDirectory()
    cls.dataset = reading.load('digits', data_dir=cls.folder.name)

  @classmethod
  def tearDownClass(cls):
    cls.folder.cleanup()
    super().tearDownClass()

  def test_sizes_and_types(self):
    train, test = self.dataset
    self.assertEqual(train.images.shape, (1442, 8, 8, 1))
    self.assertEqual(test.images.shape, (355, 8, 8, 1))
    self.assertEqual(train.images.dtype, jnp.uint8)
    self.assertEqual(train.labels.dtype, jnp.int32)

  def test_every_image_once_and_a_fifth_of_each_class_held_out(self):
    source = datasets.load_digits()
    want = collections.Counter(
      (np.rint(image * 255 / 16).astype(np.uint8).tobytes(), int(label))
      for image, label in zip(source.images, source.target)
    )
    got = collections.Counter(
      (np.asarray(image).tobytes(), int(label))
      for split in self.dataset
      for image, label in zip(
        np.asarray(split.images), np.asarray(split.labels)
      )
    )
    self.assertEqual(got, want)
    held_out = np.bincount(self.dataset.test.labels, minlength=10)
    np.testing.assert_array_equal(
      held_out, np.bincount(source.target, minlength=10) // 5
    )

  def test_normalised_by_the_training_split(self):
    train, test = self.dataset
    batch = in_memory.gather(train, jnp.arange(1442))
    self.assertAlmostEqual(float(batch.images.mean()), 0, delta=1e-5)
    self.assertAlmostEqual(float(batch.images.std()), 1, delta=1e-5)
    np.testing.assert_array_equal(train.mean, test.mean)
    np.testing.assert_array_equal(train.std, test.std)

  def test_resized(self):
    large = reading.load(
      'digits', resolution=16, data_dir=self.folder.name
    ).test
    self.assertEqual(large.images.shape, (355, 16, 16, 1))
    small = np.asarray(self.dataset.test.images, float).mean()
    self.assertAlmostEqual(float(large.images.mean()), small, delta=2)

  def test_facts_hold_without_reading(self):
    known = facts.of('digits')
    self.assertEqual(known.num_train, len(self.dataset.train.labels))
    self.assertEqual(known.shape, (8, 8, 1))


class OthersTest(absltest.TestCase):
  def test_unknown(self):
    with self.assertRaisesRegex(
      ValueError, "unknown dataset 'cifar'.*'cifar10'"
    ):
      reading.load('cifar')

  def test_absent(self):
    folder = self.create_tempdir().full_path
    with self.assertRaisesRegex(errors.DataError, 'data prepare mnist'):
      reading.load('mnist', data_dir=folder)

  @pytest.mark.slow
  def test_cifar10_where_it_is_at_hand(self):
    try:
      dataset = reading.load('cifar10')
    except errors.DataError as error:
      self.skipTest(str(error))
    np.testing.assert_array_equal(np.bincount(dataset.train.labels), 5000)
    self.assertEqual(dataset.test.images.shape, (10_000, 32, 32, 3))
    # The mean and deviation of CIFAR-10's pixels that everybody quotes.
    np.testing.assert_allclose(
      dataset.train.mean / 255, [0.4914, 0.4822, 0.4465], atol=1e-4
    )
    np.testing.assert_allclose(
      dataset.train.std / 255, [0.2470, 0.2435, 0.2616], atol=1e-4
    )


if __name__ == '__main__':
  absltest.main()
