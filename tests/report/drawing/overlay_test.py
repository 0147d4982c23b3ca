"""The paper's curves behind ours: where they are drawn, and what is said."""

import numpy as np
from absl.testing import absltest, parameterized

from bn_jax.report.drawing import overlay, paper_curves, strokes
from bn_jax.report.figures import covariate_shift, landscape, training
from tests.fixtures import (
  paper_like,
  pictures,
  strict,  # noqa: F401
)

drawn = pictures.drawing


def panel(made, title, narrow=False):
  """The axes of this title."""
  (axis,) = [a for a in drawn(made, narrow).axes if a.get_title() == title]
  return axis


def theirs(axis):
  """The lines of the paper: of their dash there are no others."""
  dash = strokes._REFERENCE['linestyle']
  made = axis.plot([], [], linestyle=dash, linewidth=0.9)[0]
  pattern = made._unscaled_dash_pattern
  made.remove()
  return [
    line
    for line in axis.get_lines()
    if line._unscaled_dash_pattern == pattern and len(line.get_xdata())
  ]


def vgg(**changes):
  return [
    paper_like.run('standard', **changes),
    paper_like.run('batchnorm', 'batch', **changes),
  ]


def linear(**changes):
  changes = {'kind': 'linear', 'rate': 1e-6, **changes}
  return [
    paper_like.run('standard', **changes),
    paper_like.run('batchnorm', 'batch', **changes),
  ]


class WhereTest(parameterized.TestCase):
  @parameterized.parameters(False, True)
  def test_accuracy_of_batches_and_of_the_test_set(self, narrow):
    for title, quantity in (
      ('Training accuracy', 'accuracy'), ('Test accuracy', 'test accuracy')
    ):  # fmt: skip
      axis = panel(training.figure(vgg()), title, narrow)
      lines = theirs(axis)
      self.assertLen(lines, 2)
      for line, norm in zip(lines, ('none', 'batch')):
        curve = paper_curves.find('vgg', norm, 0.1, quantity)
        np.testing.assert_array_equal(line.get_xdata(), curve.step)
        np.testing.assert_array_equal(line.get_ydata(), curve.low)
        ours = [one for one in axis.get_lines() if one.get_linewidth() > 1.5]
        self.assertTrue(all(line.zorder < one.zorder for one in ours))

  def test_loss_of_training_batches_alone(self):
    made = training.figure(linear(first_loss=500))
    self.assertEmpty(theirs(panel(made, 'Test loss')))
    firsts = [
      line.get_ydata()[0] for line in theirs(panel(made, 'Training loss'))
    ]
    np.testing.assert_allclose(firsts, [500, 500])

  def test_shift_where_the_paper_has_one(self):
    made = pictures.of(covariate_shift.figure, vgg(), 'shift')
    counts = [len(theirs(axis)) for axis in drawn(made).axes]
    # l2, relative l2, cosine, of conv5 and conv10 each.
    self.assertEqual(counts, [2, 0, 0, 0, 2, 2])
    line = theirs(drawn(made).axes[-1])[0]
    curve = paper_curves.find('vgg', 'none', 0.1, 'cosine', 10)
    np.testing.assert_array_equal(line.get_ydata(), curve.low)

  @parameterized.parameters((vgg, 'vgg', 0.1), (linear, 'linear', 1e-6))
  def test_landscape_by_column(self, runs, network, rate):
    made = pictures.of(landscape.figure, runs(first_loss=1e5), 'landscape')
    axes = drawn(made).axes
    # Both edges of two bands, and beta.
    self.assertEqual([len(theirs(axis)) for axis in axes], [2, 2] * 2 + [1, 1])
    for axis, norm in zip(axes[2:4], ('none', 'batch')):
      curve = paper_curves.find(network, norm, rate, 'gradient_change')
      low, high = theirs(axis)
      np.testing.assert_array_equal(low.get_ydata(), curve.low)
      np.testing.assert_array_equal(high.get_ydata(), curve.high)

  def test_not_behind_another_line(self):
    runs = vgg()
    for run in runs:
      run.config['measures']['landscape']['direction'] = 'random'
    made = pictures.of(landscape.figure, runs, 'landscape')
    self.assertFalse(any(theirs(axis) for axis in drawn(made).axes))
    self.assertNotIn('paper', made.caption)
    self.assertEmpty(drawn(made).legends)


class SaidTest(absltest.TestCase):
  def test_once_in_the_legend(self):
    for made in (
      training.figure(vgg()),
      training.figure(linear()),
      pictures.of(covariate_shift.figure, vgg(), 'shift'),
      pictures.of(landscape.figure, vgg(), 'landscape'),
    ):
      for narrow in (False, True):
        said = [
          ' '.join(text.get_text().split())
          for legend in drawn(made, narrow).legends
          for text in legend.get_texts()
        ]
        self.assertEqual(said.count(overlay.LABEL), 1, made.name)
      self.assertIn(overlay.LABEL, made.caption)

  def test_scaled_steps(self):
    for kind in (training, landscape):
      made = pictures.of(kind.figure, vgg(kind='small'))
      texts = [
        text.get_text()
        for legend in drawn(made).legends
        for text in legend.get_texts()
      ]
      self.assertIn(f'{overlay.LABEL} (its steps × 0.1)', texts)
      self.assertIn("the paper's steps are multiplied by 0.1", made.caption)
      self.assertNotIn('multiplied by', pictures.of(kind.figure, vgg()).caption)

  def test_figures_in_their_order(self):
    runs = [*vgg(), paper_like.run('noisy', 'noisy')]
    self.assertIn('Figures 1(a), 2 and 1(b))', training.figure(runs).caption)
    self.assertIn('Figure 5(b))', training.figure(linear()).caption)

  def test_which_runs_share_a_curve(self):
    runs = [*vgg(), paper_like.run('decay', weight_decay=5e-4)]
    said = 'standard and decay share one curve of the paper'
    made = training.figure(runs)
    self.assertEqual(made.caption.count(said), 1)
    self.assertNotIn(
      said, pictures.of(landscape.figure, runs, 'landscape').caption
    )

  def test_levels_that_cannot_match(self):
    caption = pictures.of(landscape.figure, vgg(), 'landscape').caption
    self.assertIn('holds a penalty on the weights of about 1.9', caption)
    self.assertNotIn('multiplied', caption)
    caption = pictures.of(landscape.figure, linear(), 'landscape').caption
    self.assertNotIn('1.9', caption)
    self.assertIn('multiplied so that the first one is ours', caption)
    self.assertIn(
      'so that the first one is ours', training.figure(linear()).caption
    )

  def test_layers_that_stand_for_others(self):
    said = 'conv3 for 5, conv6 for 10'
    small, large = (
      pictures.of(covariate_shift.figure, runs, 'shift').caption
      for runs in (vgg(kind='small'), vgg())
    )
    self.assertIn(said, small)
    self.assertNotIn('stand for', large)

  def test_of_other_experiments_nothing(self):
    digits = {'data': {'name': 'digits'}}
    for made in (
      training.figure(vgg(**digits)),
      pictures.of(landscape.figure, vgg(**digits), 'landscape'),
      pictures.of(covariate_shift.figure, vgg(**digits), 'shift'),
      training.figure(linear(**digits)),
    ):
      self.assertNotIn('Thin, dashed', made.caption)
      self.assertFalse(any(theirs(axis) for axis in drawn(made).axes))
    self.assertEmpty(
      drawn(pictures.of(landscape.figure, vgg(**digits), 'landscape')).legends
    )


if __name__ == '__main__':
  absltest.main()
