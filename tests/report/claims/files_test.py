"""Claim files: the form that is demanded, and what those shipped speak of."""

import copy
import json
import pathlib

from absl.testing import absltest, parameterized

from bn_jax import errors
from bn_jax.papers import figures as figures_lib
from bn_jax.report.claims import files
from tests.fixtures import strict  # noqa: F401

_STANDARD = {
  'statistic': {'name': 'steps_to_accuracy', 'accuracy': 0.9},
  'threshold': 0.7,
  'seeds': 3,
}
_CLAIM = {
  'id': 'speed',
  'statement': 'BN trains in fewer steps',
  'source': 'Figure 1',
  'runs': ['batchnorm', ['standard', 'l1']],
  'compare': 'ratio',
  'direction': 'at most',
  'small': _STANDARD,
}
_FILE = {'figure': 'p/figure1', 'title': 'VGG', 'claims': [_CLAIM]}

# What measures record at each look; of others nothing is known here.
_RECORDED = {
  'along_gradient': (
    'loss', 'gradient_change', 'beta', 'gradient_norm', 'gradient_cosine',
  ),
  'covariate_shift': ('l2', 'relative_l2', 'cosine'),
  'evaluation': ('loss', 'accuracy'),
}  # fmt: skip


def changed(path, value):
  """The file with one value changed, at 'claims.0.small.seeds', or gone."""
  made = copy.deepcopy(_FILE)
  *above, last = [int(k) if k.isdigit() else k for k in path.split('.')]
  place = made
  for key in above:
    place = place[key]
  if value is None:
    del place[last]
  else:
    place[last] = value
  return made


class FormTest(parameterized.TestCase):
  def test_what_is_right(self):
    (claim,) = files.parse('f', _FILE).claims
    self.assertEqual(claim.runs, ('batchnorm', ('standard', 'l1')))
    self.assertEqual(claim.best, 'lowest')
    self.assertEqual(list(claim.sizes), ['small'])
    self.assertEqual(claim.sizes['small'].threshold, 0.7)

  @parameterized.parameters(
    ('claim', {}, "unknown key 'claim'; did you mean 'claims'"),
    ('title', None, 'title is missing'),
    ('claims', {}, 'allowed: a list'),
    ('claims.0.id', '', 'allowed: a text'),
    ('claims.0.compare', 'quotient', "unknown compare 'quotient'"),
    ('claims.0.direction', 'below', "unknown direction 'below'"),
    ('claims.0.best', 'least', "unknown best 'least'"),
    ('claims.0.smal', _STANDARD, "unknown key 'smal'"),
    ('claims.0.small', None, 'no size; give paper or small'),
    ('claims.0.runs', ['batchnorm'], 'runs: 1; allowed: 2'),
    ('claims.0.runs', ['batchnorm', []], 'allowed: the name of a run'),
    ('claims.0.small.seeds', 0, 'seeds: 0; allowed: 1, 2'),
    ('claims.0.small.threshold', [1, 2], 'allowed: a number'),
    ('claims.0.small.threshold', None, 'threshold is missing'),
    ('claims.0.small.more', 1, "unknown key 'more'"),
    ('claims.0.small.statistic.name', 'steps', 'unknown statistic'),
    ('claims.0.small.statistic.accuracy', '90', 'allowed: a number'),
    ('claims', [_CLAIM, _CLAIM], "id 'speed' is given twice"),
  )
  def test_what_is_wrong_is_one_line(self, path, value, expected):
    with self.assertRaisesRegex(errors.ConfigError, expected) as caught:
      files.parse('p-figure1.json', changed(path, value))
    self.assertStartsWith(str(caught.exception), 'p-figure1.json: ')
    self.assertNotIn('\n', str(caught.exception))

  @parameterized.parameters((1.0,), ([1.0],), ([2.0, 1.0],), ([1.0, 'x'],))
  def test_within_has_two_ends(self, threshold):
    made = changed('claims.0.direction', 'within')
    made['claims'][0]['small'] = {**_STANDARD, 'threshold': threshold}
    with self.assertRaisesRegex(errors.ConfigError, 'lowest'):
      files.parse('f', made)

  def test_a_file_is_called_after_its_figure(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    (folder / 'p-figure2.json').write_text(json.dumps(_FILE))
    with self.assertRaisesRegex(errors.ConfigError, 'p-figure1.json'):
      files.load(folder)


class ShippedTest(absltest.TestCase):
  def test_speak_of_what_their_configs_train_and_record(self):
    figures = {(one.figure, one.size): one for one in figures_lib.every()}
    found = files.load()
    self.assertNotEmpty(found)
    for name, figure in found.items():
      for claim in figure.claims:
        for size, standard in claim.sizes.items():
          with self.subTest(f'{name} {size} {claim.id}'):
            self.assertIn((name, size), figures)
            runs = figures[name, size].runs
            for run in files.names(claim):
              self.assertIn(run, runs)
              self.check(standard.statistic, runs[run])

  def check(self, statistic, run):
    """A statistic is about what a run's measures record."""
    self.assertLess(statistic.get('after') or 0, run['steps'])
    if 'measure' not in statistic:
      return
    self.assertIn(statistic['measure'], run['measures'])
    section = run['measures'][statistic['measure']]
    if 'layer' in statistic:
      self.assertIn(statistic['layer'], section['layers'])
    factors = statistic.get('factors') or [statistic.get('factor')]
    for factor in factors:
      if factor is not None:
        self.assertIn(factor, section['step_factors'])
    if statistic['name'] == 'curvature_of_rate':
      self.assertTrue(section['curvature'])
    if 'value' in statistic and section['name'] in _RECORDED:
      self.assertIn(statistic['value'], _RECORDED[section['name']])
    if 'step' in statistic:
      self.assertEqual(statistic['step'] % section['every_steps'], 0)


if __name__ == '__main__':
  absltest.main()
