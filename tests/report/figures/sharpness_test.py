"""The figure of the sharpness, the edge of stability and the summary's rows."""

import numpy as np
from absl.testing import absltest, parameterized

from bn_jax.report import figures, summary
from bn_jax.report.drawing import canvas
from bn_jax.report.figures import sharpness
from bn_jax.report.results import curves
from tests.fixtures import made_up

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
  (made,) = [
    one for one in figures.every(runs) if one.name.startswith('top-eigen')
  ]
  return made


def drawn(made):
  with canvas.style():
    return canvas.settled(made.draw(False))


class EdgeTest(parameterized.TestCase):
  @parameterized.parameters(
    ({'name': 'sgd'}, 2),
    ({'name': 'sgd', 'momentum': 0.5}, 3),
    ({'name': 'sgd', 'momentum': 0.5, 'nesterov': True}, 1.5),
  )
  def test_follows_the_rate_of_each_step(self, optimizer, product):
    made = figure(run(optimizer=optimizer))
    first = drawn(made).axes[0].get_lines()
    thin = [line for line in first if line.get_linewidth() == 1]
    (x, y) = thin[0].get_xdata(), thin[0].get_ydata()
    np.testing.assert_array_equal(x, np.arange(20))
    np.testing.assert_allclose(y[[0, 9]], product / 0.1)
    np.testing.assert_allclose(y[[10, 19]], product / 0.05)
    self.assertIn(f'{product:.4g} / (learning rate) of the step', made.caption)
    rows = [row for row in made.table if row[:4] == ('batchnorm', 0, 10,
                                                     'sharpness')]  # fmt: skip
    self.assertEqual(rows[0][4:], (1, '20', '', 1, '', f'{product / 0.05:g}'))
    self.assertEqual(rows[1][4:], (2, '10', '', 1, '', ''))

  def test_none_of_adam_and_none_with_running_statistics(self):
    adam = run('adam', optimizer={'name': 'adam'})
    running = run('sgd', section=_SECTION | {'statistics': 'running'})
    made = figure(adam, running)
    lines = drawn(made).axes[0].get_lines()
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
    axis = drawn(made).axes[0]
    self.assertEqual(axis.get_yscale(), 'log')
    np.testing.assert_allclose(axis.get_lines()[0].get_ydata(), [2, 4, 8])
    self.assertIn('batchnorm 10', made.alt)  # (4 + 16) / 2
    self.assertNotIn('Hollow', made.caption)

  def test_negative_values_are_drawn_on_a_linear_axis(self):
    made = figure(run(sharpness_of=lambda seed: (-1.0, 1.0, 2.0)))
    axis = drawn(made).axes[0]
    self.assertEqual(axis.get_yscale(), 'linear')
    np.testing.assert_allclose(axis.get_lines()[0].get_ydata(), [-1, 1, 2])

  def test_hollow_where_a_seed_has_not_converged(self):
    made = figure(run(converged=(0, 1, 0)))
    (hollow,) = [
      line for line in drawn(made).axes[0].get_lines()
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
    axes = [axis for axis in drawn(made).axes if axis.get_visible()]
    self.assertEqual(
      [axis.get_title() for axis in axes],
      [
        'Largest eigenvalue', 'Largest eigenvalue, norms',
        'Smallest eigenvalue', 'Share of |g|² in the top space',
      ],
    )  # fmt: skip
    np.testing.assert_allclose(axes[2].get_lines()[0].get_ydata(), [-2, -2, -3])
    # Of the two largest and the two smallest, a block's largest, and shares.
    self.assertLen(made.table, 1 + 2 * (2 + 2 + 1 + 1) * 3)

  def test_all_eigenvalues_are_thin_lines_and_rows_of_the_table(self):
    more = {
      'eigenvalues': np.array([[10.0, 5, 1], [20, 8, 2], [40, 9, 3]]),
      'residuals': np.array([[0.1, 0.2, 0.3]] * 3),
      'converged': np.array([[1, 1, 0]] * 3),
      'products': np.array([30, 31, 32]),
    }
    made = figure(run(more=more, seeds=(0,)))
    lines = [
      line.get_ydata().tolist() for line in drawn(made).axes[0].get_lines()
      if line.get_linewidth() == 0.7
    ]  # fmt: skip
    np.testing.assert_allclose(lines, [[5, 8, 9], [1, 2, 3]])
    self.assertIn('the next 2 eigenvalues', made.caption)
    rows = [row[3:] for row in made.table if row[2] == 10]
    self.assertEqual(
      rows,
      [
        ('sharpness', 1, '20', '0.1', 1, '31', '40'),
        ('sharpness', 2, '8', '0.2', 1, '31', ''),
        ('sharpness', 3, '2', '0.3', 0, '31', ''),
      ],
    )

  def test_a_share_is_hollow_where_some_vector_has_not_converged(self):
    more = {
      'gradient_share': np.array([0.1, 0.2, 0.3]),
      'converged': np.array([[1, 1], [1, 0], [1, 1]]),
    }
    made = figure(run(more=more))
    first, share = (axis for axis in drawn(made).axes if axis.get_visible())
    hollow = [
      [line.get_xydata().tolist() for line in axis.get_lines()
       if line.get_markerfacecolor() == 'white']
      for axis in (first, share)
    ]  # fmt: skip
    self.assertEqual(hollow, [[], [[[10, 0.2]]]])
    self.assertIn('|Vᵀg|² / |g|²', made.caption)
    self.assertIn('some of the vectors', made.caption)
    cells = [row[-3] for row in made.table if row[3] == 'gradient_share']
    self.assertEqual(cells, [1, 0, 1] * 2)

  def test_the_shade_of_a_share_stays_in_its_range(self):
    one = run(more={'gradient_share': np.array([0.1, 0.2, 0.3])})
    one.seeds[1].series['top'].values['gradient_share'] = np.array([0.9] * 3)
    axis = [axis for axis in drawn(figure(one)).axes if axis.get_visible()][1]
    (shade,) = axis.collections
    heights = shade.get_paths()[0].vertices[:, 1]
    self.assertEqual((heights.min(), heights.max()), (0, 1))

  def test_a_normalised_value_has_products_of_its_own(self):
    more = {
      'products': np.array([30, 31, 32]),
      'conv1/normalised_sharpness': np.array([3.0, 2.0, 1.0]),
      'conv1/normalised_converged': np.array([1, 0, 1]),
      'conv1/normalised_products': np.array([5, 6, 7]),
    }
    made = figure(run(more=more, seeds=(0,)))
    rows = [row[4:] for row in made.table if 'normalised' in row[3]]
    self.assertEqual(rows[1], (1, '2', '', 0, '6', ''))

  def test_one_look_is_a_table(self):
    made = figure(run(steps=_STEPS[:1]))
    self.assertIsNone(made.draw)
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
