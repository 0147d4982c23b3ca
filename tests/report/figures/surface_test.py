"""Surfaces: levels, ways, what is not finite, planes and lines."""

import numpy as np
from absl.testing import absltest, parameterized

from bn_jax.report.drawing import tables
from bn_jax.report.figures import surface
from bn_jax.report.results import curves
from bn_jax.storage import records
from tests.fixtures import (
  pictures,
  strict,  # noqa: F401
)

X, Y = np.array([-1.0, 0.0, 1.0]), np.array([-2.0, 0.0, 2.0])


def run(name='a', steps=(0,), seeds=1, loss=None, dimensions=2, **values):
  """A run whose loss at (x, y) is 1 + x + y / 10, unless given."""
  if loss is None:
    loss = 2 + X[:, None] + Y[None] / 10 if dimensions == 2 else 2 + X
  values = {'x': X, 'loss': np.array(loss, float), **values}
  if dimensions == 2:
    values['y'] = Y
  looks = [records.Record(step, 'valley', values) for step in steps]
  section = {
    'name': 'surface', 'data': 'current_batch', 'every_steps': 10,
    'directions': 'trajectory' if 'path' in values else 'random',
    'normalise': 'filter', 'statistics': 'batch', 'penalised': True,
    'dimensions': dimensions,
  }  # fmt: skip
  manifest = {
    'status': 'done',
    'step': 20,
    'config': {
      'measures': {'valley': section},
      'batch_size': 8,
      'norm': {'name': 'batch'},
    },
    'precision': {'measures': 'highest'},
  }
  every = [
    curves.Seed(seed, manifest, {}, {}, {'valley': looks})
    for seed in range(seeds)
  ]
  return curves.Run(name, tuple(every))


def way(last=2.0):
  return {
    'path': np.array([[0.8, 1.5], [0.2, 1.0], [0.0, 0.0]]),
    'path_steps': np.array([0, 10, 20]),
    'path_loss': np.array([9.0, 3.0, last]),
    'variance': np.array([0.75, 0.125]),
  }


def visible(figure, narrow=False):
  """The axes of panels, without the bar of colours."""
  every = pictures.axes(figure, narrow)
  return [a for a in every if a.get_label() != '<colorbar>']


def scale(figure):
  """The scale of the colours of a figure."""
  return figure.panels[0].marks[0].scale


class PlaneTest(parameterized.TestCase):
  def test_a_panel_a_run_on_one_scale(self):
    low, high = run('low'), run('high', loss=5 + np.zeros((3, 3)))
    figure = pictures.of(surface.figure, [low, high])
    self.assertLen(visible(figure), 2)
    self.assertEqual(scale(figure)[1:4], (0.8, 5, False))
    self.assertIn('linear, the same in all panels', figure.caption)
    self.assertIn(
      'low, step 0: 0.8 to 3.2. high, step 0: 5 to 5.',
      tables.alternative(figure),
    )

  def test_the_first_direction_is_across(self):
    """loss[i, j] is at (x_i, y_j): it grows to the right, not upwards."""
    axis = visible(pictures.of(surface.figure, [run()]))[0]
    self.assertEqual(axis.get_xlim(), (-1, 1))
    self.assertEqual(axis.get_ylim(), (-2, 2))
    filled = axis.collections[0]
    centres = [
      path.vertices.mean(0)[0] for path in filled.get_paths()
      if len(path.vertices)
    ]  # fmt: skip
    self.assertEqual(centres, sorted(centres))
    self.assertGreater(centres[-1], centres[0] + 1)

  def test_powers_where_losses_span_a_decade(self):
    loss = np.array([[0.1, 1, 2], [1, 2, 3], [1, 5, 100.0]])
    figure = pictures.of(surface.figure, [run(loss=loss)])
    self.assertEqual(scale(figure)[1:4], (0.1, 100, True))
    self.assertIn('Levels are logarithmic.', figure.caption)
    pictures.drawing(figure)
    # A loss of 0 or below has no logarithm.
    loss[0, 0] = 0
    self.assertIn(
      'linear', pictures.of(surface.figure, [run(loss=loss)]).caption
    )

  def test_not_finite_is_hatched_and_told(self):
    loss = np.array([[np.nan, 1, 2], [1, np.inf, 3], [1, 5, 9.0]])
    figure = pictures.of(surface.figure, [run('b'), run('a', loss=loss)])
    self.assertIn(
      'Hatched: losses that are not finite, 2 of 9 of a at step 0.',
      figure.caption,
    )
    whole, torn = visible(figure)
    self.assertEmpty([p for p in whole.patches if p.get_hatch()])
    self.assertLen([p for p in torn.patches if p.get_hatch()], 1)
    got = [row['value'] for row in pictures.rows(figure, run='a', x=-1)]
    self.assertEqual(got, ['nan', '1', '2'])

  @parameterized.parameters(np.nan, np.inf)
  def test_nothing_finite(self, value):
    figure = pictures.of(surface.figure, [run(loss=np.full((3, 3), value))])
    self.assertIn('9 of 9', figure.caption)
    self.assertIn('a, step 0: nothing finite.', tables.alternative(figure))
    pictures.drawing(figure)

  def test_the_way_has_its_own_losses(self):
    figure = pictures.of(surface.figure, [run(**way())])
    self.assertIn('The plane holds 88 % (a to step 0)', figure.caption)
    self.assertIn('of a long random walk 90 %', figure.caption)
    self.assertIn('Levels are logarithmic.', figure.caption)  # 0.8 to 9
    (axis,) = visible(figure)
    self.assertEqual(axis.get_xlabel(), 'd₁ (75 %)')
    coloured = [c for c in axis.collections if c.get_array() is not None]
    (points,) = [c for c in coloured if len(c.get_array()) == 3]
    np.testing.assert_array_equal(points.get_array(), [9, 3, 2])
    np.testing.assert_array_equal(points.get_offsets(), way()['path'])
    got = [
      [row[name] for name in ('seed', 'step', 'x', 'y', 'value')]
      for row in pictures.rows(figure, quantity='loss_of_checkpoint')
    ]
    self.assertEqual(
      got,
      [
        [0, 0, '0.8', '1.5', '9'],
        [0, 10, '0.2', '1', '3'],
        [0, 20, '0', '0', '2'],
      ],
    )

  def test_eigenvectors_that_did_not_converge_are_told(self):
    values = {
      'eigenvalues': np.array([3.25, 2.0]), 'converged': np.array([1.0, 0.0]),
    }  # fmt: skip
    (axis,) = visible(pictures.of(surface.figure, [run(**values)]))
    self.assertEqual(axis.get_xlabel(), 'd₁ (λ = 3.25)')
    self.assertEqual(axis.get_ylabel(), 'd₂ (λ = 2, not converged)')

  def test_a_way_that_ends_where_nothing_is_finite(self):
    pictures.drawing(pictures.of(surface.figure, [run(**way(np.nan))]))

  def test_some_looks_of_many(self):
    """Of one run beside each other, of several below each other."""
    steps = range(0, 100, 10)
    one = pictures.of(surface.figure, [run(steps=steps)])
    self.assertLen(visible(one), 3)
    self.assertLen(one.rows, 1)
    self.assertEqual([step for step, _ in one.frames], list(steps))
    figure = pictures.of(surface.figure, [run(steps=steps, seeds=2), run('b')])
    self.assertLen(visible(figure, narrow=True), 4)
    self.assertLen(pictures.rows(figure), (2 * 10 + 1) * 9)
    self.assertIn('Of seed 0 alone; the CSV has all.', figure.caption)

  def test_nothing_recorded(self):
    self.assertIsNone(pictures.of(surface.figure, [run(steps=())]))


class LineTest(absltest.TestCase):
  def test_a_curve_a_look(self):
    figure = pictures.of(
      surface.figure, [run(steps=(0, 10), dimensions=1), run('b', dimensions=1)]
    )
    first, second = visible(figure)
    self.assertLen(first.lines, 2)
    self.assertLen(second.lines, 1)
    np.testing.assert_array_equal(first.lines[0].get_ydata(), 2 + X)
    self.assertEqual([k.label for k in figure.keys], ['step 0', 'step 10'])
    of = {'run': 'a', 'seed': 0, 'step': 10, 'key': 'step 10'}
    self.assertEqual(pictures.values(figure, **of), [1, 2, 3])

  def test_further_looks_are_grey_in_the_slider(self):
    steps = range(0, 100, 10)
    figure = pictures.of(surface.figure, [run(steps=steps, dimensions=1)])
    self.assertLen(figure.keys, 7)
    self.assertLen(figure.frames, 10)
    keys = [rows[0][0].marks[0].key for _, rows in figure.frames]
    self.assertEqual(keys.count(None), 3)
    self.assertLen(pictures.rows(figure), 10 * 3)

  def test_unsorted_and_not_finite(self):
    loss = [3.0, np.inf, 1.0]
    one = run(dimensions=1, loss=loss, x=np.array([1.0, 0.0, -1.0]))
    figure = pictures.of(surface.figure, [one])
    self.assertIn('1 of 3 of a at step 0', figure.caption)
    (axis,) = visible(figure)
    self.assertLen([p for p in axis.patches if p.get_hatch()], 1)
    drawn_line = axis.lines[0]
    np.testing.assert_array_equal(drawn_line.get_xdata(), X)

  def test_the_way(self):
    values = {
      **way(),
      'path': way()['path'][:, :1],
      'variance': np.array([0.9]),
    }
    figure = pictures.of(surface.figure, [run(dimensions=1, **values)])
    self.assertIn('The line holds 90 % (a to step 0)', figure.caption)
    (axis,) = visible(figure)
    np.testing.assert_array_equal(axis.lines[-1].get_ydata(), [9, 3, 2])


if __name__ == '__main__':
  absltest.main()
