import subprocess
import sys

import pytest
import strict
from absl.testing import absltest, parameterized

_FILES = sorted((strict.ROOT / 'benchmarks').glob('*.py'))


class BenchmarksTest(parameterized.TestCase):
  @pytest.mark.slow  # compiles the peers too
  @parameterized.parameters(*[(file.name,) for file in _FILES])
  def test_runs_at_a_small_size_and_prints_a_ratio(self, name):
    command = [sys.executable, f'benchmarks/{name}', '--batch_size=4']
    done = subprocess.run(
      [*command, '--pairs=1'], cwd=strict.ROOT, capture_output=True, text=True
    )
    self.assertEqual(done.returncode, 0, done.stderr)
    self.assertRegex(done.stdout, r'bn_jax is \d+\.\d+ times as fast')


if __name__ == '__main__':
  absltest.main()
