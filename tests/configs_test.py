"""Every shipped config: it resolves, and its program has consistent shapes."""

import ast

import jax
import pytest
import strict
from absl.testing import absltest, parameterized

from bn_jax import assemble, measures, resolve
from bn_jax.commands import config_file

_FILES = [
  str(file.relative_to(strict.ROOT))
  for file in sorted((strict.ROOT / 'configs').glob('**/*.py'))
  if file.name != '__init__.py'
]


def resolved(file):
  """The runs of a config file, by name."""
  config = config_file.load(str(strict.ROOT / file)).to_dict()
  return resolve.experiment(config, {}).runs


def split_like(run):
  """The shapes of the training split of a run."""
  return assemble.source(run).shapes(run['batch_size'])


class ConfigsTest(parameterized.TestCase):
  @parameterized.parameters(*_FILES)
  def test_every_run_has_a_step_that_keeps_the_shapes(self, file):
    runs = resolved(file)
    self.assertNotEmpty(runs)
    for name, run in runs.items():
      with self.subTest(name):
        problem = assemble.problem(run)
        measures.check(run, problem)
        state = jax.eval_shape(problem.init, 0)
        after = jax.eval_shape(problem.step, state, split_like(run))
        self.assertEqual(after, state)

  def test_the_quickstart_lowers_for_tpu_and_cuda(self):
    self.check_lowering(['configs/quickstart.py'])

  @pytest.mark.slow  # traces every network with its gradient
  def test_every_step_lowers_for_tpu_and_cuda(self):
    self.check_lowering(_FILES)

  def check_lowering(self, files):
    """Each network with each norm once: with library convolutions."""
    seen = set()
    for file in files:
      for name, run in resolved(file).items():
        network = (run['model']['name'], run['norm']['name'])
        if network in seen:
          continue
        seen.add(network)
        convolves = 'lowering' in run['model']
        if convolves:
          run['model']['lowering'] = 'library'
        made = assemble.problem(run)
        state = jax.eval_shape(made.init, 0)
        with self.subTest(f'{file} {name}'):
          traced = assemble.step(run, made).trace(state, split_like(run))
          for platform in ('tpu', 'cuda'):
            text = traced.lower(lowering_platforms=(platform,)).as_text()
            product = 'convolution' if convolves else 'dot_general'
            self.assertIn(f'stablehlo.{product}', text)

  @parameterized.parameters(*_FILES)
  def test_says_what_it_is_and_how_it_is_started(self, file):
    text = (strict.ROOT / file).read_text()
    docstring = ast.get_docstring(ast.parse(text))
    if file.endswith('default.py'):
      self.assertIn('meaning', docstring)
      return
    self.assertIn(f'python train.py --config={file}', docstring)


if __name__ == '__main__':
  absltest.main()
