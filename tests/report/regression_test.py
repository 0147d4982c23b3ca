"""Reports on runs that record no accuracy, and on evaluations with a top 5."""

import pathlib

import numpy as np
from absl.testing import absltest, parameterized

from bn_jax.report import notices, page, summary
from bn_jax.report.claims import alike
from bn_jax.report.figures import landscape, training
from bn_jax.report.results import read
from bn_jax.storage import files, records
from tests.fixtures import (
  commanded,
  made_up,
  pictures,
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
  def panels(self, runs):
    return {panel.title: panel for panel in training.figure(runs).panels}

  def test_loss_on_logarithmic_axes_and_no_accuracy(self):
    runs = self.runs()
    panels = self.panels(runs)
    self.assertEqual(list(panels)[:2], ['Training loss', 'Test loss'])
    self.assertNotIn('Training accuracy', panels)
    batch, test, *_ = pictures.axes(training.figure(runs))
    self.assertEqual((batch.get_yscale(), test.get_yscale()), ('log', 'log'))
    # Of each run: batches and their mean; and the test set.
    self.assertLen(batch.get_lines(), 4)
    self.assertLen(test.get_lines(), 2)
    raw, mean = (line.get_ydata() for line in batch.get_lines()[:2])
    np.testing.assert_allclose(raw, 1000 * 0.9 ** (np.arange(150) / 10))
    np.testing.assert_allclose(mean[19], raw[:20].mean())
    np.testing.assert_allclose(
      test.get_lines()[1].get_ydata(), 10 * 0.9 ** (np.arange(0, 151, 10) / 3)
    )

  def test_caption_says_what_is_drawn(self):
    said = training.figure(self.runs()).caption
    self.assertIn('each batch of 1000 examples before its update', said)
    self.assertIn(
      'The loss is squared_error (factor 1, reduction sum), without the weight '
      'penalty',
      said,
    )

  def test_table_holds_both(self):
    made = training.figure(self.runs())
    of = {'run': 'standard', 'step': 100}
    for quantity, want in (('training_loss', 348.678), ('test_loss', 3.48678)):
      self.assertEqual(pictures.values(made, quantity=quantity, **of), [want])
    self.assertLen(pictures.rows(made, quantity='training_loss'), 2 * 150)

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
    made = training.figure(read.runs([workdir]))
    self.assertNotEmpty(pictures.axes(made))

  def test_landscape_has_no_unit(self):
    for runs, label in (
      (self.runs(), 'Loss'),
      (self.runs(name='images', standard={}), 'Loss (nats)'),
    ):
      (row, *_) = pictures.of(landscape.figure, runs).rows
      self.assertEqual(row[0].y.label, label)


class MixedTest(_InAFolder):
  """Some runs of one working directory have an accuracy, and others not."""

  def mixed(self, **keywords):
    return self.runs(classifier={'top5': 0.875}, linear=SLOW, **keywords)

  def test_each_in_its_panels_and_its_colour(self):
    made = training.figure(self.mixed())
    keys = {
      panel.title: [mark.key for mark in panel.marks] for panel in made.panels
    }
    self.assertEqual(keys['Test accuracy'], [0])
    self.assertEqual(keys['Training loss'], [0, 1])
    self.assertEqual([k.label for k in made.keys], ['classifier', 'linear'])

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
    for panel in training.figure(runs).panels:
      self.assertEqual([mark.key for mark in panel.marks], [0])
    (workdir / 'standard' / 'seed0' / 'scalars.jsonl').unlink()
    self.assertIsNone(training.figure(read.runs([workdir])))

  @unrendered
  def test_the_page_of_both(self):
    workdir = self.workdir(
      classifier={}, normalized={'norm': 'batch'}, linear=SLOW, batchnorm=FAST
    )
    text = page.write([workdir]).read_text()
    self.assertIn('<section id="training">', text)
    self.assertTrue((workdir / 'figures' / 'training.csv').is_file())
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
      'reduction mean), without',
      training.figure(runs).caption,
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
    self.assertIn('read them beside the loss.', ' '.join(text.split()))
    self.assertIn('deep_linear on linear_task, batches of 1000', text)
    self.assertNotIn('id="accuracy"', text)


if __name__ == '__main__':
  absltest.main()
