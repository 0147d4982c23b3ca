import contextlib

from absl.testing import absltest, parameterized

from bn_jax.config import files, flags, resolve
from bn_jax.launch import sweep
from tests.fixtures import strict


class RunTest(parameterized.TestCase):
  """A flag on a key of one run does what the run's override would do."""

  def of_flags(self, *words):
    with contextlib.chdir(strict.ROOT):
      given = flags.train(['train.py', '--config=configs/default.py', *words])
    return resolve.experiment(given.config.to_dict(), given.overrides)

  def of_file(self, **override):
    with contextlib.chdir(strict.ROOT):
      config = files.load('configs/default.py').to_dict()
    run = config['runs']['batchnorm']
    for key, value in override.items():
      is_section = isinstance(value, dict)
      run[key] = {**run.get(key, {}), **value} if is_section else value
    return resolve.experiment(config, {})

  @parameterized.named_parameters(
    ('typed', ['norm.momentum=0.8'], dict(norm=dict(momentum=0.8))),
    ('whole_for_a_float', ['norm.momentum=0'], dict(norm=dict(momentum=0.0))),
    ('unset', ['norm.group_size=16'], dict(norm=dict(group_size=16))),
    ('boolean', ['norm.affine=false'], dict(norm=dict(affine=False))),
    ('of_no_section', ['steps=7'], dict(steps=7)),
    ('of_the_run_already', ['norm.name=l1'], dict(norm=dict(name='l1'))),
    (
      'of_another_section',
      ['model.head=3,4', 'model.width=0.5'],
      dict(model=dict(head=(3, 4), width=0.5)),
    ),
    (
      'of_the_constructor_alone',
      ['norm.name=group', 'norm.num_groups=4'],
      dict(norm=dict(name='group', num_groups=4)),
    ),
    (
      'of_the_constructor_alone_in_another_order',
      ['norm.num_groups=None', 'norm.name=group'],
      dict(norm=dict(name='group', num_groups=None)),
    ),
    (
      'that_the_constructor_needs',
      ['schedule.name=cosine', 'schedule.decay_steps=50'],
      dict(schedule=dict(name='cosine', decay_steps=50)),
    ),
    (
      'of_a_measure',
      ['measures.landscape.every_steps=7', 'measures.landscape.chunk_size=8'],
      dict(measures=dict(landscape=dict(every_steps=7, chunk_size=8))),
    ),
    (
      'switch_of_the_constructor_alone',
      ['norm.name=weight_standardization', 'norm.scaled=false'],
      dict(norm=dict(name='weight_standardization', scaled=False)),
    ),
  )
  def test_as_in_the_file(self, words, override):
    words = [f'--config.runs.batchnorm.{word}' for word in words]
    got, expected = self.of_flags(*words), self.of_file(**override)
    self.assertEqual(
      {name: run.as_json() for name, run in got.runs.items()},
      {name: run.as_json() for name, run in expected.runs.items()},
    )
    self.assertNotEqual(got.runs, self.of_flags().runs)

  def test_the_last_of_two_counts(self):
    twice = ['--config.runs.batchnorm.norm.momentum=0.5']
    runs = self.of_flags(*twice, twice[0].replace('5', '75')).runs
    self.assertEqual(runs['batchnorm'].norm['momentum'], 0.75)

  def test_a_switch_without_a_value(self):
    runs = self.of_flags('--noconfig.runs.batchnorm.norm.affine').runs
    self.assertIs(runs['batchnorm'].norm['affine'], False)

  def test_a_sweep_over_a_key_of_one_run(self):
    setting = 'runs.batchnorm.norm.momentum=0.5,0.75'
    with contextlib.chdir(strict.ROOT):
      cells = sweep.expand(
        ['--config=configs/default.py'],
        [setting],
        workdir='w',
        only='batchnorm',
      ).cells
    momenta = [cell.config.norm['momentum'] for cell in cells]
    self.assertEqual(momenta, [0.5, 0.75])

  def test_what_a_message_proposes_works(self):
    words = ['--config.runs.batchnorm.norm.momentum=0.8']
    self.assertEqual(
      self.of_flags(*words).runs['standard'].norm, {'name': 'none'}
    )
    with self.assertRaisesRegex(ValueError, 'the runs differ in it') as raised:
      self.of_flags(*words, '--config.norm.momentum=0.7')
    proposed = str(raised.exception).rpartition(' ')[2].replace('...', '0.6')
    self.assertEqual(proposed, '--config.runs.batchnorm.norm.momentum=0.6')
    runs = self.of_flags(proposed).runs
    self.assertEqual(runs['batchnorm'].norm['momentum'], 0.6)


class DefaultTest(parameterized.TestCase):
  @parameterized.parameters(
    ('configs/quickstart.py', 'runs/quickstart'),
    ('configs/mine.py:small', 'runs/mine-small'),
    (
      'configs/santurkar2018/figure10.py:small',
      'runs/santurkar2018/figure10-small',
    ),
    ('./configs/ioffe2015/figure1.py', 'runs/ioffe2015/figure1'),
    ('/home/me/bn/configs/ioffe2015/figure1.py', 'runs/ioffe2015/figure1'),
    ('configs/santurkar2018/../quickstart.py', 'runs/quickstart'),
    ('tests/fixtures/tiny_config.py', 'runs/tiny_config'),
    ('/elsewhere/mine.py:a,b/../c d', 'runs/mine-a-b-..-c-d'),
    ('configs.py', 'runs/configs'),
    ('configs/quickstart.py:', 'runs/quickstart'),
  )
  def test_of_a_config(self, config, expected):
    self.assertEqual(flags.default_workdir(config), expected)

  def test_train_and_launch_agree(self):
    config = '--config=configs/santurkar2018/figure10.py:small'
    with contextlib.chdir(strict.ROOT):
      given = flags.train(['train.py', config])
      found = sweep.expand([config], [], workdir=None, only=None)
    self.assertEqual(given.workdir, 'runs/santurkar2018/figure10-small')
    self.assertEqual(found.workdir, given.workdir)
    folders = {str(cell.workdir) for cell in found.cells}
    self.assertEqual(folders, {found.workdir})


if __name__ == '__main__':
  absltest.main()
