"""The figure of Batch Sharpness, and its line at 2 / (learning rate)."""

import numpy as np
from absl.testing import absltest

from bn_jax.report.drawing import canvas
from bn_jax.report.figures import batch_sharpness
from bn_jax.report.results import curves

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


def drawn(figure, narrow=False):
  with canvas.style():
    return canvas.settled(figure.draw(narrow))


def heights(axis):
  """The last value of each line of a panel."""
  return sorted({float(line.get_ydata()[-1]) for line in axis.lines})


class FigureTest(absltest.TestCase):
  def test_of_plain_sgd(self):
    figure = batch_sharpness.figure([run()])
    for narrow in (False, True):
      of_ratios, of_means = drawn(figure, narrow).axes
      self.assertEqual(heights(of_ratios), [20, 21])  # 2 / 0.1, the mean
      np.testing.assert_allclose(heights(of_means), [20, 25])
    self.assertIn('Thin: 2 / (learning rate)', figure.caption)
    self.assertNotIn('No such line', figure.caption)
    self.assertLen(figure.table, 1 + 2 * 3)
    self.assertEqual(
      list(figure.table[0][3:]),
      ['batch_sharpness', 'ratio_of_means', 'standard_error'],
    )

  def test_an_axis_is_logarithmic_where_all_is_above_0(self):
    of_ratios, of_means = drawn(batch_sharpness.figure([run()])).axes
    scales = of_ratios.get_yscale(), of_means.get_yscale()
    self.assertEqual(scales, ('linear', 'log'))

  def test_the_line_is_of_plain_sgd_alone(self):
    """Not with momentum, not of Adam, not with running statistics."""
    others = [
      run('b', momentum=0.9), run('c', optimizer='adam'),
      run('d', statistics='running'),
    ]  # fmt: skip
    for other in others:
      figure = batch_sharpness.figure([other])
      for axis in drawn(figure).axes:
        self.assertNotIn(20, heights(axis))
      self.assertIn(f'No such line for {other.name}', figure.caption)
      self.assertNotIn('Thin', figure.caption)
    both = batch_sharpness.figure([run(), others[0]])
    self.assertIn('Thin', both.caption)
    self.assertIn('No such line for b:', both.caption)

  def test_one_look_is_told_in_numbers(self):
    figure = batch_sharpness.figure([run(looks=1)])
    self.assertIsNone(figure.draw)
    self.assertEqual(figure.numbers[0], ['', 'a'])
    self.assertStartsWith(figure.numbers[1][1], '1')
    self.assertIsNone(batch_sharpness.figure([]))


if __name__ == '__main__':
  absltest.main()
