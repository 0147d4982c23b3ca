import os
import pathlib
import tempfile
from unittest import mock

import jax
import numpy as np
from absl.testing import absltest, parameterized

from bn_jax import errors
from bn_jax.data import datasets, reading
from bn_jax.data.disk import facts, store
from tests.fixtures import (
  made_sets,
  strict,  # noqa: F401
)


class CacheTest(absltest.TestCase):
  """A small set; the least size of what is kept is lowered to it."""

  def setUp(self):
    super().setUp()
    self.enter_context(mock.patch.object(store, '_SMALLEST', 0))
    self.data_dir = pathlib.Path(self.create_tempdir().full_path)
    made_sets.write(self.data_dir, train=20, test=8)
    self.prepared = store.opened('made', self.data_dir)
    self.decoded = 0

  def arrays(self, resolution=None):
    def decode():
      self.decoded += 1
      return made_sets.arrays(20)

    return store.arrays(self.prepared, 'train', resolution, decode)

  def test_decoded_once(self):
    first, again = self.arrays(), self.arrays()
    self.assertEqual(self.decoded, 1)
    for a, b, want in zip(first, again, made_sets.arrays(20)):
      np.testing.assert_array_equal(a, want)
      np.testing.assert_array_equal(b, want)
      self.assertEqual(b.dtype, want.dtype)

  def test_each_resolution_has_its_own(self):
    self.arrays()
    self.arrays(4)
    self.assertEqual(self.decoded, 2)

  def test_a_changed_set_is_decoded_again(self):
    self.arrays()
    (shard, _), *_ = store.shards(self.prepared, 'train')
    os.utime(shard, ns=(1, 1))
    self.arrays()
    self.assertEqual(self.decoded, 2)

  def test_a_damaged_file_is_made_anew(self):
    self.arrays()
    (file,) = (self.prepared.folder / 'decoded').iterdir()
    whole = file.read_bytes()
    middle = len(whole) // 2
    damaged = (
      whole[:middle],
      b'',
      whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
    )
    for count, bytes_ in enumerate(damaged, start=2):
      file.write_bytes(bytes_)
      images, _ = self.arrays()
      np.testing.assert_array_equal(images, made_sets.arrays(20)[0])
      self.assertEqual(self.decoded, count)
      self.assertEqual(file.read_bytes(), whole)

  def test_where_nothing_can_be_written_nothing_is_kept(self):
    (self.prepared.folder / 'decoded').write_text('in the way')
    self.arrays()
    self.arrays()
    self.assertEqual(self.decoded, 2)

  def test_another_folder_where_asked(self):
    place = self.create_tempdir().full_path
    with mock.patch.dict(os.environ, BN_JAX_CACHE_DIR=place):
      self.arrays()
    self.assertFalse((self.prepared.folder / 'decoded').exists())
    self.assertLen(list(pathlib.Path(place).glob('made/1.0.0/*.npz')), 1)


class ReadingTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    folder = tempfile.TemporaryDirectory()
    cls.addClassCleanup(folder.cleanup)
    cls.data_dir = pathlib.Path(folder.name)
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

  def test_a_split_that_is_empty(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    made_sets.write(folder, train=20, test=8)
    prepared = store.opened('made', folder)
    empty = prepared._replace(splits={'train': 20, 'test': 0})
    with self.assertRaisesRegex(errors.DataError, 'test is empty'):
      facts.prepared(empty)

  def test_a_set_of_another_format(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    made_sets.write(folder, train=20, test=8)
    (info,) = folder.glob('made/*/dataset_info.json')
    info.write_text(info.read_text().replace('array_record', 'tfrecord'))
    with self.assertRaisesRegex(errors.DataError, 'convert_format'):
      store.opened('made', folder)
    info.write_text('{')
    with self.assertRaisesRegex(errors.DataError, 'cannot read'):
      store.opened('made', folder)

  def test_a_split_that_is_not_there(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    made_sets.write(folder, train=20, test=8)
    prepared = store.opened('made', folder)
    with self.assertRaisesRegex(
      errors.DataError, "unknown split 'tset'; did you mean 'test'"
    ):
      store.source(prepared, 'tset')


if __name__ == '__main__':
  absltest.main()
