"""What tables and alternative texts tell of records."""

import numpy as np
from absl.testing import absltest

from bn_jax.report.drawing import record, tables
from bn_jax.report.results import seeds
from tests.fixtures import pictures

SCALE = record.Scale('Value', 1, 8)


VALUE = record.Axis('Value', 'value')


def figure(*marks, x=record.STEPS, y=VALUE, **panel):
  made = record.Panel(x, y, marks, **panel)
  return record.Figure('f', 'F', '', ((made,),), record.names(['a']))


def lines(*rows, **keywords):
  every = (record.Curve(n, np.arange(3), row) for n, row in enumerate(rows))
  return record.Lines(0, 'loss', tuple(every), **keywords)


class TableTest(absltest.TestCase):
  def test_means_and_intervals_are_those_that_are_drawn(self):
    rows = np.random.default_rng(0).normal(size=(5, 3))
    for count in (1, 4, 5):
      made = figure(lines(*rows[:count]))
      mean = seeds.mean([(range(3), row) for row in rows[:count]])
      for kind, part, fewest in (
        ('mean', mean.mean, 2), ('low', mean.low, 5), ('high', mean.high, 5),
      ):  # fmt: skip
        want = part if count >= fewest else []
        got = pictures.values(made, seed=kind)
        np.testing.assert_allclose(got, want, rtol=1e-5)
      got = pictures.values(made, seed=0)
      np.testing.assert_allclose(got, rows[0], rtol=1e-5)

  def test_points_have_the_names_of_whole_numbers(self):
    layers = record.Axis('Layer', 'layer')
    mark = lines([1.0, 2, 3])
    curve = mark.curves[0]._replace(x=np.array([1, 3, 2]), step=7)
    mark = mark._replace(curves=(curve,), names=('conv1', 'conv2', 'fc'))
    rows = pictures.rows(figure(mark, x=layers))
    told = [(row['layer'], row['step'], row['value']) for row in rows]
    self.assertEqual(
      told, [('conv1', 7, '1'), ('fc', 7, '2'), ('conv2', 7, '3')]
    )

  def test_values_of_cells_stand_where_they_were_measured(self):
    """Of cells of unequal widths that is not the middle."""
    size = record.Axis('Size', 'size', True)
    mark = record.Cells(
      'change', np.array([0, 2, 9]), np.array([1, 2, 8]),
      np.array([[1.0, 2], [4, 8]]), SCALE, seed=3,
    )  # fmt: skip
    at = mark._replace(at_x=np.array([1, 4]), at_y=np.array([1.5, 3]))
    for of, x, y in ((mark, '5.5', '4'), (at, 4, '3')):
      row = pictures.rows(figure(of, y=size))[-1]
      got = [row[name] for name in ('seed', 'step', 'size', 'value')]
      self.assertEqual(got, [3, x, y, '8'])


class AlternativeTest(absltest.TestCase):
  def test_of_lines_their_ends_without_grey_ones(self):
    grey = lines([5.0, 5, 5])._replace(key=None)
    made = figure(lines([1.0, 2, 3], [3.0, 4, 5]), grey)
    self.assertEqual(
      tables.alternative(made), 'Value against Training step. a: 2 to 4.'
    )

  def test_of_histograms_the_middle(self):
    """Even from 0 to 4: 70 % lie between 0.6 and 3.4."""
    heights = np.stack([[9.0, 0], [0.25, 0.25]])
    edges = np.array([0.0, 2, 4])
    mark = record.Ridges(0, 'density', 0, edges, [0, 9], heights, [0, 1])
    made = figure(mark, x=record.Axis('Activation', 'activation'), about='fc')
    self.assertIn(
      'fc, at step 9: the middle 70 % from 0.6 to 3.4.',
      tables.alternative(made),
    )
    self.assertEqual(pictures.values(made, step=9), [0.25, 0.25])


if __name__ == '__main__':
  absltest.main()
