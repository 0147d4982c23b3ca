"""Which numbers of seeds that diverged an axis leaves out."""

import numpy as np
from absl.testing import absltest, parameterized

from bn_jax.report import figures
from bn_jax.report.drawing import record, tails
from bn_jax.report.results import curves
from tests.fixtures import (
  hand_made,
  pictures,
  strict,  # noqa: F401
)


def panel(*lines, logarithmic=True, limits=None):
  """A panel of (values, whether the seed diverged)."""
  every = tuple(
    record.Curve(seed, np.arange(len(y)), np.array(y), diverged=diverged)
    for seed, (y, diverged) in enumerate(lines)
  )
  axis = record.Axis('Loss', 'loss', logarithmic, limits=limits)
  mark = record.Lines(0, 'loss', every)
  return record.Panel(record.STEPS, axis, (mark,))


def limits(*panels, shares=False):
  figure = record.Figure('a', '', '', (panels,), shares=shares)
  return [p.y.limits for p in tails.cut_off(figure).panels]


GOOD = ([2.0, 1.0, 0.1], False)


class TailsTest(parameterized.TestCase):
  def test_a_logarithmic_axis_ends_where_others_do(self):
    ((low, high),) = limits(panel(GOOD, ([2.5, 1e32], True)))
    self.assertBetween(low, 0.05, 0.1)
    self.assertBetween(high, 2.5, 5)

  def test_nothing_finite_sets_no_axis(self):
    """A seed that diverged at its first step has no number at all."""
    for others in ((), (GOOD,)):
      none = panel(*others, ([np.nan, np.inf], True))
      self.assertEqual(limits(none), [None])

  def test_what_it_had_before_is_seen(self):
    ((_, high),) = limits(panel(GOOD, ([30.0, 40.0, 200.0, 1e9, 1e32], True)))
    self.assertBetween(high, 200, 400)

  def test_what_fell_before_is_seen_from_its_start(self):
    fell = [50.0, *[0.1] * 9, 1e32]
    ((low, high),) = limits(panel((fell, True)))
    self.assertBetween(high, 50, 100)
    self.assertBetween(low, 0.05, 0.1)

  def test_linear_and_below_0(self):
    line = ([-1.0, -2.0, -1e30, np.inf, np.nan], True)
    ((low, high),) = limits(panel(GOOD, line, logarithmic=False))
    self.assertBetween(low, -3, -2)
    self.assertBetween(high, 2, 3)

  @parameterized.parameters(
    panel(GOOD, ([2.5, 1e32], False)),  # large, but it trains on
    panel(GOOD, ([2.5, 3.0], True)),  # it ended without a tail
    panel(([0.0, 0.0], True)),
  )
  def test_without_a_tail_all_is_held(self, *fields):
    self.assertEqual(limits(record.Panel(*fields)), [None])

  def test_limits_stay(self):
    tail = panel(GOOD, ([0.5, 1e32], True), limits=(0, 1.02))
    self.assertEqual(limits(tail), [(0, 1.02)])

  def test_panels_that_share_an_axis_have_one(self):
    tail, good = panel(([2.5, 1e32], True)), panel(([50.0, 60.0], False))
    one, other = limits(tail, good, shares=True)
    self.assertEqual(one, other)
    self.assertBetween(one[1], 60, 100)
    self.assertIsNone(limits(tail, good)[1])

  def test_of_the_page(self):
    """Both pictures and the script read the limits of the axis."""
    steps = np.arange(40)
    runs = []
    for name, status, loss in (
      ('good', 'done', 2.0 * 0.9**steps),
      ('bad', 'diverged', np.where(steps < 30, 2.0, 1e32)),
    ):
      seed = hand_made.seed(
        0, status=status, train=(steps, {'data_loss': loss})
      )
      seed.manifest['config'] |= {
        'measures': {}, 'norm': {'name': name}, 'batch_size': 8,
        'data': {'name': 'digits'}, 'model': {'name': 'mlp'},
      }  # fmt: skip
      runs.append(curves.Run(name, (seed,)))
    (training,) = figures.every(runs)
    (axis,) = pictures.axes(training)
    self.assertBetween(axis.get_ylim()[1], 2, 4)


if __name__ == '__main__':
  absltest.main()
