"""The figure of Batch Sharpness, and its line at 2 / (learning rate)."""

import numpy as np
from absl.testing import absltest

from bn_jax.report.figures import batch_sharpness
from bn_jax.report.results import curves
from tests.fixtures import pictures

STEPS = np.array([0, 10, 20])


def run(name='a', momentum=0.0, optimizer='sgd', statistics='batch', looks=3):
  """A run of two seeds, at a rate that falls from 0.5 to 0.1."""
  section = {
    'name': 'batch_sharpness', 'data': 'train:64', 'every_steps': 10,
    'batch_size': 16, 'statistics': statistics,
  }  # fmt: skip
  manifest = {
    'status': 'done', 'step': 21, 'precision': {'measures': 'highest'},
    'config': {
      'measures': {'edge': section}, 'batch_size': 16,
      'norm': {'name': 'batch'},
      'optimizer': {'name': optimizer, 'momentum': momentum},
    },
  }  # fmt: skip
  seeds = []
  for seed in (0, 1):
    values = {
      'batch_sharpness': STEPS + 2.0 * seed,
      'ratio_of_means': STEPS + 5.0,
      'standard_error': np.ones(3),
    }
    series = {
      'edge': curves.Series(
        STEPS[:looks], {key: value[:looks] for key, value in values.items()}
      ),
      'train': curves.Series(
        np.arange(21), {'learning_rate': np.where(np.arange(21) < 10, 0.5, 0.1)}
      ),
    }
    seeds.append(curves.Seed(seed, manifest, series, {}, {}))
  return curves.Run(name, tuple(seeds))


def heights(axis):
  """The last value of each line of a panel, but of seeds beside their mean."""
  lines = [line for line in axis.lines if line.get_linewidth() >= 1]
  return sorted({float(line.get_ydata()[-1]) for line in lines})


class FigureTest(absltest.TestCase):
  def test_of_plain_sgd(self):
    figure = pictures.of(batch_sharpness.figure, [run()])
    for narrow in (False, True):
      of_ratios, of_means = pictures.axes(figure, narrow)
      self.assertEqual(heights(of_ratios), [20, 21])  # 2 / 0.1, the mean
      np.testing.assert_allclose(heights(of_means), [20, 25])
    self.assertIn('Thin: 2 / (learning rate)', figure.caption)
    self.assertNotIn('No such line', figure.caption)
    for quantity, want in (
      ('batch_sharpness', [2, 12, 22]), ('ratio_of_means', [5, 15, 25]),
      ('standard_error', [1, 1, 1]),
    ):  # fmt: skip
      got = pictures.values(figure, seed=1, quantity=quantity)
      self.assertEqual(got, want)

  def test_an_axis_is_logarithmic_where_all_is_above_0(self):
    of_ratios, of_means = pictures.axes(
      pictures.of(batch_sharpness.figure, [run()])
    )
    scales = of_ratios.get_yscale(), of_means.get_yscale()
    self.assertEqual(scales, ('linear', 'log'))

  def test_the_line_is_of_plain_sgd_alone(self):
    """Not with momentum, not of Adam, not with running statistics."""
    others = [
      run('b', momentum=0.9), run('c', optimizer='adam'),
      run('d', statistics='running'),
    ]  # fmt: skip
    for other in others:
      figure = pictures.of(batch_sharpness.figure, [other])
      for axis in pictures.axes(figure):
        self.assertNotIn(20, heights(axis))
      self.assertIn(f'No such line for {other.name}', figure.caption)
      self.assertNotIn('Thin', figure.caption)
    both = pictures.of(batch_sharpness.figure, [run(), others[0]])
    self.assertIn('Thin', both.caption)
    self.assertIn('No such line for b:', both.caption)

  def test_one_look_is_told_in_numbers(self):
    figure = pictures.of(batch_sharpness.figure, [run(looks=1)])
    self.assertEmpty(figure.rows)
    got = pictures.values(figure, quantity='ratio_of_means')
    self.assertEqual(got[:2], [5, 5])
    self.assertEqual(figure.numbers[0], ['', 'a'])
    self.assertStartsWith(figure.numbers[1][1], '1')
    nothing = tuple(seed._replace(series={}) for seed in run().seeds)
    bare = run()._replace(seeds=nothing)
    self.assertIsNone(pictures.of(batch_sharpness.figure, [bare]))


if __name__ == '__main__':
  absltest.main()
