"""The examples: short, and run as their docstrings say."""

import contextlib
import io
import pathlib
import runpy
import sys
import tempfile
from unittest import mock

import jax
import numpy as np
import pytest
from absl.testing import absltest, parameterized

from bn_jax import analysis
from tests.fixtures import commanded, same_bits, strict

EXAMPLES = strict.ROOT / 'examples'
LOOPS = ('equinox_loop', 'my_loop', 'nnx_loop')


def run(name, *arguments):
  """(its variables, its output as words) of an example."""
  said = io.StringIO()
  words = [str(EXAMPLES / f'{name}.py'), *map(str, arguments)]
  path = [str(EXAMPLES), *sys.path]
  with (
    mock.patch.object(sys, 'argv', words),
    mock.patch.object(sys, 'path', path),
    contextlib.redirect_stdout(said),
  ):
    variables = runpy.run_path(words[0], run_name='__main__')
  return variables, said.getvalue().splitlines()


class ShortTest(absltest.TestCase):
  def test_all_are_under_forty_lines(self):
    for file in EXAMPLES.glob('*.py'):
      self.assertLess(len(file.read_text().splitlines()), 40, file.name)

  def test_all_are_run_here(self):
    names = {file.stem for file in EXAMPLES.glob('*.py')}
    self.assertEqual(names, {*LOOPS, 'my_module', 'my_config', 'inference'})


class LoopTest(parameterized.TestCase):
  @parameterized.parameters(*LOOPS)
  @pytest.mark.slow  # five seconds each
  def test_measures_the_network_that_it_trains(self, name):
    looks = []
    along_gradient = analysis.along_gradient

    def look(loss, params, step_sizes):
      result = along_gradient(loss, params, step_sizes)
      # The look is at the parameters of that step: its loss is their loss.
      looks.append((float(jax.jit(loss)(params)), result['loss_0']))
      return result

    with mock.patch.object(analysis, 'along_gradient', look):
      variables, rows = run(name)
    self.assertLen(rows, 3)
    losses = [float(row.split()[1]) for row in rows]
    self.assertLess(losses[-1], 0.4 * losses[0])
    np.testing.assert_allclose(*zip(*looks), rtol=1e-5)
    # Looked at or not, training is the same.
    with mock.patch.object(analysis, 'along_gradient') as none:
      none.return_value = {'loss_0': 0, 'beta': np.zeros(1)}
      again, _ = run(name)
    self.assertEqual(none.call_count, 3)
    same_bits.assert_same(
      jax.tree.leaves(again['params']), jax.tree.leaves(variables['params'])
    )


@pytest.mark.slow  # trains three networks
class OwnTest(absltest.TestCase):
  def test_own_network_and_data_then_inference(self):
    with tempfile.TemporaryDirectory() as folder:
      workdir = pathlib.Path(folder) / 'work'
      code, _, wrong = commanded.run(
        'train', f'--config={EXAMPLES}/my_config.py', f'--workdir={workdir}',
        '--config.steps=60',
      )  # fmt: skip
      self.assertEqual(code, 0, wrong)
      self.assertEqual(
        {file.name for file in workdir.iterdir() if file.is_dir()},
        {'batch', 'group', 'none', 'figures'},
      )
      _, rows = run('inference', workdir / 'batch')
      self.assertStartsWith(rows[0], 'batch, step 60:')
      accuracy = float(rows[1].split()[1])
      self.assertGreater(accuracy, 0.75)
      code, said, _ = commanded.run('evaluate', workdir / 'batch')
      self.assertIn(f'{100 * accuracy:.2f} %', said)
      code, _, wrong = commanded.run(
        'analyze', workdir / 'group', '--measure=covariate_shift'
      )
      self.assertEqual(code, 0, wrong)


if __name__ == '__main__':
  absltest.main()
