"""Measures afterwards: what training recorded, and what it did not."""

import contextlib
import dataclasses
import io
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from unittest import mock

import jax
import numpy as np
import pytest
from absl.testing import absltest, parameterized

from bn_jax import __main__, analysis
from bn_jax.analysis import gradients
from bn_jax.config import files, resolve
from bn_jax.experiment import experiment
from bn_jax.storage import array_files, journal, records
from bn_jax.storage import files as files_lib
from bn_jax.trained import cost
from tests.fixtures import commanded, made_up, same_bits, strict

# Each as training takes it, by the keywords that both give.
MEASURES = {
  'along_gradient': {'curvature': True, 'per_layer': True},
  'covariate_shift': {'layers': ('dense1', 'logits')},
  'path': {'points': 3},
  'surface': {'points': 3, 'normalise': 'layer', 'statistics': 'running'},
  'evaluation': {'data': 'test'},
  'activations': {'data': 'test:50', 'statistics': 'running'},
  'batch_sharpness': {'data': 'train:32', 'batch_size': 16},
}
# Their data reach them as those of one above.
OTHERS = {
  'one_step_loss': {'learning_rates': (0.01, 1.0)},
  'signal': {},
  'weights': {},
  'gradient_confusion': {'batch_size': 4},
  'gradient_noise': {'batch_size': 4, 'penalised': False},
  'sharpness': {'ascent_steps': 2, 'adaptive': True},
}


def setUpModule():
  jax.config.update('jax_disable_most_optimizations', True)
  Trained.folder = tempfile.TemporaryDirectory()
  train(Trained.folder, MEASURES)


def train(folder, measures):
  config = files.load(str(strict.FIXTURES / 'small_config.py'))
  config.seeds = (0,)
  config.checkpoint = {'every_steps': 2, 'keep': 2}
  config.measures = {
    name: {'name': name, 'every_steps': 2, 'data': 'current_batch', **keywords}
    for name, keywords in measures.items()
  }
  experiment.run(resolve.experiment(config.to_dict(), {}), folder.name)


def tearDownModule():
  Trained.folder.cleanup()
  jax.config.update('jax_disable_most_optimizations', False)


class Trained(parameterized.TestCase):
  """A run whose analyses are gone after each test."""

  folder = None

  def setUp(self):
    super().setUp()
    self.place = pathlib.Path(self.folder.name) / 'batchnorm' / 'seed0'
    self.addCleanup(shutil.rmtree, self.place / 'analysis', ignore_errors=True)

  def run_command(self, *words):
    """(exit code, stdout, stderr) of python -m bn_jax analyze PLACE WORDS."""
    return commanded.run('analyze', self.place, *words)

  def found(self, name):
    """The records of an analysis, scalars or arrays."""
    folder = self.place / 'analysis' / name
    scalars = list(records.read(folder / 'scalars.jsonl'))
    return scalars or array_files.read(folder / 'arrays', name)

  def flags(self, name):
    """The flags of a measure of MEASURES or OTHERS."""
    for keyword, value in {**MEASURES, **OTHERS}[name].items():
      text = ','.join(map(str, value)) if isinstance(value, tuple) else value
      yield f'--{keyword}={text}'

  def check_recorded(self, name):
    """Bit for bit, at the start (from the seed) and at both checkpoints."""
    code, _, wrong = self.run_command(
      f'--measure={name}', '--steps=0,2,4', *self.flags(name)
    )
    self.assertEqual((code, wrong), (0, ''))
    want = [
      record
      for record in records.read(self.place / 'scalars.jsonl')
      if record.name == name
    ] or array_files.read(self.place / 'arrays', name)
    got = self.found(name)
    self.assertEqual([record.step for record in got], [0, 2, 4])
    for one, other in zip(got, want, strict=True):
      self.assertEqual(one.step, other.step)
      self.assertEqual(one.conditions, other.conditions)
      self.assertEqual(list(one.values), list(other.values))
      same_bits.assert_same(one.values, other.values)


@pytest.mark.slow  # trains with them
class OthersTest(Trained):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.folder = tempfile.TemporaryDirectory()
    cls.addClassCleanup(cls.folder.cleanup)
    train(cls.folder, OTHERS)

  @parameterized.parameters(*OTHERS)
  def test_equals_what_was_recorded_in_training(self, name):
    self.check_recorded(name)


class AfterwardsTest(Trained):
  @parameterized.parameters(*MEASURES)
  def test_equals_what_was_recorded_in_training(self, name):
    self.check_recorded(name)

  def test_all_are_those_that_were_kept(self):
    self.run_command('--measure=evaluation', '--steps=all')
    self.assertEqual([one.step for one in self.found('evaluation')], [2, 4])

  def test_a_second_time_there_is_nothing_to_do(self):
    words = ('--measure=evaluation', '--steps=4')
    self.run_command(*words)
    with mock.patch.object(records, 'write_all') as write:
      code, said, _ = self.run_command(*words)
    write.assert_not_called()
    self.assertEqual(code, 0)
    self.assertIn('nothing left to measure', said)
    self.run_command('--measure=evaluation', '--steps=2')
    self.assertEqual([one.step for one in self.found('evaluation')], [2, 4])

  def test_conditions_say_how_it_was_taken(self):
    self.run_command(
      '--measure=along_gradient', '--data=train:48', '--statistics=batch',
      '--group_size=16', '--step_sizes=0.1',
    )  # fmt: skip
    (record,) = self.found('along_gradient')
    self.assertEqual(
      record.conditions,
      {
        'statistics': 'batch', 'data': 'train:48', 'examples': 48,
        'precision': 'highest', 'group_size': 16, 'chunk_size': 16,
      },
    )  # fmt: skip
    self.assertEqual(record.values['step_size'], [0.1])

  def test_chunks_are_the_whole(self):
    for chunk, name in (('None', 'whole'), ('20', 'chunks')):
      code, *_ = self.run_command(
        '--measure=along_gradient', '--data=train:50', '--statistics=running',
        f'--chunk_size={chunk}', f'--name={name}', '--curvature',
      )  # fmt: skip
      self.assertEqual(code, 0)
    (whole,), (parts,) = self.found('whole'), self.found('chunks')
    for name, value in whole.values.items():
      np.testing.assert_allclose(parts.values[name], value, rtol=1e-3)

  def test_population_statistics(self):
    words = ('--measure=evaluation', '--statistics=population', '--name=p')
    code, _, wrong = self.run_command(*words)
    self.assertEqual(code, 4)
    self.assertIn('python -m bn_jax recalibrate', wrong)
    with contextlib.redirect_stdout(io.StringIO()):
      made = __main__.main(
        ['bn_jax', 'recalibrate', str(self.place), '--batches=5']
      )
    self.addCleanup(shutil.rmtree, self.place / 'population')
    self.assertEqual(made, 0)
    code, *_ = self.run_command(*words)
    self.assertEqual(code, 0)
    (record,) = self.found('p')
    self.assertEqual(record.conditions['statistics'], 'population')
    facts = files_lib.read_json(self.place / 'population.json')
    self.assertAlmostEqual(
      record.values['loss'], facts['test']['population']['loss'], places=5
    )
    facts['batches'] = 6  # as if it had been made anew
    files_lib.write_json(self.place / 'population.json', facts)
    code, _, wrong = self.run_command(*words)
    (self.place / 'population.json').unlink()
    self.assertEqual(code, 2)
    self.assertIn(
      'another analysis: population.batches was 5, is 6; give', wrong
    )
    code, _, wrong = self.run_command(*words, '--steps=all')
    self.assertEqual(code, 2)
    self.assertIn('has those of step 4, its newest; allowed: --steps=l', wrong)

  def test_the_page_that_is_there_shows_it(self):
    page = pathlib.Path(Trained.folder.name, 'report.html')
    page.touch()
    words = ['analyze', str(self.place), '--measure=along_gradient']
    with commanded.unrendered(), contextlib.redirect_stdout(io.StringIO()):
      __main__.main(['bn_jax', *words, '--steps=all'])
    title = '>Loss landscape along the gradient, at checkpoints<'
    self.assertIn(title, page.read_text())
    page.unlink()  # the other tests need none


class Killed(BaseException):
  """Nothing catches it, as nothing catches SIGKILL."""


class RestartTest(Trained):
  def test_to_the_same_bits_after_every_chunk(self):
    words = ('--step_sizes=0.1', '--data=train:32', '--curvature')
    self.check_restarts('along_gradient', words, 5)

  @pytest.mark.slow
  def test_other_measures_too(self):
    words = ('--step_sizes=0.1,0.2', '--data=train:48', '--curvature')
    self.check_restarts('along_gradient', words, 11)
    self.check_restarts('covariate_shift', ('--data=train:48',), 14)
    words = ('--data=train', '--steps=2,4')
    self.check_restarts('evaluation', words, 20)

  def check_restarts(self, name, words, least):
    """Kills it after each file that it keeps, until it is done."""
    words = (f'--measure={name}', *words)
    if name != 'evaluation':
      words += ('--group_size=16',)
    self.run_command(*words, f'--name={name}_at_once')
    (whole,) = (self.place / 'analysis' / f'{name}_at_once').glob(
      'scalars.jsonl'
    )
    counted, real = [], gradients._value_and_gradient

    def count(*arguments):
      counted.append(1)
      return real(*arguments)

    keep, kills = journal.Journal.keep, 0

    def dies(self, *arguments):
      keep(self, *arguments)
      raise Killed

    count.lower = real.lower
    with mock.patch.object(gradients, '_value_and_gradient', count):
      while True:
        try:
          with mock.patch.object(journal.Journal, 'keep', dies):
            self.run_command(*words, f'--name={name}_killed')
          break
        except Killed:
          kills += 1
        self.assertLess(kills, 100)
    self.assertGreaterEqual(kills, least)
    folder = self.place / 'analysis' / f'{name}_killed'
    self.assertEqual(
      (folder / 'scalars.jsonl').read_text().replace('killed', 'at_once'),
      whole.read_text(),
    )
    self.assertFalse((folder / 'partial').exists())
    # Nothing was computed twice: each kill came after something was kept.
    self.assertLessEqual(len(counted), kills + 1)

  @pytest.mark.slow
  def test_kill_9_at_any_time(self):
    words = (
      '--measure=along_gradient', '--data=train:1440', '--group_size=16',
      '--step_sizes=0.1,0.2,0.3,0.4', '--steps=2,4',
    )  # fmt: skip
    command = [sys.executable, '-m', 'bn_jax', 'analyze', str(self.place)]

    def start(name):
      return subprocess.Popen(
        [*command, *words, f'--name={name}'],
        cwd=strict.ROOT,
        stdout=subprocess.DEVNULL,
      )

    self.assertEqual(start('at_once').wait(), 0)
    partial = self.place / 'analysis' / 'killed' / 'partial'

    def kept():
      return {file: file.stat().st_mtime_ns for file in partial.glob('*/*.npz')}

    generator, kills, code = np.random.default_rng(0), 0, -signal.SIGKILL
    while code == -signal.SIGKILL and kills < 60:
      before, process = kept(), start('killed')
      while process.poll() is None:
        with contextlib.suppress(FileNotFoundError):  # it may drop one now
          if kept() != before and process.poll() is None:
            time.sleep(generator.uniform(0, 0.5))
            process.kill()
            kills += 1
            break
        time.sleep(0.01)
      code = process.wait()
    self.assertEqual(code, 0)
    self.assertGreaterEqual(kills, 3)
    got, want = (
      (self.place / 'analysis' / name / 'scalars.jsonl').read_text()
      for name in ('killed', 'at_once')
    )
    self.assertEqual(got.replace('killed', 'at_once'), want)

  def test_a_damaged_journal_is_no_result(self):
    self.run_command('--measure=along_gradient')
    folder = self.place / 'analysis' / 'along_gradient' / 'partial' / '4'
    (folder.parents[1] / 'scalars.jsonl').unlink()
    folder.mkdir(parents=True)
    (folder / 'point_0.npz').write_bytes(b'PK\x03\x04 torn')
    code, _, wrong = self.run_command('--measure=along_gradient')
    self.assertEqual(code, 6)
    self.assertIn('point_0.npz is damaged', wrong)
    self.assertIn('to begin again', wrong)


class PlanTest(Trained):
  @parameterized.parameters(
    ('along_gradient', ('--curvature', '--data=train:64', '--group_size=16'),
     '40 gradients, 8 Hessian products (4 chunks x 2 checkpoints)'),
    ('covariate_shift', ('--layers=logits',), '6 gradients (1 chunk x 2'),
    ('covariate_shift', (), '8 gradients (1 chunk x 2'),
    ('one_step_loss', (), '2 gradients, 22 values (1 chunk x 2'),
    ('spectral_density', ('--order=100000000', '--samples=2'),
     '2,472 Hessian products (1 chunk x 2'),
    ('top_eigenvalues', (), ', with 40 vectors of their size ('),
    ('trace', ('--squared',), ', with 30 vectors of their size ('),
    ('evaluation', ('--data=train',), '30 values (15 chunks x 2'),
  )  # fmt: skip
  def test_says_what_it_costs_and_writes_nothing(self, name, words, want):
    code, said, wrong = self.run_command(
      f'--measure={name}', '--steps=all', '--plan', *words
    )
    self.assertEqual((code, wrong), (0, ''))
    self.assertIn(want, said)
    for row in ('evaluations', 'memory', 'time', 'results'):
      self.assertIn(f'\n  {row}', said)
    self.assertFalse((self.place / 'analysis').exists())

  def test_what_takes_days_is_refused_unless_asked_for(self):
    words = ('--measure=surface', '--dimensions=1', '--points=400')
    # A gradient of an hour; a loss is a third of it.
    with mock.patch.object(cost, '_trial', return_value=(60 * 60.0, 1)):
      code, said, wrong = self.run_command(*words)
      self.assertEqual((code, said), (2, ''))
      self.assertRegex(
        wrong,
        r'surface would take about 5.6 days: 401 values \(1 chunk x 1 check'
        r'point\), 3.6e\+06 ms a gradient or pass; allowed: .* or --yes\n$',
      )
      self.assertFalse((self.place / 'analysis').exists())
      code, _, wrong = self.run_command(*words, '--yes')
    self.assertEqual((code, wrong), (0, ''))
    self.assertEqual(self.found('surface')[0].values['loss'].shape, (400,))

  def test_little_is_not_tried(self):
    with mock.patch.object(cost, '_trial', side_effect=AssertionError):
      code, _, wrong = self.run_command('--measure=surface', '--points=3')
    self.assertEqual((code, wrong), (0, ''))

  def test_costs_in_words_are_not_estimated(self):
    in_words = dataclasses.replace(
      analysis.MEASURES['weights'], cost=lambda section, layers: 'a look each'
    )
    with mock.patch.dict(analysis.MEASURES, weights=in_words):
      code, said, _ = self.run_command('--measure=weights', '--plan')
    self.assertEqual(code, 0)
    self.assertRegex(said, 'evaluations +a look each')
    self.assertRegex(said, 'time +not estimated')

  def test_a_network_that_a_measure_cannot_look_at_is_refused(self):
    code, _, wrong = self.run_command('--measure=jacobian', '--plan')
    self.assertEqual(code, 2)
    self.assertIn('there is none behind dense1', wrong)

  def test_counts_what_is_missing(self):
    self.run_command('--measure=weights')
    _, said, _ = self.run_command('--measure=weights', '--plan', '--steps=all')
    self.assertIn('2 gradients (1 chunk x 1 checkpoint)', said)
    _, said, _ = self.run_command('--measure=weights', '--plan')
    self.assertIn('nothing left to measure', said)


class WrongTest(Trained):
  def test_another_analysis_under_one_name_is_refused(self):
    self.run_command('--measure=weights')
    before = (self.place / 'analysis/weights/scalars.jsonl').read_bytes()
    for words, message in (
      (('--data=train:16',), "measure.data was 'current_batch', is 'train:16'"),
      (('--layers=logits',), 'layers'),
    ):
      code, _, wrong = self.run_command('--measure=weights', *words)
      self.assertEqual(code, 2)
      self.assertIn('holds another analysis', wrong)
      self.assertIn(message, wrong)
      self.assertIn('give another --name', wrong)
    after = (self.place / 'analysis/weights/scalars.jsonl').read_bytes()
    self.assertEqual(after, before)

  def test_another_measure_under_one_name_is_refused(self):
    self.run_command('--measure=signal', '--name=x')
    code, _, wrong = self.run_command('--measure=weights', '--name=x')
    self.assertEqual(code, 2)
    self.assertIn("measure.name was 'signal', is 'weights'", wrong)

  def test_what_failed_before_it_began_blocks_no_name(self):
    with mock.patch.object(
      journal.Journal, 'kept', side_effect=ValueError('no')
    ):
      code, *_ = self.run_command('--measure=weights', '--name=x')
    self.assertEqual(code, 2)
    code, *_ = self.run_command('--measure=signal', '--name=x')
    self.assertEqual(code, 0)

  def test_other_checkpoints_keep_their_journals(self):
    words = ('--measure=along_gradient', '--name=x')
    keep = journal.Journal.keep

    def dies(self, *arguments):
      keep(self, *arguments)
      raise Killed

    with (
      mock.patch.object(journal.Journal, 'keep', dies),
      self.assertRaises(Killed),
    ):
      self.run_command(*words, '--steps=4')
    self.run_command(*words, '--steps=2')
    partial = self.place / 'analysis' / 'x' / 'partial'
    self.assertTrue((partial / '4' / 'point_0.npz').exists())
    self.run_command(*words, '--steps=4')
    self.assertFalse(partial.exists())

  def test_a_checkpoint_of_another_network(self):
    changes = {
      self.place / 'manifest.json': 'config.model.hidden',
      self.place.parents[1] / 'experiment.json':
        'runs.batchnorm.model.hidden',
    }  # fmt: skip
    for path, key in changes.items():
      self.addCleanup(path.write_text, path.read_text())
      content = made_up.changed(files_lib.read_json(path), key, [9])
      files_lib.write_json(path, content)
    code, _, wrong = self.run_command('--measure=weights')
    self.assertEqual(code, 4)
    self.assertIn('has another config.model.hidden than', wrong)

  def test_more_than_fits_is_refused_with_the_way_out(self):
    words = ('--measure=weights', '--data=train:1000')
    with mock.patch('bn_jax.experiment.cost.memory_left', lambda device: 2**16):
      code, _, wrong = self.run_command(*words)
      self.assertEqual(code, 2)
      self.assertIn('group_size=10', wrong)
      self.assertIn("statistics='running'", wrong)
      code, *_ = self.run_command(*words, '--statistics=running')
    self.assertEqual(code, 0)
    (record,) = self.found('weights')
    self.assertBetween(record.conditions['chunk_size'], 1, 999)

  def test_help(self):
    code, said, _ = self.run_command('--help')
    self.assertEqual(code, 0)
    self.assertIn('--measure=NAME', said)
    code, said, _ = self.run_command('--measure=covariate_shift', '--help')
    self.assertEqual(code, 0)
    self.assertIn('--nonorm_parameters turns it off', said)


if __name__ == '__main__':
  absltest.main()
