"""The paper's curves: what is said of its figures is found in the data."""

import pathlib

import numpy as np
from absl.testing import absltest, parameterized

from bn_jax.report.drawing import paper_curves
from tests.fixtures import strict  # noqa: F401

_FOLDER = pathlib.Path(paper_curves.__file__).with_name('paper')


def found(*key):
  curve = paper_curves.find(*key)
  assert curve is not None, key
  return curve


def at(curve, *steps):
  """On the line as it is drawn: points on it may have been left out."""
  return np.interp(steps, curve.step, curve.low)


def drawn_median(curve):
  """Over every 50 steps of that line."""
  return np.median(at(curve, *range(0, curve.step[-1] + 1, 50)))


class FindTest(parameterized.TestCase):
  @parameterized.parameters(
    ('none', 0.1, [0.512, 0.675, 0.769, 0.802, 0.800]),
    ('batch', 0.1, [0.757, 0.791, 0.812, 0.825, 0.829]),
    ('batch', 0.5, [0.517, 0.692, 0.780, 0.774, 0.802]),
    ('none', 0.5, [0.1] * 5),
  )
  def test_test_accuracy_is_a_share(self, norm, rate, want):
    curve = found('vgg', norm, rate, 'test accuracy')
    self.assertEqual(curve.name, '1(b)')
    got = at(curve, 1000, 2000, 5000, 10_000, 15_000)
    np.testing.assert_allclose(got, want, atol=6e-4)

  @parameterized.parameters(
    ('1(a)', 'none', 0.1, 0.90, 3300),
    ('1(a)', 'none', 0.1, 0.95, 4800),
    ('1(a)', 'batch', 0.1, 0.90, 1600),
    ('1(a)', 'batch', 0.5, 0.90, 3200),
    ('2', 'noisy', 0.1, 0.90, 2400),
    ('5(a)', 'l2', 0.1, 0.95, 2800),
    ('5(a)', 'linf', 0.1, 0.95, 2400),
  )
  def test_first_batch_of_an_accuracy(self, name, norm, rate, level, step):
    curve = found('vgg', norm, rate, 'accuracy')
    self.assertEqual(curve.name, name)
    self.assertEqual(curve.step[np.argmax(curve.low >= level)], step)
    # Of 128 examples: but for what is lost in reading, 128ths.
    grain = 128 * curve.low - np.round(128 * curve.low)
    self.assertLess(np.abs(grain).max(), 0.1)

  @parameterized.parameters(
    ('none', 0.1, 5, 'cosine', 0.56),
    ('batch', 0.1, 5, 'cosine', 0.51),
    ('none', 0.1, 10, 'cosine', 0.06),
    ('none', 0.01, 5, 'cosine', 0.86),
    ('batch', 0.01, 10, 'cosine', 0.94),
  )
  def test_shift_of_vgg(self, norm, rate, layer, quantity, want):
    curve = found('vgg', norm, rate, quantity, layer)
    self.assertAlmostEqual(np.median(curve.low), want, delta=0.012)
    self.assertIsNone(paper_curves.find('vgg', norm, rate, quantity))

  @parameterized.parameters(
    ('none', 1e-6, 9, 'cosine', 0.93),
    ('batch', 1e-6, 17, 'cosine', -0.87),
    ('batch', 1e-7, 17, 'cosine', -0.37),
    ('none', 1e-7, 9, 'l2', 2.5),
    ('batch', 1e-7, 9, 'l2', 4.3e3),
  )
  def test_shift_of_the_linear_network(self, norm, rate, layer, what, want):
    curve = found('linear', norm, rate, what, layer)
    got = np.median(curve.low) if what == 'l2' else drawn_median(curve)
    np.testing.assert_allclose(got, want, rtol=0.05 if what == 'l2' else 0.01)

  def test_bands_of_vgg(self):
    loss = found('vgg', 'none', 0.1, 'loss')
    self.assertEqual(loss.name, '4(a)')
    high = np.argmax(loss.high)
    self.assertEqual((loss.step[high], round(loss.high[high], 2)), (2400, 9.67))
    change = found('vgg', 'batch', 0.1, 'gradient_change')
    self.assertEqual(change.step[np.argmax(change.high)], 0)
    np.testing.assert_allclose(change.high.max(), 144.7, rtol=1e-3)
    np.testing.assert_allclose(np.median(change.high), 21.7, rtol=5e-3)
    np.testing.assert_allclose(np.median(change.low), 11.5, rtol=5e-3)
    width = found('vgg', 'linf', 0.1, 'loss')
    np.testing.assert_allclose(
      np.mean(width.high - width.low), 0.145, rtol=0.01
    )
    beta = found('vgg', 'none', 0.1, 'beta')
    self.assertEqual(beta.step[np.argmax(beta.low)], 200)
    np.testing.assert_allclose(beta.low.max(), 45.6, rtol=1e-3)

  def test_of_the_linear_network(self):
    for norm, want in (
      ('none', [3.45e4, 5464, 3007, 1661]),
      ('l1', [3.71e4, 1729, 1024, 97.5]),
      ('linf', [3.46e4, 4764, 2105, 986]),
    ):
      curve = found('linear', norm, 1e-6, 'data_loss')
      got = at(curve, 0, 500, 2000, 10_000)
      np.testing.assert_allclose(got, want, rtol=0.01)
    loss = found('linear', 'none', 1e-6, 'loss')
    self.assertEqual(loss.step[np.argmax(loss.high)], 100)
    np.testing.assert_allclose(loss.high.max(), 6.2e14, rtol=0.01)
    beta = found('linear', 'l2', 1e-6, 'beta')
    self.assertEqual(beta.name, '13(d)')
    late = beta.low[beta.step >= 8000]
    np.testing.assert_allclose(np.median(late), 1.58e6, rtol=0.01)

  def test_nothing_of_what_it_has_not(self):
    for key in (
      ('vgg', 'none', 0.2, 'accuracy'),
      ('vgg', 'noise', 0.1, 'accuracy'),
      ('vgg', 'noisy', 0.1, 'loss'),
      ('linear', 'none', 0.1, 'data_loss'),
      ('linear', 'none', 1e-7, 'data_loss'),
      ('vgg', 'none', 0.1, 'l2', 10),  # an axis without labels
      ('vgg', 'none', 0.1, 'relative_l2', 5),
    ):
      self.assertIsNone(paper_curves.find(*key), key)


class FilesTest(absltest.TestCase):
  def test_each_is_read_and_small(self):
    files = {panel.file for panel in paper_curves._PANELS}
    self.assertEqual({file.stem for file in _FOLDER.glob('*.csv')}, files)
    size = sum(file.stat().st_size for file in _FOLDER.iterdir())
    self.assertLess(size, 150_000)
    said = (_FOLDER / 'README.md').read_text()
    for file in files:
      self.assertIn(f'`{file}`', said)

  def test_numbers_are_complete_and_in_order(self):
    for panel in paper_curves._PANELS:
      for label, (step_T, low_T, high_T) in paper_curves._columns(
        panel.file
      ).items():
        self.assertTrue(step_T.shape == low_T.shape == high_T.shape, label)
        self.assertTrue((np.diff(step_T) > 0).all(), label)
        self.assertBetween(step_T[0], 0, 0)
        self.assertLessEqual(step_T[-1], paper_curves.STEPS[panel.network])
        self.assertTrue(np.isfinite([low_T, high_T]).all(), label)
        self.assertTrue((low_T <= high_T).all(), label)


if __name__ == '__main__':
  absltest.main()
