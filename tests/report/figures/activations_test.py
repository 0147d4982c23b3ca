"""Histograms of activations, and the moments in their table."""

import pathlib
from unittest import mock

import numpy as np
from absl.testing import absltest

from bn_jax.report.figures import activations
from bn_jax.report.results import read
from tests.fixtures import made_up, pictures


class FigureTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    folder = pathlib.Path(self.create_tempdir().full_path)
    blind = {
      'measures': {'activations': made_up.CONFIG['measures']['activations']}
    }
    self.runs = read.runs([made_up.workdir(folder / 'w', (3, 4), a=blind)])

  def test_a_panel_holds_every_look_of_the_first_seed_and_draws_some(self):
    with mock.patch.object(activations, '_TIMES', 3):
      made = pictures.of(activations.figure, self.runs)
    for (panel,), layer in zip(made.rows, ('conv1', 'conv2'), strict=True):
      (ridges,) = panel.marks
      self.assertEqual((panel.about, ridges.seed), (layer, 3))
      self.assertEqual(ridges.steps, [0, 50, 100, 150])
      self.assertEqual(ridges.drawn, [0, 2, 3])
      shares = ridges.heights @ np.diff(ridges.edges)
      # All but what lies beyond the ends of the axis: 0.5 % on either side.
      self.assertBetween(shares.min(), 0.97, 1)
      self.assertBetween(shares.max(), 0.97, 1)
      middles = (ridges.edges[1:] + ridges.edges[:-1]) / 2
      means = ridges.heights @ (middles * np.diff(ridges.edges)) / shares
      recorded = [
        look.values[f'{layer}/mean'].mean()
        for look in self.runs[0].seeds[0].arrays['activations']
      ]
      np.testing.assert_allclose(means, recorded, atol=0.05)
    self.assertIn('Of seed 3 alone.', made.caption)

  def test_the_table_has_moments_of_every_seed(self):
    made = pictures.of(activations.figure, self.runs)
    cells = {'run': 'a', 'seed': 4, 'panel': 'conv2'}
    looks = self.runs[0].seeds[1].arrays['activations']
    means, variances = (
      np.array([look.values[f'conv2/{name}'] for look in looks])
      for name in ('mean', 'var')
    )
    # Of all values together: of channels, and between their means.
    pooled = variances.mean(axis=1) + means.var(axis=1)
    for quantity, want in (('mean', means.mean(axis=1)), ('variance', pooled)):
      got = pictures.values(made, quantity=quantity, **cells)
      np.testing.assert_allclose(got, want, rtol=1e-5)
    for quantity in ('q15', 'q50', 'q85'):
      self.assertLen(pictures.rows(made, quantity=quantity, **cells), 4)


if __name__ == '__main__':
  absltest.main()
