"""Other checkpoints for a measure: in training the first, afterwards any."""

import shutil
import tempfile
from unittest import mock

import jax
import numpy as np
from absl.testing import absltest

from bn_jax import analysis, errors
from bn_jax.config import files, resolve, run_config
from bn_jax.experiment import experiment
from bn_jax.storage import records, run_folder
from tests.fixtures import commanded, distance_measure, scratch, strict, trained

_NAME = 'distance'


def setUpModule():
  jax.config.update('jax_disable_most_optimizations', True)


def tearDownModule():
  jax.config.update('jax_disable_most_optimizations', False)


def resolved(hidden=(8,), to='0', steps=4):
  config = files.load(str(strict.FIXTURES / 'small_config.py'))
  config.model.hidden = hidden
  config.steps = steps
  config.checkpoint = {'every_steps': 2, 'keep': 3}
  config.measures = {
    'far': {
      'name': _NAME, 'data': 'current_batch', 'every_steps': 2, 'to': to,
    },
  }  # fmt: skip
  return resolve.experiment(config.to_dict(), {})


class StatesTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.workdir = scratch.folder(cls) / 'narrow'
    cls.enterClassContext(
      mock.patch.dict(analysis.MEASURES, {_NAME: distance_measure.KIND})
    )
    experiment.run(resolved(), str(cls.workdir))
    cls.seeds = [run_folder.at(cls.workdir, 'batchnorm', k) for k in (0, 1)]

  def setUp(self):
    super().setUp()
    results = self.seeds[0].path / 'analysis'
    self.addCleanup(shutil.rmtree, results, ignore_errors=True)

  def analyze(self, *words):
    return commanded.run(
      'analyze', self.seeds[0].path, f'--measure={_NAME}', *words
    )

  def distances(self, path=None):
    path = path or self.seeds[0].path / 'analysis' / _NAME / 'scalars.jsonl'
    return {
      r.step: (float(r.values['distance']), int(r.values['kept']))
      for r in records.read(path)
      if 'distance' in r.values
    }

  def of_states(self, *folders):
    """The distance between the newest states of two folders."""
    first, second = (
      jax.device_get(trained.newest(folder)[-1].params) for folder in folders
    )
    squares = jax.tree.map(lambda a, b: np.sum((a - b) ** 2), first, second)
    return np.sqrt(sum(jax.tree.leaves(squares)))

  def test_in_training_it_is_the_state_before_the_first_step(self):
    recorded = self.distances(self.seeds[0].scalars)
    self.assertEqual(list(recorded), [0, 2, 4])
    self.assertEqual(recorded[0], (0, 1))
    self.assertGreater(recorded[4][0], recorded[2][0])

  def test_afterwards_it_is_the_same(self):
    code, _, wrong = self.analyze('--to=0', '--steps=2,4')
    self.assertEqual(code, 0, wrong)
    recorded = self.distances(self.seeds[0].scalars)
    after = self.distances()
    self.assertEqual([after[t][0] for t in (2, 4)],
                     [recorded[t][0] for t in (2, 4)])  # fmt: skip
    self.assertEqual([after[t][1] for t in (2, 4)], [2, 3])

  def test_another_run_and_another_step(self):
    other = self.seeds[1].path
    code, _, wrong = self.analyze(f'--to={other}')
    self.assertEqual(code, 0, wrong)
    far, _ = self.distances()[4]
    np.testing.assert_allclose(
      far, self.of_states(self.seeds[0].path, other), rtol=1e-5
    )
    code, _, wrong = self.analyze(f'--to={other}:0', '--name=first')
    self.assertEqual(code, 0, wrong)
    code, _, wrong = self.analyze('--to=4', '--name=self')
    self.assertEqual(code, 0, wrong)
    path = self.seeds[0].path / 'analysis' / 'self' / 'scalars.jsonl'
    self.assertEqual(self.distances(path), {4: (0, 3)})

  def test_another_checkpoint_is_another_analysis(self):
    self.assertEqual(self.analyze('--to=2')[0], 0)
    code, _, wrong = self.analyze('--to=0')
    self.assertEqual(code, 2)
    self.assertIn('holds another analysis', wrong)

  def test_a_run_goes_on_with_its_first_state(self):
    with tempfile.TemporaryDirectory() as folder:
      experiment.run(resolved(steps=2), folder)
      experiment.run(resolved(), folder)
      seed = run_folder.at(folder, 'batchnorm', 0)
      self.assertEqual(
        self.distances(seed.scalars), self.distances(self.seeds[0].scalars)
      )

  def test_what_is_not_there_is_told_in_one_line(self):
    for to, text in {
      '3': 'has no checkpoint of step 3; allowed: 0 (made from the seed), 2, 4',
      'nowhere': 'nowhere holds no run',
      f'{self.workdir}': 'holds 2 runs; give one:',
      f'{self.seeds[1].path}:7': 'has no checkpoint of step 7',
    }.items():
      code, said, wrong = self.analyze(f'--to={to}')
      with self.subTest(to):
        self.assertEqual((code, said), (2, ''))
        self.assertIn(text, wrong)
        self.assertEqual(wrong.strip().count('\n'), 0)
    self.assertFalse((self.seeds[0].path / 'analysis').exists())

  def test_another_network_is_refused_before_it_is_read(self):
    with tempfile.TemporaryDirectory() as folder:
      experiment.run(resolved(hidden=(6,), steps=1), folder)
      other = run_folder.at(folder, 'batchnorm', 0)
      code, _, wrong = self.analyze(f'--to={other.path}')
    self.assertEqual(code, 2)
    self.assertRegex(
      wrong, r'is another network: \d+ of its parameters differ, the first is '
      r'\S+: there float32\[\d+(, \d+)?\], here float32\[',
    )  # fmt: skip

  def test_a_run_under_other_conditions_is_told(self):
    other = resolved(steps=1)
    (config,) = other.runs.values()
    norm = run_config.FrozenDict({**config.norm, 'epsilon': 0.01})
    with tempfile.TemporaryDirectory() as folder:
      runs = {'batchnorm': config.replace(norm=norm)}
      experiment.run(other._replace(runs=runs), folder)
      other = run_folder.at(folder, 'batchnorm', 0)
      with self.assertLogs('bn_jax', 'WARNING') as logs:
        code, _, wrong = self.analyze(f'--to={other.path}')
    self.assertEqual(code, 0, wrong)
    self.assertEqual(
      [record.getMessage() for record in logs.records],
      [f'{other.path}: config.norm.epsilon was 0.01, is 1e-05 here; it is '
       'looked at as this run is'],
    )  # fmt: skip

  def test_training_knows_no_other(self):
    with tempfile.TemporaryDirectory() as folder:
      for to in ('2', str(self.seeds[0].path), '*'):
        with self.assertRaisesRegex(
          errors.ConfigError, r'config\.measures\.far: .*allowed in training: 0'
        ):
          experiment.run(resolved(to=to), folder)


if __name__ == '__main__':
  absltest.main()
