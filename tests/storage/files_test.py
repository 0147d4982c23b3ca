import os
import pathlib
import subprocess
import sys
import tempfile
from unittest import mock

import numpy as np
from absl.testing import absltest, parameterized

from bn_jax import errors
from bn_jax.storage import files


class FilesTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)
    self.path = self.folder / 'x.json'

  def test_written_whole_or_not_at_all(self):
    files.write(self.path, 'old')

    with self.assertRaises(TypeError):
      files.write(self.path, object())
    self.assertEqual(self.path.read_text(), 'old')
    self.assertLen(list(self.folder.iterdir()), 1)

  def test_what_a_function_writes(self):
    files.write(self.path, lambda file: file.write(b'new'), sync=False)
    self.assertEqual(self.path.read_text(), 'new')

    def breaks(file):
      file.write(b'half')
      raise KeyError('no')

    with self.assertRaises(KeyError):
      files.write(self.path, breaks)
    self.assertEqual(self.path.read_text(), 'new')
    self.assertLen(list(self.folder.iterdir()), 1)

  def test_another_path_where_libraries_do_not_take_it(self):
    """24.8."""
    with files.plain(self.path) as path:
      self.assertEqual(path, self.path.absolute())
    odd = self.folder / 'a[b]' / 'c'
    odd.parent.mkdir()
    with files.plain(odd) as path:
      self.assertRegex(str(path), r'^[\w ./+-]+$')
      path.write_text('x')
    self.assertFalse(path.parent.exists())
    self.assertEqual(odd.read_text(), 'x')
    with (
      mock.patch.object(tempfile, 'tempdir', str(odd.parent)),
      self.assertRaisesRegex(errors.StorageError, 'nor TMPDIR, .*, is a path'),
      files.plain(odd),
    ):
      self.fail('it was taken')

  def test_folders(self):
    files.make_folder(self.folder / 'a' / 'b')
    files.make_folder(self.folder / 'a' / 'b')
    with self.assertRaisesRegex(errors.StorageError, 'cannot make .*gone'):
      files.make_folder(self.folder / 'gone' / 'b', parents=False)
    self.path.write_text('')
    with self.assertRaisesRegex(errors.StorageError, 'cannot make .*; do x$'):
      files.make_folder(self.path / 'b', 'do x')

  def test_no_file(self):
    self.assertIsNone(files.read_json(self.path))

  def test_no_place_to_write(self):
    with self.assertRaisesRegex(errors.StorageError, 'cannot write'):
      files.write(self.folder / 'absent' / 'x.json', '{}')

  def test_broken_json(self):
    self.path.write_text('{"a"')
    with self.assertRaisesRegex(errors.StorageError, 'is not JSON'):
      files.read_json(self.path)

  @parameterized.parameters(
    ('1', '2'), ('"format"', '"farmat"'), ('"digest"', '"digesu"'),
    ('"a": 1', '"a": NaN'), ('\n}', '\n }'),
  )  # fmt: skip
  def test_what_has_a_digest_was_not_changed(self, old, new):
    files.write_json(self.path, {'a': 1}, digest=True)
    self.assertEqual(files.read_json(self.path), {'a': 1})
    text = self.path.read_text()
    self.assertIn(old, text)
    self.path.write_text(text.replace(old, new, 1))
    with self.assertRaisesRegex(errors.StorageError, 'as it was written|JSON'):
      files.read_json(self.path)

  @parameterized.parameters(
    (float('nan'), 'NaN'), (float('-inf'), '-Infinity'), (0.1, 0.1),
  )  # fmt: skip
  def test_numbers_that_json_lacks_are_texts(self, number, storable):
    self.assertEqual(files.storable(number), storable)
    np.testing.assert_equal(float(storable), number)

  def test_nested_beyond_all_depth(self):
    self.path.write_text('[' * 10**5)
    with self.assertRaisesRegex(errors.StorageError, 'is not JSON'):
      files.read_json(self.path)

  @parameterized.parameters(
    ('[]', dict, r'its content is \[\], allowed: dict'),
    ('{}', {'a': int}, "'a' is None, allowed: int"),
    ('{"a": "x"}', {'a': int}, "'a' is 'x', allowed: int"),
    ('{"a": {"b": 1}}', {'a': {'b': str}}, "'b' is 1, allowed: str"),
    ('{"x": 1, "y": []}', {...: int}, r"'y' is \[\], allowed: int"),
  )
  def test_json_of_another_shape(self, text, shape, message):
    self.path.write_text(text)
    with self.assertRaisesRegex(errors.StorageError, message):
      files.read_json(self.path, shape)
    self.assertEqual(self.path.read_text(), text)

  def test_json_of_a_shape(self):
    self.path.write_text('{"a": {"b": null, "c": [1]}, "d": 1}')
    shape = {'a': {'b': int | None, 'c': list}}
    self.assertEqual(files.read_json(self.path, shape)['d'], 1)
    shape = {'d': (None, int), 'e': (None, {...: str})}
    self.assertEqual(files.read_json(self.path, shape)['d'], 1)
    with self.assertRaisesRegex(errors.StorageError, "'b' is None"):
      files.read_json(self.path, {'a': (None, {'b': int})})

  def test_what_killed_writers_left_is_removed(self):
    gone = subprocess.Popen([sys.executable, '-c', ''])
    gone.wait()
    here = files._host()
    torn = self.folder / f'report.html.{here}.{gone.pid}.tmp'
    others = [
      self.folder / f'report.html.{here}.{os.getpid()}.tmp',  # being written
      self.folder / f'report.html.elsewhere.{gone.pid}.tmp',  # who knows
      self.folder / 'of.mine.tmp.txt',
    ]
    for path in (torn, *others):
      path.write_text('')
    files.remove_torn(self.folder)
    self.assertCountEqual(self.folder.iterdir(), others)


if __name__ == '__main__':
  absltest.main()
