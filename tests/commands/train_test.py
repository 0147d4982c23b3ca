import contextlib
import io
import os
import pathlib
import tempfile
from unittest import mock

import pytest
from absl.testing import absltest, parameterized

from bn_jax.commands import train
from bn_jax.config import files, flags
from tests.fixtures import strict

_TINY = '--config=tests/fixtures/tiny_config.py'


class CommandLineTest(parameterized.TestCase):
  """What a newcomer types wrong: one line, exit code 2, nothing written."""

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

  def assert_refused(self, words, *expected):
    workdir = self.folder / 'work'
    code, said = self.main(*words, f'--workdir={workdir}')
    self.assertEqual(code, 2, said)
    self.assertStartsWith(said, 'error: ')
    self.assertEqual(said.count('\n'), 1, said)
    for text in expected:
      self.assertIn(text, said)
    self.assertFalse(workdir.exists())

  @parameterized.named_parameters(
    ('key', '--config.stepz=3', "unknown key 'stepz'", "did you mean 'steps'"),
    (
      'nested_key',
      '--config.schedule.learning_rat=3',
      "did you mean 'schedule.learning_rate'",
    ),
    (
      'model',
      '--config.model.name=vgg12',
      "config.model.name: unknown model 'vgg12'",
      'vgg19',
    ),
    ('norm', '--config.runs.batchnorm.norm.name=bach', "did you mean 'batch'"),
    (
      'dataset',
      '--config.data.name=cifar',
      "unknown dataset 'cifar'",
      'cifar10',
    ),
    (
      'measure',
      '--config.measures.test.name=evaluate',
      "did you mean 'evaluation'",
    ),
    ('optimizer', '--config.optimizer.name=adam', 'known: sgd'),
    ('schedule', '--config.schedule.name=step', 'known: constant, cosine'),
    ('run', '--only=batchnrm', "did you mean 'batchnorm"),
    ('seed', '--only=batchnorm/seed7', 'batchnorm/seed0'),
    ('flag', '--workdri=x', "flag '--workdri'; did you mean '--workdir'?"),
    (
      'flag_that_is_a_key',
      '--steps=10',
      "unknown flag '--steps'; did you mean '--config.steps=10'? see python ",
    ),
    (
      'flag_by_another_name',
      '--lr=0.3',
      "did you mean '--config.schedule.learning_rate=0.3'?",
    ),
    ('abbreviation', '--distr=off', "did you mean '--distributed'?"),
    (
      'key_by_another_name',
      '--config.lr=0.3',
      "unknown key 'lr'; did you mean 'schedule.learning_rate'? see configs/",
    ),
    ('no_such_key', '--config.zzz=3', "unknown key 'zzz'; see configs/def"),
    ('type', '--config.batch_size=abc', ".batch_size: 'abc'; allowed: whole"),
    ('fraction', '--config.batch_size=1.5', "batch_size: '1.5'; allowed: wh"),
    ('rate_word', '--config.schedule.learning_rate=a', "'a'; allowed: numbers"),
    ('no_switch', '--config.optimizer.nesterov=3', "'3'; allowed: True, False"),
    ('unset_type', '--config.data.resolution=a', "'a'; allowed: whole numbe"),
    ('resume', '--resume=may', "unknown value 'may'; known: auto, must, nev"),
    ('none_left', '--config.batch_size=0', 'config.batch_size: 0', '1, 2, 3'),
    ('batch_too_large', '--config.batch_size=1443', 'allowed: 1 to 1442'),
    (
      'image_too_small',
      '--config.data.resolution=7',
      '7 x 7 pixels is too small for VGG',
      'its last pool',
      'allowed: 8 x 8 or more',
    ),
    (
      'crop',
      '--config.data.crop_padding=8',
      'images 8 x 8; allowed: less than',
    ),
    ('classes', '--config.data.classes=3,10', 'classes names 10; allowed: 0'),
    ('examples', '--config.data.subset=1443', 'subset is 1443; allowed: 1 to'),
    (
      'measured',
      '--config.measures.test.data=test:356',
      'test has 355 examples',
    ),
    (
      'loss',
      '--config.data.name=linear_task',
      "give loss.name='squared_error'",
    ),
    ('init_from', '--config.init_from=nowhere', 'nowhere holds no run'),
    ('not_a_rate', '--config.schedule.learning_rate=nan', 'finite'),
    ('rate', '--config.schedule.learning_rate=-1', 'learning_rate is -1'),
    ('width', '--config.model.width=0', 'width is 0'),
    ('lowering', '--config.model.lowering=fast', 'library, product, auto'),
    ('precision', '--config.matmul_precision=low', 'default, high, highest'),
    (
      'group',
      '--config.norm.group_size=5',
      "run 'batchnorm': config.model: group_size 5 does not divide the batch",
    ),
    ('momentum', '--config.norm.momentum=1', 'momentum is 1'),
    (
      'section',
      '--config.model=vgg11',
      'config.model is a section; change one of model.name, model.dropout, ',
    ),
    ('runs', '--config.runs=standard', 'config.runs is a section'),
    ('norms_differ', '--config.norm.name=batch', 'the runs differ in it'),
    ('seed_value', '--config.seeds=-1', '0 to 2**31 - 1'),
    ('seeds_twice', '--config.seeds=1,1', 'each once'),
    (
      'probe_times',
      '--config.measures.test.every_steps=0',
      'config.measures.test.every_steps: 0',
    ),
    (
      'probe_data',
      '--config.measures.test.data=val',
      'current_batch, train:N, test:N, train, test',
    ),
    (
      'step_factors',
      '--config.measures.landscape.step_factors=0.5,0',
      'above 0',
    ),
    ('expected', '--config.expected_divergence=plain', "unknown run 'plain'"),
    ('head', '--config.model.head=3,x', "head is ('3,x',)"),
    (
      'probe_examples',
      '--config.measures.activations.data=test:356',
      "config.measures.activations: data is 'test:356'; test has 355 examples",
    ),
    (
      'probe_layers',
      '--config.measures.activations.layers=("conv2","conv21")',
      "unknown layer 'conv21'; did you mean 'conv2'",
    ),
    ('no_run', '--only=', "unknown run ''"),
    ('devices', '--devices=16', 'devices is 16; allowed: 1 to 8', 'XLA_FLAGS'),
    (
      'division',
      '--devices=3',
      '16 does not divide over 3 devices',
      '15 and 18',
    ),
    ('no_devices', '--devices=0', 'config.devices: 0; allowed: 1, 2, 3'),
    ('devices_word', '--devices=two', 'devices'),
  )
  def test_refused_before_anything_happens(self, word, *expected):
    self.assert_refused([_TINY, word], *expected)

  def test_false_without_equals_sign(self):
    """absl would take `--config.x False` for True, and say nothing."""
    self.assert_refused(
      [_TINY, '--config.optimizer.nesterov', 'False'],
      "'False' belongs to no flag",
    )

  @parameterized.named_parameters(
    ('none', [], '--config is missing; give a file of configs/'),
    ('empty', ['--config='], '--config is missing'),
    ('absent', ['--config=a.zip'], 'a.zip does not exist; see configs/\n'),
    ('elsewhere', ['--config=figure10'], 'mean configs/santurkar2018/figure10'),
    ('a_word', ['mine.py'], '--config is missing', '--config=mine.py'),
    ('only_a_flag', ['--steps=3'], "did you mean '--config.steps=3'?"),
    ('misspelt', ['--confg=mine.py'], "did you mean '--config'? see"),
    (
      'nearly',
      ['--config=configs/quikstart.py'],
      'did you mean configs/quickstart.py',
    ),
    ('directory', ['--config=configs'], 'configs is a directory'),
  )
  def test_no_config_file(self, words, *expected):
    self.assert_refused(words, *expected)

  @parameterized.named_parameters(
    ('raises', 'def get_config():\n  return 1 / 0\n', ':2: ZeroDivisionError'),
    ('syntax', 'def get_config(:\n', ':1: SyntaxError'),
    ('imports', '\nimport nowhere_at_all\n', ':2: ModuleNotFoundError'),
    ('no_function', 'x = 1\n', 'must define get_config()'),
    ('a_dict', 'def get_config():\n  return {}\n', 'returned dict'),
    (
      'empty',
      'import ml_collections\ndef get_config():\n'
      '  return ml_collections.ConfigDict()\n',
      'start from configs/default.py',
    ),
    (
      'argument',
      'from configs import default\ndef get_config():\n'
      '  return default.get_config(1)\n',
      'TypeError',
    ),
    (
      'run_key_by_another_name',
      'from configs import default\ndef get_config():\n'
      '  c = default.get_config()\n'
      '  c.runs = default.runs(a=dict(schedule=dict(lr=3)))\n'
      '  return c\n',
      "unknown key 'lr'; did you mean 'learning_rate'?",
    ),
    (
      'unknown_run_key',
      'from configs import default\ndef get_config():\n'
      '  c = default.get_config()\n'
      '  c.runs = default.runs(a=dict(batchsize=3))\n'
      '  return c\n',
      "did you mean 'batch_size'",
    ),
    (
      'no_name_for_a_run',
      'from configs import default\ndef get_config():\n'
      '  c = default.get_config()\n'
      "  c.runs = default.runs(**{'up/a': {}})\n"
      '  return c\n',
      'no name for a run',
    ),
  )
  def test_broken_config_file(self, text, *expected):
    path = self.folder / 'config.py'
    path.write_text(text)
    self.assert_refused([f'--config={path}'], *expected)

  def test_an_argument_that_the_config_does_not_take(self):
    self.assert_refused([_TINY + ':large'], 'tiny_config.py', 'TypeError')

  def test_the_workdir_is_a_file(self):
    path = self.folder / 'file'
    path.write_text('mine')
    code, said = self.main(_TINY, f'--workdir={path}')
    self.assertEqual((code, said.count('\n')), (6, 1), said)
    self.assertIn('is a file', said)
    self.assertEqual(path.read_text(), 'mine')

  def test_data_that_are_not_there(self):
    workdir = self.folder / 'work'
    code, said = self.main(
      _TINY, '--config.data.name=cifar10', f'--data_dir={self.folder}',
      f'--workdir={workdir}',
    )  # fmt: skip
    self.assertEqual((code, said.count('\n')), (3, 1), said)
    self.assertIn('--data_dir', said)
    self.assertFalse(workdir.exists())

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

  def test_a_plan_of_no_run(self):
    self.assert_refused([_TINY, '--plan', '--only=no'], "unknown run 'no'")

  def test_help(self):
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
      self.assertEqual(train.main(['train.py', '--help']), 0)
    for flag in ('--config', '--workdir', '--only', '--data_dir', '--plan'):
      self.assertIn(flag, said.getvalue())


class ParseTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(contextlib.chdir(strict.ROOT))

  def test_values(self):
    given = flags.train(
      ['train.py', _TINY, '--config.schedule.learning_rate=0.3',
       '--config.seeds=1,2', '--noconfig.optimizer.nesterov', '--only=a']
    )  # fmt: skip
    self.assertEqual(given.config.schedule.learning_rate, 0.3)
    self.assertEqual(given.config.seeds, (1, 2))
    self.assertEqual(given.overrides['schedule.learning_rate'], 0.3)
    self.assertEqual(given.only, 'a')

  def test_devices(self):
    given = flags.train(['train.py', _TINY, '--devices=4', '--plan'])
    self.assertEqual(given.config.devices, 4)
    self.assertEqual(given.overrides, {'devices': 4})
    self.assertTrue(given.plan)

  def test_a_value_that_is_unset_by_default(self):
    given = flags.train(['train.py', _TINY, '--config.data.resolution=16'])
    self.assertEqual(given.config.data.resolution, 16)

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
