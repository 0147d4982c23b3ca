"""Figures of covariate shift, weights, signal, one step and one unit."""

import pathlib
from unittest import mock

import numpy as np
from absl.testing import absltest, parameterized

from bn_jax.report import figures, notices, page, reached, summary
from bn_jax.report.drawing import tables
from bn_jax.report.figures import (
  along,
  covariate_shift,
  landscape,
  one_step,
  signal,
  unit,
  weights,
)
from bn_jax.report.results import read
from tests.fixtures import (
  made_up,
  pictures,
  strict,  # noqa: F401
)

MEASURES = {**made_up.CONFIG['measures'], **made_up.MORE}
MEASURES['activations'] = {**MEASURES['activations'], 'unit': True}
KINDS = (covariate_shift, weights, signal, one_step, unit)
FAST = {'norm': 'batch', 'scale': 0.1, 'measures': MEASURES}
SLOW = {'scale': 1.0, 'measures': MEASURES}


class OnceTest(parameterized.TestCase):
  """A measure that has looked once: numbers, and no panel with a dot."""

  def setUp(self):
    super().setUp()
    folder = pathlib.Path(self.create_tempdir().full_path) / 'w'
    both = {'standard': SLOW, 'batchnorm': FAST}
    self.folder = made_up.workdir(folder, (0, 1), **both)

  def analysed(self, name, values, calls=None, steps=(150,)):
    for run in ('standard', 'batchnorm'):
      for seed in (0, 1):
        made_up.analysis(
          self.folder / run / f'seed{seed}', calls or name,
          {'name': name, 'data': 'current_batch', 'statistics': 'batch'},
          {step: values(run, seed) for step in steps},
        )  # fmt: skip
    return read.runs([self.folder])

  def test_covariate_shift(self):
    def values(run, seed):
      shift = {'l2': 2.0 + seed, 'relative_l2': 0.25, 'cosine': 1.0}
      scale = 1 if run == 'standard' else 10
      return {f'conv5/{k}': v * scale for k, v in shift.items()}

    runs = self.analysed('covariate_shift', values)
    name = 'analysis/covariate_shift'
    made = pictures.of(covariate_shift.figure, runs, name)
    self.assertEmpty(made.rows)
    self.assertEqual(made.name, 'covariate-shift-analysis')
    self.assertEqual(made.title, 'Internal covariate shift, at step 150')
    # Of 2 and 3: 2.5, and half of the interval is 12.706 * 0.7071 / sqrt(2).
    self.assertEqual(
      made.numbers,
      [
        ['', 'standard', 'batchnorm'],
        ["|G − G'|, conv5", '2.5 ± 6.35', '25 ± 63.5'],
        ["|G − G'| / |G|, conv5", '0.25 ± 0', '2.5 ± 0'],
        ["Cosine of G and G', conv5", '1 ± 0', '10 ± 0'],
      ],
    )
    self.assertNotIn('axes', made.caption)
    self.assertNotIn('dashed', made.caption)
    self.assertIn('Means over seeds ± half of their 95 %', made.caption)
    self.assertLen(pictures.rows(made, quantity='cosine', seed=0), 2)

  def test_two_looks_are_drawn(self):
    def values(run, seed):
      del run, seed
      return {'conv5/l2': 1.0, 'conv5/relative_l2': 1.0, 'conv5/cosine': 1.0}

    runs = self.analysed('covariate_shift', values, steps=(100, 150))
    made = pictures.of(covariate_shift.figure, runs, 'analysis/covariate_shift')
    self.assertNotEmpty(made.rows)
    self.assertEqual(made.title, 'Internal covariate shift, at checkpoints')
    self.assertEmpty(made.numbers)

  def test_weights(self):
    quantities = (
      'weight_norm', 'effective_learning_rate', 'angular_update',
      'radial_cosine',
    )  # fmt: skip

    def values(run, seed):
      del run, seed
      return {f'conv5/{quantity}': -0.5 for quantity in quantities}

    made = pictures.of(
      weights.figure,
      self.analysed('weights', values, calls='late'),
      'analysis/late',
    )
    self.assertEmpty(made.rows)
    self.assertEqual(made.name, 'weights-analysis-late')
    self.assertEqual(made.title, 'Weights and their updates (analysis/late)')
    self.assertEqual(
      made.numbers[1], ['Weight norm |w|, conv5', *['-0.5 ± 0'] * 2]
    )
    self.assertEqual(made.numbers[4][1], '0.5 ± 0')  # of an absolute value

  def test_along_the_gradient_it_is_drawn_by_step_size(self):
    """Of training too, such as of a run that was stopped after one look."""
    folder = self.folder.parent / 'once'
    made_up.workdir(folder, (0,), standard={'steps': 0, 'measures': MEASURES})
    runs = read.runs([folder])
    self.assertIsNone(pictures.of(landscape.figure, runs))
    made = pictures.of(along.figure, runs)
    self.assertEqual(made.name, 'along')
    self.assertLen(pictures.axes(made), 3)

  def test_at_one_step_size_it_is_numbers(self):
    def values(run, seed):
      del run
      return {
        'step_size': [0.1], 'loss': [1.5 + seed], 'gradient_change': [0.5],
        'beta': [5.0], 'loss_0': 2.0,
      }  # fmt: skip

    runs = self.analysed('along_gradient', values, calls='late')
    made = pictures.of(along.figure, runs, 'analysis/late')
    self.assertEmpty(made.rows)
    self.assertEqual(
      [row[:2] for row in made.numbers],
      [
        ['', 'standard'],
        ['Loss', '2 ± 6.35'],
        ['Gradient change', '0.5 ± 0'],
        ['Beta', '5 ± 0'],
      ],
    )

  def test_one_step_of_one_rate_is_a_number(self):
    def values(run, seed):
      del run
      return {'learning_rate': [0.1], 'loss': [1.5 + seed], 'loss_0': 2.0}

    runs = self.analysed('one_step_loss', values)
    made = pictures.of(one_step.figure, runs, 'analysis/one_step_loss')
    self.assertEmpty(made.rows)
    self.assertEqual(
      made.numbers[1], ['Loss after a step (nats)', *['2 ± 6.35'] * 2]
    )

  def test_the_page_has_the_numbers(self):
    def values(run, seed):
      del run, seed
      return {'conv5/l2': 0.125, 'conv5/relative_l2': 1.0, 'conv5/cosine': 1.0}

    runs = self.analysed('covariate_shift', values)
    with mock.patch.object(page, '_picture', return_value=''):
      text = page.write([self.folder], runs=runs).read_text()
    _, section = text.split('<section id="covariate-shift-analysis">')
    section, *_ = section.split('</section>')
    self.assertIn('<td class="number">0.125 ± 0</td>', section)
    self.assertNotIn('<img', section)
    self.assertIn('figures/covariate-shift-analysis.csv', section)
    self.assertNotIn('.png', section)
    self.assertIn(
      '<a href="#covariate-shift-analysis">Internal covariate shift, at step '
      '150</a>',
      text,
    )
    made = self.folder / 'figures' / 'covariate-shift-analysis.csv'
    self.assertIn('0.125', made.read_text())


class _Drawn(parameterized.TestCase):
  def runs(self, seeds=(0,), **runs):
    folder = pathlib.Path(self.create_tempdir().full_path)
    runs = runs or {'standard': SLOW, 'batchnorm': FAST}
    return read.runs([made_up.workdir(folder / 'w', seeds, **runs)])

  def drawn(self, made, narrow=False):
    return pictures.drawing(made, narrow)

  def of(self, values, axis, index=0):
    """The values of the line of a run in a panel."""
    np.testing.assert_allclose(axis.get_lines()[index].get_ydata(), values)


class CovariateShiftTest(_Drawn):
  def test_rows_and_columns(self):
    made = pictures.of(covariate_shift.figure, self.runs())
    axes = self.drawn(made).axes
    self.assertLen(axes, 9)
    titles = [axis.get_title() for axis in axes[:3]]
    self.assertEqual(titles, list(made_up.LAYERS))  # in forward order
    for row, values in enumerate(([10, 1], [1, 0.1], [0.75, 0.975])):
      for index, value in enumerate(values):
        self.of([value] * 4, axes[3 * row], index)
    scales = [axis.get_yscale() for axis in axes[::3]]
    self.assertEqual(scales, ['log', 'log', 'linear'])
    self.of([1, 1], axes[6], -1)  # dashed, at a cosine of 1

  def test_caption(self):
    said = pictures.of(covariate_shift.figure, self.runs()).caption
    for words in (
      'Definition 2.1', 'without the weight penalty', 'every 50 steps',
      'the current training batch of 64 examples',
      "and its norm's scale and bias",
    ):  # fmt: skip
      self.assertIn(words, said)
    other = {**MEASURES, 'shift': {**MEASURES['shift']}}
    other['shift']['norm_parameters'] = False
    runs = self.runs(a={**SLOW, 'measures': other})
    self.assertIn(
      'without its norm', pictures.of(covariate_shift.figure, runs).caption
    )
    runs = self.runs(a={**SLOW, 'measures': other}, b=SLOW)
    said = pictures.of(covariate_shift.figure, runs).caption
    self.assertIn('False (a) or True (b)', said)
    ((_, unlike),) = notices.of(runs)[1:]
    self.assertIn('norm_parameters: False (a) or True (b)', unlike)

  def test_table(self):
    made = pictures.of(covariate_shift.figure, self.runs())
    for quantity, want in (('l2', 10), ('relative_l2', 1), ('cosine', 0.75)):
      cells = {'run': 'standard', 'panel': 'conv1', 'quantity': quantity}
      self.assertEqual(pictures.values(made, **cells), [want] * 4)

  def test_seeds_are_means(self):
    runs = self.runs(seeds=(0, 1))
    values = runs[0].seeds[1].series['shift'].values
    values['conv1/l2'] *= 4
    values['conv1/cosine'] -= 0.5
    axes = self.drawn(pictures.of(covariate_shift.figure, runs)).axes
    self.of([20] * 4, axes[0])  # geometric, of 10 and 40
    self.of([0.5] * 4, axes[6])  # of 0.75 and 0.25


class WeightsTest(_Drawn):
  def test_rows(self):
    made = pictures.of(weights.figure, self.runs(standard=SLOW))
    axes = self.drawn(made).axes
    square = 1 + np.array([0, 50, 100, 150])
    for row, want in enumerate(
      (square**0.5, 0.1 / square, 0.1 / square, [0.1] * 4)
    ):
      self.of(want, axes[3 * row])
    self.assertIn('All layers', made.caption)

  def test_three_of_many_layers_and_all_in_the_table(self):
    runs = self.runs(standard=SLOW)
    values = runs[0].seeds[0].series['weights'].values
    for name, value in list(values.items()):
      layer, _, quantity = name.rpartition('/')
      values[f'later_{layer}/{quantity}'] = value
    made = pictures.of(weights.figure, runs)
    titles = [axis.get_title() for axis in self.drawn(made).axes[:3]]
    self.assertEqual(titles, ['conv1', 'later_conv1', 'later_conv10'])
    self.assertIn('of 6 layers measured', made.caption)
    of = {row['panel'] for row in pictures.rows(made, quantity='weight_norm')}
    self.assertLen(of, 6)


class SignalTest(_Drawn):
  def test_by_layer_at_the_first_and_last_look(self):
    made = pictures.of(signal.figure, self.runs())
    axes = self.drawn(made).axes
    self.assertLen(axes, 6)
    titles = [axis.get_title() for axis in axes[:2]]
    self.assertEqual(titles, ['First: step 0', 'Last: step 150'])
    line = axes[0].get_lines()[0]
    np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3])
    self.of([1, 2, 4], axes[0])
    self.of([1, 0.5, 0.25], axes[2])
    self.of([0.5, 0.5], axes[4])
    self.of([0.25] * 3, axes[4], 1)  # with a norm; else there is none
    self.assertLen(axes[4].get_lines(), 2)
    labels = [text.get_text() for text in axes[4].get_xticklabels()]
    self.assertEqual(labels, list(made_up.LAYERS))
    cells = {'run': 'batchnorm', 'step': 150, 'layer': 'conv2'}
    for quantity, want in (('activation_rms', 1.1), ('negative', 0.75)):
      self.assertEqual(
        pictures.values(made, quantity=quantity, **cells), [want]
      )

  def test_without_a_norm_there_are_no_shares(self):
    made = pictures.of(signal.figure, self.runs(a=SLOW, b=SLOW))
    self.assertLen(self.drawn(made).axes, 4)
    self.assertNotIn('Theorem', made.caption)

  def test_networks_of_other_layers_are_counted(self):
    runs = self.runs()
    values = runs[1].seeds[0].series['signal'].values
    for name in list(values):
      if name.startswith('conv'):
        values[name.replace('conv', 'block')] = values.pop(name)
    made = pictures.of(signal.figure, runs)
    self.assertNotEmpty(pictures.rows(made, run='batchnorm', layer='block2'))
    axes = self.drawn(made).axes
    for line in axes[0].get_lines():
      np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3])
    labels = [text.get_text() for text in axes[4].get_xticklabels()]
    self.assertNotIn('conv1', labels)

  def test_some_of_the_layers_keep_their_places(self):
    runs = self.runs()
    values = runs[1].seeds[0].series['signal'].values
    for name in list(values):
      if name.startswith('conv2/'):
        del values[name]
    line = self.drawn(pictures.of(signal.figure, runs)).axes[0].get_lines()[1]
    np.testing.assert_array_equal(line.get_xdata(), [1, 3])


class OneStepTest(_Drawn):
  def test_against_the_rate(self):
    made = pictures.of(one_step.figure, self.runs())
    first, last = self.drawn(made).axes
    self.assertEqual((first.get_xscale(), first.get_yscale()), ('log', 'log'))
    for axis in (first, last):
      line = axis.get_lines()[0]
      np.testing.assert_allclose(line.get_xdata(), [0.01, 0.1, 1])
      self.of([0.5, 2, np.nan], axis)  # it ends where the loss is infinite
      self.of([1, 1], axis, 1)
    cells = {'run': 'standard', 'step': 0, 'learning_rate': '1'}
    self.assertEqual(pictures.values(made, quantity='loss', **cells), [np.inf])

  def test_one_look(self):
    made = pictures.of(one_step.figure, self.runs(a={**SLOW, 'steps': 60}))
    (axis,) = self.drawn(made).axes
    self.assertEqual(axis.get_title(), 'Step 0')


class UnitTest(_Drawn):
  def test_is_the_median_one_of_the_last_layer(self):
    """Units 0 to 2 move by 0.1, 0.2, 0.3 from look to look."""
    runs = self.runs()
    found = unit.typical(runs[0], 'activations')
    self.assertEqual((found.layer, found.index, found.units), ('conv2', 1, 3))
    middle = 0.2 * np.arange(4)
    want = np.stack([middle - 1, middle, middle + 1], axis=1)
    np.testing.assert_allclose(found.quantiles, want)
    made = pictures.of(unit.figure, runs)
    axes = self.drawn(made).axes
    for line, values in zip(axes[0].get_lines(), want.T, strict=True):
      np.testing.assert_allclose(line.get_ydata(), values)
    self.assertEqual(axes[0].get_title(), 'standard\nconv2, unit 1')
    self.assertEqual(axes[0].get_ylim(), axes[1].get_ylim())
    self.assertIn('standard: unit 1 of 3 of conv2, seed 0', made.caption)
    cells = {'run': 'standard', 'panel': 'conv2, unit 1', 'step': 50}
    self.assertEqual(pictures.values(made, **cells), [-0.8, 0.2, 1.2])

  def test_is_drawn_of_the_runs_that_ask_for_it(self):
    quiet = {**SLOW, 'measures': {**MEASURES, **made_up.CONFIG['measures']}}
    made = pictures.of(unit.figure, self.runs(a=SLOW, b=quiet))
    self.assertEqual({row['run'] for row in pictures.rows(made)}, {'a'})
    self.assertIsNone(pictures.of(unit.figure, self.runs(a=quiet)))

  def test_up_and_down_are_moves_alike(self):
    (run,) = self.runs(a=SLOW)
    for place, look in enumerate(run.seeds[0].arrays['activations']):
      medians = place * np.array([-0.3, 0.1, 0.2])
      look.values['conv2/quantiles'] = np.tile(medians, (3, 1))
    self.assertEqual(unit.typical(run, 'activations').index, 2)

  def test_units_that_are_no_numbers_are_none(self):
    runs = self.runs(a=SLOW)
    looks = runs[0].seeds[0].arrays['activations']
    for look in looks:
      look.values['conv2/quantiles'][:, 1:] = np.nan
    self.assertEqual(unit.typical(runs[0], 'activations').index, 0)
    for look in looks:
      look.values['conv2/quantiles'][:] = np.nan
    self.assertIsNone(pictures.of(unit.figure, runs))

  def test_records_without_quantiles_or_with_one_look(self):
    runs = self.runs(a=SLOW)
    for look in runs[0].seeds[0].arrays['activations']:
      del look.values['conv2/quantiles']
    self.assertIsNone(pictures.of(unit.figure, runs))
    self.assertIsNone(
      pictures.of(unit.figure, self.runs(a={**SLOW, 'steps': 9}))
    )


class AllTest(_Drawn):
  @parameterized.parameters(False, True)
  def test_runs_that_lack_it_and_numbers_that_are_none(self, narrow):
    nan = float('nan')
    runs = self.runs(
      standard={**SLOW, 'scale': nan},
      other={},
      diverged={**FAST, 'status': 'diverged', 'steps': 60},
    )
    for kind in KINDS:
      made = pictures.of(kind.figure, runs)
      self.assertIsNotNone(made, kind)
      drawing = self.drawn(made, narrow)
      self.assertNotIn('nan', tables.alternative(made), kind)
      if kind is not unit:
        names = {row['run'] for row in pictures.rows(made)}
        self.assertContainsSubset({'diverged'}, names)
        legend = [t.get_text() for t in drawing.legends[0].get_texts()]
        self.assertEqual(legend, ['standard', 'diverged'])

  def test_divergence_is_marked(self):
    ended = {**FAST, 'status': 'diverged', 'steps': 120}
    runs = self.runs(standard=SLOW, batchnorm=ended)
    for kind, panels in ((covariate_shift, 9), (weights, 12), (unit, 1)):
      axes = self.drawn(pictures.of(kind.figure, runs)).axes
      said = [text.get_text() for axis in axes for text in axis.texts]
      self.assertEqual(said, ['diverged at 120'] * panels)

  def test_nothing_recorded_is_no_figure(self):
    runs = self.runs(a={**SLOW, 'steps': 9})
    for run in runs:
      run.seeds[0].series.clear()
      run.seeds[0].arrays.clear()
    for kind in KINDS:
      self.assertIsNone(pictures.of(kind.figure, runs), kind)
    summary.columns(runs)

  def test_names_of_all_figures(self):
    names = [made.name for made in figures.every(self.runs())]
    self.assertEqual(
      names,
      [
        'training', 'landscape', 'distance', 'covariate-shift', 'activations',
        'drift', 'unit', 'signal', 'weights', 'one-step',
      ],
    )  # fmt: skip


class SummaryTest(_Drawn):
  def test_rows(self):
    runs = self.runs(standard={**SLOW, 'curvature': 7.0}, batchnorm=FAST)
    rows = {c.label: c.texts for c in summary.columns(runs)}
    for label, shown in (
      ('Covariate shift of conv10, cosine, median', ['0.75', '0.975']),
      ('Covariate shift of conv1, relative l2, median', ['1', '0.1']),
      ("Curvature d'Hd / |d|², median", ['7', 'not measured']),
      ('Limit of beta as e goes to 0, median', ['14', 'not measured']),
      ('Dead units (never above 0), last measurement', ['33.3 %'] * 2),
    ):
      self.assertEqual(rows[label], shown, label)

  def test_units_are_counted_over_all_layers(self):
    """Of layers of 3 and 5 units: 1 and 2 dead are 3 of 8, at the last look."""
    (run,) = self.runs(a=SLOW)
    looks = run.seeds[0].arrays['activations']
    looks[-1].values['conv2/positive'] = np.array([0, 0, 0.1, 0.5, 1])
    self.assertEqual(reached.dead_units(run.seeds[0], 'activations'), 3 / 8)
    for key in ('conv1/positive', 'conv2/positive'):
      del looks[-1].values[key]
    found = reached.dead_units(run.seeds[0], 'activations')
    self.assertTrue(np.isnan(found))


if __name__ == '__main__':
  absltest.main()
