"""What a line of a config file means, as a user types it."""

import copy
import subprocess
import sys

import ml_collections
from absl.testing import absltest, parameterized

from bn_jax import errors
from bn_jax.config import changeable, defaults, schema
from bn_jax.config.run_config import SECTIONS
from tests.fixtures import strict, typed


class NameTest(parameterized.TestCase):
  @parameterized.named_parameters(
    ('name', "config.model.name = 'mlp'"),
    ('short', "config.model = 'mlp'"),
    ('key', "config['model']['name'] = 'mlp'"),
    ('path', "config.model.update(name='mlp')"),
    ('deep', "config.update({'model': {'name': 'mlp'}})"),
    ('whole', "config.model = dict(name='mlp')"),
    ('of_a_run', "config.runs.one = dict(model=dict(name='mlp'))"),
    ('short_of_a_run', "config.runs.one = dict(model='mlp')"),
    ('of_a_run_later', "config.runs.one.model = 'mlp'"),
  )
  def test_drops_what_the_old_one_has(self, line):
    expected = typed.run(words=['--config.model.name=mlp'])
    self.assertEqual(typed.run(line), expected)
    self.assertEqual(expected['model']['name'], 'mlp')

  def test_also_what_was_set_before(self):
    lines = ('config.model.width = 0.5', "config.model.name = 'mlp'")
    self.assertNotIn('width', typed.run(*lines)['model'])

  def test_not_what_is_set_after_it(self):
    lines = ("config.model.name = 'mlp'", 'config.model.width = 0.5')
    with self.assertRaisesRegex(
      errors.ConfigError, r"config.model \(model 'mlp'\): unknown key 'width'"
    ):
      typed.run(*lines)

  def test_not_a_typing_error(self):
    lines = ('config.model.hiden = (8,)', "config.model.name = 'mlp'")
    with self.assertRaisesRegex(errors.ConfigError, "did you mean 'hidden'"):
      typed.run(*lines)

  def test_its_own_keywords_may_come_before_it(self):
    lines = ('config.model.hidden = (8,)', "config.model.name = 'mlp'")
    self.assertEqual(typed.run(*lines)['model']['hidden'], [8])

  def test_an_unknown_one_drops_nothing_and_is_refused(self):
    with self.assertRaisesRegex(errors.ConfigError, "unknown model 'mpl'"):
      typed.run("config.model.name = 'mpl'")

  @parameterized.parameters(*SECTIONS)
  def test_each_section_may_be_a_name(self, section):
    """Of the registry, each that needs no keyword."""
    tried = 0
    for name in schema.SECTIONS[section].registry:
      long, short = (
        f'config.{section}{key} = {name!r}' for key in ('.name', '')
      )
      try:
        expected = typed.run(long)[section]
      except errors.ConfigError as error:
        self.assertIn('missing', str(error))
        continue
      tried += 1
      self.assertEqual(expected['name'], name)
      self.assertEqual(typed.run(short)[section], expected)
      flag = f'--config.{section}={name}'
      self.assertEqual(typed.run(words=[flag])[section], expected)
    self.assertGreater(tried, 0)

  def test_the_sections_are_those_that_are_built(self):
    self.assertEqual(set(SECTIONS), set(schema.SECTIONS))


class MeasureTest(parameterized.TestCase):
  def test_a_name_drops_what_the_old_one_has(self):
    line = "config.measures.landscape.name = 'covariate_shift'"
    measure = typed.run(line)['measures']['landscape']
    self.assertEqual(measure['data'], 'current_batch')
    self.assertEqual(measure['every_steps'], 100)
    self.assertNotIn('step_factors', measure)

  def test_a_new_one_in_short(self):
    lines = (
      "config.measures.jac = 'jacobian'",
      "config.measures.jac.data = 'test:16'",
      'config.measures.jac.every_steps = 10',
    )
    whole = "dict(name='jacobian', data='test:16', every_steps=10)"
    self.assertEqual(
      typed.run(*lines), typed.run(f'config.measures.jac = {whole}')
    )

  @parameterized.parameters(
    'config.measures.landscape = None',
    'del config.measures.landscape',
    'config.runs.one = dict(measures=dict(landscape=None))',
  )
  def test_one_less(self, line):
    measures = typed.run(line)['measures']
    self.assertEqual(list(measures), ['activations', 'test'])


class ConfigTest(parameterized.TestCase):
  def test_a_plain_one_goes_on_working(self):
    plain = 'config.model = ml_collections.ConfigDict(dict(name="mlp"))'
    lines = ('import ml_collections', plain, 'config.model.hidden = (3,)')
    self.assertEqual(typed.run(*lines)['model']['hidden'], [3])
    self.assertEqual(
      typed.run(
        *lines[:2],
        'mine = ml_collections.ConfigDict(config)',
        'mine.model.hidden = (3,)',
        'config = mine',
      ),
      typed.run(*lines),
    )

  @parameterized.parameters(
    copy.deepcopy, lambda config: config.copy_and_resolve_references()
  )
  def test_a_copy_does_the_same(self, copied):
    original = defaults.get_config()
    original.runs = defaults.runs(standard={}, batchnorm={}, a={})
    config = copied(original)
    self.assertEqual(repr(config.to_dict()), repr(original.to_dict()))
    self.assertEqual(list(config.runs), ['standard', 'batchnorm', 'a'])
    config.norm = 'group'
    config.measures.test = 'activations'
    config.runs.batchnorm.norm = 'layer'
    self.assertEqual(config.norm.to_dict(), {'name': 'group', 'epsilon': 1e-5})
    self.assertEqual(
      config.measures.test.to_dict(),
      {'name': 'activations', 'data': 'test', 'every_steps': 100},
    )
    self.assertEqual(config.runs.batchnorm.norm.to_dict(), {'name': 'layer'})

  def test_a_plain_section_is_put_in_as_it_is(self):
    config, runs = defaults.get_config(), defaults.runs(a=dict(norm='none'))
    model = ml_collections.ConfigDict(dict(name='mlp'))
    config.runs, config.model = runs, model
    runs.a.norm.name, model.hidden = 'layer', (3,)
    self.assertEqual(config.runs.a.norm.name, 'layer')
    self.assertEqual(config.model.hidden, (3,))

  def test_a_key_of_any_name(self):
    """ConfigDict would take an attribute of the class for it."""
    config = defaults.get_config()
    config.model.kind = 'x'
    self.assertEqual((config.model.kind, config.model.name), ('x', 'vgg11'))

  def test_other_types_are_refused_as_before(self):
    for line in ("config.steps = 'a'", "config.checkpoint = 'a'"):
      with self.assertRaisesRegex(errors.ConfigError, 'TypeError: '):
        typed.run(line)

  def test_runs_keep_their_order(self):
    runs = typed.experiment('config.runs = dict(b={}, a={}, c={})').runs
    self.assertEqual(list(runs), ['b', 'a', 'c'])

  def test_what_names_nothing_new_waits_for_no_jax(self):
    code = (
      'import sys\nsys.modules["jax"] = None\n'
      'from configs import quickstart\nquickstart.get_config()'
    )
    subprocess.run([sys.executable, '-c', code], cwd=strict.ROOT, check=True)

  @parameterized.parameters(
    ('config', 'runs', 'runs'), ('config', 'norm', 'norm'),
    ('runs', 'norm', 'run'), ('run', 'norm', 'norm'), ('run', 'runs', ''),
    ('config', 'measures', 'measures'), ('run', 'measures', 'own_measures'),
    ('own_measures', 'data', 'measure'),
    ('measures', 'data', 'measure'), ('measure', 'data', ''),
    ('norm', 'loss', ''), ('', 'norm', ''), ('config', 'steps', ''),
  )  # fmt: skip
  def test_what_is_below(self, kind, key, expected):
    self.assertEqual(changeable.kind_below(kind, key), expected)


class SeedsTest(parameterized.TestCase):
  @parameterized.parameters(
    ('(0, 1, 2)', '0,1,2', (0, 1, 2)), ('range(3)', '0:3', (0, 1, 2)),
    ("'0:3'", '(0,1,2)', (0, 1, 2)), ("(7, '1:3')", '7,1:3', (7, 1, 2)),
    ('2', '2', (2,)), ('range(1, 6, 2)', '[1,3,5]', (1, 3, 5)),
  )  # fmt: skip
  def test_in_a_file_and_as_a_flag(self, in_file, flag, expected):
    line = f'config.seeds = {in_file}'
    self.assertEqual(typed.experiment(line).seeds, expected)
    words = [f'--config.seeds={flag}']
    for line in ('', 'config.seeds = range(9)', "config.seeds = '5:9'"):
      self.assertEqual(typed.experiment(line, words=words).seeds, expected)


if __name__ == '__main__':
  absltest.main()
