"""Optimizers by flags, as a user types them."""

import contextlib
import pathlib
import tempfile

import jax
import numpy as np
import pytest
from absl.testing import absltest

from bn_jax.experiment import saved
from bn_jax.storage import records, run_folder
from tests.fixtures import commanded, same_bits, strict, trained, typed

LINES = (
  "config.model = dict(name='mlp', hidden=(8,))",
  'config.runs = defaults.runs(one={})',
  "config.measures = dict(test=config.measures['test'])",
  'config.measures.test.every_steps = 3',
  'config.batch_size = 32',
  'config.checkpoint.every_steps = 3',
)


def setUpModule():
  jax.config.update('jax_disable_most_optimizations', True)


def tearDownModule():
  jax.config.update('jax_disable_most_optimizations', False)


class TypedTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(contextlib.chdir(strict.ROOT))
    folder = self.enter_context(tempfile.TemporaryDirectory())
    self.folder = pathlib.Path(folder)
    self.enter_context(commanded.without_page())

  def train(self, *words, workdir='work'):
    """(folder of the run, rows of training, evaluations)"""
    file = self.folder / 'mine.py'
    file.write_text(typed.text(*LINES))
    place = self.folder / workdir
    code, _, wrong = commanded.run(
      'train', f'--config={file}', f'--workdir={place}', *words
    )
    self.assertEqual(code, 0, wrong)
    (folder,) = run_folder.find(place)
    rows = list(records.read(folder.scalars))
    by_name = {
      name: [row.values for row in rows if row.name == name]
      for name in ('train', 'test')
    }
    return folder, by_name['train'], by_name['test']

  def test_there_is_more_than_sgd(self):
    """One of the four stops of a new user."""
    folder, rows, _ = self.train(
      '--config.optimizer.name=adamw', '--config.schedule.learning_rate=1e-1',
      '--config.steps=30',
    )  # fmt: skip
    self.assertEqual(
      folder.manifest['config']['optimizer'],
      {'name': 'adamw', 'b1': 0.9, 'b2': 0.999, 'eps': 1e-8, 'nesterov': False,
       'weight_decay': 1e-4},
    )  # fmt: skip
    losses = [row['data_loss'] for row in rows]
    self.assertLess(np.mean(losses[-5:]), 0.7 * losses[0])
    for row in rows:
      self.assertAlmostEqual(row['learning_rate'], 0.1, places=6)
      self.assertGreater(row['update_norm'], 0)
      self.assertGreater(row['gradient_norm'], 0)

  @pytest.mark.slow  # compiles a step three times
  def test_goes_on_as_if_it_had_not_stopped(self):
    """With all that a state may hold; the average is evaluated as saved."""
    words = (
      '--config.optimizer.name=muon', '--config.optimizer.weight_decay=0.1',
      '--config.trainable=kernels,*norm*', '--config.rates.*scale=0.5',
      '--config.clip_norm=1', '--config.adaptive_clip=0.5', '--config.ema=0.7',
    )  # fmt: skip
    self.train(*words, '--config.steps=3', workdir='in_two')
    folder, _, _ = self.train(*words, '--config.steps=6', workdir='in_two')
    whole, _, tests = self.train(*words, '--config.steps=6')
    self.assertEqual(folder.scalars.read_bytes(), whole.scalars.read_bytes())
    states = [trained.newest(one.path)[-1] for one in (folder, whole)]
    same_bits.assert_same(*map(jax.device_get, states))
    self.assertGreater(float(states[0].average.weight), 2)

    said = {
      weights: commanded.run('evaluate', whole.path, f'--weights={weights}')[1]
      for weights in ('trained', 'ema')
    }
    self.assertIn(f'{100 * tests[-1]["accuracy"]:.2f} %', said['trained'])
    self.assertIn(f'{100 * tests[-1]["ema_accuracy"]:.2f} %', said['ema'])
    self.assertIn('averaged weights', said['ema'])

  def test_no_average_is_none_to_evaluate(self):
    folder, _, _ = self.train('--config.steps=1')
    code, _, wrong = commanded.run('evaluate', folder.path, '--weights=ema')
    self.assertEqual((code, wrong.count('\n')), (2, 1))
    self.assertIn('one/seed0 was trained without config.ema', wrong)
    self.assertEqual(saved.steps(folder), (0, 1))


if __name__ == '__main__':
  absltest.main()
