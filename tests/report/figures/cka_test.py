"""The map of layers by layers, and the curves of the same layer."""

import numpy as np
from absl.testing import absltest

from bn_jax.report import figures
from bn_jax.report.drawing import tables
from bn_jax.report.figures import cka
from bn_jax.report.results import curves
from tests.fixtures import (
  pictures,
  strict,  # noqa: F401
)

LAYERS = ('conv1', 'conv2', 'conv10')
LATE = np.array([[1, 0.5, -0.2], [0.5, 1, 0.25], [0, 0.4, 1]])


def run(name='a', to='', seeds=(0.0,), layers=LAYERS, late=LATE):
  """Looks at steps 0 and 10; what a seed is above the first's is its number."""
  made = []
  for number, more in enumerate(seeds):
    values = {}
    for i, layer in enumerate(layers):
      rows = np.array([np.eye(len(late))[i], late[i] + more])
      if to:
        values[f'{layer}/debiased_cka'] = rows[:, i]
        values[f'{layer}/cka'] = np.ones(2)
      values[f'{layer}/debiased_cka_with'] = rows
      values[f'{layer}/cka_with'] = rows / 2 + 0.5
    section = {
      'name': 'cka', 'data': 'test:64', 'every_steps': 10, 'to': to,
      'statistics': 'batch',
    }  # fmt: skip
    manifest = {
      'status': 'done', 'step': 10, 'precision': {'measures': 'highest'},
      'config': {
        'measures': {'alike': section}, 'batch_size': 8,
        'norm': {'name': 'batch'},
      },
    }  # fmt: skip
    series = {'alike': curves.Series(np.array([0, 10]), values)}
    made.append(curves.Seed(number, manifest, series, {}, {}))
  return curves.Run(name, tuple(made))


def written(axis):
  """(column, row) -> what stands in the cell."""
  return {text.get_position(): text.get_text() for text in axis.texts}


class MapTest(absltest.TestCase):
  def test_the_last_look_is_drawn_as_the_mean_over_seeds(self):
    figure = pictures.of(cka.figure, [run(seeds=(0.0, -0.5))])
    self.assertEqual(figure.name, 'cka-layers')
    self.assertIn('Means over seeds.', figure.caption)
    self.assertIn('a: -0.45 to 0.75', tables.alternative(figure))
    axis, bar = pictures.axes(figure)
    want = LATE - 0.25
    cells = axis.collections[0].get_array().reshape(3, 3)
    np.testing.assert_allclose(cells, want)  # rows are layers, the first below
    self.assertEqual(written(axis)[3, 1], '-0.45')
    self.assertEqual(written(axis)[1, 3], '-0.25')
    names = [label.get_text() for label in axis.get_yticklabels()]
    self.assertEqual(names, list(LAYERS))
    self.assertEqual(bar.get_ylabel(), 'Debiased CKA')

  def test_two_checkpoints(self):
    for to, words in (('0', 'step 0'), ('runs/x/b/seed1', 'runs/x/b/seed1')):
      figure = pictures.of(cka.figure, [run(to=to)])
      self.assertIn(f'columns those at {words}, both', figure.caption)
      axis, _ = pictures.axes(figure)
      self.assertEqual(axis.get_xlabel(), f'Layer at {words}')

  def test_a_layer_without_a_value_is_white(self):
    late = LATE.copy()
    late[1] = np.nan
    axis, _ = pictures.axes(pictures.of(cka.figure, [run(late=late)]))
    mask = np.ma.getmaskarray(axis.collections[0].get_array()).reshape(3, 3)
    np.testing.assert_array_equal(mask, np.isnan(late))
    self.assertLen(written(axis), 6)

  def test_every_look_is_in_the_table(self):
    figure = pictures.of(cka.figure, [run(seeds=(0.0, 0.5))])
    of = {'step': 10, 'layer': 'conv1', 'with': 'conv10'}
    for quantity, want in (('cka', 0.4), ('debiased_cka', -0.2)):
      got = pictures.values(figure, seed=0, quantity=quantity, **of)
      self.assertEqual(got, [want])
    got = pictures.values(figure, seed='mean', **of)
    np.testing.assert_allclose(got, [0.05])
    self.assertLen(pictures.rows(figure), 2 * 2 * 2 * 9 + 9)
    self.assertEqual([step for step, _ in figure.frames], [0, 10])
    first = figure.frames[0][1][0][0].marks[0]
    np.testing.assert_array_equal(first.values, np.eye(3))

  def test_runs_with_other_layers_have_maps_of_their_own(self):
    runs = [run(), run('b', layers=LAYERS[:2], late=LATE[:2, :2])]
    for narrow in (False, True):
      a, b, _ = pictures.axes(pictures.of(cka.figure, runs), narrow)
      self.assertLen(a.get_yticks(), 3)
      self.assertLen(b.get_yticks(), 2)

  def test_many_layers_are_numbered_and_have_no_room_for_values(self):
    layers, late = [f'conv{i}' for i in range(20)], np.eye(20)
    axis, _ = pictures.axes(
      pictures.of(cka.figure, [run(layers=layers, late=late)])
    )
    self.assertEmpty(axis.texts)
    self.assertLess(len(axis.get_yticks()), 15)

  def test_one_layer_has_no_map(self):
    self.assertIsNone(
      pictures.of(cka.figure, [run(layers=('conv1',), late=LATE[:1, :1])])
    )


class CurvesTest(absltest.TestCase):
  def test_curves_are_of_the_same_layer_alone(self):
    made = pictures.of(cka.over_steps, [run(to='0')], 'alike')
    quantities = {row['quantity'] for row in pictures.rows(made)}
    self.assertEqual(quantities, {'debiased_cka', 'cka'})
    self.assertIsNone(pictures.of(cka.over_steps, [run()], 'alike'))
    self.assertNotEqual(
      made.title, pictures.of(cka.figure, [run(to='0')], 'alike').title
    )
    self.assertIn('with the same at step 0', made.caption)

  def test_both_are_on_the_page(self):
    of_measure = figures._OF_A_MEASURE[cka.MEASURE]
    names = [
      pictures.of(figure, [run(to='0')], 'alike').name for figure in of_measure
    ]
    self.assertEqual(names, ['cka-layers', 'cka'])


if __name__ == '__main__':
  absltest.main()
