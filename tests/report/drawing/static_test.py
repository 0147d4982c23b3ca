"""What is drawn of records: seeds, intervals, bands, maps."""

import numpy as np
from absl.testing import absltest, parameterized

from bn_jax.report.drawing import record
from tests.fixtures import pictures

STEPS = np.arange(3)


def figure(*of_seeds, y=None, **keywords):
  """One panel with a line, or a band, of seeds: y, or (low, high), [T]."""
  every = tuple(
    record.Curve(number, STEPS, *np.atleast_2d(np.array(edges, float)))
    for number, edges in enumerate(of_seeds)
  )
  marks = (record.Lines(0, 'value', every, **keywords),)
  y = y or record.Axis('Value', 'value')
  panel = record.Panel(record.STEPS, y, marks)
  return record.Figure('f', 'F', '', ((panel,),), record.names(['a']))


class SeedsTest(parameterized.TestCase):
  def test_up_to_four_are_lines_of_their_own(self):
    for count in (1, 4, 5):
      values = [[1.0, 2, seed] for seed in range(count)]
      (axis,) = pictures.axes(figure(*values))
      mean, *others = axis.get_lines()
      np.testing.assert_allclose(mean.get_ydata(), [1, 2, (count - 1) / 2])
      drawn = [line.get_ydata().tolist() for line in others]
      self.assertEqual(drawn, values if count == 4 else [])
      self.assertLen(axis.collections, int(count == 5))

  @parameterized.product(logarithmic=(False, True), is_band=(False, True))
  def test_an_interval_alone_never_stretches_an_axis(
    self, logarithmic, is_band
  ):
    """Of 1 to 1e6 it goes from 1e-1 to 1e7, or far below 0."""
    y = record.Axis('Value', 'value', logarithmic)
    values = [[1.0, 2, 10.0 ** (1.5 * seed)] for seed in range(5)]
    middle = (np.exp if logarithmic else np.asarray)(
      np.mean(np.log(values) if logarithmic else values, axis=0)
    )
    if is_band:
      values, middle = [(v, v) for v in values], (middle, middle)
    many, one = (
      pictures.axes(figure(*of, y=y))[0] for of in (values, [middle])
    )
    ends = [path.vertices[:, 1] for path in many.collections[-1].get_paths()]
    self.assertGreater(np.max(ends), many.get_ylim()[1])
    np.testing.assert_allclose(many.get_ylim(), one.get_ylim())

  def test_a_band_lies_between_the_means_of_its_edges(self):
    """Edges 1..4 and 4..64: geometric means 2 and 16."""
    y = record.Axis('Value', 'value', True)
    of_seeds = ([[1.0] * 3, [4.0] * 3], [[4.0] * 3, [64.0] * 3])
    (axis,) = pictures.axes(figure(*of_seeds, y=y))
    (band,) = axis.collections  # two seeds have no interval
    heights = band.get_paths()[0].vertices[:, 1]
    np.testing.assert_allclose([heights.min(), heights.max()], [2, 16])

  def test_what_the_table_alone_has_is_not_drawn(self):
    made = figure([1.0, 2, 3], style='hidden')
    (axis,) = pictures.axes(made)
    self.assertEmpty(axis.get_lines())
    self.assertEqual(pictures.values(made), [1, 2, 3])


if __name__ == '__main__':
  absltest.main()
