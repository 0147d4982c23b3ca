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
    at = {'name': 'top', 'value': 'eigenvalues', 'place': 2, 'reduce': 'max'}
    self.assertEqual(of(seed, 'at_place', **at), 4.0)
    self.assertTrue(math.isnan(of(seed, 'at_place', **at | {'place': 4})))
    place['last'] = 4
    self.assertTrue(math.isnan(of(seed, 'place_ratio', **place, reduce='min')))
    place |= {'last': 3, 'value': 'one'}
    self.assertTrue(math.isnan(of(seed, 'place_ratio', **place, reduce='min')))

  def test_of_entries_at_the_steps_of_both(self):
    seed = hand_made.seed(
      batch=((0, 50, 100), {'sharpness': [2.0, 6.0, 5.0]}),
      running=((50, 100, 150), {'top': [3.0, NAN, 1.0]}),
    )
    place = {
      'name': 'batch', 'value': 'sharpness', 'by_name': 'running',
      'by_value': 'top', 'reduce': 'max',
    }  # fmt: skip
    self.assertEqual(of(seed, 'quotient', **place), 2.0)
    place['by_name'] = 'batch'
    self.assertTrue(math.isnan(of(seed, 'quotient', **place)))


class SurfacesTest(parameterized.TestCase):
  def seed(self, *surfaces):
    looks = [
      (50 * k, {'loss': np.array(loss, float), 'loss_0': np.array(1.0)})
      for k, loss in enumerate(surfaces)
    ]
    return hand_made.seed(arrays={'plane': looks})

  def test_height_over_the_middle(self):
    seed = self.seed([[1, 2, 4]], [[3, NAN, math.inf], [1, 2, 6]])
    height = of(seed, 'surface_height', name='plane', reduce='first')
    self.assertEqual(height, 1.0)
    height = of(seed, 'surface_height', name='plane', reduce='max')
    self.assertEqual(height, 3.5)
    height = of(seed, 'surface_height', name='other', reduce='max')
    self.assertTrue(math.isnan(height))

  @parameterized.parameters(
    ((1, 0, 2), 0.0),  # convex
    ((-1, 0, -2), 1.0),
    ((4, 0, -1), 0.25),
    # Eigenvalues of [[0, 3], [3, 0]] are 3 and -3.
    ((0, 3, 0), 1.0),
  )
  def test_concavity_of_a_quadratic(self, entries, expected):
    """Central differences are exact: x'[[a, b], [b, c]]x / 2."""
    a, b, c = entries
    x, y = np.meshgrid(np.arange(-2, 3), np.arange(-1, 3), indexing='ij')
    seed = self.seed((a * x**2 + 2 * b * x * y + c * y**2) / 2)
    share = of(seed, 'surface_concavity', name='plane', reduce='max')
    self.assertAlmostEqual(share, expected)

  def test_share_of_the_plane_of_a_trajectory(self):
    seed = self.seed([[1.0]])
    share = of(seed, 'plane_share', name='plane', reduce='max')
    self.assertTrue(math.isnan(share))
    seed.arrays['plane'][0].values['variance'] = np.array([0.5, 0.25])
    share = of(seed, 'plane_share', name='plane', reduce='max')
    self.assertEqual(share, 0.75)

  def test_cells_beside_what_is_not_finite_are_left_out(self):
    x, y = np.meshgrid(np.arange(5.0), np.arange(5.0), indexing='ij')
    loss = x**2 + y**2
    loss[0, 0] = math.inf
    share = of(self.seed(loss), 'surface_concavity', name='plane', reduce='max')
    self.assertEqual(share, 0.0)
    share = of(
      self.seed([1, 2, 3]), 'surface_concavity', name='plane', reduce='max'
    )
    self.assertTrue(math.isnan(share))


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
