import pathlib
from unittest import mock

import jax
import numpy as np
from absl.testing import absltest, parameterized

from bn_jax import errors
from bn_jax.data import datasets, reading
from bn_jax.data.disk import facts
from tests.fixtures import (
  made_sets,
  scratch,
  strict,  # noqa: F401
)


class ReadingTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.data_dir = scratch.folder(cls)
    made_sets.write(cls.data_dir, train=20, test=8)

  def make(self, **keywords):
    return datasets.make('made', data_dir=self.data_dir, **keywords)

  def test_any_set_of_images(self):
    source = self.make()
    self.assertEqual(source.facts, facts.Facts((6, 6, 3), 4, 20, 8))
    train, test = (part.split for part in source.load())
    images, labels = made_sets.arrays(20)
    np.testing.assert_array_equal(train.images, images)
    np.testing.assert_array_equal(train.labels, labels)
    np.testing.assert_allclose(train.mean, images.mean((0, 1, 2)), rtol=1e-5)
    self.assertEqual(test.labels.shape, (8,))
    self.assertEqual(source.shapes(4).images.shape, train.images.shape)

  def test_classes_subset_and_noise(self):
    source = self.make(classes=(3, 1), subset=5, label_noise=0.4)
    train, test = (part.split for part in source.load())
    self.assertEqual(source.facts.num_classes, 2)
    self.assertEqual((source.facts.num_train, len(train.labels)), (5, 5))
    self.assertEqual(source.facts.num_test, len(test.labels))
    images, labels = made_sets.arrays(20)
    of = {x.tobytes(): {3: 0, 1: 1}[y] for x, y in zip(images, labels)
          if y in (3, 1)}  # fmt: skip
    clean = [of[np.asarray(x).tobytes()] for x in train.images]
    self.assertEqual((np.asarray(train.labels) != clean).sum(), 2)
    _, test_labels = made_sets.arrays(8, first=100)
    kept = test_labels[np.isin(test_labels, (3, 1))]
    np.testing.assert_array_equal(test.labels, (kept == 1).astype(int))

  def test_binarised_and_not_normalised(self):
    train, _ = self.make(binarize=0.5).load()
    images, _ = made_sets.arrays(20)
    batch = train.first(20)
    np.testing.assert_array_equal(batch.images, images > 127.5)

  def test_of_a_large_set_only_what_is_chosen_is_decoded(self):
    keywords = dict(classes=(3, 1), subset=5, label_noise=0.4)
    want = self.make(**keywords).load()
    with (
      mock.patch.object(reading, '_LARGEST', 0),
      mock.patch.object(reading, '_decode', wraps=reading._decode) as decode,
    ):
      got = self.make(**keywords).load()
    self.assertEqual(decode.call_count, 5 + want.test.num_examples)
    for a, b in zip(got, want):
      jax.tree.map(np.testing.assert_array_equal, a.split, b.split)

  @parameterized.parameters(
    (dict(classes=(0, 4)), 'classes names 4; allowed: 0 to 3'),
    (dict(subset=21), 'subset is 21; allowed: 1 to 20'),
    (dict(binarize=1.0), 'binarize is 1.0'),
    (dict(resolution=0), 'resolution is 0; allowed: 1, 2, 3'),
    (dict(streaming=True, subset=3), 'for sets in memory'),
    (dict(streaming=True, workers=-1), 'workers is -1; allowed: 0, 1'),
    (dict(streaming=True, crop_area=(0.5, 2)), 'crop_area is .*above 0 to 1'),
    (dict(flip=True, crop_padding=-1), 'crop_padding is -1'),
  )
  def test_refuses(self, keywords, message):
    with self.assertRaisesRegex(ValueError, message):
      self.make(**keywords)

  def test_a_name_that_nothing_has(self):
    with self.assertRaisesRegex(ValueError, "'mad'; did you mean 'made'"):
      datasets.make('mad', data_dir=self.data_dir)

  def test_images_of_many_sizes_need_a_resolution(self):
    with self.assertRaisesRegex(ValueError, 'imagenet2012 differ in size'):
      datasets.make('imagenet2012')
    source = datasets.make('imagenet2012', resolution=224)
    self.assertEqual(source.facts.shape, (224, 224, 3))
    self.assertEqual(source.shapes(16).images.shape, (16, 224, 224, 3))


class DamagedTest(absltest.TestCase):
  def test_an_image_that_is_cut_off(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    made_sets.write(folder, train=20, test=8, damaged=13)
    with self.assertRaisesRegex(
      errors.DataError, 'record 13 of made-train.array_record-00000.*damaged'
    ):
      reading.load('made', data_dir=folder)

  def test_a_shard_that_is_cut_off(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    made_sets.write(folder, train=20, test=8)
    (shard,) = folder.glob('made/*/made-train*')
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    with self.assertRaisesRegex(
      errors.DataError, 'record 0 of made-train.*no image'
    ):
      reading.load('made', data_dir=folder)

  def test_a_shard_that_is_gone(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    made_sets.write(folder, train=20, test=8)
    (shard,) = folder.glob('made/*/made-test*')
    shard.unlink()
    with self.assertRaisesRegex(errors.DataError, 'cannot read made test'):
      reading.load('made', data_dir=folder)

  def test_classes_that_the_test_split_lacks(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    made_sets.write(folder, train=20, test=1)  # of class 0
    with self.assertRaisesRegex(ValueError, 'test split of made has none'):
      datasets.make('made', data_dir=folder, classes=(1, 2))


if __name__ == '__main__':
  absltest.main()
