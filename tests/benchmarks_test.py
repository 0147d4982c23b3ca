import subprocess
import sys

import pytest
import strict
from absl.testing import absltest, parameterized

pytestmark = pytest.mark.slow  # they compile whole networks


class BenchmarksTest(parameterized.TestCase):
  @parameterized.parameters(
    ('train_step.py', r'bn_jax is \d+\.\d+ times as fast'),
    ('loops.py', r'product: .* inside is \d+\.\d+ times as long'),
    ('probes.py', r'gradients: -?\d+\.\d % of the training'),
    ('batches.py', r'crop and flip .*\n  ratio \d+\.\d+ '),
    ('input.py', r'middle crop, \d workers: \d+\.\d+ \(\d+\.\d+\) of bare'),
  )
  def test_runs_at_a_small_size_and_prints_a_ratio(self, name, printed):
    command = [sys.executable, f'benchmarks/{name}', '--batch_size=4']
    done = subprocess.run(
      [*command, '--pairs=1'], cwd=strict.ROOT, capture_output=True, text=True
    )
    self.assertEqual(done.returncode, 0, done.stderr)
    self.assertRegex(done.stdout, printed)


if __name__ == '__main__':
  absltest.main()
