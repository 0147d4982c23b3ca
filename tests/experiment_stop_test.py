import os
import signal
import subprocess
import sys
from unittest import mock

import pytest
import strict
from absl.testing import absltest, parameterized

from bn_jax import experiment


class StopTest(parameterized.TestCase):
  @parameterized.parameters(signal.SIGTERM, signal.SIGINT)
  def test_the_first_signal_asks_and_the_second_exits(self, number):
    before = signal.getsignal(number)
    with experiment._Stop() as stopped:
      self.assertFalse(stopped())
      os.kill(os.getpid(), number)
      self.assertTrue(stopped())
      with mock.patch.object(os, '_exit') as leave:
        os.kill(os.getpid(), number)
        leave.assert_called_once_with(130)
    self.assertEqual(signal.getsignal(number), before)

  @pytest.mark.slow  # a process of its own, which compiles
  def test_sigterm_ends_with_75_and_the_same_command_goes_on(self):
    workdir = self.create_tempdir().full_path
    command = [
      sys.executable, 'train.py', '--config=tests/tiny_config.py',
      '--only=standard', f'--workdir={workdir}', f'--data_dir={workdir}/data',
    ]  # fmt: skip
    process = subprocess.Popen(
      [*command, '--config.steps=1000000'],
      cwd=strict.ROOT, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    for line in process.stderr:
      if 'step 1/' in line:
        break
    process.send_signal(signal.SIGTERM)
    said = process.stderr.read()
    self.assertEqual(process.wait(60), 75, said)
    self.assertIn('the same command goes on from there', said)
    done = subprocess.run(
      [*command, '--config.steps=1'],
      cwd=strict.ROOT, capture_output=True, text=True,
    )  # fmt: skip
    self.assertEqual(done.returncode, 2, done.stderr)
    self.assertIn('already; allowed: as many or more', done.stderr)


if __name__ == '__main__':
  absltest.main()
