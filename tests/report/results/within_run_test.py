"""Statistics of one run against itself, by arithmetic on hand-made records."""

import math

import numpy as np
from absl.testing import absltest, parameterized

from bn_jax import errors
from bn_jax.report.results import statistics
from tests.fixtures import hand_made

NAN = math.nan


def of(seed, statistic, /, **keywords):
  statistics.check('here', statistic, keywords)
  return statistics.of(statistic, keywords, seed)


class EdgeTest(parameterized.TestCase):
  @parameterized.parameters(
    ({}, 20.0), ({'momentum': 0.9}, 38.0),
    ({'momentum': 0.9, 'nesterov': True}, 38.0 / 2.8),
  )  # fmt: skip
  def test_one_at_the_edge_of_the_optimizer(self, optimizer, curvature):
    """At a rate of 0.1: 2 / 0.1, 2 (1 + 0.9) / 0.1, that / (1 + 2 * 0.9)."""
    seed = hand_made.seed(
      rate=0.1, top=((0, 50), {'sharpness': [1.0, curvature]})
    )
    seed.manifest['config']['optimizer'] = {'name': 'sgd', **optimizer}
    place = {'name': 'top', 'value': 'sharpness', 'reduce': 'max'}
    self.assertAlmostEqual(of(seed, 'of_edge', **place), 1.0)

  def test_no_edge(self):
    seed = hand_made.seed(top=((0,), {'sharpness': [1.0]}))
    seed.manifest['config']['optimizer'] = {'name': 'adam'}
    place = {'name': 'top', 'value': 'sharpness', 'reduce': 'max'}
    self.assertTrue(math.isnan(of(seed, 'of_edge', **place)))


class LayersTest(absltest.TestCase):
  def seed(self, rows):
    """Layers d1, d2, ... with a value a look."""
    values = {f'd{i + 1}/norm': row for i, row in enumerate(rows)}
    return hand_made.seed(signal=(range(len(rows[0])), values))

  def test_growth_by_both_passes(self):
    rows = [[3 * 1.2**i, 1.0] for i in range(12)]
    place = {'name': 'signal', 'value': 'norm', 'reduce': 'first'}
    growth = of(self.seed(rows), 'layer_growth', toward='output', **place)
    self.assertAlmostEqual(growth, 1.2)
    growth = of(self.seed(rows), 'layer_growth', toward='input', **place)
    self.assertAlmostEqual(growth, 1 / 1.2)
    place['reduce'] = 'min'
    growth = of(self.seed(rows), 'layer_growth', toward='output', **place)
    self.assertAlmostEqual(growth, 1.0)

  def test_least_squares_with_ends_left_out(self):
    """The slope of numpy.polyfit, of layers 3 to 7 of 10."""
    logs = np.random.default_rng(0).normal(size=10)
    seed = self.seed([[value] for value in np.exp(logs)])
    growth = of(
      seed, 'layer_growth', name='signal', value='norm', toward='output',
      without_first=2, without_last=3, reduce='mean',
    )  # fmt: skip
    slope = np.polyfit(np.arange(5), logs[2:7], 1)[0]
    self.assertAlmostEqual(growth, math.exp(slope))

  def test_what_has_no_logarithm_is_left_out(self):
    rows = [[0.0, 1.0], [1.0, 2.0], [1.0, 4.0]]
    place = {'name': 'signal', 'value': 'norm', 'toward': 'output'}
    growth = of(self.seed(rows), 'layer_growth', reduce='max', **place)
    self.assertAlmostEqual(growth, 2.0)
    one = self.seed([[1.0]])
    growth = of(one, 'layer_growth', reduce='max', **place)
    self.assertTrue(math.isnan(growth))


class RatiosTest(absltest.TestCase):
  def test_of_places(self):
    seed = hand_made.seed(
      top=((0, 50), {'eigenvalues': [[9, 3, 1], [8, 4, 2]], 'one': [1, 2]})
    )
    place = {'name': 'top', 'value': 'eigenvalues', 'first': 1, 'last': 3}
    self.assertEqual(of(seed, 'place_ratio', **place, reduce='first'), 9.0)
    self.assertEqual(of(seed, 'place_ratio', **place, reduce='min'), 4.0)
    place['last'] = 4
    self.assertTrue(math.isnan(of(seed, 'place_ratio', **place, reduce='min')))
    place |= {'last': 3, 'value': 'one'}
    self.assertTrue(math.isnan(of(seed, 'place_ratio', **place, reduce='min')))

  def test_of_entries_at_the_steps_of_both(self):
    seed = hand_made.seed(
      batch=((0, 50, 100), {'sharpness': [2.0, 6.0, 5.0]}),
      running=((50, 100, 150), {'sharpness': [3.0, NAN, 1.0]}),
    )
    place = {'name': 'batch', 'other': 'running', 'value': 'sharpness'}
    self.assertEqual(of(seed, 'over_entry', **place, reduce='max'), 2.0)
    place['other'] = 'none'
    self.assertTrue(math.isnan(of(seed, 'over_entry', **place, reduce='max')))


class CheckTest(parameterized.TestCase):
  @parameterized.parameters(
    ('toward', 'back', "'back'; allowed: input, output"),
    ('without_first', -1, '-1; allowed: 0, 1, ...'),
    ('without_last', 1.0, '1.0; allowed: 0, 1, ...'),
  )
  def test_one_line_errors(self, keyword, value, expected):
    keywords = dict(name='a', value='b', toward='input', reduce='max')
    with self.assertRaisesRegex(errors.ConfigError, expected):
      statistics.check('here', 'layer_growth', keywords | {keyword: value})


if __name__ == '__main__':
  absltest.main()
