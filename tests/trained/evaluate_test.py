import contextlib
import functools
import io
import json
import pathlib
import shutil
import tempfile

import jax
import numpy as np
import pytest
from absl.testing import absltest, parameterized

from bn_jax import __main__, errors
from bn_jax.config import build, files, resolve
from bn_jax.data import corruptions
from bn_jax.experiment import experiment
from bn_jax.storage import files as files_lib
from bn_jax.storage import run_folder
from tests.fixtures import commanded, same_bits, strict, trained


def run(*words):
  """(exit code, stdout, stderr) of python -m bn_jax evaluate WORDS."""
  return commanded.run('evaluate', *words)


class WrongTest(parameterized.TestCase):
  def test_help(self):
    code, said, _ = run('--help')
    self.assertEqual(code, 0)
    self.assertIn('--crops={1,144}', said)


def setUpModule():
  jax.config.update('jax_disable_most_optimizations', True)


def tearDownModule():
  _shared.close()
  jax.config.update('jax_disable_most_optimizations', False)


_shared = contextlib.ExitStack()


@functools.cache
def _folder():
  folder = _shared.enter_context(tempfile.TemporaryDirectory())
  return pathlib.Path(folder).resolve()


class Trained(absltest.TestCase):
  """Two seeds of a small network, trained once for all tests."""

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.folder = _folder()
    cls.workdir = cls.folder / 'workdir'
    if not cls.workdir.exists():
      cls.train('workdir')

  @classmethod
  def train(cls, name, **overrides):
    config = files.load(str(strict.FIXTURES / 'small_config.py'))
    config.data_dir = str(cls.folder / 'data')
    config.unlock()
    config.update_from_flattened_dict(overrides)
    experiment.run(
      resolve.experiment(config.to_dict(), {}), str(cls.folder / name)
    )
    return cls.folder / name


class EvaluateTest(Trained):
  def evaluated(self, *words):
    out = self.folder / 'out.json'
    code, said, wrong = run(*words, f'--out={out}')
    self.assertEqual(code, 0, wrong)
    return json.loads(out.read_text()), said

  def probabilities(self, statistics='running'):
    """[2, N, 10] in float64, and the labels."""
    found = []
    for folder in run_folder.find(self.workdir):
      _, config, made, state = trained.newest(folder.path)
      test = build.source(config).load().test
      batch = test.first(test.num_examples)
      logits = np.float64(made.outputs(state, batch, statistics=statistics))
      exponents = np.exp(logits - logits.max(-1, keepdims=True))
      found.append(exponents / exponents.sum(-1, keepdims=True))
    return np.stack(found), np.asarray(batch.labels)

  def assert_row(self, row, probabilities, labels):
    own = probabilities[np.arange(len(labels)), labels]
    rank = (probabilities > own[:, None]).sum(-1)
    self.assertAlmostEqual(row['accuracy'], (rank == 0).mean())
    self.assertAlmostEqual(row['top5'], (rank < 5).mean())
    self.assertAlmostEqual(row['loss'], -np.log(own).mean(), places=5)
    self.assertEqual(row['count'], len(labels))

  def test_each_and_together_by_hand(self):
    facts, said = self.evaluated(self.workdir)
    probabilities, labels = self.probabilities()
    for seed in (0, 1):
      row = facts['networks'][f'batchnorm/seed{seed}']
      self.assert_row(row, probabilities[seed], labels)
    self.assert_row(facts['together'], probabilities.mean(0), labels)
    self.assertIn('digits test, 355 examples, 1 crop, running', said)
    self.assertIn(f'{100 * facts["together"]["accuracy"]:.2f} %', said)

  def test_of_one_network_nothing_is_taken_together(self):
    facts, said = self.evaluated(self.workdir / 'batchnorm' / 'seed1')
    self.assertNotIn('together', facts)
    self.assertNotIn('together', said)

  def test_the_statistics_of_each_batch(self):
    facts, _ = self.evaluated(
      self.workdir, '--statistics=batch', '--batch_size=355'
    )
    probabilities, labels = self.probabilities('batch')
    self.assert_row(
      facts['networks']['batchnorm/seed0'], probabilities[0], labels
    )
    running, _ = self.evaluated(self.workdir)
    self.assertNotEqual(facts['together'], running['together'])

  def test_several_statistics_side_by_side(self):
    words = ('running', 'test_batch', 'mixture:0', 'mixture:1e9')
    facts, said = self.evaluated(
      self.workdir / 'batchnorm' / 'seed0', f'--statistics={",".join(words)}',
      '--batch_size=100',  # the last batch has 55, and padding
    )  # fmt: skip
    (network,) = facts['networks'].values()
    loss = {k: row['clean']['loss'] for k, row in network['statistics'].items()}
    self.assertCountEqual(loss, words)
    self.assertAlmostEqual(loss['mixture:0'], loss['test_batch'], places=5)
    self.assertAlmostEqual(loss['mixture:1e9'], loss['running'], places=5)
    self.assertNotAlmostEqual(loss['running'], loss['test_batch'], places=3)
    self.assertRegex(said, 'seed0 +mixture:0 +[0-9.]+ %\n')

  def test_corrupted_images_by_hand(self):
    place = self.workdir / 'batchnorm' / 'seed0'
    facts, said = self.evaluated(
      place, '--statistics=running,test_batch', '--corruption=snow:5,contrast',
      '--examples=60', '--batch_size=60',
    )  # fmt: skip
    network = facts['networks']['batchnorm/seed0']['statistics']
    _, config, problem, state = trained.newest(place)
    examples = build.source(config).load().test.head(60)
    images = np.asarray(examples.split.images)
    snowy = examples.with_images(corruptions.corrupted(images, 'snow', 5))
    for statistics, word in (('running', 'running'), ('batch', 'test_batch')):
      batch = snowy.first(60)
      outputs = problem.outputs(state, batch, statistics=statistics)
      want = np.mean(np.argmax(outputs, -1) == np.asarray(batch.labels))
      row = network[word]['corrupted']['snow']['5']
      self.assertAlmostEqual(row['accuracy'], want)
      self.assertEqual(row['count'], 60)
      kinds = [
        row['accuracy']
        for rows in network[word]['corrupted'].values()
        for row in rows.values()
      ]
      self.assertLen(kinds, 6)  # snow of one strength, contrast of five
      self.assertAlmostEqual(network[word]['mean']['accuracy'], np.mean(kinds))
    self.assertIn('digits test, 60 examples, accuracy', said)
    self.assertRegex(said, r'\ncontrast( +[0-9.]+ %){2}\n')

  def test_population_statistics_are_those_of_recalibrate(self):
    place = self.workdir / 'batchnorm' / 'seed0'
    code, _, wrong = run(place, '--statistics=population')
    self.assertEqual(code, errors.CheckpointError.exit_code)
    self.assertIn('python -m bn_jax recalibrate', wrong)
    with contextlib.redirect_stdout(io.StringIO()):
      code = __main__.main(['bn_jax', 'recalibrate', str(place)])
    self.assertEqual(code, 0)
    facts, _ = self.evaluated(place, '--statistics=population')
    want = files_lib.read_json(place / 'population.json')['test']['population']
    row = facts['networks']['batchnorm/seed0']
    self.assertAlmostEqual(row['accuracy'], want['accuracy'])
    self.assertAlmostEqual(row['loss'], want['loss'], places=5)

  @pytest.mark.slow  # evaluates 144 times as much
  def test_144_crops_of_every_image(self):
    facts, said = self.evaluated(self.workdir, '--crops=144')
    self.assertEqual(facts['together']['count'], 355)
    self.assertIn('144 crops', said)
    again, _ = self.evaluated(self.workdir, '--crops=144', '--batch_size=1440')
    for name, value in facts['together'].items():
      self.assertAlmostEqual(value, again['together'][name], places=5)

  def test_batches_that_are_no_whole_groups(self):
    other = self.train('groups', **{'norm.group_size': 4, 'seeds': (0,)})
    code, _, wrong = run(other, '--statistics=batch', '--batch_size=6')
    self.assertEqual(code, 2)
    self.assertIn('batches of 6', wrong)
    self.assertEqual(wrong.count('\n'), 1)

  def test_data_that_were_moved(self):
    (self.folder / 'data').rename(self.folder / 'moved')
    self.addCleanup((self.folder / 'moved').rename, self.folder / 'data')
    facts, _ = self.evaluated(
      self.workdir, f'--data_dir={self.folder / "moved"}'
    )
    self.assertEqual(facts['together']['count'], 355)

  def test_population_statistics_of_an_earlier_step(self):
    workdir = self.train('earlier', seeds=(0,), steps=2)
    with contextlib.redirect_stdout(io.StringIO()):
      __main__.main(['bn_jax', 'recalibrate', str(workdir), '--batches=2'])
    self.train('earlier', seeds=(0,))
    code, _, wrong = run(workdir, '--statistics=population')
    self.assertEqual(code, errors.CheckpointError.exit_code)
    self.assertIn('is of step 2, the network of step 4', wrong)

  def test_a_run_twice(self):
    code, _, wrong = run(self.workdir, self.workdir / 'batchnorm' / 'seed0')
    self.assertEqual(code, 2)
    self.assertIn('given twice', wrong)

  def test_runs_over_other_data(self):
    other = self.train('sixteen', **{'data.resolution': 16, 'seeds': (0,)})
    code, _, wrong = run(self.workdir, other)
    self.assertEqual(code, 2)
    one, two = (f / 'batchnorm' / 'seed0' for f in (self.workdir, other))
    self.assertIn(f'{one} and {two} differ in config.data.resolution: None and '
                  '16; give runs over the same data', wrong)  # fmt: skip


class InheritTest(Trained):
  """Runs that begin with the parameters of another."""

  def parameters(self, workdir, seed=0):
    *_, state = trained.newest(workdir / 'batchnorm' / f'seed{seed}')
    return jax.device_get((state.params, state.batch_stats))

  def test_every_seed_begins_there(self):
    """With its parameters and its statistics."""
    self.begun('seeds', seeds=(0, 1))
    want = self.parameters(self.workdir)
    for seed in (0, 1):
      got = self.parameters(self.folder / 'seeds', seed)
      for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-9)

  def test_what_goes_on_needs_no_more_where_it_began(self):
    source = self.folder / 'source' / 'batchnorm' / 'seed0'
    shutil.copytree(self.workdir / 'batchnorm' / 'seed0', source)
    self.begun('goes_on', init_from=str(source))
    shutil.rmtree(source)
    self.begun('goes_on', init_from=str(source), steps=2)
    with self.assertRaisesRegex(errors.ConfigError, 'holds no run'):
      self.begun('begins', init_from=str(source))

  def begun(self, name, **overrides):
    """Parameters of a run that has made hardly a step."""
    return self.parameters(
      self.train(
        name,
        **{
          'init_from': str(self.workdir / 'batchnorm' / 'seed0'),
          'steps': 1, 'seeds': (0,), 'schedule.learning_rate': 1e-12,
          'norm.frozen': True, **overrides,
        },
      )
    )  # fmt: skip

  def test_the_head_begins_anew_where_the_classes_differ(self):
    got = self.begun('fewer', **{'data.classes': (3, 5)})
    want = self.parameters(self.workdir)
    self.assertEqual(got[0]['logits']['kernel'].shape, (8, 2))
    np.testing.assert_allclose(
      got[0]['dense1']['kernel'], want[0]['dense1']['kernel'], atol=1e-9
    )
    same_bits.assert_same(got[1], want[1])

  def test_another_network_is_refused_before_anything_is_written(self):
    with self.assertRaisesRegex(
      errors.CheckpointError, 'dense1/kernel: there .*64, 8.*here .*64, 9.*may'
    ):
      self.begun('wider', **{'model.hidden': (9,)})
    self.assertFalse((self.folder / 'wider').exists())

  def test_several_runs_are_refused(self):
    with self.assertRaisesRegex(errors.ConfigError, 'holds 2 runs; give one'):
      self.begun('several', init_from=str(self.workdir))


if __name__ == '__main__':
  absltest.main()
