import json

import jax
from absl.testing import absltest

from bn_jax import errors
from bn_jax.config import build, files, resolve
from bn_jax.data import datasets
from bn_jax.experiment import run, together
from bn_jax.host import code, environment
from bn_jax.storage import checkpoint, records, run_folder
from bn_jax.storage import files as files_lib
from tests.fixtures import same_bits, scratch, strict

_CONFIG = strict.FIXTURES / 'dense_config.py'


def setUpModule():
  # Numbers do not matter here, compilation takes the time.
  jax.config.update('jax_disable_most_optimizations', True)


def tearDownModule():
  jax.config.update('jax_disable_most_optimizations', False)


class TrainerTest(absltest.TestCase):
  """One network on digits, compiled once for all of these."""

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.folder = scratch.folder(cls)
    config = files.load(str(_CONFIG)).to_dict()
    cls.config = resolve.experiment(config, {}).runs['batchnorm']
    dataset = datasets.make('digits', data_dir=cls.folder).load()
    problem = build.problem(cls.config)
    cls.program = run.program(cls.config, problem, dataset)
    cls.whole = cls.train('whole')

  @classmethod
  def train(cls, name, program=None, stopped=lambda: False, seed=0):
    folder = cls.at(name, seed)
    program = program or cls.program
    group = together.Group([folder])
    run.train({folder.run: program}, group, stopped=stopped)
    return folder.path

  @classmethod
  def at(cls, name, seed=0):
    return run_folder.RunFolder(cls.folder / name, 'batchnorm', seed)

  def state(self, directory, step=6):
    checkpoints = checkpoint.Checkpoints(directory / 'checkpoints')
    self.addCleanup(checkpoints.close)
    self.assertEqual(checkpoints.latest(), step)
    like = self.program.init(0)._replace(ring={})
    return checkpoints.restore(step, like)

  def test_files(self):
    for name in ('manifest.json', 'scalars.jsonl', 'timing.jsonl', 'tb'):
      self.assertTrue((self.whole / name).exists(), name)
    manifest = files_lib.read_json(self.whole / 'manifest.json')
    self.assertEqual((manifest['status'], manifest['step']), ('done', 6))
    self.assertEqual(manifest['config'], self.config.as_json())
    self.assertEqual(manifest['layers'][-1], 'logits')
    self.assertEqual(manifest['command'], code.command())
    self.assertEqual(manifest['processor'], environment.processor())
    whole = self.at('whole')
    self.assertTrue(run.is_done(whole, self.config))
    self.assertFalse(run.is_done(whole, self.config.replace(steps=7)))

  def test_a_manifest_that_was_changed_is_named(self):
    directory = self.folder / 'changed'
    directory.mkdir()
    (directory / 'manifest.json').write_text('{"status": 3}')
    with self.assertRaisesRegex(errors.StorageError, "'status' is 3"):
      run.is_done(self.at('changed'), self.config)

  def test_everything_is_recorded_in_order(self):
    rows = list(records.read(self.whole / 'scalars.jsonl'))
    train = [row.step for row in rows if row.name == 'train']
    test = [row.step for row in rows if row.name == 'test']
    looks = [row for row in rows if row.name == 'landscape']
    self.assertEqual(train, list(range(6)))
    self.assertEqual(test, [0, 3, 6])
    self.assertEqual([row.step for row in looks], [0, 2, 4, 6])
    self.assertEqual(looks[0].values['step_size'], [0.025, 0.05, 0.1, 0.2])
    self.assertEqual([r.step for r in rows], sorted(r.step for r in rows))

  def test_what_the_probe_sees_is_what_the_step_does(self):
    """At the current rate, a look at step t ends where step t ends."""
    rows = list(records.read(self.whole / 'scalars.jsonl'))
    look = next(r for r in rows if (r.name, r.step) == ('landscape', 2))
    row = next(r for r in rows if (r.name, r.step) == ('train', 2))
    self.assertAlmostEqual(
      look.values['loss_0'], row.values['objective'], places=5
    )
    self.assertAlmostEqual(
      look.values['gradient_norm_0'] / row.values['gradient_norm'], 1, places=4
    )

  def test_the_same_without_measures_bit_for_bit(self):
    blind = self.train('blind', self.program._replace(probes=[]))
    same_bits.assert_same(self.state(blind), self.state(self.whole))
    seen = [r for r in records.read(self.whole / 'scalars.jsonl')]
    self.assertEqual(
      list(records.read(blind / 'scalars.jsonl')),
      [r for r in seen if r.name == 'train'],
    )

  def test_stop_and_resume_bit_for_bit(self):
    """Stopped at several places, saved steps and others, and gone on."""
    starts = []
    # Asked before each look and after each step: in the middle of the looks
    # of a step, before any step, after one.
    for asked in (1, 3, 5, 3):
      answers = iter([False] * asked)
      with self.assertRaisesRegex(errors.Interrupted, 'goes on from there'):
        self.train('stopped', stopped=lambda a=answers: next(a, True))
      manifest = files_lib.read_json(self.folder / 'stopped' / 'manifest.json')
      self.assertEqual(manifest['status'], 'interrupted')
      starts.append(manifest['step'])
    self.assertEqual(starts, sorted(starts))
    self.assertGreater(starts[-1], 0)  # else nothing was resumed
    self.assertGreater(len(set(starts)), 1)
    directory = self.train('stopped')
    same_bits.assert_same(self.state(directory), self.state(self.whole))
    self.assertEqual(
      (directory / 'scalars.jsonl').read_bytes(),
      (self.whole / 'scalars.jsonl').read_bytes(),
    )

  def test_lines_after_the_checkpoint_are_written_once(self):
    """As after a kill: records beyond the last checkpoint, a torn line."""
    directory = self.folder / 'torn'
    answers = iter([False] * 6)
    with self.assertRaises(errors.Interrupted):
      self.train('torn', stopped=lambda: next(answers, True))
    path = directory / 'scalars.jsonl'
    step = files_lib.read_json(directory / 'manifest.json')['step']
    self.assertGreater(step, 0)
    extra = json.dumps({'step': step, 'name': 'train', 'values': {}})
    path.write_text(path.read_text() + extra + '\n{"step": 5, "na')
    self.train('torn')
    self.assertEqual(
      path.read_bytes(), (self.whole / 'scalars.jsonl').read_bytes()
    )

  def test_another_seed_is_another_run(self):
    other = self.train('other', seed=1)
    first = self.state(other).params['dense1']['kernel']
    self.assertFalse(
      (first == self.state(self.whole).params['dense1']['kernel']).any()
    )

  def test_a_longer_run_goes_on_where_it_was(self):
    longer = run.Program(
      self.config.replace(steps=8), *self.program[1:]
    )  # fmt: skip
    grown = self.train('grown')
    grown = self.train('grown', longer)
    at_once = self.train('at_once', longer)
    self.assertEqual(
      (grown / 'scalars.jsonl').read_bytes(),
      (at_once / 'scalars.jsonl').read_bytes(),
    )
    same_bits.assert_same(self.state(grown, 8), self.state(at_once, 8))

  def test_divergence_is_a_status(self):
    poisoned = self.program._replace(
      init=lambda seed: _with_nan(self.program.init(seed))
    )
    with jax.debug_nans(False):
      directory = self.train('diverged', poisoned)
    manifest = files_lib.read_json(directory / 'manifest.json')
    self.assertEqual((manifest['status'], manifest['step']), ('diverged', 0))
    self.assertTrue(run.is_done(self.at('diverged'), self.config))


def _with_nan(state):
  params = dict(state.params)
  params['logits'] = jax.tree.map(lambda x: x * float('nan'), params['logits'])
  return state._replace(params=params)


if __name__ == '__main__':
  absltest.main()
