"""The figure of the sharpness, the edge of stability and the summary's rows."""

import numpy as np
from absl.testing import absltest, parameterized

from bn_jax.report import summary
from bn_jax.report.drawing import tables
from bn_jax.report.figures import sharpness
from bn_jax.report.results import curves
from tests.fixtures import made_up, pictures

_STEPS = np.array([0, 10, 20])
_SECTION = {
  'name': 'top_eigenvalues', 'data': 'train:64', 'every_steps': 10, 'k': 2,
  'matrix': 'hessian', 'statistics': 'batch', 'penalised': True,
}  # fmt: skip


def run(
  name='batchnorm', sharpness_of=lambda seed: (10.0, 20.0, 40.0), seeds=(0, 1),
  converged=(1, 1, 1), optimizer=None, section=_SECTION, more=None,
  steps=_STEPS,
):  # fmt: skip
  """A run whose rate falls from 0.1 to 0.05 at step 10."""
  config = made_up.CONFIG | {
    'norm': {'name': 'batch'},
    'optimizer': optimizer or {'name': 'sgd'},
    'measures': {'top': section},
  }
  train = curves.Series(
    np.arange(20),
    {
      'learning_rate': np.where(np.arange(20) < 10, 0.1, 0.05),
      'accuracy': np.full(20, 0.5),
    },
  )

  def seed_of(seed):
    first = np.array(sharpness_of(seed))[: len(steps)]
    values = {
      'sharpness': first,
      'eigenvalues': np.stack([first, first / 2], 1),
      'converged': np.stack([converged[: len(steps)], np.ones(len(steps))], 1),
      **(more or {}),
    }
    said = {'statistics': 'batch', 'data': 'train:64', 'precision': 'highest'}
    return curves.Seed(
      seed,
      made_up.manifest_of(config, run=name, seed=seed),
      {'train': train, 'top': curves.Series(steps, values, (said,))},
      {'train': 1.0},
      {},
    )

  return curves.Run(name, tuple(map(seed_of, seeds)))


def figure(*runs):
  return pictures.of(sharpness.figure, runs)


def thick(axis):
  """The lines of means, without seeds, further eigenvalues and edges."""
  return [line for line in axis.get_lines() if line.get_linewidth() == 1.6]


class EdgeTest(parameterized.TestCase):
  @parameterized.parameters(
    ({'name': 'sgd'}, 2),
    ({'name': 'sgd', 'momentum': 0.5}, 3),
    ({'name': 'sgd', 'momentum': 0.5, 'nesterov': True}, 1.5),
  )
  def test_follows_the_rate_of_each_step(self, optimizer, product):
    made = figure(run(optimizer=optimizer))
    first = pictures.axes(made)[0].get_lines()
    (thin,) = [line for line in first if line.get_linewidth() == 1]
    np.testing.assert_array_equal(thin.get_xdata(), [0, 9, 10, 19])
    np.testing.assert_allclose(
      thin.get_ydata(), product / np.array([0.1, 0.1, 0.05, 0.05])
    )
    self.assertIn(f'{product:.4g} / (learning rate) of the step', made.caption)
    edge = pictures.values(made, quantity='edge_of_stability')
    np.testing.assert_allclose(edge, thin.get_ydata(), rtol=1e-5)
    for quantity, want in (('sharpness', 20), ('sharpness_2', 10)):
      of = {'seed': 0, 'step': 10, 'quantity': quantity}
      self.assertEqual(pictures.values(made, **of), [want])

  def test_none_of_adam_and_none_with_running_statistics(self):
    adam = run('adam', optimizer={'name': 'adam'})
    running = run('sgd', section=_SECTION | {'statistics': 'running'})
    made = figure(adam, running)
    lines = pictures.axes(made)[0].get_lines()
    self.assertFalse([line for line in lines if line.get_linewidth() == 1])
    self.assertIn('None is defined for adam (adam). ', made.caption)
    self.assertIn('not the function that training descends', made.caption)

  def test_no_line_at_a_rate_of_zero(self):
    one = run()
    one.seeds[0].series['train'].values['learning_rate'][:3] = 0
    _, limit_T = sharpness.edge(one.seeds[0], 'top')
    np.testing.assert_array_equal(np.isnan(limit_T), np.arange(20) < 3)


class FigureTest(parameterized.TestCase):
  def test_a_geometric_mean_on_a_logarithmic_axis(self):
    made = figure(run(sharpness_of=lambda seed: np.array([1, 2, 4]) * 4**seed))
    axis = pictures.axes(made)[0]
    self.assertEqual(axis.get_yscale(), 'log')
    np.testing.assert_allclose(thick(axis)[0].get_ydata(), [2, 4, 8])
    self.assertIn('batchnorm, Largest eigenvalue: 2 to 8.',
                  tables.alternative(made))  # fmt: skip
    self.assertNotIn('Hollow', made.caption)

  def test_negative_values_are_drawn_on_a_linear_axis(self):
    made = figure(run(sharpness_of=lambda seed: (-1.0, 1.0, 2.0)))
    axis = pictures.axes(made)[0]
    self.assertEqual(axis.get_yscale(), 'linear')
    np.testing.assert_allclose(thick(axis)[0].get_ydata(), [-1, 1, 2])

  def test_hollow_where_a_seed_has_not_converged(self):
    made = figure(run(converged=(0, 1, 0)))
    (hollow,) = [
      line for line in pictures.axes(made)[0].get_lines()
      if line.get_markerfacecolor() == 'white'
    ]  # fmt: skip
    np.testing.assert_allclose(hollow.get_xydata(), [[0, 10], [20, 40]])
    self.assertIn('Hollow: not converged', made.caption)

  def test_rows_of_blocks_and_of_the_other_end(self):
    smallest = {
      'smallest_eigenvalues': np.array([[-2.0, -1], [-2, -1], [-3, -1]]),
      'smallest_converged': np.array([[1, 1], [1, 1], [0, 1]]),
      'gradient_share': np.array([0.1, 0.2, 0.3]),
      'norms/sharpness': np.array([3.0, 2.0, 1.0]),
      'norms/gradient_share': np.array([0.1, 0.2, 0.3]),
    }
    made = figure(run(more=smallest))
    axes = pictures.axes(made)
    self.assertEqual(
      [axis.get_title() for axis in axes],
      [
        'Largest eigenvalue', 'Largest eigenvalue, norms',
        'Smallest eigenvalue', 'Share of |g|² in the top space',
      ],
    )  # fmt: skip
    np.testing.assert_allclose(thick(axes[2])[0].get_ydata(), [-2, -2, -3])
    of = {'seed': 1, 'step': 20}
    for panel, quantity, want in (
      ('', 'smallest_eigenvalues_2', [-1]), ('norms', 'sharpness', [1]),
      ('norms', 'gradient_share', []), ('', 'gradient_share', [0.3]),
    ):  # fmt: skip
      got = pictures.values(made, panel=panel, quantity=quantity, **of)
      self.assertEqual(got, want)

  def test_all_eigenvalues_are_thin_lines_and_rows_of_the_table(self):
    more = {
      'eigenvalues': np.array([[10.0, 5, 1], [20, 8, 2], [40, 9, 3]]),
      'residuals': np.array([[0.1, 0.2, 0.3]] * 3),
      'converged': np.array([[1, 1, 0]] * 3),
      'products': np.array([30, 31, 32]),
    }
    made = figure(run(more=more, seeds=(0,)))
    lines = [
      line.get_ydata().tolist() for line in pictures.axes(made)[0].get_lines()
      if line.get_linewidth() == 0.7
    ]  # fmt: skip
    np.testing.assert_allclose(lines, [[5, 8, 9], [1, 2, 3]])
    self.assertIn('the next 2 eigenvalues', made.caption)
    for quantity, want in (
      ('sharpness', (20, 8, 2)), ('residual', (0.1, 0.2, 0.3)),
      ('converged', (1, 1, 0)),
    ):  # fmt: skip
      for number, value in enumerate(want):
        name = f'{quantity}_{number + 1}' if number else quantity
        got = pictures.values(made, step=10, quantity=name)
        self.assertEqual(got, [value])
    self.assertEqual(pictures.values(made, quantity='products'), [30, 31, 32])

  def test_a_share_is_hollow_where_some_vector_has_not_converged(self):
    more = {
      'gradient_share': np.array([0.1, 0.2, 0.3]),
      'converged': np.array([[1, 1], [1, 0], [1, 1]]),
    }
    made = figure(run(more=more))
    first, share = pictures.axes(made)
    hollow = [
      [line.get_xydata().tolist() for line in axis.get_lines()
       if line.get_markerfacecolor() == 'white']
      for axis in (first, share)
    ]  # fmt: skip
    self.assertEqual(hollow, [[], [[[10, 0.2]]]])
    self.assertIn('|Vᵀg|² / |g|²', made.caption)
    self.assertIn('some of the vectors', made.caption)
    panel = made.rows[0][1]
    (of,) = [
      m for m in panel.marks if getattr(m, 'quantity', '') == 'converged'
    ]
    self.assertEqual([c.y.tolist() for c in of.curves], [[1, 0, 1]] * 2)

  def test_a_share_stays_in_its_range(self):
    made = figure(run(more={'gradient_share': np.array([0.1, 0.2, 0.3])}))
    axis = made.rows[0][1].y
    self.assertEqual((axis.within, axis.limits), ((0, 1), (0, 1.05)))
    self.assertFalse(axis.logarithmic)

  def test_a_normalised_value_has_products_of_its_own(self):
    more = {
      'products': np.array([30, 31, 32]),
      'conv1/normalised_sharpness': np.array([3.0, 2.0, 1.0]),
      'conv1/normalised_converged': np.array([1, 0, 1]),
      'conv1/normalised_products': np.array([5, 6, 7]),
    }
    made = figure(run(more=more, seeds=(0,)))
    got = [
      pictures.values(made, panel='conv1', quantity=quantity)
      for quantity in ('normalised_sharpness', 'converged', 'products')
    ]
    self.assertEqual(got, [[3, 2, 1], [1, 0, 1], [5, 6, 7]])

  def test_one_look_is_a_table(self):
    made = figure(run(steps=_STEPS[:1]))
    self.assertEmpty(made.rows)
    self.assertEqual(made.numbers[1], ['Largest eigenvalue', '10 ± 0'])

  def test_the_summary_compares_with_the_edge(self):
    rows = {c.label: c.texts for c in summary.columns([run()])}
    self.assertEqual(rows['Sharpness, last measurement'], ['40 ± 0'])
    self.assertEqual(
      rows['Sharpness by the edge of stability, last'], ['1 ± 0']
    )
    columns = summary.columns([run(optimizer={'name': 'lion'})])
    labels = {c.label for c in columns}
    self.assertNotIn('Sharpness by the edge of stability, last', labels)


if __name__ == '__main__':
  absltest.main()
