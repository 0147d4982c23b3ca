import os
import pathlib
from unittest import mock

import numpy as np
from absl.testing import absltest

from bn_jax import errors
from bn_jax.data.disk import facts, levels, store
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


class DataDirTest(absltest.TestCase):
  def test_a_bucket_is_refused_by_the_name_of_what_gives_it(self):
    said = "is 'gs://a/b'; allowed: a path; mount a bucket"
    with self.assertRaisesRegex(errors.ConfigError, f'^data_dir {said}'):
      store.data_dir('gs://a/b')
    with (
      mock.patch.dict(os.environ, {'TFDS_DATA_DIR': 'gs://a/b'}),
      self.assertRaisesRegex(errors.ConfigError, f'^TFDS_DATA_DIR {said}'),
    ):
      store.data_dir(None)


class DamagedTest(absltest.TestCase):
  def test_a_split_that_is_empty(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    made_sets.write(folder, train=20, test=8)
    prepared = store.opened('made', folder)
    empty = prepared._replace(splits={'train': 20, 'test': 0})
    with self.assertRaisesRegex(errors.DataError, 'test is empty'):
      facts.prepared(empty)

  def test_the_split_to_test_on_is_that_of_the_name(self):
    # imagenet2012 may have a test split too, whose labels are not published.
    splits = {'train': 20, 'validation': 8, 'test': 5}
    stated = levels.Stated((6, 6, 3))
    prepared = store.Prepared(
      'made', pathlib.Path('made'), 'image', 'label', stated, ('a', 'b'), splits
    )
    expected = facts.Facts((6, 6, 3), 2, 20, 8, 'validation')
    facts.check(prepared, expected)
    with self.assertRaisesRegex(errors.DataError, '20 examples in train and 8'):
      facts.check(prepared, expected._replace(num_train=21))

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
