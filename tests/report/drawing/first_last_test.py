"""The first and the last look, and every look for the slider."""

import numpy as np
from absl.testing import absltest

from bn_jax.report.drawing import first_last, record
from bn_jax.report.results import curves, looks
from tests.fixtures import pictures

SIZES = record.Axis('Size', 'size', True)
LOSS = record.Axis('Loss', 'loss', True)


def entry(*steps_of_seeds):
  """A run with a seed for each steps; its losses are steps, at two sizes."""
  manifest = {'status': 'done', 'step': 9, 'config': {'measures': {}}}
  every = []
  for number, steps in enumerate(steps_of_seeds):
    look = {
      'size': np.tile([2.0, 1.0], (len(steps), 1)),
      'loss': np.outer(1.0 + np.array(steps), [20, 10]),
      'loss_0': np.full(len(steps), 5.0),
    }
    series = {'e': curves.Series(np.array(steps), look)}
    every.append(curves.Seed(number, manifest, series, {}, {}))
  return looks.Entry('m', 'e', ((0, curves.Run('a', tuple(every))),))


def figure(of):
  row = first_last.Row(
    LOSS,
    lambda index, run, looks_of: first_last.lines(
      index, run, 'e', looks_of, ('size', 'loss'), 'loss_0'
    ),
  )
  panels = first_last.panels(of, [row], SIZES)
  made = record.Figure('f', 'F', '', keys=record.keys_of(of.indexed), **panels)
  return first_last.numbered(made, of, SIZES)


class PanelsTest(absltest.TestCase):
  def test_of_several_looks_the_ends_and_all_in_frames(self):
    made = figure(entry((0, 3, 9), (0, 3)))
    ((first, last),) = made.rows
    self.assertEqual(
      (first.title, last.title), ('First: step 0', 'Last: step 3 to 9')
    )
    ends = [curve.y.tolist() for curve in last.marks[0].curves]
    self.assertEqual(ends, [[100, 200], [40, 80]])  # by growing size
    self.assertEqual([step for step, _ in made.frames], [0, 3, 9])
    ((panel,),) = made.frames[1][1]
    self.assertEqual([c.seed for c in panel.marks[0].curves], [0, 1])
    self.assertEqual(panel.title, 'Step 3')
    first, last = pictures.axes(made)
    self.assertEqual(first.get_ylim(), last.get_ylim())

  def test_the_table_has_each_look_once(self):
    made = figure(entry((0, 3, 9)))
    cells = {'seed': 0, 'quantity': 'loss', 'size': 1}
    rows = pictures.rows(made, **cells)
    self.assertEqual(
      sorted((row['step'], row['value']) for row in rows),
      [(0, '10'), (3, '40'), (9, '100')],
    )

  def test_two_looks_are_all_shown(self):
    self.assertEmpty(figure(entry((0, 9))).frames)

  def test_the_level_at_0_goes_from_end_to_end(self):
    _, level = figure(entry((0, 9))).rows[0][0].marks
    self.assertEqual((level.style, level.quantity), ('thin', 'loss_0'))
    np.testing.assert_array_equal(level.curves[0].x, [1, 2])
    np.testing.assert_array_equal(level.curves[0].y, [5, 5])

  def test_one_look_is_one_row_and_one_point_a_number(self):
    of = entry((3,))
    made = figure(of)
    self.assertEqual([panel.title for panel in made.panels], ['Step 3'])
    values = of.runs[0].seeds[0].series['e'].values
    values |= {'size': np.array([[1.0]]), 'loss': np.array([[7.0]])}
    made = figure(of)
    self.assertEmpty(made.rows)
    self.assertEqual(made.numbers, [['', 'a'], ['Loss', '7']])
    self.assertEqual(pictures.values(made, quantity='loss'), [7])


class EvenlyTest(absltest.TestCase):
  def test_with_both_ends(self):
    self.assertEqual(looks.evenly(3, 8), [0, 1, 2])
    self.assertEqual(looks.evenly(9, 3), [0, 4, 8])
    self.assertEqual(looks.evenly(0, 3), [])


if __name__ == '__main__':
  absltest.main()
