"""Statistics of hand-made records, against what they are by arithmetic."""

import inspect
import math
import re

import numpy as np
from absl.testing import absltest, parameterized

from bn_jax import distributions, errors
from bn_jax.report.results import reductions, statistics
from tests.fixtures import hand_made, strict

NAN = math.nan
RATE = 0.1


def of(seed, statistic, /, **keywords):
  statistics.check('here', statistic, keywords)
  return statistics.of(statistic, keywords, seed)


class ReductionsTest(parameterized.TestCase):
  @parameterized.parameters(
    ('median', 3.5), ('mean', 4.0), ('max', 8.0), ('min', 1.0),
    ('first', 8.0), ('range', 8.0),
  )  # fmt: skip
  def test_over_what_is_a_number(self, reduce, expected):
    looks, values = range(5), [NAN, 8.0, 1.0, 4.0, 3.0]
    self.assertEqual(reductions.over(looks, values, reduce), expected)

  def test_after_is_the_first_step_that_counts(self):
    looks, values = (0, 50, 100), (9.0, 2.0, 4.0)
    self.assertEqual(reductions.over(looks, values, 'mean', 50), 3.0)
    self.assertTrue(math.isnan(reductions.over(looks, values, 'mean', 101)))


class TrainingTest(parameterized.TestCase):
  def test_steps_to_the_accuracy_of_twenty_batches(self):
    accuracy = [0.0] * 30 + [1.0] * 30
    seed = hand_made.seed(train=(range(60), {'accuracy': accuracy}))
    # 10 of the last 20 batches are right after batch 39.
    self.assertEqual(of(seed, 'steps_to_accuracy', accuracy=0.5), 39)
    self.assertEqual(of(seed, 'final_accuracy'), 1.0)

  def test_steps_to_the_accuracy_of_an_evaluation(self):
    test = ((0, 10, 20, 30), {'accuracy': [0.1, 0.6, 0.5, 0.9]})
    seed = hand_made.seed(test=test)
    steps = {
      accuracy: of(
        seed, 'steps_to_test_accuracy', name='test', accuracy=accuracy
      )
      for accuracy in (0.1, 0.6, 0.7, 0.9, 0.95)
    }
    self.assertEqual(steps, {0.1: 0, 0.6: 10, 0.7: 30, 0.9: 30, 0.95: math.inf})
    self.assertEqual(of(seed, 'last_of', name='test', value='accuracy'), 0.9)
    at = {'name': 'test', 'value': 'accuracy'}
    self.assertEqual(of(seed, 'value_at', **at, step=20), 0.5)
    self.assertTrue(math.isnan(of(seed, 'value_at', **at, step=25)))

  def test_the_end_of_one_that_diverged_at_once(self):
    """It has no twenty batches; of one that goes on that says nothing."""
    train = (range(4), {'accuracy': [0.1, 0.2, 0.0, 0.1], 'data_loss': [1] * 4})
    diverged = hand_made.seed(status='diverged', train=train)
    self.assertAlmostEqual(of(diverged, 'final_accuracy'), 0.1)
    self.assertEqual(of(diverged, 'final_loss'), 1.0)
    self.assertEqual(of(diverged, 'diverged'), 1.0)
    done = hand_made.seed(train=train)
    self.assertTrue(math.isnan(of(done, 'final_accuracy')))
    self.assertEqual(of(done, 'diverged'), 0.0)

  @parameterized.parameters(
    dict(statistic='last_of', name='test', value='accuracy'),
    dict(statistic='steps_to_test_accuracy', name='test', accuracy=0.5),
    dict(statistic='value_at', name='test', value='accuracy', step=0),
    dict(statistic='final_loss'),
    dict(statistic='band_width', name='along', value='loss', reduce='mean'),
    dict(statistic='upper_edge', name='along', value='loss', reduce='mean'),
    dict(statistic='beta_of_rate', name='along', reduce='mean'),
    dict(statistic='curvature_of_rate', name='along', reduce='mean'),
    dict(
      statistic='at_factor', name='along', value='loss', factor=1, reduce='mean'
    ),
    dict(
      statistic='growth', name='along', value='loss', factors=[1, 2],
      reduce='mean',
    ),
    dict(
      statistic='of_layer', name='shift', layer='a', value='l2', reduce='mean'
    ),
    dict(
      statistic='moment_change', name='activations', layer='a', reduce='mean'
    ),
    dict(
      statistic='activation_std', name='activations', layer='a', reduce='max'
    ),
    dict(statistic='unit_movement', name='activations', layer='a', of='width'),
    dict(
      statistic='shape_distance', name='activations', layer='a', reduce='max'
    ),
  )  # fmt: skip
  def test_what_was_not_recorded_is_nan(self, statistic, **keywords):
    self.assertTrue(math.isnan(of(hand_made.seed(), statistic, **keywords)))


class LandscapeTest(absltest.TestCase):
  def along(self, values, looks=(0, 50), **more):
    return hand_made.seed(rate=RATE, along=(looks, {**values, **more}))

  def test_band(self):
    """Of step sizes: the maximum minus the minimum, of numbers alone."""
    seed = self.along(
      {'loss': [[1, 3, NAN], [2, 10, 4], [7, 7, 7]]}, looks=(0, 50, 100)
    )
    band = {'name': 'along', 'value': 'loss'}
    self.assertEqual(of(seed, 'band_width', **band, reduce='max'), 8.0)
    self.assertEqual(of(seed, 'band_width', **band, reduce='median'), 2.0)
    self.assertEqual(
      of(seed, 'band_width', **band, reduce='mean', after=50), 4.0
    )
    self.assertEqual(of(seed, 'upper_edge', **band, reduce='median'), 7.0)
    self.assertEqual(of(seed, 'upper_edge', **band, reduce='first'), 3.0)

  def test_what_is_infinite_is_not_measured(self):
    seed = self.along({'loss': [[1, math.inf], [1, math.inf]]})
    band = {'name': 'along', 'value': 'loss', 'reduce': 'mean'}
    self.assertTrue(math.isnan(of(seed, 'upper_edge', **band)))

  def test_the_edge_of_stability_is_one(self):
    """Of a curvature of 2 / (learning rate)."""
    edge = 2 / RATE
    seed = self.along(
      {'beta': [[0.5 * edge, edge], [edge, NAN]], 'curvature': [edge, edge]}
    )
    for name in ('beta_of_rate', 'curvature_of_rate'):
      found = of(seed, name, name='along', reduce='median')
      self.assertAlmostEqual(found, 1.0)

  def test_of_a_power_law(self):
    """change = size^1.5: by place and by growth."""
    factors = np.array([0.5, 1.0, 2.0, 4.0])
    sizes = (RATE * factors).astype(np.float32)
    change = sizes.astype(float) ** 1.5
    change[-1] = math.inf  # it must not reach into the other places
    seed = self.along(
      {'gradient_change': [change] * 2, 'step_size': [sizes] * 2}
    )
    value = {
      'name': 'along', 'value': 'gradient_change', 'reduce': 'median',
    }  # fmt: skip
    found = of(seed, 'at_factor', **value, factor=2.0)
    self.assertAlmostEqual(found, (2 * RATE) ** 1.5, places=6)
    found = of(seed, 'growth', **value, factors=[0.5, 1.0])
    self.assertAlmostEqual(found, 2**1.5, places=5)
    self.assertTrue(math.isnan(of(seed, 'at_factor', **value, factor=3.0)))

  def test_of_a_layer(self):
    seed = hand_made.seed(shift=((0, 50, 100), {'a/l2': [4, 1, 3]}))
    value = {'name': 'shift', 'layer': 'a', 'value': 'l2'}
    self.assertEqual(of(seed, 'of_layer', **value, reduce='first'), 4)
    self.assertEqual(of(seed, 'of_layer', **value, reduce='mean', after=50), 2)
    self.assertEqual(
      of(seed, 'of_measure', name='shift', value='a/l2', reduce='max'),
      of(seed, 'of_layer', **value, reduce='max'),
    )


class ActivationsTest(absltest.TestCase):
  def looks(self, *values):
    looks = [(50 * k, {'a/mean': [0.0], **v}) for k, v in enumerate(values)]
    return hand_made.seed(arrays={'act': looks})

  def test_moments(self):
    seed = self.looks(
      {'a/mean': np.array([0.0, 0.0]), 'a/var': np.array([4.0, 16.0])},
      {'a/mean': np.array([1.0, -3.0]), 'a/var': np.array([1.0, 4.0])},
      {'a/mean': np.array([1.0, -3.0]), 'a/var': np.array([9.0, 81.0])},
    )
    place = {'name': 'act', 'layer': 'a'}
    # |1| and |-3|, then nothing.
    self.assertEqual(of(seed, 'moment_change', **place, reduce='max'), 2.0)
    self.assertEqual(of(seed, 'moment_change', **place, reduce='mean'), 1.0)
    self.assertEqual(
      of(seed, 'moment_change', **place, moment='var', reduce='first'), 7.5
    )
    # Deviations 2 and 4, 1 and 2, 3 and 9.
    self.assertEqual(of(seed, 'activation_std', **place, reduce='median'), 3.0)
    self.assertEqual(of(seed, 'activation_std', **place, reduce='range'), 4.0)

  def test_percentiles_of_units(self):
    """Medians alternate by 1, 3 and 5; one unit is as wide as 4, one grows."""
    levels = np.array([0.05, 0.15, 0.5, 0.85, 0.95])

    def look(sign):
      middle = sign * np.array([1.0, 3.0, 5.0])
      width = np.array([4.0, 10.0 + 2 * sign, 0.0])
      rows = [middle - 9, middle - width / 2, middle, middle + width / 2]
      return {'levels': levels, 'a/quantiles': np.array([*rows, middle + 9])}

    seed = self.looks(look(1), look(-1), look(1), look(-1))
    place = {'name': 'act', 'layer': 'a'}
    self.assertEqual(of(seed, 'unit_movement', **place, of='median'), 3.0)
    # |2 sign| of one of three.
    self.assertAlmostEqual(
      of(seed, 'unit_movement', **place, of='width'), 2 / 3
    )
    # The third has no width.
    self.assertAlmostEqual(
      of(seed, 'unit_movement', **place, of='median', relative=True),
      (1 / 4 + 3 / 10) / 2,
    )

  def test_the_distance_of_a_shift(self):
    """W1 of values that all move by 1 is 1, whatever their shape."""
    values = np.random.default_rng(0).normal([0.0, 3.0], size=(4000, 2))
    seen = [distributions.of(values + shift) for shift in (0.0, 1.0)]
    seed = self.looks(
      *(
        {
          'a/mean': one.mean, 'a/var': one.var,
          'a/histogram': one.histogram.sum(axis=0),
        }
        for one in seen
      )
    )  # fmt: skip
    found = of(seed, 'shape_distance', name='act', layer='a', reduce='mean')
    self.assertAlmostEqual(found, 1 / values.std(), delta=0.01)


class CheckTest(parameterized.TestCase):
  @parameterized.parameters(
    ('band', {}, "unknown statistic 'band'; did you mean 'band_width'"),
    ({'name': 'band_width'}, {}, 'unknown statistic'),
    ('final_loss', [], 'allowed: a dict'),
    ('steps_to_accuracy', {}, 'accuracy: missing'),
    (
      'steps_to_accuracy', {'accuracy': 0.9, 'after': 3},
      "unknown keyword 'after'",
    ),
    ('steps_to_accuracy', {'accuracy': True}, 'allowed: a number'),
    (
      'moment_change', {'name': 'a', 'layer': 'b', 'reduce': 'avg'},
      "'avg'; allowed: median",
    ),
    (
      'growth', {'name': 'a', 'value': 'b', 'reduce': 'max', 'factors': [1]},
      'allowed: two numbers',
    ),
    ('last_of', {'name': 3, 'value': 'loss'}, 'allowed: a name'),
  )  # fmt: skip
  def test_one_line_errors(self, statistic, keywords, expected):
    with self.assertRaisesRegex(errors.ConfigError, expected):
      statistics.check('here', statistic, keywords)

  def test_the_page_explains_each_with_its_keywords(self):
    text = (strict.ROOT / 'docs' / 'papers.md').read_text()
    rows = dict(re.findall(r'^\| `(\w+)` \| (.*?) ?\|', text, re.M))
    self.assertEqual(set(rows), set(statistics.STATISTICS))
    above = None
    for name, keywords in rows.items():
      above = above if keywords == 'the same' else keywords
      _, *known = inspect.signature(statistics.STATISTICS[name]).parameters
      self.assertEqual(set(re.findall(r'\w+', above)), set(known), name)

  def test_words(self):
    self.assertEqual(
      statistics.words('last_of', {'name': 'test', 'value': 'accuracy'}),
      'last_of(name=test, value=accuracy)',
    )


if __name__ == '__main__':
  absltest.main()
