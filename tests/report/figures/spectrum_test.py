"""The figure of densities of spectra, and what the page says of it."""

import pathlib

import numpy as np
from absl.testing import absltest

from bn_jax import spectra
from bn_jax.report import summary
from bn_jax.report.drawing import tables
from bn_jax.report.figures import spectrum
from bn_jax.report.results import read
from tests.fixtures import made_up, pictures

_SECTION = {
  'name': 'spectral_density', 'data': 'train:64', 'matrix': 'hessian',
  'penalised': False,
}  # fmt: skip


def look(outlier, block=''):
  """Two random vectors; the second has seen one eigenvalue less."""
  return {
    f'{block}nodes': np.array([[-1.0, 0, outlier], [0.0, outlier, np.nan]]),
    f'{block}weights': np.array([[0.2, 0.7, 0.1], [0.8, 0.2, 0]]),
    f'{block}largest': np.array(outlier),
    f'{block}smallest': np.array(-1.0),
    f'{block}products': np.array(5),
  }


class FigureTest(absltest.TestCase):
  def runs(self, of, steps=(0, 50, 100, 150), section=_SECTION):
    folder = pathlib.Path(self.create_tempdir().full_path) / 'w'
    made_up.workdir(folder, (0, 1), batchnorm={}, standard={})
    for run in ('batchnorm', 'standard'):
      for seed in (0, 1):
        made_up.analysis(
          folder / run / f'seed{seed}', 'spectral_density', section,
          {step: of(run, seed, step) for step in steps},
        )  # fmt: skip
    return read.runs([folder])

  def test_first_middle_and_last_step_with_the_band_over_vectors(self):
    runs = self.runs(lambda run, seed, step: look(10.0 + step / 10 + seed))
    made = pictures.of(spectrum.figure, runs)
    for words in (
      'the Hessian of the data loss', 'σ is 1 %',
      'mean over vectors and seeds', 'Logarithmic',
    ):  # fmt: skip
      self.assertIn(words, made.caption)
    self.assertEqual([step for step, _ in made.frames], [0, 50, 100, 150])
    for narrow in (False, True):
      axes = pictures.axes(made, narrow)
      self.assertEqual(
        [axis.get_title() for axis in axes], ['Step 0', 'Step 100', 'Step 150']
      )
      for axis in axes:
        self.assertEqual(axis.get_yscale(), 'log')
        self.assertLen(axis.get_lines(), 2)
        self.assertLen(axis.collections, 2)
      # Of both seeds, the largest at step 0 and 150 with its bell, and no more.
      for axis, largest in ((axes[0], 11), (axes[2], 26)):
        self.assertBetween(axis.get_xlim()[1] / largest, 1.01, 1.2)

  def test_a_panel_ends_where_nothing_is_above_its_axis(self):
    high = np.array([1e-9, 1e-3, 1.0, 1e-9])
    density = spectra.Curve(np.arange(4.0), high, high, high, 0.1)
    x, y = spectrum._axes('Density', [density])
    self.assertEqual(x.limits, (0.95, 2.05))
    self.assertEqual((y.logarithmic, y.limits[1]), (True, 2))

  def test_the_curve_is_over_the_vectors_of_all_seeds(self):
    (run, _) = self.runs(lambda run, seed, step: look(10.0 + seed))
    got = spectrum.curve(run, 'analysis/spectral_density', '', 150)
    pairs = [look(10.0), look(11.0)]
    want = spectra.curve(
      np.concatenate([pair['nodes'] for pair in pairs]),
      np.concatenate([pair['weights'] for pair in pairs]),
    )
    for one, other in zip(got, want):
      np.testing.assert_allclose(one, other)
    self.assertAlmostEqual(got.width, 0.12)

  def test_the_table_has_nodes_and_weights_and_what_is_drawn(self):
    runs = self.runs(lambda run, seed, step: look(10.0))
    made = pictures.of(spectrum.figure, runs)
    for step in (50, 150):  # one is drawn, one is not
      of = {'run': 'batchnorm', 'seed': 0, 'step': step}
      for vector, count in ((0, 3), (1, 2)):
        name = f'weight_of_vector_{vector}'
        self.assertLen(pictures.rows(made, quantity=name, **of), count)
    of = {'run': 'batchnorm', 'step': 150, 'eigenvalue': '10'}
    got = pictures.values(made, quantity='weight_of_vector_1', **of)
    self.assertEqual(got, [0.2] * 2)  # of two seeds
    of = {'run': 'batchnorm', 'step': 150}
    drawn = [
      pictures.values(made, quantity=f'density{end}', **of)
      for end in ('_of_vector_min', '', '_of_vector_max')
    ]
    want = spectrum.curve(runs[0], 'analysis/spectral_density', '', 150)
    np.testing.assert_allclose(drawn[1], want.density, rtol=1e-4, atol=1e-7)
    for low, mean, high in zip(*drawn):
      self.assertBetween(mean, low * 0.999, high * 1.001)

  def test_blocks_and_another_matrix(self):
    def of(run, seed, step):
      return {**look(10.0), **look(3.0, 'norms/')}

    section = {**_SECTION, 'matrix': 'gauss_newton', 'penalised': True}
    runs = self.runs(of, steps=(150,), section=section)
    made = pictures.of(spectrum.figure, runs)
    self.assertIn('the Gauss-Newton matrix of the objective', made.caption)
    self.assertEqual(
      [axis.get_ylabel() for axis in pictures.axes(made)],
      ['Density', 'Density, norms'],
    )
    self.assertNotEmpty(pictures.rows(made, panel='norms', eigenvalue='3'))
    rows = {c.label: c.texts[0] for c in summary.columns(runs)}
    self.assertIn('10', rows['Spectrum, largest eigenvalue, last'])
    self.assertIn('3', rows['Spectrum of norms, largest eigenvalue, last'])
    self.assertIn('-1', rows['Spectrum, smallest eigenvalue, last'])

  def test_a_run_that_is_not_finite_has_no_line(self):
    def of(run, seed, step):
      values = look(10.0)
      if run == 'standard':
        values['nodes'] = np.full((2, 3), np.nan)
        values['weights'] = np.zeros((2, 3))
      return values

    made = pictures.of(spectrum.figure, self.runs(of, steps=(150,)))
    (axis,) = pictures.axes(made)
    self.assertLen(axis.get_lines(), 1)
    self.assertNotIn('nan', tables.alternative(made))


if __name__ == '__main__':
  absltest.main()
