"""What was measured after training, in the report."""

import json
import pathlib

import numpy as np
from absl.testing import absltest, parameterized

from bn_jax.report import figures, notices, page, summary
from bn_jax.report.claims import alike
from bn_jax.report.figures import activations, along, landscape
from bn_jax.report.results import curves, looks, read
from bn_jax.storage import files
from tests.fixtures import (
  commanded,
  made_up,
  pictures,
  strict,  # noqa: F401
)

SIZES = (0.001, 0.01, 0.1)
ALONG = {
  'name': 'along_gradient',
  'data': 'train:4096',
  'step_factors': [1.0],
  'step_sizes': list(SIZES),
  'direction': 'descent',
  'statistics': 'running',
}
EVALUATION = {'name': 'evaluation', 'data': 'test'}


class _InAFolder(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    folder = pathlib.Path(self.create_tempdir().full_path)
    self.place = made_up.workdir(
      folder / 'w', (0, 1), standard={},
      batchnorm={'norm': 'batch', 'reaches': 30, 'scale': 0.1},
    )  # fmt: skip

  def seed(self, run='standard', number=0):
    return self.place / run / f'seed{number}'

  def add(self, name, steps=(150,), section=ALONG, scale=1.0, **where):
    seen = {step: made_up.landscape(scale, None, SIZES) for step in steps}
    made_up.analysis(self.seed(**where), name, section, seen, 'population')

  def load(self):
    return read.runs([self.place])


class LoadTest(_InAFolder):
  def test_is_one_measure_more(self):
    self.add('late', (100, 150), scale=2.0)
    before = self.load()[1]
    run = self.load()[0]
    kind = 'along_gradient'
    self.assertEqual(curves.names(run, kind), ['landscape', 'analysis/late'])
    self.assertEqual(curves.names(before, kind), ['landscape'])
    found = run.seeds[0].series['analysis/late']
    np.testing.assert_array_equal(found.step, [100, 150])
    np.testing.assert_allclose(found.values['gradient_change'][1, -1], 4)
    self.assertNotIn('analysis/late', run.seeds[1].series)
    section = curves.measures(run)['analysis/late']
    self.assertEqual(section['statistics'], 'population')

  def test_cannot_collide_with_a_measure_of_training(self):
    self.add('landscape', scale=5.0)
    (seed, _) = self.load()[0].seeds
    self.assertLen(seed.series['landscape'].step, 16)
    self.assertLen(seed.series['analysis/landscape'].step, 1)

  def test_arrays(self):
    section = made_up.CONFIG['measures']['activations']
    seen = {150: made_up.activations(0, 0.1)}
    made_up.analysis(self.seed(), 'units', section, seen)
    seed = self.load()[0].seeds[0]
    (record,) = seed.arrays['analysis/units']
    self.assertEqual(
      (record.step, record.conditions['data']), (150, 'test:256')
    )
    self.assertIsNotNone(
      pictures.of(activations.figure, self.load(), 'analysis/units')
    )

  def test_nothing_recorded_yet(self):
    made_up.analysis(self.seed(), 'begun', ALONG, {})
    (self.seed() / 'analysis' / 'empty').mkdir()
    self.assertEqual(self.load()[0].seeds[0].left_out, ())
    self.assertEqual(looks.names(self.load(), 'along_gradient'), ['landscape'])

  @parameterized.parameters(
    ('settings.json', b'{', 'is not JSON'),
    ('settings.json', b'{}', "'measure' is None"),
    ('scalars.jsonl', b'no record\n', 'is no record'),
    (
      'scalars.jsonl',
      b'{"step": 1, "name": "late", "values": {"loss": 1}}\n'
      b'{"step": 2, "name": "late", "values": {"lost": 1}}\n',
      'different values',
    ),
  )
  def test_what_is_damaged_is_left_out_and_said(self, file, content, message):
    self.add('late')
    self.add('other')
    (self.seed() / 'analysis' / 'late' / file).write_bytes(content)
    runs = self.load()
    self.assertEqual(
      looks.names(runs, 'along_gradient'), ['landscape', 'analysis/other']
    )
    ((_, said),) = [n for n in notices.of(runs) if n[0] == 'Left out:']
    self.assertIn(message, said)
    self.assertIn('late', said)

  def test_a_folder_of_another_name_is_none(self):
    self.add('late')
    (self.seed() / 'analysis' / 'late').rename(
      self.seed() / 'analysis' / '.late'
    )
    self.assertEqual(looks.names(self.load(), 'along_gradient'), ['landscape'])


class ClaimsTest(_InAFolder):
  def test_are_those_of_training(self):
    """Neither a run that was analysed alone, nor what was found there."""
    (group,) = alike.groups(self.load())
    before = group.rows
    self.add('a', scale=99.0, run='batchnorm')
    self.add('landscape', scale=0.0)
    (group,) = alike.groups(self.load())
    self.assertEqual(group.rows, before)

  def test_no_landscape_of_training_is_no_claim(self):
    blind = {'measures': False}
    workdir = made_up.workdir(
      self.place / 'blind', (0,), standard=blind,
      batchnorm={'norm': 'batch', **blind},
    )  # fmt: skip
    for run in ('standard', 'batchnorm'):
      seen = {150: made_up.landscape(1.0)}
      made_up.analysis(workdir / run / 'seed0', 'late', ALONG, seen)
    (group,) = alike.groups(read.runs([workdir]))
    self.assertLen(group.rows, 1)


class FiguresTest(_InAFolder):
  def names(self):
    return [made.name for made in figures.every(self.load())]

  def test_each_key_has_its_own(self):
    self.add('late', (100, 150))
    names = self.names()
    for name in (
      'landscape', 'distance', 'landscape-analysis-late',
      'distance-analysis-late', 'along-analysis-late',
    ):  # fmt: skip
      self.assertIn(name, names)
    self.assertLess(
      names.index('distance'), names.index('landscape-analysis-late')
    )

  def test_training_comes_first(self):
    """Though the first run has an analysis alone, and of a shorter name."""
    section = made_up.CONFIG['measures']['landscape']
    measures = {'while_training': section}
    self.place = made_up.workdir(
      self.place / 'other', (0,), standard={'measures': False},
      batchnorm={'norm': 'batch', 'measures': measures},
    )  # fmt: skip
    self.add('a')
    self.assertEqual(
      looks.names(self.load(), 'along_gradient'),
      ['while_training', 'analysis/a'],
    )
    self.assertEqual(
      pictures.of(landscape.figure, self.load()).name, 'landscape'
    )

  def test_one_step_is_no_band(self):
    self.add('late')
    names = self.names()
    self.assertIn('along-analysis-late', names)
    self.assertNotIn('landscape-analysis-late', names)
    self.assertNotIn('distance-analysis-late', names)

  def test_names_are_unique_whatever_the_case(self):
    self.add('late', (0, 150))
    self.add('Late', (0, 150), run='batchnorm')
    names = [name.lower() for name in self.names()]
    self.assertLen(set(names), len(names))
    self.assertIn('landscape-analysis-late-2', names)
    self.assertIn('landscape-analysis-late', names)

  def test_holds_the_seeds_that_have_it(self):
    self.add('late', (0, 150), number=1)
    made = pictures.of(landscape.figure, self.load(), 'analysis/late')
    self.assertIn('Of standard, seed 1 only.', made.caption)
    self.assertIn('at the checkpoints of step 0, 150', made.caption)
    self.assertIn('the first 4096 examples of the training set', made.caption)
    self.assertIn('population statistics', made.caption)
    self.assertIn('e = {0.001, 0.01, 0.1}', made.caption)
    of = {(row['run'], row['seed']) for row in pictures.rows(made)}
    self.assertEqual(of, {('standard', 1)})
    self.assertIn('(analysis/late)', made.title)

  def test_a_run_that_has_another_measure_of_that_name_is_left_out(self):
    self.add('late', (0, 150))
    made_up.analysis(
      self.seed(number=1), 'late', EVALUATION, {150: {'loss': 0.25, 'count': 9}}
    )
    runs = self.load()
    for number, kind in enumerate(('along_gradient', 'evaluation')):
      (seed,) = looks.of(runs, kind, 'analysis/late').seeds
      self.assertEqual(seed.seed, number)
    self.assertIn('along-analysis-late', self.names())
    rows = {c.label: c.texts[0] for c in summary.columns(runs)}
    for label, shown in (
      ('Effective beta, median (analysis/late)', '3 (1 of 2 seeds)'),
      ('Loss in nats, test set (analysis/late, batch)', '0.25 (1 of 2 seeds)'),
    ):
      self.assertEqual(rows[label], shown)

  def test_against_the_step_size(self):
    self.add('late', scale=2.0)
    self.add('late', scale=8.0, number=1)
    made = pictures.of(along.figure, self.load(), 'analysis/late')
    wide, narrow = (pictures.drawing(made, n) for n in (False, True))
    for drawing in (wide, narrow):
      loss, change, beta = drawing.axes
      self.assertEqual(loss.get_xscale(), 'log')
      line = change.get_lines()[0]
      np.testing.assert_allclose(line.get_xdata(), SIZES)
      # Geometric means of 4 and 16 at the largest size.
      np.testing.assert_allclose(line.get_ydata(), [0.08, 0.8, 8])
      np.testing.assert_allclose(loss.get_lines()[-1].get_ydata(), [1, 1])
      grey = beta.get_lines()[0]
      np.testing.assert_allclose(grey.get_ydata(), 1 / np.array(SIZES))
    self.assertLess(narrow.get_figwidth(), wide.get_figwidth())
    cells = {'seed': 0, 'step': 150, 'step_size': '0.001'}
    for quantity, want in (('loss', 1), ('gradient_change', 0.04)):
      self.assertEqual(
        pictures.values(made, quantity=quantity, **cells), [want]
      )

  def test_sizes_in_any_order_and_a_learning_rate_of_zero(self):
    seen = {
      0: made_up.landscape(1.0, None, SIZES),
      150: made_up.landscape(1.0, None, SIZES[::-1]),
    }
    seen[0] = {k: np.full_like(v, np.nan) for k, v in seen[0].items()}
    seen[0]['step_size'] = np.zeros(3)
    made_up.analysis(self.seed(), 'odd', ALONG, seen)
    axes = pictures.axes(pictures.of(along.figure, self.load(), 'analysis/odd'))
    last = axes[3].get_lines()[0]
    np.testing.assert_allclose(last.get_xdata(), SIZES)
    np.testing.assert_allclose(last.get_ydata(), [0.02, 0.2, 2])


class UnlikeTest(_InAFolder):
  def said(self):
    return [
      said for head, said in notices.of(self.load()) if 'Different' in head
    ]

  def test_training_and_analysis_are_different_figures(self):
    self.add('late')
    self.assertEqual(self.said(), [])

  def test_two_curves_of_one_figure(self):
    self.add('late')
    other = {**ALONG, 'data': 'train:64'}
    self.add('late', run='batchnorm', section=other)
    (said,) = self.said()
    self.assertIn('measured (along_gradient, analysis/late)', said)
    self.assertIn('examples: 4096 (standard) or 64 (batchnorm)', said)
    self.assertIn('data: train:4096 (standard) or train:64', said)

  def test_the_records_have_the_word(self):
    """Not the manifest, where they say something of themselves."""
    for number, precision in enumerate(('default', 'highest')):
      path = self.seed(number=number) / 'scalars.jsonl'
      lines = [json.loads(line) for line in path.read_text().splitlines()]
      for line in lines:
        if line['name'] == 'landscape':
          line['conditions'] |= {'precision': precision, 'chunk_size': number}
      path.write_text(''.join(f'{json.dumps(line)}\n' for line in lines))
    (said,) = self.said()
    self.assertIn('precision: default (standard/seed0) or highest', said)
    self.assertNotIn('chunk_size', said)

  def test_a_record_without_them_says_what_the_manifest_does(self):
    self.place = made_up.workdir(
      self.place / 'old', (0,), standard={'conditions': False},
      batchnorm={'norm': 'batch'},
    )  # fmt: skip
    self.assertEqual(self.said(), [])
    runs = self.load()[:1]
    self.assertEmpty(runs[0].seeds[0].series['landscape'].conditions)
    self.assertIn(
      'on the current training batch of 64 examples',
      pictures.of(landscape.figure, runs).caption,
    )


class SummaryTest(_InAFolder):
  def rows(self):
    return {c.label: c.texts for c in summary.columns(self.load())}

  def test_rows(self):
    self.add('late', scale=4.0)
    made_up.analysis(
      self.seed(), 'final', EVALUATION,
      {150: {'loss': 0.25, 'accuracy': 0.5, 'count': 9}}, 'population',
    )  # fmt: skip
    rows = self.rows()
    self.assertEqual(
      rows['Effective beta, median (analysis/late)'],
      ['12 (1 of 2 seeds)', 'not measured'],
    )
    self.assertEqual(
      rows['Accuracy, test set (analysis/final, population)'],
      ['50.0 % (1 of 2 seeds)', 'not measured'],
    )
    self.assertEqual(rows['Accuracy, test set'], ['75.0 % ± 0.0 %'] * 2)


class PageTest(_InAFolder):
  def test_sections(self):
    self.add('late')
    self.add('many', (0, 150), run='batchnorm')
    with commanded.unrendered():
      text = page.write([self.place]).read_text()
    for name in ('along-analysis-late', 'landscape-analysis-many'):
      self.assertIn(f'<section id="{name}">', text)
      self.assertIn(f'<a href="#{name}">', text)
      self.assertTrue((self.place / 'figures' / f'{name}.csv').is_file())
    self.assertIn(
      '>Loss along the gradient, by step size (analysis/late)</a>', text
    )
    seed = files.read_json(self.seed() / 'manifest.json')
    self.assertNotIn('analysis/late', seed['config']['measures'])


if __name__ == '__main__':
  absltest.main()
