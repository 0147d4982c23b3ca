import contextlib
import io
import os
import pathlib
import tempfile
from unittest import mock

import pytest
from absl.testing import absltest

from bn_jax.commands import train
from bn_jax.config import files, flags
from tests.fixtures import strict

_TINY = '--config=tests/fixtures/tiny_config.py'


class CommandLineTest(absltest.TestCase):
  """What is typed wrong is in tests/bad_input_test.py."""

  def setUp(self):
    super().setUp()
    self.enter_context(contextlib.chdir(strict.ROOT))
    folder = tempfile.TemporaryDirectory()
    self.addCleanup(folder.cleanup)
    self.folder = pathlib.Path(folder.name)

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
      r'  memory +arguments .* on each device\n  collectives +\d+ all-reduce, ',
    )
    self.assertEmpty(list(self.folder.iterdir()))

  def test_help(self):
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
      self.assertEqual(train.main(['train.py', '--help']), 0)
    for flag in ('--config', '--workdir', '--only', '--data_dir', '--plan'):
      self.assertIn(flag, said.getvalue())


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
