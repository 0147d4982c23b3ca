"""The figure and the summary of a measure that has none of its own."""

import pathlib
from unittest import mock

import numpy as np
from absl.testing import absltest, parameterized

from bn_jax import analysis
from bn_jax.report import reached, summary
from bn_jax.report.figures import generic
from bn_jax.report.results import looks, quantities, read
from bn_jax.storage import array_files, records
from tests.fixtures import made_up, pictures

_KIND = 'sizes'
_SECTION = {
  'name': _KIND, 'data': 'train:64', 'every_steps': 10, 'statistics': 'batch',
}  # fmt: skip
_PAGE = {
  'title': 'Sizes',
  'quantities': {'norm': 'Norm |w|', 'power': 'Mean of |w|ᵖ'},
}


class _Measured(parameterized.TestCase):
  def runs(self, values, seeds=(0,), page=True, arrays=False):
    """Two runs; values(run, seed, step) is what they recorded at 0, 10, 20."""
    folder = pathlib.Path(self.create_tempdir().full_path) / 'w'
    config = {'measures': {'it': _SECTION}}
    said = {'manifest': {'measures': {_KIND: _PAGE}}} if page else {}
    made_up.workdir(
      folder, seeds, a={**config, **said}, b={**config, **said, 'norm': 'batch'}
    )
    for run in 'ab':
      for seed in seeds:
        place = folder / run / f'seed{seed}'
        rows = [
          records.Record(step, 'it', values(run, seed, step))
          for step in (0, 10, 20)
        ]
        if arrays:
          for row in rows:
            array_files.Arrays(place / 'arrays').write(row)
        else:
          path = place / 'scalars.jsonl'
          records.write_all(path, [*records.read(path), *rows])
    return read.runs([folder])

  def drawn(self, runs, narrow=False):
    made = pictures.of(generic.figure, runs, 'it', _KIND)
    return made, pictures.drawing(made, narrow)


class OnceTest(_Measured):
  """Three looks, of which one is left: numbers, and no dot."""

  def figure(self, values):
    runs = [
      run._replace(seeds=tuple(map(self.first, run.seeds)))
      for run in self.runs(values, seeds=(0, 1))
    ]
    return pictures.of(generic.figure, runs, 'it', _KIND)

  def first(self, seed):
    series = seed.series['it']
    values = {name: v[:1] for name, v in series.values.items()}
    once = series._replace(step=series.step[:1], values=values)
    return seed._replace(series={**seed.series, 'it': once})

  def test_numbers_of_layers_and_bands(self):
    made = self.figure(
      lambda run, seed, step: {
        'norm': step + 3.0 + (run == 'b'), 'power': [1.0, 4.0],
        'a/size': 2.0, 'c/size': 5.0 + seed,
      }
    )  # fmt: skip
    self.assertEmpty(made.rows)
    self.assertEqual(
      made.numbers,
      [
        ['', 'a', 'b'],
        ['Norm |w|', '3 ± 0', '4 ± 0'],
        ['Mean of |w|ᵖ', *['1 ± 0 to 4 ± 0'] * 2],
        ['size, a', '2 ± 0', '2 ± 0'],
        ['size, c', *['5.5 ± 6.35'] * 2],
      ],
    )

  def test_many_layers_are_a_map(self):
    made = self.figure(
      lambda run, seed, step: {f'l{i}/size': i + 1.0 for i in range(9)}
    )
    self.assertNotEmpty(pictures.axes(made))


class SaidTest(_Measured):
  """What a measure says of its quantities beside their names."""

  def test_caption_and_ranges_are_those_of_the_measure(self):
    said = {'caption': 'A = b.', 'ranges': {'norm': [0.0, None]}}
    values = lambda run, seed, step: {'norm': 1.0 + 9 * seed, 'power': 9 * seed}
    with mock.patch.dict(_PAGE, said):
      runs = self.runs(values, seeds=(0, 1))
    made = pictures.of(generic.figure, runs, 'it', _KIND)
    self.assertStartsWith(made.caption, 'A = b. Measured')
    norm, power = (panel.y.within for panel in made.panels)
    self.assertEqual((norm[0], power[0]), (0, -np.inf))

  def test_of_each_measure_with_this_figure(self):
    for name in ('gradient_noise', 'gradient_confusion', 'representations',
                 'jacobian'):  # fmt: skip
      page = analysis.MEASURES[name].page()
      self.assertRegex(page['caption'], r'20\d\d[),]')
      self.assertTrue(page['caption'].endswith('.'))
      self.assertContainsSubset(page['ranges'], page['quantities'])


class WholeNetworkTest(_Measured):
  def test_a_line_a_run_is_the_mean_over_seeds(self):
    runs = self.runs(
      lambda run, seed, step: {'norm': step + 2.0 * seed + (run == 'b')},
      seeds=(0, 1),
    )
    made, drawing = self.drawn(runs)
    self.assertEqual((made.name, made.title), (_KIND, 'Sizes'))
    (axis,) = drawing.axes
    self.assertEqual(axis.get_ylabel(), 'Norm |w|')
    means = [line for line in axis.get_lines() if line.get_linewidth() > 1]
    for index, line in enumerate(means):
      want = np.array([1, 11, 21]) + index
      np.testing.assert_allclose(line.get_ydata(), want)
    self.assertIn('recorded. Measured every 10 steps.', made.caption)

  def test_several_numbers_are_a_band(self):
    runs = self.runs(
      lambda run, seed, step: {'power': np.array([1.0, np.nan, 3.0 + step])}
    )
    made, drawing = self.drawn(runs)
    band = drawing.axes[0].collections[0].get_paths()[0].vertices
    self.assertEqual((band[:, 1].min(), band[:, 1].max()), (1, 23))
    self.assertIn('Bands reach', made.caption)
    for end, want in (('min', [1, 1, 1]), ('max', [3, 13, 23])):
      got = pictures.values(made, run='a', quantity=f'power_{end}')
      self.assertEqual(got, want)

  def test_where_nothing_is_recorded_there_is_no_figure(self):
    runs = self.runs(lambda run, seed, step: {'norm': 1.0})
    self.assertIsNone(pictures.of(generic.figure, runs, 'test', _KIND))
    self.assertIsNone(pictures.of(generic.figure, runs, 'it', 'other'))


class LayersTest(_Measured):
  def of_layers(self, count, **keywords):
    def values(run, seed, step):
      return {
        f'layer{place}/norm': 10.0 * place**2 + step + (run == 'b')
        for place in range(count)
      }

    return self.runs(values, **keywords)

  def test_few_are_a_line_each_a_column_a_run(self):
    made, drawing = self.drawn(self.of_layers(3))
    self.assertLen(drawing.axes, 2)
    titles = [axis.get_title() for axis in drawing.axes]
    self.assertEqual(titles, ['a', 'b'])
    for index, axis in enumerate(drawing.axes):
      for place in range(3):
        want = 10 * place**2 + np.array([0, 10, 20]) + index
        np.testing.assert_allclose(axis.get_lines()[place].get_ydata(), want)
    self.assertIn('A line a layer.', made.caption)
    of = {'run': 'b', 'step': 20, 'quantity': 'norm'}
    self.assertEqual(pictures.values(made, key='layer2', **of), [61])
    (legend,) = drawing.legends
    said = [text.get_text() for text in legend.get_texts()]
    self.assertEqual(said, ['layer0', 'layer1', 'layer2'])

  def test_what_has_no_layer_is_told_beside_layers_and_divergence(self):
    runs = self.runs(lambda run, seed, step: {'power': 9.0, 'layer0/norm': 2.0})
    runs[0].seeds[0].manifest.update(status='diverged', step=20)
    made, drawing = self.drawn(runs)
    self.assertEqual(
      [key.label for key in made.keys], ['layer0', 'Whole network']
    )
    got = pictures.values(made, run='a', key='Whole network')
    self.assertEqual(got, [9] * 3)
    said = [t.get_text() for axis in drawing.axes for t in axis.texts]
    self.assertEqual(said, ['diverged at 20'] * 2)

  def test_of_several_numbers_the_largest(self):
    runs = self.runs(
      lambda run, seed, step: {'layer0/norm': np.array([5.0, 7.0 + step])}
    )
    made, drawing = self.drawn(runs)
    line = drawing.axes[0].get_lines()[0]
    np.testing.assert_allclose(line.get_ydata(), [7, 17, 27])
    self.assertIn('Of several numbers of a layer, the largest.', made.caption)
    got = pictures.values(made, run='a', quantity='norm_smallest')
    self.assertEqual(got, [5, 5, 5])

  @parameterized.parameters(False, True)
  def test_many_are_a_map(self, arrays):
    made, drawing = self.drawn(self.of_layers(12, arrays=arrays))
    self.assertIn('the first at the bottom', made.caption)
    for index in (0, 1):
      (mesh,) = drawing.axes[index].collections
      want = 10 * np.arange(12)[:, None] ** 2 + [[0, 10, 20]] + index
      np.testing.assert_allclose(mesh.get_array().reshape(12, 3), want)
    self.assertEqual(drawing.axes[2].get_ylabel(), 'Norm |w|')  # the bar's
    of = {'run': 'a', 'step': 20}
    self.assertEqual(pictures.values(made, panel='layer3', **of), [110])
    self.assertEqual(pictures.values(made, layer='layer3', **of), [110])

  def test_the_summary_has_a_row_for_each_quantity(self):
    rows = {c.label: c.texts for c in summary.columns(self.of_layers(3))}
    label = 'Sizes: Norm |w|, median of the layers, last measurement'
    self.assertEqual(rows[label], ['30', '31'])

  def test_without_words_it_goes_by_its_names(self):
    runs = self.of_layers(2, page=False)
    made, _ = self.drawn(runs)
    self.assertEqual(made.title, 'Sizes')
    (quantity,) = quantities.of(looks.of(runs, _KIND, 'it'))
    self.assertEqual(quantity.label, 'norm')
    self.assertEqual(quantity.layers, ('layer0', 'layer1'))

  def test_on_a_telephone(self):
    _, drawing = self.drawn(self.of_layers(12), narrow=True)
    self.assertLen(drawing.axes, 3)


class SummaryTest(_Measured):
  def test_of_some_measures_only_what_says_something_alone(self):
    with mock.patch.dict(_SECTION, name='gradient_noise'):
      runs = self.runs(
        lambda run, seed, step: {'noise_scale': step + 4.0, 'small': 3.0},
        page=False,
      )
    rows = {c.label: c.texts for c in summary.columns(runs)}
    label = 'Gradient noise: noise scale, last measurement'
    self.assertEqual(rows[label], ['24', '24'])
    self.assertEmpty([label for label in rows if 'small' in label])

  def test_they_are_what_these_measures_record(self):
    for measure, names in reached._SUMMARISED.items():
      self.assertContainsSubset(names, analysis.MEASURES[measure].quantities)


if __name__ == '__main__':
  absltest.main()
