"""Claim files: the form that is demanded, and what those shipped speak of."""

import copy
import json
import pathlib

from absl.testing import absltest, parameterized

from bn_jax import analysis, errors, models, norms
from bn_jax.papers import figures as figures_lib
from bn_jax.report.claims import reading
from tests.fixtures import (
  made_up,
  strict,  # noqa: F401
)

_STANDARD = {
  'statistic': 'steps_to_accuracy',
  'keywords': {'accuracy': 0.9},
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
  'paper': _STANDARD,
}
_FILE = {'figure': 'p/figure1', 'title': 'VGG', 'claims': [_CLAIM]}


class FormTest(parameterized.TestCase):
  def test_what_is_right(self):
    (claim,) = reading.parse('f', _FILE).claims
    self.assertEqual(claim.runs, ('batchnorm', ('standard', 'l1')))
    self.assertEqual(claim.best, 'lowest')
    self.assertEqual(
      claim.sizes['paper'], ('steps_to_accuracy', {'accuracy': 0.9}, 0.7, 3)
    )

  def test_small_is_as_paper_but_for_what_it_says(self):
    (claim,) = reading.parse('f', _FILE).claims
    self.assertEqual(claim.sizes['small'], claim.sizes['paper'])
    (claim,) = reading.parse(
      'f', made_up.changed(_FILE, 'claims.0.small', {})
    ).claims
    self.assertEqual(claim.sizes['small'], claim.sizes['paper'])
    keywords = {'name': 'test', 'accuracy': 0.9}
    content = made_up.changed(_FILE, 'claims.0.paper', {
      **_STANDARD, 'statistic': 'steps_to_test_accuracy', 'keywords': keywords,
    })  # fmt: skip
    content['claims'][0]['small'] = {'keywords': {'accuracy': 0.5}, 'seeds': 1}
    (claim,) = reading.parse('f', content).claims
    paper, small = claim.sizes['paper'], claim.sizes['small']
    self.assertEqual((paper.keywords, paper.seeds), (keywords, 3))
    self.assertEqual(small.keywords, {'name': 'test', 'accuracy': 0.5})
    self.assertEqual((small.threshold, small.seeds), (0.7, 1))

  def test_a_claim_that_small_does_not_have(self):
    content = copy.deepcopy(_FILE)
    content['claims'][0]['small'] = None
    (claim,) = reading.parse('f', content).claims
    self.assertEqual(list(claim.sizes), ['paper'])

  @parameterized.parameters(
    ('claim', {}, "unknown key 'claim'; did you mean 'claims'"),
    ('title', None, 'title is missing'),
    ('claims', {}, 'allowed: a list'),
    ('claims.0.id', '', 'allowed: a text'),
    ('claims.0.compare', 'quotient', "unknown compare 'quotient'"),
    ('claims.0.direction', 'below', "unknown direction 'below'"),
    ('claims.0.best', 'least', "unknown best 'least'"),
    ('claims.0.smal', _STANDARD, "unknown key 'smal'"),
    ('claims.0.paper', None, 'paper is missing'),
    ('claims.0.small', [], 'small: .*allowed: a dict'),
    ('claims.0.small', {'seeds': 0}, 'small: seeds: 0'),
    ('claims.0.small', {'keywords': {'after': 1}}, "unknown keyword 'after'"),
    ('claims.0.runs', ['batchnorm'], 'runs: 1; allowed: 2'),
    ('claims.0.compare', 'value', 'runs: 2; allowed: 1'),
    ('claims.0.runs', ['batchnorm', []], 'allowed: the name of a run'),
    ('claims.0.paper.seeds', 0, 'seeds: 0; allowed: 1, 2'),
    ('claims.0.paper.threshold', [1, 2], 'allowed: a number'),
    ('claims.0.paper.threshold', None, 'threshold is missing'),
    ('claims.0.paper.more', 1, "unknown key 'more'"),
    ('claims.0.paper.statistic', 'steps', 'unknown statistic'),
    ('claims.0.paper.keywords.accuracy', '90', 'allowed: a number'),
    ('claims', [_CLAIM, _CLAIM], "id 'speed' is given twice"),
  )
  def test_what_is_wrong_is_one_line(self, path, value, expected):
    with self.assertRaisesRegex(errors.ConfigError, expected) as caught:
      reading.parse('p-figure1.json', made_up.changed(_FILE, path, value))
    self.assertStartsWith(str(caught.exception), 'p-figure1.json: ')
    self.assertNotIn('\n', str(caught.exception))

  @parameterized.parameters((1.0,), ([1.0],), ([2.0, 1.0],), ([1.0, 'x'],))
  def test_within_has_two_ends(self, threshold):
    made = made_up.changed(_FILE, 'claims.0.direction', 'within')
    made['claims'][0]['paper'] = {**_STANDARD, 'threshold': threshold}
    with self.assertRaisesRegex(errors.ConfigError, 'lowest'):
      reading.parse('f', made)

  def test_a_file_is_called_after_its_figure(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    (folder / 'p-figure2.json').write_text(json.dumps(_FILE))
    with self.assertRaisesRegex(errors.ConfigError, 'p-figure1.json'):
      reading.load(folder)


class ShippedTest(absltest.TestCase):
  def test_speak_of_what_their_configs_train_and_record(self):
    figures = {(one.figure, one.size): one for one in figures_lib.every()}
    claims_of = reading.load()
    self.assertNotEmpty(claims_of)
    for name, figure in claims_of.items():
      for claim in figure.claims:
        for size, standard in claim.sizes.items():
          with self.subTest(f'{name} {size} {claim.id}'):
            self.assertIn((name, size), figures)
            runs = figures[name, size].runs
            for run in reading.names(claim):
              self.assertIn(run, runs)
              self.check(standard, runs[run])

  def test_small_repeats_nothing(self):
    for path in sorted(reading.FOLDER.glob('*.json')):
      for claim in json.loads(path.read_text())['claims']:
        with self.subTest(f'{path.name} {claim["id"]}'):
          small = claim.get('small', {'its': 'paper'})
          self.assertNotEqual(small, {})
          self.assertFalse(repeated(claim['paper'], small or {}))

  def check(self, standard, run):
    """A statistic is about what a run's measures record."""
    keywords = standard.keywords
    self.assertLess(keywords.get('after') or 0, run.steps)
    if 'name' not in keywords or keywords['name'].startswith('analysis/'):
      return  # what is measured afterwards is in no config
    self.assertIn(keywords['name'], run.measures)
    section = run.measures[keywords['name']]
    if 'layer' in keywords:
      self.assertIn(keywords['layer'], section['layers'] or taps(run))
    factors = keywords.get('factors') or [keywords.get('factor')]
    for factor in factors:
      if factor is not None:
        self.assertIn(factor, section['step_factors'])
    if standard.statistic == 'curvature_of_rate':
      self.assertTrue(section['curvature'])
    if 'value' in keywords:
      value = keywords['value'].rpartition('/')[2]
      recorded = analysis.kind_of(section['name']).quantities
      self.assertIn(value, recorded)
    if 'step' in keywords:
      self.assertEqual(keywords['step'] % section['every_steps'], 0)


def taps(run):
  """The layers that feed a nonlinearity, which a section without names has."""
  network = models.make(
    **run.model, num_classes=10, norm=norms.make(**run.norm)
  )
  return [layer for layer, _ in models.taps(network)]


def repeated(paper, small):
  """The keys of which `small` says again what `paper` says."""
  return [
    key
    for key, value in small.items()
    if paper.get(key) == value
    or (isinstance(value, dict) and repeated(paper.get(key, {}), value))
  ]


if __name__ == '__main__':
  absltest.main()
