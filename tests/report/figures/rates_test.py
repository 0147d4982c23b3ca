"""The figure of learning rates: which runs, their points, what is marked."""

import math

import numpy as np
from absl.testing import absltest, parameterized

from bn_jax.report import figures
from bn_jax.report.figures import rate_search, rates
from bn_jax.report.results import curves
from tests.fixtures import (
  paper_like,
  pictures,
  strict,  # noqa: F401
)

_RATES = (0.01, 0.1, 1.0)


def search(norm='none', reaches=(200, 40, 80), at=_RATES, **changes):
  """A run a rate, whose batches jump to 100 % there; never beyond 300."""
  return [
    paper_like.run(f'{norm}_{rate:g}', norm, rate, reaches=step, **changes)
    for rate, step in zip(at, reaches)
  ]


def marks(axis, marker):
  """(rate, place) of the points that are marked so."""
  return [
    (float(x), float(y))
    for line in axis.get_lines()
    if line.get_marker() == marker
    for x, y in zip(line.get_xdata(), line.get_ydata())
  ]


class LinesTest(parameterized.TestCase):
  def test_a_line_a_norm_by_growing_rate(self):
    runs = [*search(at=(1.0, 0.01, 0.1)), *search('batch')]
    found = rate_search.lines(runs)
    self.assertEqual([line.label for line in found], ['none', 'batch'])
    for line in found:
      self.assertEqual([rate for rate, _ in line.points], [0.01, 0.1, 1.0])
    self.assertEqual(found[0].points[0][1].name, 'none_0.01')

  def test_two_rates_are_a_line_and_one_is_none(self):
    runs = [*search()[:2], *search('batch')[2:]]
    (line,) = rate_search.lines(runs)
    self.assertEqual([rate for rate, _ in line.points], [0.01, 0.1])
    made = rates.figure(runs)
    pictures.drawing(made)
    self.assertIsNone(rates.figure(search()[:1]))
    self.assertIsNone(rates.figure([paper_like.run(), paper_like.run('b')]))

  def test_runs_that_differ_otherwise_are_another_line(self):
    decay = search(weight_decay=5e-4)
    found = rate_search.lines([*search(), *decay, *search('batch')])
    self.assertEqual(
      [line.label for line in found],
      ['none', 'none, weight_decay 0.0005', 'batch'],
    )
    mixed = [*search()[:1], decay[2]]
    self.assertEmpty(rate_search.lines(mixed))

  def test_what_is_measured_is_no_difference(self):
    runs = search()
    runs[0].config['measures'].pop('shift')
    runs[1].config['checkpoint'] = {'every_steps': 10}
    self.assertLen(rate_search.lines(runs), 1)

  def test_a_rate_of_zero_has_no_place(self):
    (line,) = rate_search.lines(search(at=(0.0, 0.1, 1.0)))
    self.assertEqual([rate for rate, _ in line.points], [0.1, 1.0])


class PointsTest(absltest.TestCase):
  def quantities(self, runs):
    lines = rate_search.lines(runs)
    return lines, rate_search.quantities(lines)

  def test_steps_and_accuracy(self):
    (line,), (steps, accuracy) = self.quantities(search())
    # The mean of 20 of which the last n are right: (2 + 0.9 * n) / 20.
    got = [point.mean for point in rate_search.points(line, steps)]
    np.testing.assert_allclose(got, [200 + 17, 40 + 17, 80 + 17])
    self.assertEqual(steps.label, 'Steps to 90 % training accuracy')
    self.assertEqual(
      rate_search.best(rate_search.points(line, steps), steps).rate, 0.1
    )
    got = [point.mean for point in rate_search.points(line, accuracy)]
    np.testing.assert_allclose(got, [1, 1, 1])

  def test_seeds_are_geometric_means_of_steps(self):
    (line,), (steps, _) = self.quantities(search(reaches=(100, 40, 9), seeds=2))
    point = rate_search.points(line, steps)[1]
    self.assertAlmostEqual(point.mean, math.sqrt(57 * 97))

  def test_one_seed_that_never_gets_there_is_no_mean(self):
    """Of 200 and 400 the second lies beyond the run."""
    (line,), (steps, _) = self.quantities(search(seeds=2))
    first, *others = rate_search.points(line, steps)
    self.assertEqual((first.failing, first.seeds), (1, 2))
    self.assertTrue(math.isnan(first.mean))
    self.assertFalse(any(point.failing for point in others))

  def test_the_best_has_no_seed_that_fails(self):
    (line,), (steps, accuracy) = self.quantities(
      search(reaches=(999, 120, 80), status='done')
    )
    points = rate_search.points(line, steps)
    self.assertEqual(rate_search.best(points, steps).rate, 1.0)
    points = [point._replace(failing=1) for point in points]
    self.assertIsNone(rate_search.best(points, steps))
    high = [rate_search.Point(r, r, 0, 1) for r in (0.1, 0.3, 0.2)]
    self.assertEqual(rate_search.best(high, accuracy).rate, 0.3)
    self.assertEqual(rate_search.best(high, steps).rate, 0.1)

  def test_a_diverged_seed_has_no_last_accuracy(self):
    (line,), (_, accuracy) = self.quantities(search(status='diverged'))
    for point in rate_search.points(line, accuracy):
      self.assertEqual((point.failing, point.seeds), (1, 1))

  def test_of_seeds_that_go_on_nothing_is_known(self):
    runs = [*search()[:2], *search(status='running')[2:]]
    (line,), (steps, accuracy) = self.quantities(runs)
    for quantity in (steps, accuracy):
      got = [point.rate for point in rate_search.points(line, quantity)]
      self.assertEqual(got, [0.01, 0.1])
    self.assertIsNone(rates.figure(search(status='running')))

  def test_the_level_is_the_highest_that_every_line_reaches(self):
    slow = search('batch')
    for run in slow:
      share_T = run.seeds[0].series['train'].values['accuracy']
      share_T[:] = np.minimum(share_T, 0.625)
    _, (steps, _) = self.quantities([*search(), *slow])
    self.assertEqual(steps.label, 'Steps to 60 % training accuracy')
    never = search('batch', reaches=(999, 999, 999))
    _, (steps, _) = self.quantities([*search(), *never])
    self.assertEqual(steps.label, 'Steps to 90 % training accuracy')

  def test_regressions_have_a_loss(self):
    runs = search(kind='linear', at=(1e-8, 1e-7, 1e-6))
    (line,), (loss,) = self.quantities(runs)
    self.assertEqual(loss.name, 'loss')
    want = np.mean(1e5 * 0.99 ** np.arange(281, 301))
    np.testing.assert_allclose(
      [point.mean for point in rate_search.points(line, loss)], [want] * 3
    )


class FigureTest(parameterized.TestCase):
  @parameterized.parameters(False, True)
  def test_what_is_marked(self, narrow):
    made = rates.figure([*search(), *search('batch', reaches=(90, 70, 999))])
    drawing = pictures.drawing(made, narrow)
    steps, accuracy = drawing.axes
    self.assertEqual((steps.get_xscale(), steps.get_yscale()), ('log', 'log'))
    rings = [line for line in steps.get_lines() if line.get_markersize() == 11]
    np.testing.assert_allclose(
      [line.get_xydata()[0] for line in rings], [(0.1, 57), (0.1, 87)]
    )
    ((rate, place),) = marks(steps, 'x')
    self.assertEqual(rate, 1.0)
    self.assertBetween(place, 0.9, 1.0)  # of the axis: at the top
    # The highest mean lies below that strip.
    low, high = np.log(steps.get_ylim())
    self.assertLess((np.log(217) - low) / (high - low), 0.93)
    self.assertEqual([text.get_text() for text in steps.texts], ['never'])
    self.assertEmpty(marks(accuracy, 'x'))
    self.assertEmpty(accuracy.texts)
    self.assertEqual(accuracy.get_ylim(), (0, 1.02))
    ticks = [label.get_text() for label in steps.get_xticklabels()]
    self.assertEqual(ticks, ['0.01', '0.1', '1'])
    (legend,) = drawing.legends
    said = [text.get_text() for text in legend.get_texts()]
    self.assertEqual(said, ['none', 'batch'])

  def test_some_seeds_fail(self):
    steps, _ = pictures.axes(rates.figure(search(seeds=2)))
    self.assertEqual([rate for rate, _ in marks(steps, '+')], [0.01])
    self.assertEmpty(marks(steps, 'x'))
    # No mean of the seed that is left: the line begins at the next rate.
    for line in steps.get_lines():
      if line.get_linestyle() == '-':
        self.assertEqual(list(line.get_xdata()), [0.1, 1.0])

  def test_diverged_at_the_bottom_of_accuracy(self):
    runs = [*search()[:2], *search(status='diverged')[2:]]
    _, accuracy = pictures.axes(rates.figure(runs))
    ((rate, place),) = marks(accuracy, 'x')
    self.assertEqual(rate, 1.0)
    self.assertBetween(place, 0.0, 0.1)
    self.assertLess(accuracy.get_ylim()[0], 0)
    self.assertEqual([text.get_text() for text in accuracy.texts], ['diverged'])

  def test_all_fail(self):
    made = rates.figure(search(reaches=(999, 999, 999), status='diverged'))
    for narrow in (False, True):
      steps, _ = pictures.axes(made, narrow)
      self.assertEmpty(steps.get_yticks())
      self.assertLen(marks(steps, 'x'), 3)

  def test_rates_too_close_for_a_label(self):
    at = (0.01, 0.011, 1.0)
    axis = pictures.axes(rates.figure(search(at=at)))[0]
    ticks = [label.get_text() for label in axis.get_xticklabels()]
    self.assertEqual(ticks, ['0.01', '1'])

  def test_table(self):
    runs = [*search()[:2], *search(status='running')[2:]]
    made = rates.figure([*runs, *search('batch', reaches=(999, 70, 90))])
    for key, name, want in (
      ('none', 'steps', {'0.01': 217, '0.1': 57}),  # one goes on
      ('batch', 'steps', {'0.01': math.inf, '0.1': 87, '1': 107}),
      ('batch', 'accuracy', {'0.01': 0.1, '0.1': 1, '1': 1}),
    ):
      rows = pictures.rows(made, key=key, quantity=name)
      got = {row['learning_rate']: float(row['value']) for row in rows}
      self.assertEqual({f'{float(r):g}': v for r, v in got.items()}, want)
    self.assertIn(f'the last {curves.WINDOW} training batches', made.caption)

  def test_hangs_in_the_gallery(self):
    names = [made.name for made in figures.every(search())]
    self.assertEqual(names[:2], ['training', 'rates'])
    self.assertNotIn(
      'rates', [made.name for made in figures.every([paper_like.run()])]
    )


if __name__ == '__main__':
  absltest.main()
