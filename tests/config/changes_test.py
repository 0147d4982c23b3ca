"""A flag on a key does what the same line in the file would do."""

import contextlib
import json

from absl.testing import absltest, parameterized

from bn_jax import errors
from bn_jax.config import changes, files
from tests.fixtures import strict, typed

_GROUP = ('norm.name=group', 'norm.num_groups=4')
_COSINE = ('schedule.name=cosine', 'schedule.decay_steps=500')
_JACOBIAN = (
  'measures.jac.name=jacobian', 'measures.jac.data=test:16',
  'measures.jac.every_steps=10', 'measures.jac.examples=4',
)  # fmt: skip
_AS_LINE = "config.measures.jac = dict(name='jacobian', data='test:16', "


class SameTest(parameterized.TestCase):
  @parameterized.named_parameters(
    ('whole', ['steps=7'], 'config.steps = 7'),
    ('number', ['weight_decay=1e-4'], 'config.weight_decay = 1e-4'),
    ('whole_for_a_float', ['weight_decay=1'], 'config.weight_decay = 1.0'),
    ('true', ['remat=True'], 'config.remat = True'),
    ('one', ['remat=1'], 'config.remat = True'),
    ('false', ['norm.affine=false'], 'config.norm.affine = False'),
    ('none', ['data.subset=None'], 'config.data.subset = None'),
    (
      'none_of_a_text',
      ['init_from=nowhere', 'init_from=None'],
      'config.init_from = None',
    ),
    ('maybe', ['norm.bias_before=True'], 'config.norm.bias_before = True'),
    ('list', ['model.head=512,512'], 'config.model.head = (512, 512)'),
    ('list_of_one', ['model.head=512'], 'config.model.head = (512,)'),
    ('list_in_brackets', ['model.head=[3, 4]'], 'config.model.head = (3, 4)'),
    ('empty_list', ['model.head=()'], 'config.model.head = ()'),
    (
      'list_of_words',
      ['measures.activations.layers=conv2,conv9'],
      "config.measures.activations.layers = ('conv2', 'conv9')",
    ),
    (
      'own_keyword',
      _GROUP,
      "config.norm = dict(name='group', num_groups=4)",
    ),
    (
      'own_keyword_in_the_other_order',
      _GROUP[::-1],
      "config.norm = dict(name='group', num_groups=4, epsilon=1e-5)",
    ),
    (
      'own_keyword_in_short',
      ['norm=group', 'norm.num_groups=4'],
      "config.norm = dict(name='group', num_groups=4)",
    ),
    (
      'own_keyword_none',
      ['norm=group', 'norm.num_groups=None'],
      "config.norm = dict(name='group', num_groups=None)",
    ),
    (
      'own_keyword_switch',
      ['norm=weight_standardization', 'norm.scaled=False'],
      "config.norm = dict(name='weight_standardization', scaled=False)",
    ),
    (
      'own_keyword_list_of_one',
      ['model=mlp', 'model.hidden=8'],
      "config.model = dict(name='mlp', hidden=(8,))",
    ),
    (
      'own_keyword_that_is_needed',
      _COSINE,
      "config.schedule = dict(name='cosine', learning_rate=0.1, "
      'decay_steps=500)',
    ),
    (
      'that_the_file_lacks',
      ['measures.landscape.chunk_size=8'],
      'config.measures.landscape.chunk_size = 8',
    ),
    ('measure', _JACOBIAN, f'{_AS_LINE}every_steps=10, examples=4)'),
    ('measure_from_behind', _JACOBIAN[::-1],
     f'{_AS_LINE}every_steps=10, examples=4)'),
    (
      'measure_in_short',
      ['measures.jac=jacobian', *_JACOBIAN[1:]],
      f'{_AS_LINE}every_steps=10, examples=4)',
    ),
    ('measure_less', ['measures.landscape=None'],
     'config.measures.landscape = None'),
    (
      'another_measure',
      ['measures.test=activations'],
      "config.measures.test = dict(name='activations', data='test', "
      'every_steps=100)',
    ),
  )  # fmt: skip
  def test_as_in_the_file(self, flags, line):
    for form in ('--config.{}', '-config.{}', '--config.runs.one.{}'):
      words = [form.format(flag) for flag in flags]
      # As text: else 1 is 1.0 and True.
      got, expected = (
        json.dumps(run, sort_keys=True)
        for run in (typed.run(words=words), typed.run(line))
      )
      self.assertEqual(got, expected, form)

  @parameterized.parameters(
    (['--config.remat'], dict(remat=True)),
    (['--noconfig.norm.affine'], dict(norm=dict(affine=False))),
    (['--noconfig.norm.affine=True'], 'allowed for True and False alone'),
    (['--noconfig.steps'], '--noconfig.steps: allowed for True and False'),
    (['--config.steps', '7'], dict(steps=7)),
    (['--config.steps', '7', '--config.remat'], dict(steps=7, remat=True)),
    (
      ['--config.norm=group', '--config.norm.num_groups', '4'],
      dict(norm=dict(num_groups=4)),
    ),
    (['--config.remat', 'False'], "'False' belongs to no flag"),
    (['--config.steps'], '--config.steps: no value'),
    (['--config.steps', '--config.remat'], '--config.steps: no value'),
  )
  def test_other_spellings(self, words, expected):
    if isinstance(expected, str):
      with self.assertRaisesRegex(errors.ConfigError, expected):
        typed.run(words=words)
      return
    run = typed.run(words=words)
    for key, value in expected.items():
      got = run[key]
      if isinstance(value, dict):
        got = {keyword: got[keyword] for keyword in value}
      self.assertEqual(got, value)


class RunsTest(parameterized.TestCase):
  """Of the default's two runs, norm 'none' and norm 'batch'."""

  def test_a_keyword_is_for_the_runs_that_have_it(self):
    runs = typed.experiment(words=['--config.norm.momentum=0.8']).runs
    self.assertEqual(runs['standard'].norm, {'name': 'none'})
    self.assertEqual(runs['batchnorm'].norm['momentum'], 0.8)

  def test_also_one_that_the_file_lacks(self):
    words = ['--config.runs.batchnorm.norm=group', '--config.norm.num_groups=4']
    runs = typed.experiment(words=words).runs
    self.assertEqual(runs['standard'].norm, {'name': 'none'})
    self.assertEqual(runs['batchnorm'].norm['num_groups'], 4)

  def test_a_new_name_drops_what_the_run_has(self):
    line = "config.runs.batchnorm = dict(norm=dict(name='batch', momentum=0.8))"
    words = ['--config.runs.batchnorm.norm=layer']
    norm = typed.experiment(line, words=words).runs['batchnorm'].norm
    self.assertNotIn('momentum', norm)
    self.assertEqual(norm['name'], 'layer')

  def test_a_measure_of_one_run(self):
    words = [f'--config.runs.batchnorm.{flag}' for flag in _JACOBIAN]
    words += ['--config.runs.standard.measures.landscape=None']
    runs = typed.experiment(words=words).runs
    measures = {name: sorted(run.measures) for name, run in runs.items()}
    self.assertEqual(
      measures,
      {
        'standard': ['activations', 'test'],
        'batchnorm': ['activations', 'jac', 'landscape', 'test'],
      },
    )

  @parameterized.parameters(
    ('norm.num_groups=4', 'no run has it; the runs have standard: '),
    ('norm.momentm=0.8', "'norm.momentm'; did you mean 'norm.momentum'"),
    ('schedule.decay_steps=4', 'no run has it'),
    ('measures.lanscape=None', "did you mean 'measures.landscape'"),
    ('measures.jac.data=test', "unknown key 'measures.jac.data'"),
    ('measures.test.chunksize=3', "'measures.test.chunksize'; "),
    ('norm.momentum.much=3', "unknown key 'norm.momentum.much'"),
    ('runs.batchnorm.norm.momentm=3', "unknown key 'momentm'; did you mean"),
    ('measures=None', 'measures: a section; change one of its keys measures.a'),
    ('norm=None', "unknown norm None; did you mean 'none'"),
    ('norm=bach', "unknown norm 'bach'; did you mean 'batch'"),
    ('seeds=8:0', '8:0 has no seed'),
    ('seeds=0:20000', '20000 seeds; allowed: 1 to 10000'),
    ('seeds=0:b', "config.seeds: '0:b'; allowed: whole numbers"),
    ('batch_size=None', 'config.batch_size: None; allowed'),
  )  # fmt: skip
  def test_refused(self, flag, message):
    line = 'config.runs = dict(standard=dict(norm="none"), batchnorm={})'
    lines, words = (line,), [f'--config.{flag}']
    if flag.startswith('norm='):
      lines = ('config.runs = dict(one={})',)
    with self.assertRaisesRegex(errors.ConfigError, message):
      typed.experiment(*lines, words=words)

  def test_several_wrong_ones_are_one_line(self):
    words = ['--config.norm.momentm=1', '--config.schedule.lr=3']
    with self.assertRaises(errors.ConfigError) as raised:
      typed.experiment(words=words)
    for part in ("'norm.momentum'", "'schedule.learning_rate'"):
      self.assertIn(part, str(raised.exception))


class PathsTest(absltest.TestCase):
  def test_every_key_can_be_given(self):
    """Each as what it is, in the words of a flag."""
    with contextlib.chdir(strict.ROOT):
      config = files.load('configs/default.py')
    words, expected = [], {}
    for path in changes.paths(config):
      value = config[path]
      words.append(f'--config.{path}={value}')
      expected[path] = value
    self.assertGreater(len(words), 70)
    self.assertEqual(changes.read(words, config), expected)


if __name__ == '__main__':
  absltest.main()
