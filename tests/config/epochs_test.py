"""Epochs of the digits, of which 1442 are to train on, as steps."""

import math

import ml_collections
from absl.testing import absltest, parameterized

from bn_jax import errors
from bn_jax.config import defaults, resolve
from tests.fixtures import strict, typed  # noqa: F401

_COSINE = "config.schedule = dict(name='cosine', learning_rate=0.1, {})"


class LengthTest(parameterized.TestCase):
  @parameterized.parameters(
    (1, 128), (10, 128), (10, 1), (0.5, 7), (2.75, 100), (1e-9, 128), (1, 1442),
  )  # fmt: skip
  def test_covers_so_many_examples(self, passes, batch_size):
    steps = typed.run(
      f'config.epochs = {passes}', f'config.batch_size = {batch_size}'
    )['steps']
    self.assertGreaterEqual(steps * batch_size, passes * 1442)
    self.assertLess((steps - 1) * batch_size, passes * 1442)

  def test_is_exact(self):
    """In floating point, 0.07 * 100 is above 7."""
    self.assertEqual(math.ceil(0.07 * 100), 8)
    lines = ('config.data.subset = 100', 'config.batch_size = 1')
    self.assertEqual(typed.run('config.epochs = 0.07', *lines)['steps'], 7)

  @parameterized.parameters(
    ('config.data.subset = 100', 100), ('config.data.classes = (3, 7)', None)
  )
  def test_is_of_the_examples_that_are_kept(self, line, examples):
    run = typed.run('config.epochs = 3', 'config.batch_size = 10', line)
    if examples is None:
      from bn_jax.data import datasets

      examples = datasets.make('digits', classes=(3, 7)).facts.num_train
      self.assertLess(examples, 400)
    self.assertEqual(run['steps'], math.ceil(0.3 * examples))

  def test_of_each_run_is_its_own(self):
    runs = typed.experiment(
      'config.epochs = 4',
      'config.runs = defaults.runs(small=dict(batch_size=16), big=dict('
      'batch_size=256, schedule=dict(learning_rate=0.4)))',
    ).runs
    self.assertEqual(runs['small'].steps, math.ceil(4 * 1442 / 16))
    self.assertEqual(runs['big'].steps, math.ceil(4 * 1442 / 256))


class LevelsTest(parameterized.TestCase):
  """The command line beats a run, which beats the config, in either unit."""

  @parameterized.parameters(
    (['config.epochs = 2'], ['--config.steps=7'], 7),
    (['config.steps = 7'], ['--config.epochs=2'], 23),
    (['config.steps = 7', 'config.runs.one.epochs = 2'], [], 23),
    (['config.epochs = 9', 'config.runs.one.steps = 7'], [], 7),
    (['config.epochs = 9', 'config.runs.one.steps = 1000'], [], 1000),
    (['config.epochs = 9'], ['--config.steps=1000'], 1000),
    (['config.runs.one.epochs = 2'], ['--config.runs.one.steps=7'], 7),
    (['config.runs.one.epochs = 9'], ['--config.runs.one.epochs=2'], 23),
    (['config.runs.one.steps = 9'], ['--config.epochs=2'], 23),
    (['config.steps = 7'], ['--config.epochs=None'], 7),
    (['config.epochs = 2', 'config.steps = None'], [], 23),
    (['config.steps = 7', 'config.epochs = 2'], [], 23),
    (['config.epochs = 2', 'config.steps = 1000'], [], 1000),
    (['config.runs.one.steps = 9', 'config.runs.one.epochs = 2'], [], 23),
  )
  def test_the_nearest_counts(self, lines, words, steps):
    self.assertEqual(typed.run(*lines, words=words)['steps'], steps)

  @parameterized.parameters(
    (['config.runs.one.epochs = 2'], ['--config.epochs=None'],
     'config.steps: None; allowed: 1, 2, 3'),
    (['config.runs.one = dict(steps=7, epochs=2)'], [], 'epochs: 2, and steps'),
    ([], ['--config.steps=7', '--config.epochs=2'], 'and epochs: 2.0; allowed'),
    ([_COSINE.format('decay_steps=9, decay_epochs=2')], [],
     'config.schedule.decay_epochs: 2, and decay_steps: 9; allowed: one of'),
    (['config.steps = None'], [], 'config.steps: None; allowed: 1, 2, 3'),
    (['config.epochs = 0'], [], 'config.epochs: 0.0; allowed: above 0 and fin'),
    (['config.epochs = -1'], [], r'config.epochs: -1.0; allowed: above 0'),
    ([], ['--config.epochs=many'], "epochs: 'many'; allowed: numbers"),
    ([], ['--config.epochs=nan'], 'config.epochs: nan; allowed: finite'),
    ([], ['--config.epochs=True'], "epochs: 'True'; allowed: numbers"),
    (['config.runs.one = dict(epochs=True)'], [], 'epochs: True; allowed: a n'),
    (['config.runs.one = dict(epochs="2")'], [], "epochs: '2'; allowed: a nu"),
    ([], ['--config.epochs=1e9'], r'config.steps: 11265625000; allowed: 1, 2'),
    (['config.epochs = 2', 'config.batch_size = 0'], [],
     'config.batch_size: 0; allowed'),
    ([_COSINE.format('decay_epochs=2, warmup_epochs=-1')], [],
     'config.schedule.warmup_epochs: -1; allowed: 0 or more'),
    (['config.schedule.warmup_epochs = 2'], [],
     r"config.schedule \(schedule 'constant'\): unknown key 'warmup_epochs'"),
  )  # fmt: skip
  def test_refused(self, lines, words, message):
    with self.assertRaisesRegex(errors.ConfigError, message):
      typed.run(*lines, words=words)

  def test_where_runs_differ_in_the_other_unit_a_flag_is_refused(self):
    line = 'config.runs = defaults.runs(a=dict(epochs=2), b={})'
    message = r'the runs differ in epochs \(a: 2\).*--config.runs.a.steps=...'
    with self.assertRaisesRegex(errors.ConfigError, message):
      typed.experiment(line, words=['--config.steps=7'])

  def test_without_the_data_epochs_cannot_be_known(self):
    lines = ("config.data = 'my_set'", "config.data_dir = '/nowhere'")
    self.assertEqual(typed.run('config.steps = 5', *lines)['steps'], 5)
    with self.assertRaisesRegex(errors.Failure, "unknown dataset 'my_set'"):
      typed.run('config.epochs = 5', *lines)

  def test_a_config_from_before_there_were_epochs(self):
    old = ml_collections.ConfigDict(defaults.get_config().to_dict())
    del old.epochs
    old.steps = 5
    runs = resolve.experiment(old.to_dict(), {}).runs
    self.assertEqual(runs['standard'].steps, 5)


class ScheduleTest(parameterized.TestCase):
  def test_the_last_line_counts(self):
    in_steps = _COSINE.format('decay_steps=9')
    later = 'config.schedule.decay_epochs = 4'
    run = typed.run('config.epochs = 4', in_steps, later)
    self.assertEqual(run['schedule']['decay_steps'], run['steps'])

  def test_is_that_of_as_many_steps(self):
    lines = ('config.epochs = 4', 'config.batch_size = 100')
    in_epochs = _COSINE.format('decay_epochs=4, warmup_epochs=0.5')
    in_steps = _COSINE.format('decay_steps=58, warmup_steps=8')
    run = typed.run(*lines, in_epochs)
    self.assertEqual(run, typed.run(*lines, in_steps))
    self.assertEqual(run['steps'], run['schedule']['decay_steps'])

  def test_of_each_run_is_its_own(self):
    runs = typed.experiment(
      _COSINE.format('decay_epochs=4'),
      'config.runs = defaults.runs(a=dict(batch_size=16), b={})',
    ).runs
    steps = [run.schedule['decay_steps'] for run in runs.values()]
    self.assertEqual(steps, [math.ceil(4 * 1442 / size) for size in (16, 128)])

  @parameterized.parameters(
    ('decay_epochs=4', ['decay_steps=9'], 9),
    ('decay_steps=9', ['decay_epochs=4'], 46),
    ('decay_steps=9', ['decay_epochs', '4', 'warmup_epochs=1'], 46),
  )
  def test_the_nearest_counts(self, keywords, words, expected):
    words = [
      word if word == '4' else f'--config.schedule.{word}' for word in words
    ]
    schedule = typed.run(_COSINE.format(keywords), words=words)['schedule']
    self.assertEqual(schedule['decay_steps'], expected)

  def test_all_on_the_command_line(self):
    words = [
      f'--config.schedule{word}'
      for word in ('.warmup_epochs=1', '=cosine', '.decay_epochs=3')
    ]
    self.assertEqual(
      typed.run(words=words)['schedule'],
      typed.run(_COSINE.format('decay_epochs=3, warmup_epochs=1'))['schedule'],
    )

  def test_another_schedule_drops_them(self):
    line = _COSINE.format('decay_epochs=4, warmup_epochs=1')
    schedule = typed.run(line, "config.schedule = 'constant'")['schedule']
    self.assertEqual(schedule, {'name': 'constant', 'learning_rate': 0.1})
    words = ['--config.schedule=constant']
    self.assertEqual(typed.run(line, words=words)['schedule'], schedule)


if __name__ == '__main__':
  absltest.main()
