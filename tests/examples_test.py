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
SATURATED = """
from bn_jax.config import defaults

def get_config():
  config = defaults.get_config()
  config.model = dict(name='mlp', hidden=(8, 8), activation='relu')
  config.runs = defaults.runs(
    steep=dict(norm=dict(name='dyt', alpha_init=1e3)),
    gentle=dict(norm=dict(name='derf', alpha_init=1e-3)),
    dead=dict(norm=dict(name='group', scale_init=0)),
    units=dict(norm=dict(name='frn')),
  )
  config.steps, config.measures = 1, {}
  config.schedule.learning_rate = 1e-9
  return config
"""


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
    others = {'my_module', 'my_config', 'inference', 'saturation'}
    self.assertEqual(names, {*LOOPS, *others})


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


@pytest.mark.slow  # trains four networks, for a step
class SaturationTest(absltest.TestCase):
  def test_what_is_flat_and_what_is_dead(self):
    with tempfile.TemporaryDirectory() as folder:
      config = pathlib.Path(folder) / 'config.py'
      config.write_text(SATURATED)
      code, _, wrong = commanded.run(
        'train', f'--config={config}', f'--workdir={folder}/runs'
      )
      self.assertEqual(code, 0, wrong)
      names = ('steep', 'gentle', 'dead', 'units')
      paths = [f'{folder}/runs/{name}/seed0' for name in names]
      _, rows = run('saturation', *paths)
    shares = {}
    for row in rows[1:]:
      name, _, dead, flat = row.split(',')
      shares[name] = (float(dead), float(flat))
    self.assertEqual(shares['dead'], (1, 0))
    self.assertEqual(shares['gentle'][1], 0)
    self.assertGreater(shares['steep'][1], 0.9)
    self.assertLess(shares['steep'][0], 0.5)
    self.assertLess(shares['units'][0], 0.5)


@pytest.mark.slow  # trains two networks and takes a spectrum and a surface
class TourTest(absltest.TestCase):
  def test_its_cells_run_one_after_the_other(self):
    variables = runpy.run_path(str(strict.ROOT / 'docs' / 'gallery.py'))
    self.assertLen(variables['cells'](), 8)
    with (
      tempfile.TemporaryDirectory() as folder,
      contextlib.chdir(folder),
    ):
      names = variables['tour']()
      self.assertTrue(pathlib.Path('runs/tour/report.html').exists())
      variables['draw'](names, pathlib.Path(folder))
      self.assertLen(list(pathlib.Path(folder).glob('*.png')), 3)
    self.assertGreater(names['frame']['test/accuracy'].max(), 0.9)
    for name, (loss, params) in names['losses'].items():
      look = names['looks'][name]
      self.assertAlmostEqual(
        float(look['loss_0']), float(loss(params)), places=4
      )
      # No eigenvalue of the spectrum is above the largest.
      top = float(names['top'][name]['eigenvalues'][0])
      largest = float(names['spectra'][name]['largest'])
      self.assertBetween(largest, 0.9 * top, 1.01 * top)
    loss, params = names['losses']['batchnorm']
    middle = np.asarray(names['plane']['loss'])[7, 7]
    self.assertAlmostEqual(float(middle), float(loss(params)), places=4)


if __name__ == '__main__':
  absltest.main()
