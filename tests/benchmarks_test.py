import importlib.util
import re
import subprocess
import sys
import unittest

import pytest
from absl.testing import absltest, parameterized

from tests.fixtures import strict

pytestmark = pytest.mark.slow  # they compile whole networks

_ANALYSIS = ('analysis.py', '--pairs=1', '--every=2', '--width=0.0625')
_TORCH = importlib.util.find_spec('torch') is not None
_PEERS = all(
  importlib.util.find_spec(name)
  for name in ('torch', 'hessian_eigenthings', 'curvlinops', 'matfree')
)


class BenchmarksTest(parameterized.TestCase):
  @parameterized.parameters(
    ('loops.py', r'product, inside / outside: \d+\.\d+ '),
    ('probes.py', r'gradients: -?\d+\.\d % of the training'),
    ('batches.py', r'crop and flip / plain: \d+\.\d+ '),
    ('input.py', r'middle crop, \d workers: \d+\.\d+ \(\d+\.\d+\) of bare'),
  )
  def test_runs_at_a_small_size_and_prints_a_ratio(self, name, printed):
    done = _run(name, '--pairs=1')
    self.assertEqual(done.returncode, 0, done.stderr)
    self.assertRegex(done.stdout, printed)

  def test_rounding_of_lowerings(self):
    done = _run('rounding.py', '--networks=vgg11', '--width=0.0625')
    self.assertEqual(done.returncode, 0, done.stderr)
    self.assertRegex(done.stdout, r'\| vgg11 \| \d')

  def test_training_steps_compute_the_same(self):
    peers = 'nchw,channels_last,flax' if _TORCH else 'flax'
    done = _run(
      'train_step.py', '--rounds=1', f'--peers={peers}', '--seconds=0',
      '--warm_up=0', '--networks=vgg11,resnet20',
    )  # fmt: skip
    self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
    for name in ('vgg11', 'resnet20'):
      self.assertRegex(done.stdout, rf'{name}, flax / bn_jax: \d+\.\d+ ')
    if _TORCH:
      self.assertRegex(
        done.stdout,
        r'vgg11, the best PyTorch / bn_jax: .*; limit at least 1\.3: ',
      )

  def test_a_folder_against_records(self):
    done = _run(
      'input.py', '--part=folder', '--files=400', '--distinct=20', '--side=24',
      '--rounds=2', '--batches=4', '--workers', '0',
    )  # fmt: skip
    self.assertEqual(done.returncode, 0, done.stderr)
    self.assertRegex(
      done.stdout, r'0 workers: \d+\.\d+ of the first .* in 2 rounds'
    )

  def test_what_measures_cost(self):
    done = _run(*_ANALYSIS, '--only=speed', '--points=2,3')
    self.assertEqual(done.returncode, 0, done.stderr)
    ratio = r'(\d+\.\d+) \(.*\); limit at most '
    for line, limit in (
      ('a look at 2 points / 3 gradients', '1.05'),
      ('a look at 3 points / 4 gradients', '1.05'),
      ('peak memory, 3 points / 2 points', '1.05'),
      ('covariate shift of 2 layers / 4 gradients', '1.1'),
      ('covariate shift of 9 layers / 11 gradients', '1.1'),
      ('training with a look every 2 steps / without', '1.1'),
    ):
      found = re.search(f'{line}: {ratio}{limit}: (.*)', done.stdout)
      self.assertIsNotNone(found, f'{line}\n{done.stdout}')
      holds = float(found[1]) <= float(limit)
      self.assertEqual(found[2], 'holds' if holds else 'does not hold', line)
    # Whatever the size, looks leave training as it is.
    self.assertIn('bit-identical with and without looks: holds', done.stdout)

  @unittest.skipUnless(_TORCH, 'needs PyTorch')
  def test_values_of_measures_are_those_of_pytorch(self):
    done = _run(*_ANALYSIS, '--only=values')
    self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
    self.assertRegex(done.stdout, r'the largest of all: .*: holds')

  @unittest.skipIf(_TORCH, 'has PyTorch')
  def test_says_what_is_missing(self):
    done = _run(*_ANALYSIS, '--only=values')
    self.assertEqual(done.returncode, 1)
    self.assertRegex(done.stderr, r'^PyTorch is not installed .*torch==.*\n$')

  @unittest.skipUnless(_PEERS, 'needs the peers')
  def test_curvatures_are_those_of_the_peers(self):
    done = _run('curvature.py', '--only=values', '--networks=mlp')
    self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
    self.assertRegex(done.stdout, r'the largest of all: .*: holds')
    for peer in ('exact', 'hessian-eigenthings', 'curvlinops'):
      self.assertIn(f'largest eigenvalue, {peer}', done.stdout)

  @unittest.skipUnless(_PEERS, 'needs the peers')
  def test_curvature_prints_each_ratio_beside_its_limit(self):
    done = _run('curvature.py', '--only=speed', '--quick')
    self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
    for part, limits in (
      ('largest eigenvalue, batch, hessian-eigenthings', ['5.0', '1.5']),
      ('largest eigenvalue, running, curvlinops with eigsh', ['5.0', '1.5']),
      ('density, batch, hessian-eigenthings', ['5.0', '1.5']),
      ('density, running, curvlinops', ['5.0', '1.5']),
      ('surface, batch, loss-landscapes', ['10.0', '1.5']),
      ('largest eigenvalue, batch, matfree', ['1.0', '1.0']),
    ):
      ratio = r'\d+\.\d+ \(.*\); limit at least '
      self.assertEqual(
        re.findall(f'{part}: {ratio}([0-9.]+): ', done.stdout), limits, part
      )

  @unittest.skipIf(_TORCH, 'has PyTorch')
  def test_says_where_the_peers_come_from(self):
    done = _run('curvature.py')
    self.assertEqual(done.returncode, 1)
    self.assertRegex(done.stderr, r'^.*requirements-bench\.txt.*\n$')


class ByNameTest(absltest.TestCase):
  def test_every_script_has_a_line(self):
    done = _by_name('--help')
    self.assertEqual(done.returncode, 0, done.stderr)
    named = re.findall(r'^  (\w+)  ', done.stdout, re.MULTILINE)
    texts = {
      path.stem: path.read_text()
      for path in (strict.ROOT / 'benchmarks').glob('*.py')
    }
    scripts = [
      name
      for name, text in texts.items()
      if "if __name__ == '__main__':" in text
      and name != '__main__'
      and 'processes.serve(' not in text  # a side of another script
    ]
    self.assertEqual(named, sorted(scripts))

  def test_runs_one_with_its_flags(self):
    done = _by_name('train_step', '--help')
    self.assertEqual(done.returncode, 0, done.stderr)
    self.assertIn('--batch_size', done.stdout)

  def test_refuses_an_unknown_name(self):
    done = _by_name('curvatures')
    self.assertEqual(done.returncode, 1)
    self.assertRegex(done.stderr, r"^error: .*'curvatures'; allowed: .*\n$")


def _by_name(*words):
  return subprocess.run(
    [sys.executable, '-m', 'benchmarks', *words],
    cwd=strict.ROOT, capture_output=True, text=True,
  )  # fmt: skip


def _run(name, *flags):
  command = [sys.executable, f'benchmarks/{name}', '--batch_size=4', *flags]
  return subprocess.run(
    command, cwd=strict.ROOT, capture_output=True, text=True
  )


if __name__ == '__main__':
  absltest.main()
