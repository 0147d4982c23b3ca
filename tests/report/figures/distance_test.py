"""Raw curves along a line: the map of Figure 11, and what beta reads."""

import numpy as np
from absl.testing import absltest, parameterized

from bn_jax.report.drawing import tables
from bn_jax.report.figures import distance, landscape
from bn_jax.report.results import beta, curves
from tests.fixtures import (
  pictures,
  strict,  # noqa: F401
)

SIZES = (0.05, 0.1, 0.4)


def run(
  name='a', seeds=1, steps=(0, 10, 20), changes=(1.0, 2.0, 8.0), **values
):
  """Each seed's gradient change is 4 times that of the one before.

  From a look to the next it is 10 times as large.
  """
  made = []
  for number in range(seeds):
    grow = 10.0 ** np.arange(len(steps))[:, None]
    found = {
      'step_size': np.tile(SIZES, (len(steps), 1)),
      'loss': np.ones((len(steps), len(SIZES))),
      'gradient_change': 4.0**number * grow * np.array(changes),
    }
    found['beta'] = found['gradient_change'] / found['step_size'] / 2
    found |= {key: np.array(value, float) for key, value in values.items()}
    series = {'landscape': curves.Series(np.array(steps), found)}
    made.append(curves.Seed(number, _manifest(), series, {}, {}))
  return curves.Run(name, tuple(made))


def _manifest():
  section = {
    'name': 'along_gradient', 'data': 'current_batch', 'every_steps': 10,
    'step_factors': [0.5, 1.0, 4.0], 'statistics': 'batch',
  }  # fmt: skip
  return {
    'status': 'done',
    'step': 20,
    'config': {
      'measures': {'landscape': section},
      'batch_size': 8,
      'norm': {'name': 'batch'},
    },
    'precision': {'measures': 'highest'},
  }


drawn = pictures.drawing


class RawCurvesTest(absltest.TestCase):
  def test_geometric_means_over_seeds(self):
    found = distance.raw_curves(run(seeds=2), 'landscape')
    np.testing.assert_array_equal(found.step, [0, 10, 20])
    np.testing.assert_allclose(found.size, np.tile(SIZES, (3, 1)))
    # Of 1 and 4 it is 2.
    want = 2 * np.outer([1, 10, 100], [1, 2, 8])
    np.testing.assert_allclose(found.change, want)

  def test_what_is_no_number_takes_no_part(self):
    one = run(seeds=2)
    change = one.seeds[1].series['landscape'].values['gradient_change']
    change[0] = np.inf, np.nan, 0
    one.seeds[0].series['landscape'].values['gradient_change'][0, 2] = -1
    found = distance.raw_curves(one, 'landscape')
    np.testing.assert_allclose(found.change[0], [1, 2, np.nan])

  def test_sizes_are_sorted_with_their_values(self):
    one = run()
    values = one.seeds[0].series['landscape'].values
    for name in values:
      values[name] = values[name][:, ::-1]
    found = distance.raw_curves(one, 'landscape')
    np.testing.assert_allclose(found.size[0], SIZES)
    np.testing.assert_allclose(found.change[0], [1, 2, 8])

  def test_seeds_of_other_grids_and_nothing(self):
    one, other = run(), run(steps=(0, 10, 30))
    values = other.seeds[0].series['landscape'].values
    for name in values:
      values[name] = values[name][:, :2]
    both = curves.Run('a', (*one.seeds, *other.seeds))
    found = distance.raw_curves(both, 'landscape')
    np.testing.assert_array_equal(found.step, [0, 10, 20])
    nothing = one.seeds[0]._replace(series={})
    self.assertEmpty(
      distance.raw_curves(curves.Run('a', (nothing,)), 'landscape').step
    )


class MapTest(parameterized.TestCase):
  @parameterized.parameters(False, True)
  def test_cells_and_lines_hold_the_numbers(self, narrow):
    made = pictures.of(
      distance.figure, [run(), run('b', changes=(0.1, 0.1, 0.1))]
    )
    axes = drawn(made, narrow).axes
    maps = [axis for axis in axes if axis.get_ylabel() == 'Step size e']
    (mesh,) = maps[0].collections
    want = np.outer([1, 10, 100], [1, 2, 8])
    np.testing.assert_allclose(mesh.get_array(), want.T)
    corners = mesh.get_coordinates()
    np.testing.assert_allclose(corners[0, :, 0], [-5, 5, 15, 25])
    # In the middle of each cell, on the logarithmic axis, is its step size.
    edges = corners[:, 0, 1]
    self.assertLess(edges[0], 0.05)
    np.testing.assert_allclose(edges[1] ** 2, 0.05 * 0.1)
    np.testing.assert_allclose(edges[2] ** 2, 0.1 * 0.4)
    self.assertGreater(edges[3], 0.4)
    lines = [axis for axis in axes if axis.get_ylabel() == 'Gradient change']
    (drawn_lines,) = lines[0].collections
    np.testing.assert_allclose(
      drawn_lines.get_segments()[1], np.stack([SIZES, [10, 20, 80]], 1)
    )
    np.testing.assert_array_equal(drawn_lines.get_array(), [0, 10, 20])

  def test_all_columns_have_one_scale(self):
    made = pictures.of(
      distance.figure, [run(), run('b', changes=(0.1, 0.1, 0.1))]
    )
    found = [axis.collections[0].norm for axis in drawn(made).axes[:2]]
    for norm in found:
      np.testing.assert_allclose([norm.vmin, norm.vmax], [0.1, 800])

  def test_a_learning_rate_that_falls(self):
    """Cells of other sizes are a mesh of their own; 0 is white."""
    sizes = np.array([SIZES, np.divide(SIZES, 10), np.zeros(3)])
    made = pictures.of(distance.figure, [run(step_size=sizes)])
    axis = drawn(made).axes[0]
    meshes = axis.collections
    self.assertLen(meshes, 2)
    np.testing.assert_allclose(meshes[1].get_array().ravel(), [10, 20, 80])
    self.assertLess(axis.get_ylim()[0], 0.005)
    self.assertGreater(axis.get_ylim()[1], 0.4)

  def test_at_most_fifty_lines_with_the_first_and_the_last(self):
    steps = tuple(range(0, 1200, 10))
    changes = np.ones((120, 3))
    made = pictures.of(
      distance.figure, [run(steps=steps, gradient_change=changes)]
    )
    axis = next(
      a for a in drawn(made).axes if a.get_ylabel() == 'Gradient change'
    )
    shown = axis.collections[0].get_array()
    self.assertLessEqual(len(shown), 50)
    self.assertEqual((shown[0], shown[-1]), (0, 1190))
    self.assertLen(pictures.rows(made, quantity='gradient_change'), 120 * 3)

  def test_table_has_the_distance_and_each_seed(self):
    """Beta is the change over the distance, which is twice the size here."""
    at = {'run': 'a', 'step': 0, 'step_size': '0.4'}
    made = pictures.of(distance.figure, [run()])
    for quantity, want in (('distance', [0.8]), ('gradient_change', [8])):
      self.assertEqual(pictures.values(made, quantity=quantity, **at), want)
    self.assertIn('a: 1 to 800', tables.alternative(made))
    made = pictures.of(distance.figure, [run(seeds=2)])
    for seed, want in ((0, 8), (1, 32), ('mean', 16)):
      got = pictures.values(made, quantity='gradient_change', seed=seed, **at)
      np.testing.assert_allclose(got, [want])

  def test_nothing_to_draw(self):
    """One look is no map; numbers that are none leave it white."""
    self.assertIsNone(pictures.of(distance.figure, [run(steps=(0,))]))
    made = pictures.of(
      distance.figure, [run(gradient_change=np.full((3, 3), np.nan))]
    )
    for narrow in (False, True):
      drawn(made, narrow)
    self.assertIn('a: nothing finite', tables.alternative(made))
    drawn(pictures.of(distance.figure, [run(step_size=np.zeros((3, 3)))]))


class BetaTest(parameterized.TestCase):
  @parameterized.parameters(
    (5.0, 5.5, 20.0, 'reads the curvature'),
    (19.0, 80.0, 20.0, 'reads the smallest step'),
    (19.0, 21.0, 20.0, 'reads the curvature'),
    (19.0, 27.0, 20.0, 'reads neither of them'),
    (5.0, 7.0, 20.0, 'reads neither of them'),
    (10.0, 80.0, 20.0, 'reads neither of them'),
    (40.0, 5.0, 20.0, 'reads neither of them'),
  )
  def test_reading(self, largest, limit, step, want):
    found = beta.Medians(largest, limit, step)
    self.assertEqual(beta.reading(found), want)

  def test_of_a_quadratic_it_reads_the_curvature(self):
    """|g(e) - g| = e |Hg| at every e: beta is beta_0, far below 1 / e."""
    change = 3 * np.tile(SIZES, (3, 1))
    one = run(gradient_change=change, beta=np.full((3, 3), 3), beta_0=[3] * 3)
    found = beta.medians(one, 'landscape')
    self.assertEqual(found, (3, 3, 20))
    made = pictures.of(landscape.figure, [one])
    self.assertIn('a: 3, 3 and 20, reads the curvature', made.caption)

  def test_of_a_gradient_that_is_wiped_out_it_reads_the_step(self):
    """|g(e) - g| = |g| from the smallest step on."""
    wiped = np.tile(1 / np.array(SIZES), (3, 1))
    one = run(beta=wiped, beta_0=[300.0] * 3)
    made = pictures.of(landscape.figure, [one, run('b')])
    self.assertIn('a: 20, 300 and 20, reads the smallest step', made.caption)
    self.assertNotIn('b: ', made.caption)
    axes = drawn(made).axes
    dotted = axes[4].get_lines()[-1]  # of two columns, the third row
    np.testing.assert_allclose(dotted.get_ydata(), [300] * 3)
    self.assertNotEqual(dotted.get_linestyle(), '-')

  def test_without_curvature_nothing_is_said(self):
    made = pictures.of(landscape.figure, [run()])
    self.assertNotIn('beta_0', made.caption)
    self.assertIsNone(beta.medians(run(), 'landscape'))

  def test_medians_leave_out_what_is_no_number(self):
    """Where the learning rate was 0, nan and sizes of 0."""
    sizes = np.array([SIZES, SIZES, np.zeros(3)])
    changes = np.array([[2.0] * 3, [4.0] * 3, [np.nan] * 3])
    one = run(step_size=sizes, beta=changes, beta_0=[5, 7, np.nan])
    self.assertEqual(beta.medians(one, 'landscape'), (3, 6, 20))


class DirectionTest(absltest.TestCase):
  def test_is_said(self):
    for direction, title, words in (
      ('descent', 'along the gradient', 'θ − e·g, with'),
      ('ascent', 'up the gradient', 'd = −g'),
      ('random', 'along a random direction', 'a normal vector'),
      ('update', "along the optimizer's update", 'optimizer would subtract'),
    ):
      one = run()
      section = one.config['measures']['landscape']
      section['direction'] = direction
      made = pictures.of(landscape.figure, [one])
      self.assertEndsWith(made.title, title)
      self.assertIn(words, made.caption)
      point = 'θ − e·g' if direction == 'descent' else 'θ − e·d'
      self.assertIn(f'|∇L({point}) − g|', made.caption)

  def test_of_two(self):
    one, other = run(), run('b')
    one.config['measures']['landscape']['direction'] = 'descent'
    other.config['measures']['landscape']['direction'] = 'random'
    made = pictures.of(landscape.figure, [one, other])
    self.assertEndsWith(made.title, 'along a line')
    self.assertIn('descent (a) or random (b)', made.caption)

  def test_sizes_or_factors(self):
    one, other = run(), run('b')
    other.config['measures']['landscape']['step_sizes'] = [0.1, 0.2]
    for runs, said in (
      ([one], 'e = {0.5, 1, 4} × the learning rate. Meas'),
      ([other], 'e = {0.1, 0.2}. Measured'),
      ([one, other], 'e = {0.5, 1, 4} × the learning rate or {0.1, 0.2}. '),
    ):
      self.assertIn(said, pictures.of(landscape.figure, runs).caption)


if __name__ == '__main__':
  absltest.main()
