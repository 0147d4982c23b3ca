"""The figure of densities of spectra, and what the page says of it."""

import pathlib

import numpy as np
from absl.testing import absltest
from matplotlib import figure as mpl

from bn_jax import spectra
from bn_jax.report import figures, summary
from bn_jax.report.drawing import canvas
from bn_jax.report.figures import spectrum
from bn_jax.report.results import read
from tests.fixtures import made_up

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

  def figure(self, runs):
    (made,) = [
      one for one in figures.every(runs) if one.name.startswith('spectrum')
    ]
    return made

  def drawn(self, made, narrow=False):
    with canvas.style():
      return canvas.settled(made.draw(narrow))

  def test_first_middle_and_last_step_with_the_band_over_vectors(self):
    runs = self.runs(lambda run, seed, step: look(10.0 + step / 10 + seed))
    made = self.figure(runs)
    for words in (
      'the Hessian of the data loss', 'σ is 1 %',
      'mean over vectors and seeds', 'Logarithmic',
    ):  # fmt: skip
      self.assertIn(words, made.caption)
    self.assertIn('batchnorm -1 to 25.5', made.alt)
    for narrow in (False, True):
      drawing = self.drawn(made, narrow)
      axes = [axis for axis in drawing.axes if axis.get_visible()]
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
    with canvas.style():
      axis = mpl.Figure().subplots()
      spectrum._limit(axis, [density])
    self.assertEqual(axis.get_xlim(), (0.95, 2.05))

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

  def test_the_table_has_nodes_and_weights(self):
    made = self.figure(self.runs(lambda run, seed, step: look(10.0)))
    header, *rows = made.table
    self.assertEqual(
      header,
      ('run', 'seed', 'step', 'block', 'vector', 'eigenvalue', 'weight',
       'density', 'low', 'high'),
    )  # fmt: skip
    nodes = [row for row in rows if row[6]]
    self.assertLen(nodes, 2 * 2 * 4 * 5)
    self.assertEqual(
      nodes[4], ('batchnorm', 0, 0, '', 1, '10', '0.2', '', '', '')
    )

  def test_the_table_has_what_is_drawn(self):
    made = self.figure(self.runs(lambda run, seed, step: look(10.0)))
    lines = self.drawn(made).axes[0].get_lines()
    rows = [row for row in made.table[1:] if not row[6] and row[2] == 0]
    shown = np.array([row[5:6] + row[7:8] for row in rows[:1024]], float)
    grid, density = lines[0].get_data()
    at = np.searchsorted(grid, shown[:, 0]).clip(0, len(grid) - 1)
    is_drawn = np.isclose(grid[at], shown[:, 0], rtol=1e-5)
    self.assertGreater(is_drawn.mean(), 0.2)  # a long line is thinned
    np.testing.assert_allclose(
      density[at][is_drawn], shown[is_drawn, 1], rtol=1e-3, atol=1e-8
    )
    for row in rows:
      low, high = float(row[8]), float(row[9])
      self.assertBetween(float(row[7]), low * 0.999, high * 1.001)

  def test_blocks_and_another_matrix(self):
    def of(run, seed, step):
      return {**look(10.0), **look(3.0, 'norms/')}

    section = {**_SECTION, 'matrix': 'gauss_newton', 'penalised': True}
    runs = self.runs(of, steps=(150,), section=section)
    made = self.figure(runs)
    self.assertIn('the Gauss-Newton matrix of the objective', made.caption)
    drawing = self.drawn(made)
    self.assertEqual(
      [axis.get_ylabel() for axis in drawing.axes],
      ['Density', 'Density, norms'],
    )
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

    made = self.figure(self.runs(of, steps=(150,)))
    (axis,) = self.drawn(made).axes
    self.assertLen(axis.get_lines(), 1)
    self.assertIn('standard nan to nan', made.alt)


if __name__ == '__main__':
  absltest.main()
