import contextlib
import io
import logging
import pathlib
import shutil
import tempfile
from unittest import mock

import jax
import pytest
from absl.testing import absltest

from bn_jax import errors, models
from bn_jax.commands import train
from bn_jax.config import build
from bn_jax.host import memory
from bn_jax.storage import array_files, checkpoint, files
from tests.fixtures import commanded, scratch, strict

_DIVERGING = """
from bn_jax.config import defaults
from tests.fixtures import dense_config
def get_config(expected=''):
  config = dense_config.get_config()
  config.runs = defaults.runs(wild=dict(norm=dict(name='none')))
  config.expected_divergence = ('wild',) if expected else ()
  config.schedule.learning_rate = 1e30
  return config
"""


def setUpModule():
  # Numbers do not matter here, compilation takes all the time.
  jax.config.update('jax_disable_most_optimizations', True)


def tearDownModule():
  jax.config.update('jax_disable_most_optimizations', False)


def main(*words):
  """(exit code, what was said)."""
  said = io.StringIO()
  handler = logging.StreamHandler(said)
  logging.getLogger('bn_jax').addHandler(handler)
  with commanded.unrendered(), contextlib.redirect_stderr(said):
    code = train.main(['train.py', *map(str, words)])
  logging.getLogger('bn_jax').removeHandler(handler)
  return code, said.getvalue()


class ExperimentTest(absltest.TestCase):
  """The whole of it by its command line, once, on two tiny networks."""

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.enterClassContext(contextlib.chdir(strict.ROOT))
    cls.folder = scratch.folder(cls)
    cls.workdir = cls.folder / 'work'
    cls.words = (
      '--config=tests/fixtures/dense_config.py', f'--workdir={cls.workdir}',
      f'--data_dir={cls.folder / "data"}', '--config.steps=3',
    )  # fmt: skip
    with commanded.without_page():
      cls.only = main(*cls.words, '--only=batchnorm/seed0')
    cls.seen = cls.files()
    with (
      mock.patch.object(models, 'make', wraps=models.make) as make,
      mock.patch.object(memory, 'drop_old_programs') as drop,
    ):
      cls.whole = main(*cls.words)
    cls.networks, cls.drops = make.call_count, drop.call_count

  @classmethod
  def files(cls):
    """path -> content of everything that training writes."""
    return {
      str(path.relative_to(cls.workdir)): path.read_bytes()
      for path in cls.workdir.glob('*/seed*/**/*')
      if path.is_file()
    }

  def test_only_trains_that_one(self):
    code, said = self.only
    self.assertEqual(code, 0, said)
    self.assertIn('batchnorm/seed0/manifest.json', self.seen)
    self.assertEmpty([name for name in self.seen if 'standard' in name])

  def test_the_rest_is_trained_and_nothing_twice(self):
    code, said = self.whole
    self.assertEqual(code, 0, said)
    now = self.files()
    self.assertIn('standard/seed0/manifest.json', now)
    for name, content in self.seen.items():
      self.assertEqual(now[name], content, name)

  def test_the_network_of_a_run_is_built_once(self):
    self.assertEqual(self.networks, 2)  # there are two runs

  def test_old_programs_may_go_after_a_network(self):
    self.assertEqual(self.drops, 1)  # the other one was trained before

  def test_what_is_written(self):
    names = {path.name for path in self.workdir.iterdir()}
    self.assertEqual(
      names,
      {
        'experiment.json',
        'standard',
        'batchnorm',
        'figures',
        'report.html',
        'results.csv',
        'sinks',
      },
    )
    figures = {path.name for path in (self.workdir / 'figures').iterdir()}
    for name in ('training', 'landscape'):
      for kind in ('png', 'pdf', 'csv'):
        self.assertIn(f'{name}.{kind}', figures)
    experiment = files.read_json(self.workdir / 'experiment.json')
    self.assertEqual(list(experiment['runs']), ['standard', 'batchnorm'])

  def test_again_trains_nothing(self):
    before = self.files()
    with commanded.without_page():
      code, said = main(*self.words)
    self.assertEqual(code, 0, said)
    self.assertIn('nothing left to train', said)
    self.assertEqual(self.files(), before)

  @pytest.mark.slow  # compiles for four devices
  def test_goes_on_on_other_devices(self):
    """With what it has recorded, in another layout."""
    workdir = self.folder / 'moved'
    shutil.copytree(self.workdir, workdir)
    place = workdir / 'standard' / 'seed0'
    before = (place / 'scalars.jsonl').read_text()
    code, said = main(
      *self.words, f'--workdir={workdir}', '--only=standard', '--devices=4',
      '--config.layout=shard_map', '--config.steps=4',
    )  # fmt: skip
    self.assertEqual(code, 0, said)
    self.assertIn('goes on from step 3', said)
    after = (place / 'scalars.jsonl').read_text()
    # What was seen at its last step is seen there again, by more devices.
    train = [line for line in before.splitlines() if '"train"' in line]
    self.assertLen(train, 3)
    for line in train:
      self.assertIn(line, after)
    manifest = files.read_json(place / 'manifest.json')
    self.assertEqual(manifest['device']['count'], 4)
    self.assertEqual((manifest['layout'], manifest['step']), ('shard_map', 4))

  def test_killed_between_two_cuts_it_goes_on(self):
    """The manifest of a run that is done has digests of what is cut off."""
    workdir = self.folder / 'cut'
    shutil.copytree(self.workdir, workdir)
    words = (
      *self.words, f'--workdir={workdir}', '--only=batchnorm',
      '--config.steps=4',
    )  # fmt: skip

    class Killed(BaseException):
      pass

    with (
      mock.patch.object(array_files, 'cut', side_effect=Killed),
      self.assertRaises(Killed),
    ):
      main(*words)
    with commanded.without_page():
      code, said = main(*words)
    self.assertEqual(code, 0, said)
    self.assertIn('goes on from step 3', said)

  def test_no_room_is_said_before_anything(self):
    workdir = self.folder / 'small'
    with mock.patch.object(shutil, 'disk_usage') as usage:
      usage.return_value.free = 1000
      code, said = main(*self.words, f'--workdir={workdir}')
    self.assertEqual((code, said.count('\n')), (6, 1), said)
    self.assertIn('0.0 MB are free; make room', said)
    self.assertFalse(workdir.exists())

  def needed(self, *words):
    """Bytes of (checkpoints, records) that a new experiment asks for."""
    refusal = errors.StorageError('no room')
    with mock.patch.object(
      checkpoint, 'check_space', side_effect=refusal
    ) as check:
      code, said = main(
        *self.words, f'--workdir={self.folder / "asked"}', *words
      )
    self.assertEqual(code, 6, said)
    return check.call_args.kwargs['checkpoints'], check.call_args.kwargs[
      'records'
    ]

  def test_the_room_is_that_of_what_will_be_kept(self):
    # Of one that is kept, a second one lies beside it while it is written.
    two, _ = self.needed('--config.checkpoint.keep=1')
    every = '--config.checkpoint.every_steps=1'
    all_steps, _ = self.needed('--config.checkpoint.keep=1000000000', every)
    self.assertLessEqual(all_steps, (3 + 2) * two / 2)
    three, _ = self.needed('--config.checkpoint.keep=2', every)
    self.assertEqual(three, 3 * two / 2)

  def test_records_take_at_least_the_room_that_is_asked_for(self):
    _, asked = self.needed()
    written = sum(
      path.stat().st_blocks * 512
      if path.suffix == '.npz'
      else path.stat().st_size
      for path in self.workdir.glob('*/seed*/**/*')
      if path.name == 'scalars.jsonl' or path.suffix == '.npz'
    )
    self.assertGreater(asked, 3 * 100)
    self.assertLess(asked, written)
    _, twice = self.needed('--config.steps=6')
    self.assertEqual(twice, 2 * asked)

  def test_divergence_ends_the_run_and_not_the_report(self):
    path = self.folder / 'diverging.py'
    path.write_text(_DIVERGING)
    workdir = self.folder / 'diverged'
    words = (f'--workdir={workdir}', f'--data_dir={self.folder / "data"}')
    code, said = main(f'--config={path}', *words)
    self.assertEqual(code, 5, said)
    self.assertIn('diverged: wild/seed0', said)
    self.assertIn('diverged at step', (workdir / 'report.html').read_text())
    with commanded.without_page():
      code, said = main(f'--config={path}:expected', *words)
    self.assertEqual(code, 0, said)


class LoweringTest(absltest.TestCase):
  """A run keeps the lowering that it was begun with."""

  def test_goes_on_as_an_earlier_version_began(self):
    """'auto' was 'product' then; a seed that is added is like the others."""
    self.enterContext(contextlib.chdir(strict.ROOT))
    folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    before = dict(lowering='product', measure_lowering='product')
    words = (
      '--config=tests/fixtures/tiny_config.py', '--config.model.lowering=auto',
      f'--workdir={folder / "work"}', f'--data_dir={folder / "data"}',
      '--only=batchnorm', '--config.measures.landscape=None',
      '--config.measures.activations=None',
    )  # fmt: skip
    with commanded.without_page():
      with mock.patch.object(build, 'lowerings', return_value=before):
        code, said = main(*words, '--config.steps=1')
      self.assertEqual(code, 0, said)
      with mock.patch.object(models, 'make', wraps=models.make) as make:
        code, said = main(*words, '--config.steps=2', '--config.seeds=0,1')
    self.assertEqual(code, 0, said)
    chosen = {call.kwargs['lowering'] for call in make.call_args_list}
    self.assertEqual(chosen, {'product'})
    for seed in (0, 1):
      path = folder / 'work' / 'batchnorm' / f'seed{seed}' / 'manifest.json'
      manifest = files.read_json(path)
      self.assertEqual({key: manifest[key] for key in before}, before)
      self.assertEqual(manifest['config']['model']['lowering'], 'auto')


if __name__ == '__main__':
  absltest.main()
