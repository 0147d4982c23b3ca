"""A working directory of runs with and without statistics (24.13)."""

import json
import pathlib
import shutil

import jax
import jax.numpy as jnp
from absl.testing import absltest, parameterized

from bn_jax import norms
from bn_jax.config import files, resolve
from bn_jax.experiment import experiment
from tests.fixtures import commanded, models_small, scratch, strict

run = commanded.run


class PopulationTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.trained = scratch.folder(cls) / 'trained'
    config = files.load(str(strict.FIXTURES / 'small_config.py'))
    config.unlock()
    config.runs = {
      name: {'norm': {'name': name}} for name in ('batch', 'none', 'spectral')
    }
    config.seeds = (0,)
    resolved = resolve.experiment(config.to_dict(), {})
    experiment.run(resolved, str(cls.trained))

  def setUp(self):
    super().setUp()
    self.workdir = pathlib.Path(self.create_tempdir()) / 'work'
    shutil.copytree(self.trained, self.workdir)

  def commands(self, where, **out):
    """The commands that take statistics of the population."""
    return (
      ('evaluate', where, '--statistics=population', *out.get('words', ())),
      ('analyze', where, '--measure=evaluation', '--statistics=population'),
    )

  def test_goes_on_with_those_that_have_them_and_names_the_others(self):
    code, said, wrong = run('recalibrate', self.workdir, '--batches=2')
    self.assertEqual(code, 0, wrong)
    self.assertIn('batch/seed0: test accuracy', said)
    for other in ('none', 'spectral'):
      self.assertRegex(wrong, f'{other}/seed0: .*keeps no.*; left out\n')
    out = self.workdir / 'out.json'
    for words in self.commands(self.workdir, words=(f'--out={out}',)):
      with self.subTest(words[0]):
        code, said, wrong = run(*words)
        self.assertEqual(code, 0, wrong)
        self.assertIn('batch/seed0', said)
        self.assertEqual(wrong.count('\n'), 2, wrong)
        for other in ('none', 'spectral'):
          self.assertRegex(wrong, f'{other}/seed0 keeps no statis.*; left out')
    self.assertEqual(
      list(json.loads(out.read_text())['networks']), ['batch/seed0']
    )

  def test_a_network_without_any_comes_once(self):
    code, said, wrong = run(
      'evaluate', self.workdir, '--statistics=running,test_batch'
    )
    self.assertEqual((code, wrong), (0, ''))
    kinds = [line.split()[:2] for line in said.splitlines()[2:]]
    self.assertEqual(
      kinds,
      [
        ['batch/seed0', 'running'],
        ['batch/seed0', 'test_batch'],
        ['none/seed0', 'any'],
        ['spectral/seed0', 'any'],
      ],
    )

  def test_where_none_has_them_it_says_how_to_make_them(self):
    for words in self.commands(self.workdir):
      with self.subTest(words[0]):
        code, said, wrong = run(*words)
        self.assertEqual((code, said, wrong.count('\n')), (4, '', 1), wrong)
        place = self.workdir / 'batch' / 'seed0'
        self.assertIn(f'make them: python -m bn_jax recalibrate {place}', wrong)

  def test_no_command_sends_to_another_that_refuses(self):
    for name in ('none', 'spectral'):
      place = self.workdir / name
      for words in (*self.commands(place), ('recalibrate', place)):
        with self.subTest(f'{words[0]} {name}'):
          code, said, wrong = run(*words)
          self.assertEqual((code, said, wrong.count('\n')), (2, '', 1), wrong)
          self.assertIn('keeps no', wrong)
          self.assertNotIn('bn_jax recalibrate', wrong)


class KeepsTest(parameterized.TestCase):
  @parameterized.parameters(*norms.NORMS)
  def test_says_whether_they_can_be_estimated(self, name):
    network = 'vgg11' if name == 'instance' else 'mlp'
    module, shape = models_small.make(network, name)
    x = jnp.zeros((4, *shape))
    variables = jax.eval_shape(
      lambda: module.init(jax.random.key(0), x, statistics='running')
    )
    # What norms.population_statistics makes its estimates of.
    _, new = jax.eval_shape(
      lambda variables: module.apply(
        variables, x, statistics='batch', mutable=['moments']
      ),
      variables,
    )
    self.assertEqual(
      norms.keeps_statistics(variables.get('batch_stats', {})),
      bool(new.get('moments')),
    )


if __name__ == '__main__':
  absltest.main()
