import jax
import numpy as np
from absl.testing import absltest

import bn_jax
from bn_jax import analysis
from tests.fixtures import strict  # noqa: F401

_SCALES = np.array([1.0, 2, 4, 100])


def _loss(params):
  return 0.5 * params @ (_SCALES * params)


class PlotTest(absltest.TestCase):
  def panel(self, figure, title):
    (axis,) = [axis for axis in figure.axes if axis.get_title() == title]
    return axis

  def test_a_notebook_shows_it(self):
    """IPython asks for this method; a plain figure of Matplotlib has none."""
    figure = bn_jax.plot({'beta': np.array([1.0, 2.0])})
    self.assertEqual(figure._repr_png_()[:4], b'\x89PNG')

  def test_curves_are_the_numbers_of_the_result(self):
    params = np.ones(4, np.float32)
    result = analysis.along_gradient(_loss, params, [0.3, 0.01, 0.1])
    figure = bn_jax.plot(result)
    order = [1, 2, 0]  # by growing size
    for name, title in (
      ('loss', 'Loss'), ('beta', 'Beta'), ('gradient_change', 'Gradient change')
    ):  # fmt: skip
      (line,) = self.panel(figure, title).get_lines()
      np.testing.assert_allclose(line.get_xdata(), [0.01, 0.1, 0.3], rtol=1e-6)
      np.testing.assert_allclose(line.get_ydata(), result[name][order])
    self.assertEqual(self.panel(figure, 'Loss').get_yscale(), 'log')
    self.assertEqual(self.panel(figure, 'Beta').get_yscale(), 'linear')
    self.assertEqual(self.panel(figure, 'Beta').get_xlabel(), 'Step size e')

  def test_several_are_beside_each_other(self):
    results = {
      name: {'radius': np.array([0.1, 1]), 'increase': np.array([1.0, high])}
      for name, high in (('batch', 2.0), ('none', 3.0))
    }
    figure = bn_jax.plot(results)
    lines = self.panel(figure, 'Increase').get_lines()
    self.assertEqual([line.get_ydata()[-1] for line in lines], [2.0, 3.0])
    (legend,) = figure.legends
    self.assertEqual([t.get_text() for t in legend.texts], ['batch', 'none'])

  def test_single_numbers_have_their_intervals(self):
    key = jax.random.key(0)
    result = analysis.trace(_loss, np.ones(4, np.float32), key=key)
    axis = self.panel(bn_jax.plot(result), 'Trace')
    np.testing.assert_allclose(axis.get_lines()[0].get_ydata(), result['trace'])
    (bars,) = [c for c in axis.collections if len(c.get_segments())]
    (segment,) = bars.get_segments()
    np.testing.assert_allclose(
      segment[:, 1], [result['low'], result['high']], rtol=1e-6
    )

  def test_an_error_is_a_bar_on_both_sides(self):
    result = {'scale': np.array(2.0), 'scale_standard_error': np.array(0.5)}
    axis = self.panel(bn_jax.plot(result), 'Scale')
    (bars,) = [c for c in axis.collections if len(c.get_segments())]
    np.testing.assert_allclose(bars.get_segments()[0][:, 1], [1.5, 2.5])

  def test_a_surface_lies_over_its_coordinates(self):
    x, y = np.linspace(-1, 1, 5), np.linspace(0, 3, 4)
    loss = 1 + x[:, None] ** 2 + y**2
    figure = bn_jax.plot({'loss': loss}, coordinates=[x, y])
    axis = self.panel(figure, 'Loss')
    self.assertEqual((*axis.get_xlim(), *axis.get_ylim()), (-1, 1, 0, 3))

  def test_layers_have_their_names(self):
    result = {'l2': np.array([0.1, 0.2]), 'cosine': np.array([0.9, 0.8])}
    figure = bn_jax.plot(result, layers=['conv1', 'conv2'])
    labels = self.panel(figure, 'Cosine').get_xticklabels()
    self.assertEqual([t.get_text() for t in labels], ['conv1', 'conv2'])

  def test_nothing_to_draw(self):
    with self.assertRaisesRegex(ValueError, 'nothing to draw in loss; give'):
      bn_jax.plot({'loss': np.full(3, np.nan)})
    with self.assertRaisesRegex(ValueError, 'an empty result'):
      bn_jax.plot({})


if __name__ == '__main__':
  absltest.main()
