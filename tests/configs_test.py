"""Every shipped config: it resolves, and its program has consistent shapes."""

import ast
import functools
import time
from unittest import mock

import jax
import pytest
from absl.testing import absltest, parameterized

from bn_jax import models, norms
from bn_jax.config import build, resolve
from bn_jax.config import files as files_lib
from bn_jax.data import datasets
from bn_jax.experiment import probes
from tests.fixtures import strict

_FILES = [
  str(file.relative_to(strict.ROOT))
  for file in sorted((strict.ROOT / 'configs').glob('**/*.py'))
  if 'def get_config' in file.read_text()
]
_SIZED = [
  file
  for file in _FILES
  if 'get_config(size' in (strict.ROOT / file).read_text()
]
_SMALL = [f'{file}:small' for file in _SIZED]
_ALONE = [file for file in _FILES if file not in _SIZED]


@functools.cache
def resolved(file):
  """The runs of a config file, or FILE:SIZE, by name."""
  config = files_lib.load(str(strict.ROOT / file)).to_dict()
  return resolve.experiment(config, {}).runs


def as_steps(run):
  """A run with nothing that cannot change a shape: figures share the rest."""
  return run.replace(
    steps=1, log_every_steps=1, measures={}, weight_decay=0.0,
    schedule={**run.schedule, 'learning_rate': 0.1},
  )  # fmt: skip


@functools.cache
def check_step(run):
  """The step of a resolved run keeps the shapes of its state."""
  problem = build.problem(run)
  state = jax.eval_shape(problem.init, 0)
  assert jax.eval_shape(problem.step, state, split_like(run)) == state


@functools.cache
def check_measure(run, section):
  """A network can be measured as a section of its config asks."""
  probes.check(run.replace(measures={'it': section}), build.problem(run))


def split_like(run):
  """The shapes of the training split of a run."""
  return build.source(run).shapes(run.batch_size)


class ConfigsTest(parameterized.TestCase):
  @parameterized.parameters(*_FILES, *_SMALL)
  @pytest.mark.slow  # traces every network of every size
  def test_every_run_has_a_step_that_keeps_the_shapes(self, file):
    for name, run in resolved(file).items():
      with self.subTest(name):
        check_step(as_steps(run))
        for section in run.measures.values():
          check_measure(as_steps(run), section)

  def test_a_run_of_each_network_has_such_a_step(self):
    """The first run of any depth; the slow test above has all runs."""
    seen = set()
    for file in (*_ALONE, *_SMALL):
      for run in resolved(file).values():
        name = run.model['name'].rstrip('0123456789')
        if name not in seen:
          seen.add(name)
          with self.subTest(name):
            check_step(as_steps(run))
    self.assertGreater(len(seen), 4)

  @parameterized.parameters(*_FILES, *_SMALL)
  def test_every_run_resolves_to_a_network(self, file):
    self.assertNotEmpty(resolved(file))
    for run in resolved(file).values():
      norm = norms.make(**run.norm)
      models.make(**run.model, num_classes=10, norm=norm)

  @parameterized.parameters(*_FILES, *_SMALL)
  def test_resolves_in_a_second_and_without_data(self, file):
    with mock.patch.object(datasets, 'make', side_effect=AssertionError):
      for _ in range(3):
        begin = (
          time.process_time()
        )  # what others do at that time is not counted
        config = files_lib.load(str(strict.ROOT / file)).to_dict()
        self.assertNotEmpty(resolve.experiment(config, {}).runs)
        seconds = time.process_time() - begin
        # 0.05 s for 30 runs; what delays one seldom delays three.
        if seconds < 1:
          break
    self.assertLess(seconds, 1)

  @parameterized.parameters(*_SIZED)
  def test_the_paper_s_size_resolves_to_the_same_runs(self, file):
    paper, small = resolved(file), resolved(f'{file}:small')
    if 'place_of_bn' in file:  # in small without some norms
      paper = [name for name in paper if name in small]
    self.assertEqual(list(paper), list(small))

  @parameterized.parameters(*_SMALL)
  def test_a_size_that_was_run_names_its_lowering(self, file):
    """So that its numbers stay, whatever 'auto' is by then."""
    for run in resolved(file).values():
      self.assertNotEqual(run.model.get('lowering'), 'auto')

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
        network = (run.model['name'], run.norm['name'])
        if network in seen:
          continue
        seen.add(network)
        convolves = 'lowering' in run.model
        if convolves:
          run = run.replace(model={**run.model, 'lowering': 'library'})
        made = build.problem(run)
        state = jax.eval_shape(made.init, 0)
        with self.subTest(f'{file} {name}'):
          traced = build.step(run, made).trace(state, split_like(run))
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
