"""Reports on runs that record no accuracy, and on evaluations with a top 5."""

import csv
import pathlib

import numpy as np
from absl.testing import absltest, parameterized

from bn_jax.report import notices, page, summary
from bn_jax.report.claims import alike
from bn_jax.report.drawing import canvas
from bn_jax.report.figures import accuracy, landscape
from bn_jax.report.results import read
from bn_jax.storage import files, records
from tests.fixtures import (
  commanded,
  made_up,
  strict,  # noqa: F401
)

LOSS = {'name': 'squared_error', 'factor': 1.0, 'reduction': 'sum'}
LINEAR = {
  'accuracy': False,
  'loss': LOSS,
  'data': {'name': 'linear_task', 'dimension': 10},
  'model': {'name': 'deep_linear', 'depth': 25},
  'batch_size': 1000,
}
unrendered = commanded.unrendered()

# 0.9 ** (step / 10) and 0.9 ** (step / 3): the second is faster.
SLOW, FAST = {**LINEAR}, {**LINEAR, 'norm': 'batch', 'reaches': 30}


class _InAFolder(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)

  def workdir(self, name='work', seeds=(0,), **runs):
    runs = runs or {'standard': SLOW, 'batchnorm': FAST}
    return made_up.workdir(self.folder / name, seeds, **runs)

  def runs(self, **keywords):
    return read.runs([self.workdir(**keywords)])

  def summary(self, **keywords):
    runs = self.runs(**keywords)
    names = [run.name for run in runs]
    columns = summary.columns(runs)
    return {c.label: dict(zip(names, c.texts)) for c in columns}


class FigureTest(_InAFolder):
  def drawn(self, made, narrow=False):
    with canvas.style():
      return made.draw(narrow)

  def test_loss_on_logarithmic_axes_and_no_accuracy(self):
    runs = self.runs()
    self.assertIsNone(accuracy.figure(runs))
    for narrow in (False, True):
      drawing = self.drawn(accuracy.loss(runs), narrow)
      batch, test = drawing.axes
      self.assertEqual((batch.get_yscale(), test.get_yscale()), ('log', 'log'))
      self.assertEqual(batch.get_ylabel(), 'Training loss, per batch')
      self.assertEqual(test.get_ylabel(), 'Test loss, per example')
      # Of each run: batches and their mean; and the test set.
      self.assertLen(batch.get_lines(), 4)
      self.assertLen(test.get_lines(), 2)
    self.assertIn(b'<svg', canvas.rendered(canvas.settled(drawing), 'svg'))
    raw, mean = (line.get_ydata() for line in batch.get_lines()[:2])
    np.testing.assert_allclose(raw, 1000 * 0.9 ** (np.arange(150) / 10))
    np.testing.assert_allclose(mean[19], raw[:20].mean())
    np.testing.assert_allclose(
      test.get_lines()[1].get_ydata(), 10 * 0.9 ** (np.arange(0, 151, 10) / 3)
    )

  def test_seeds_are_one_geometric_mean(self):
    runs = self.runs(seeds=(0, 1))
    series = runs[0].seeds[1].series
    series['test'].values['loss'][:] *= 100
    made = accuracy.loss(runs)
    test = self.drawn(made).axes[1]
    np.testing.assert_allclose(
      test.get_lines()[0].get_ydata(),
      10 * 10 * 0.9 ** (np.arange(0, 151, 10) / 10),
    )

  def test_caption_and_text_say_what_is_drawn(self):
    made = accuracy.loss(self.runs())
    self.assertIn(
      'loss of each batch of 1000 examples before its update', made.caption
    )
    self.assertIn(
      'The loss is squared_error (factor 1, reduction sum). Without the weight '
      'penalty',
      made.caption,
    )
    # The mean of 1000 * 0.9^(t / 10), t from 130 to 149.
    want = np.mean(1000 * 0.9 ** (np.arange(130, 150) / 10))
    self.assertIn(f'standard ends at {want:.3g} on training', made.alt)
    self.assertNotIn('%', made.alt)

  def test_table_holds_both(self):
    header, *rows = accuracy.loss(self.runs()).table
    self.assertEqual(header[-1], 'loss')
    found = {(row[0], row[2], row[3]): float(row[4]) for row in rows}
    self.assertLen(found, 2 * (150 + 16))
    self.assertEqual(found['standard', 100, 'train'], 348.678)
    self.assertEqual(found['standard', 100, 'test'], 3.48678)

  def test_a_loss_that_is_zero_or_infinite_is_left_out(self):
    workdir = self.workdir()
    path = workdir / 'standard' / 'seed0' / 'scalars.jsonl'
    path.unlink()
    lines = records.Lines(path)
    for step in range(30):
      value = {0: float('inf'), 1: float('nan')}.get(step, 0.0)
      row = {'data_loss': value, 'objective': value}
      lines.write(records.Record(step, 'train', row))
    lines.close()
    made = accuracy.loss(read.runs([workdir]))
    self.assertLen(self.drawn(made).axes, 2)

  def test_landscape_has_no_unit(self):
    for runs, label in (
      (self.runs(), 'Loss'),
      (self.runs(name='images', standard={}), 'Loss (nats)'),
    ):
      drawing = self.drawn(landscape.figure(runs))
      self.assertEqual(drawing.axes[0].get_ylabel(), label)


class MixedTest(_InAFolder):
  """Some runs of one working directory have an accuracy, and others not."""

  def mixed(self, **keywords):
    return self.runs(classifier={'top5': 0.875}, linear=SLOW, **keywords)

  def test_each_in_its_figure_and_its_colour(self):
    runs = self.mixed()
    colours = []
    for figure in (accuracy.figure, accuracy.loss):
      made = figure(runs)
      with canvas.style():
        axes = made.draw(False).axes
      self.assertLen(axes[1].get_lines(), 1)
      colours.append(axes[1].get_lines()[0].get_color())
      self.assertLen({row[0] for row in made.table[1:]}, 1)
    self.assertEqual(colours, ['#0072B2', '#D55E00'])

  def test_summary_shows_what_each_has(self):
    found = {c.label: c.texts for c in summary.columns(self.mixed())}
    self.assertEqual(
      found['Steps to 95 % training accuracy'], ['118', 'not measured']
    )
    self.assertEqual(
      found['Training accuracy, last 20 batches'], ['100.0 %', 'not measured']
    )
    self.assertEqual(found['Accuracy, test set'], ['75.0 %', 'not measured'])
    self.assertEqual(
      found['Top-5 accuracy, test set'], ['87.5 %', 'not measured']
    )
    self.assertEqual(found['Loss per example, test set'], ['0.5', '2.06'])
    self.assertEqual(found['Training loss, last 20 batches'], ['1', '230'])
    self.assertIn('Loss band, median width', found)

  def test_a_run_without_records_stands_with_the_others(self):
    workdir = self.workdir()
    (workdir / 'batchnorm' / 'seed0' / 'scalars.jsonl').unlink()
    runs = read.runs([workdir])
    self.assertIsNone(accuracy.figure(runs))
    self.assertIn('batchnorm has seen fewer than 20', accuracy.loss(runs).alt)
    (workdir / 'standard' / 'seed0' / 'scalars.jsonl').unlink()
    runs = read.runs([workdir])
    self.assertIsNone(accuracy.loss(runs))
    self.assertIsNotNone(accuracy.figure(runs))

  @unrendered
  def test_the_page_of_both(self):
    workdir = self.workdir(
      classifier={}, normalized={'norm': 'batch'}, linear=SLOW, batchnorm=FAST
    )
    text = page.write([workdir]).read_text()
    for name in ('accuracy', 'loss'):
      self.assertIn(f'<section id="{name}">', text)
      self.assertIn(f'<a href="#{name}">', text)
      self.assertTrue((workdir / 'figures' / f'{name}.csv').is_file())
    self.assertIn('beside the accuracy or the loss.', text)

  def test_another_loss_is_pointed_out(self):
    mean = {**SLOW, 'loss': {**LOSS, 'reduction': 'mean'}, 'init_from': 'a/b'}
    runs = self.runs(sum={**SLOW, 'init_from': None}, mean=mean)
    ((headline, sentence),) = notices.of(runs)[1:]
    self.assertEqual(headline, 'Different conditions:')
    self.assertIn('loss.reduction: sum (sum) or mean (mean)', sentence)
    self.assertIn('init_from: None (sum) or a/b (mean)', sentence)
    self.assertIn(
      'squared_error (factor 1, reduction sum) or squared_error (factor 1, '
      'reduction mean).',
      accuracy.loss(runs).caption,
    )


class SummaryTest(_InAFolder):
  def test_rows_without_accuracy(self):
    found = self.summary()
    self.assertNoCommonElements(
      ' '.join(found).lower().split(), ['accuracy', 'accuracy,', 'nats']
    )
    self.assertFalse([label for label in found if 'Steps to' in label])
    self.assertEqual(found['Loss per example, test set']['standard'], '2.06')
    self.assertEqual(
      found['Training loss, last 20 batches']['standard'],
      f'{np.mean(1000 * 0.9 ** (np.arange(130, 150) / 10)):.3g}',
    )

  def test_classifications_are_as_they_were(self):
    found = self.summary(standard={}, batchnorm={'norm': 'batch'})
    self.assertNotIn('Training loss, last 20 batches', found)
    self.assertNotIn('Top-5 accuracy, test set', found)
    for label in (
      'Accuracy, test set', 'Loss in nats, test set',
      'Loss band, median width in nats', 'Training accuracy, last 20 batches',
    ):  # fmt: skip
      self.assertIn(label, found)

  def test_top_5_where_it_is_recorded(self):
    found = self.summary(wide={'top5': 0.9375}, narrow={})
    self.assertEqual(
      found['Top-5 accuracy, test set'],
      {'wide': '93.8 %', 'narrow': 'not measured'},
    )

  @parameterized.parameters(True, False)
  def test_with_the_population(self, told):
    """A regression's population.json has no accuracy, or none that counts."""
    workdir = self.workdir()
    numbers = {'loss': 0.125, **({'accuracy': None} if told else {})}
    test = {'running': numbers, 'population': numbers}
    files.write_json(
      workdir / 'batchnorm' / 'seed0' / 'population.json',
      {'step': 150, 'batches': 3, 'test': test},
    )
    rows = {c.label: c.texts for c in summary.columns(read.runs([workdir]))}
    label = 'Loss, test set, population statistics'
    self.assertEqual(rows[label], ['not measured', '0.125'])
    self.assertNotIn('Accuracy, test set, population statistics', rows)

  def test_with_the_population_of_both_kinds(self):
    workdir = self.workdir(classifier={}, linear=SLOW)
    for run, numbers in (
      ('classifier', {'loss': 0.5, 'accuracy': 0.75}),
      ('linear', {'loss': 0.125}),
    ):
      test = {'running': numbers, 'population': numbers}
      files.write_json(
        workdir / run / 'seed0' / 'population.json',
        {'step': 150, 'batches': 3, 'test': test},
      )
    rows = {c.label: c.texts for c in summary.columns(read.runs([workdir]))}
    label = 'Accuracy, test set, population statistics'
    self.assertEqual(rows[label], ['75.0 %', 'not measured'])


class ClaimsTest(_InAFolder):
  def test_no_claim_about_an_accuracy(self):
    (group,) = alike.groups(self.runs())
    self.assertLen(group.rows, 3)
    for row in group.rows:
      self.assertNotIn('accuracy', row['statistic'])
      self.assertNotEqual(row['verdict'], 'not measured')

  @unrendered
  def test_the_page_reads_them_beside_the_loss(self):
    workdir = self.workdir()
    text = page.write([workdir]).read_text()
    self.assertIn('read them beside the loss.', text)
    self.assertIn('deep_linear on linear_task, batches of 1000', text)
    self.assertNotIn('id="accuracy"', text)
    with open(workdir / 'figures' / 'loss.csv') as file:
      self.assertLen(list(csv.reader(file)), 1 + 2 * (150 + 16))


if __name__ == '__main__':
  absltest.main()
