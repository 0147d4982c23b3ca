import pathlib
import resource
import signal
import subprocess
import sys

from absl.testing import absltest

from bn_jax import errors
from bn_jax.storage import lock
from tests.fixtures import strict

_HOLD = """
import pathlib, sys, time
from bn_jax.storage import lock
with lock.held(pathlib.Path(sys.argv[1])):
  print('held', flush=True)
  time.sleep(60)
"""


class LockTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)

  def holder(self):
    """A process that holds the lock."""
    process = subprocess.Popen(
      [sys.executable, '-c', _HOLD, str(self.folder)],
      cwd=strict.ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    self.addCleanup(process.stdout.close)
    self.addCleanup(process.wait)
    self.addCleanup(process.kill)
    self.assertEqual(process.stdout.readline(), 'held\n')
    return process

  def test_a_second_writer_is_refused_and_told_who_is_there(self):
    process = self.holder()
    self.assertTrue(lock.is_held(self.folder))
    self.assertFalse(lock.is_held(self.folder, 'another'))
    with (
      self.assertRaisesRegex(
        errors.ConfigError,
        rf'being written by process {process.pid} on \S+ since 20\d\d-',
      ),
      lock.held(self.folder),
    ):
      self.fail('two writers')
    with lock.held(self.folder, 'another'):
      pass  # of something else in the folder

  def test_what_a_killed_process_left_holds_nobody_up(self):
    process = self.holder()
    process.send_signal(signal.SIGKILL)
    process.wait()
    self.assertFalse(lock.is_held(self.folder))  # whoever has its number now
    with self.assertLogs('bn_jax') as said, lock.held(self.folder):
      pass
    self.assertIn(f'taken over from process {process.pid}', said.output[0])

  def test_given_back(self):
    for _ in range(2):
      with self.assertNoLogs('bn_jax'), lock.held(self.folder):
        pass

  def test_a_full_disk_takes_no_words(self):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    self.addCleanup(resource.setrlimit, resource.RLIMIT_FSIZE, before)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, before[1]))
    with lock.held(self.folder):
      pass

  def test_no_folder(self):
    with (
      self.assertRaisesRegex(errors.StorageError, 'cannot write'),
      lock.held(self.folder / 'none'),
    ):
      self.fail('held nothing')


if __name__ == '__main__':
  absltest.main()
