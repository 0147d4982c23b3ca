"""What a long computation has kept so far; its steps: tests/analysis."""

import pathlib
import shutil
import subprocess
import sys

import numpy as np
from absl.testing import absltest

from bn_jax import errors
from bn_jax.storage import files, journal
from tests.fixtures import same_bits


class JournalTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path) / 'partial'
    self.journal = journal.Journal(self.folder / '0')

  def test_kept_and_dropped(self):
    self.assertIsNone(self.journal.kept('conv1/sum'))
    self.journal.keep('conv1/sum', {'a': np.arange(3)})
    same_bits.assert_same(self.journal.kept('conv1/sum'), {'a': np.arange(3)})
    self.journal.drop('conv1/sum')
    self.assertIsNone(self.journal.kept('conv1/sum'))
    self.journal.clear()
    self.assertFalse(self.folder.exists())

  def test_a_part_in_the_place_of_another(self):
    at = {
      step: journal.Journal(self.folder / step, f'step {step}') for step in '48'
    }
    at['4'].keep('a', {'x': np.arange(3)})
    for other, path in ((at['4'], '4/b.npz'), (at['8'], '8/a.npz')):
      other.keep('c', {'x': np.arange(3)})
      shutil.copy(self.folder / '4' / 'a.npz', self.folder / path)
      with self.assertRaisesRegex(errors.StorageError, 'is a of step 4; rem'):
        other.kept(path[2])

  def test_what_a_killed_writer_left_goes_with_the_next(self):
    self.journal.keep('sum', {'a': np.arange(3)})
    gone = subprocess.Popen([sys.executable, '-c', ''])
    gone.wait()
    torn = self.folder / '0' / f'sum.npz.{files._host()}.{gone.pid}.tmp'
    torn.write_bytes(b'half')
    self.journal.keep('sum', {'a': np.arange(4)})
    names = [path.name for path in (self.folder / '0').iterdir()]
    self.assertEqual(names, ['sum.npz'])


if __name__ == '__main__':
  absltest.main()
