import contextlib
import io
import os
import pathlib
import tempfile
import types
from unittest import mock

import jax
import pytest
from absl.testing import absltest

from bn_jax.commands import train
from bn_jax.config import files, flags
from bn_jax.storage import run_folder
from tests.fixtures import commanded, scratch, strict, typed

_TINY = '--config=tests/fixtures/tiny_config.py'


class CommandLineTest(absltest.TestCase):
  """What is typed wrong is in tests/bad_input_test.py."""

  def setUp(self):
    super().setUp()
    self.enter_context(contextlib.chdir(strict.ROOT))
    self.folder = scratch.folder(self)

  def main(self, *words):
    """(exit code, what was said on stderr)"""
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
      code = train.main(['train.py', *words])
    return code, said.getvalue()

  def test_interrupted_before_training(self):
    with mock.patch.object(files, 'load', side_effect=KeyboardInterrupt):
      code, said = self.main(_TINY)
    self.assertEqual((code, said.count('\n')), (75, 1), said)

  def test_what_measures_cost_in_a_plan(self):
    """In steps: of gradients of a batch, a value a third, a product two."""
    section = lambda name, **more: {
      'data': 'current_batch', 'every_steps': 40, 'name': name, **more
    }  # fmt: skip
    config = types.SimpleNamespace(
      steps=100, batch_size=16,
      measures={
        'plane': section(
          'surface', points=21, dimensions=2, directions='eigenvectors'
        ),
        'between': section('jacobian', examples=2),
      },
    )  # fmt: skip
    # (1 + 21^2) / 3 + 2 * 200, at steps 0, 40, 80 and 100.
    self.assertEqual(
      train._measures(config, 4),
      'plane 4 times, 547 steps each; between 4 times, not estimated: about '
      '2,189 steps beside the 100 of training',
    )
    config.measures = {}
    self.assertEqual(train._measures(config, 4), 'none')

  @pytest.mark.slow  # compiles for two devices
  def test_a_plan_is_printed_and_nothing_trained(self):
    said, workdir = io.StringIO(), self.folder / 'work'
    with contextlib.redirect_stdout(said):
      code = train.main([
        'train.py', _TINY, '--plan', '--devices=2', '--only=batchnorm',
        f'--workdir={workdir}', f'--data_dir={self.folder / "data"}',
      ])  # fmt: skip
    self.assertEqual(code, 0)
    self.assertRegex(
      said.getvalue(),
      'batchnorm: vgg11, norm batch, batch 16, layout jit on 2 cpu devices\n'
      r'  parameters +[\d,]+\n'
      r'  FLOPs a step +[\d,]+ of products on each device\n'
      r'  memory +arguments .* on each device\n'
      r'  collectives +\d+ all-reduce, .*\n'
      '  measures      .* steps beside the [0-9,]+ of training\n',
    )
    self.assertEmpty(list(self.folder.iterdir()))

  def test_help(self):
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
      self.assertEqual(train.main(['train.py', '--help']), 0)
    for flag in ('--config', '--workdir', '--only', '--data_dir', '--plan'):
      self.assertIn(flag, said.getvalue())


class TypedTest(absltest.TestCase):
  """Files and flags as a user types them, trained."""

  def setUp(self):
    super().setUp()
    self.enter_context(contextlib.chdir(strict.ROOT))
    self.folder = pathlib.Path(
      self.enter_context(tempfile.TemporaryDirectory())
    )

  def train(self, lines, *words, workdir='work'):
    """Trains the file of these lines; returns what was said."""
    file = self.folder / 'mine.py'
    file.write_text(typed.text(*lines))
    code, said, wrong = commanded.run(
      'train', f'--config={file}', f'--workdir={self.folder / workdir}', *words
    )
    self.assertEqual(code, 0, wrong)
    return said

  def run_of(self, label, workdir='work'):
    """The folder of a run and seed, such as 'big/seed0'."""
    (folder,) = run_folder.find(self.folder / workdir / label)
    return folder

  def test_another_network(self):
    """One of the four stops of a new user: a name, and nothing else."""
    lines = ["config.model.name = 'mlp'", 'config.measures = {}']
    self.train(lines, '--config.steps=2', '--only=batchnorm')
    folder = self.run_of('batchnorm/seed0')
    self.assertEqual((folder.status, folder.step), ('done', 2))
    self.assertEqual(folder.manifest['config']['model']['name'], 'mlp')
    # What has ended can be recalibrated all the same, once, and is on the page.
    lines += ["config.recalibrate = ('batchnorm',)"]
    words = ('--config.steps=2', '--only=batchnorm')
    self.train(lines, *words)
    facts = folder.read_population()
    self.assertEqual((facts['step'], facts['batches']), (2, 100))
    written = folder.population_file.stat().st_mtime_ns
    self.train(lines, *words)
    self.assertEqual(folder.population_file.stat().st_mtime_ns, written)
    page = (self.folder / 'work' / 'report.html').read_text()
    self.assertIn('Recalibrated:', page)

  @pytest.mark.slow  # trains five runs
  def test_runs_of_their_own_batches_and_rates_for_epochs(self):
    """Trained, gone on with for more epochs, as if at once, and reported."""
    lines = [
      "config.model = 'mlp'",
      'config.measures = {}',
      'config.runs = defaults.runs(small={}, big=dict(batch_size=256, '
      'schedule=dict(learning_rate=0.4)))',
      'config.epochs = 0.5',
      "config.schedule = 'cosine'",
      'config.schedule.decay_epochs = 2',
      'config.schedule.warmup_epochs = 0.5',
    ]
    self.train(lines)
    steps = {'small': (6, 12), 'big': (3, 6)}
    for name, (first, _) in steps.items():
      self.assertEqual(self.run_of(f'{name}/seed0').step, first)
    self.train(lines, '--config.epochs=1')
    for name, (_, last) in steps.items():
      folder = self.run_of(f'{name}/seed0')
      self.assertEqual(folder.step, last)
      self.assertEqual(folder.manifest['config']['steps'], last)
    lines[3] = 'config.epochs = 1'
    self.train(lines, '--only=big', workdir='at_once')
    records, at_once = (
      self.run_of('big/seed0', workdir).scalars.read_bytes()
      for workdir in ('work', 'at_once')
    )
    self.assertEqual(records, at_once)
    page = (self.folder / 'work' / 'report.html').read_text()
    for text in ('small', 'big', '256'):
      self.assertIn(text, page)

  def test_shown_and_nothing_else(self):
    compiled = []

    def count(event, *_, **__):
      if 'backend_compile' in event:
        compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(count)
    self.addCleanup(jax.monitoring.unregister_event_duration_listener, count)
    words = ('--config.norm=layer', '--config.epochs=2', '--show')
    lines = ['config.runs = defaults.runs(one={}, two=dict(batch_size=256))']
    said = self.train(lines, *words)
    for text in (
      "\n  norm.name = 'layer'\n",
      '\nrun one:\n  batch_size = 128\n  steps = 23  # 2.042 epochs of 1442 ex',
      '\nrun two:\n  batch_size = 256\n  steps = 12  # 2.13 epochs of 1442 ex',
    ):
      self.assertIn(text, said)
    only = self.train(lines, *words, '--only=two/seed0')
    self.assertIn('\nrun two:\n', only)
    self.assertNotIn('128', only)
    self.assertEqual(os.listdir(self.folder), ['mine.py'])
    self.assertEmpty(compiled)


class ParseTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(contextlib.chdir(strict.ROOT))

  def test_values(self):
    given = flags.train(
      ['train.py', _TINY, '--config.schedule.learning_rate=0.3',
       '--config.seeds=1,2', '--noconfig.optimizer.nesterov', '--only=a']
    )  # fmt: skip
    self.assertEqual(
      given.overrides,
      {
        'schedule.learning_rate': 0.3,
        'seeds': (1, 2),
        'optimizer.nesterov': False,
      },
    )
    self.assertEqual(given.only, 'a')

  def test_devices(self):
    given = flags.train(['train.py', _TINY, '--devices=4', '--plan'])
    self.assertEqual(given.devices, 4)
    self.assertEqual(given.overrides, {'devices': 4})
    self.assertTrue(given.plan)

  def test_a_value_that_is_unset_by_default(self):
    given = flags.train(['train.py', _TINY, '--config.data.resolution=16'])
    self.assertEqual(given.overrides, {'data.resolution': 16})

  def test_the_workdir_is_called_after_the_config(self):
    given = flags.train(['train.py', _TINY])
    self.assertEqual(given.workdir, os.path.join('runs', 'tiny_config'))

  def test_the_config_may_follow_as_a_word(self):
    given = flags.train(
      ['train.py', '--config', 'tests/fixtures/tiny_config.py']
    )
    self.assertEqual(given.config.steps, 6)


if __name__ == '__main__':
  absltest.main()
