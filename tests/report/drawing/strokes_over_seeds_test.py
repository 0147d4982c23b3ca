import math

import numpy as np
from absl.testing import absltest

from bn_jax.report.drawing import canvas, strokes
from bn_jax.report.figures import landscape
from bn_jax.report.results import curves
from tests.fixtures import strict  # noqa: F401

NAN = math.nan


class MeanTest(absltest.TestCase):
  def test_at_every_step_over_those_that_are_finite_there(self):
    lines = [([0, 10, 20], [1.0, 2, 3]), ([0, 10], [3.0, NAN]), ([30], [NAN])]
    mean = strokes.mean(lines)
    np.testing.assert_array_equal(mean.step, [0, 10, 20, 30])
    np.testing.assert_array_equal(mean.mean, [2, 2, 3, NAN])
    half = 12.7062  # Student's t for one degree of freedom, times sqrt(2 / 2)
    np.testing.assert_allclose(mean.high, [2 + half, NAN, NAN, NAN], rtol=1e-5)
    np.testing.assert_allclose(mean.low, [2 - half, NAN, NAN, NAN], rtol=1e-5)

  def test_a_logarithmic_axis_has_geometric_means(self):
    lines = [([0, 1], [1.0, 0]), ([0, 1], [100.0, -1])]
    mean = strokes.mean(lines, logarithmic=True)
    np.testing.assert_allclose(mean.mean, [10, NAN])
    # The logarithms are 1 +- 1 decades; t is 12.7062.
    np.testing.assert_allclose(mean.high[0], 10 ** (1 + 12.7062), rtol=1e-4)
    self.assertGreater(mean.low[0], 0)


class AgainstTest(absltest.TestCase):
  def drawn(self, lines):
    with canvas.style():
      _, axes = canvas.grid(1, 1, False)
      strokes.draw_mean_against(axes[0, 0], lines, 0)
    return axes[0, 0].get_lines()

  def test_points_of_seeds_belong_together_by_their_order(self):
    """At the ends of two seeds the learning rates may be different ones."""
    (line,) = self.drawn([([4, 1], [2.0, 8]), ([1, 4], [2.0, 8])])
    np.testing.assert_allclose(line.get_xdata(), [1, 4])
    np.testing.assert_allclose(line.get_ydata(), [4, 4])
    line, *_ = self.drawn([([1, 2], [1.0, 2]), ([4, 8], [1.0, NAN])])
    np.testing.assert_allclose(line.get_xdata(), [2, 4])
    np.testing.assert_allclose(line.get_ydata(), [1, 2])

  def test_a_seed_of_another_grid_takes_no_part(self):
    (line,) = self.drawn([([1, 4], [2.0, 8]), ([1, 2, 4], [1.0, 1, 1])])
    np.testing.assert_allclose(line.get_ydata(), [2, 8])

  def test_what_is_not_above_0_has_no_place(self):
    lines = self.drawn([([0, 1, 2], [1.0, 2, np.inf])])
    self.assertEqual([list(line.get_ydata()) for line in lines[1:]], [[2.0]])
    self.assertEmpty(self.drawn([]))


class LandscapeTest(absltest.TestCase):
  def test_several_seeds_are_one_band_between_the_mean_edges(self):
    """Edges 1..4 and 4..64: geometric means 2 and 16."""
    seeds = tuple(
      _seed(number, edges) for number, edges in enumerate([(1, 4), (4, 64)])
    )
    run = curves.Run('standard', seeds)
    with canvas.style():
      drawing = landscape.figure([run]).draw(False)
      loss, change, beta = drawing.axes
    for axis in (loss, change):
      band = axis.collections[0].get_paths()[0].vertices[:, 1]
      np.testing.assert_allclose([band.min(), band.max()], [2, 16])
      self.assertLen(axis.collections, 3)  # the band, an interval an edge
    np.testing.assert_allclose(beta.lines[0].get_ydata(), 16)
    np.testing.assert_allclose(beta.lines[1].get_ydata(), 1 / 0.05)


def _seed(number, edges):
  steps = np.arange(3)
  look = {
    name: np.tile(np.array(edges, float), (3, 1))
    for name in ('loss', 'gradient_change', 'beta')
  } | {'step_size': np.tile([0.05, 0.1], (3, 1))}
  measures = {
    'landscape': {
      'name': 'along_gradient',
      'data': 'current_batch',
      'every_steps': 1,
      'step_factors': [0.5, 1.0],
      'statistics': 'batch',
    }
  }
  manifest = {
    'status': 'done',
    'config': {
      'measures': measures,
      'batch_size': 8,
      'norm': {'name': 'batch'},
    },
    'precision': {'measures': 'highest'},
  }
  return curves.Seed(
    number, manifest, {'landscape': curves.Series(steps, look)}, {}, {}
  )


if __name__ == '__main__':
  absltest.main()
