import pathlib

from absl.testing import absltest

from bn_jax.report import notices
from bn_jax.report.figures import activations, landscape, training
from bn_jax.report.results import conditions, curves, read
from tests.fixtures import (
  hand_made,
  made_up,
  pictures,
  strict,  # noqa: F401
)


def measures(kind, **changes):
  """The measures of made-up runs, with one of them changed."""
  found = dict(made_up.CONFIG['measures'])
  found[kind] = {**found[kind], **changes}
  return found


class _TwoRuns(absltest.TestCase):
  def runs(self, *, standard=None, batchnorm=None, seeds=(0,)):
    folder = pathlib.Path(self.create_tempdir().full_path)
    norm = {'name': 'batch', 'group_size': None}
    return read.runs(
      [
        made_up.workdir(
          folder / 'w', seeds, standard=standard or {},
          batchnorm={'norm': norm, **(batchnorm or {})},
        )
      ]
    )  # fmt: skip


class NoticesTest(_TwoRuns):
  """What rests on unlike ground is pointed out, in all figures and seeds."""

  def said(self, **runs):
    made = notices.of(self.runs(**runs))
    different = 'Different conditions:'
    return ' '.join(said for headline, said in made if headline == different)

  def test_alike(self):
    self.assertEqual(self.said(), '')

  def test_both_accuracies_of_a_recalibrated_run(self):
    """Of the seeds that have not gone on since; with the reason where noisy."""
    runs = self.runs(standard={'norm': 'noisy'}, seeds=(0, 1))
    numbers = {'running': {'accuracy': 0.55}, 'population': {'accuracy': 0.99}}

    def said(steps):
      seeds = tuple(
        seed._replace(population={'step': step, 'test': numbers})
        for seed, step in zip(runs[0].seeds, steps)
      )
      made = notices.of([runs[0]._replace(seeds=seeds), runs[1]])
      return dict(made).get('Recalibrated:')

    self.assertIsNone(said((100, 100)))
    self.assertRegex(
      said((150, 100)), r'of standard is 55.0 % .*, and 99.0 % .*wards\. Run'
    )
    self.assertIn('the noise, which is off', said((150, 150)))

  def test_precision_of_training(self):
    precision = {'dtype': 'float32', 'training': 'default'}
    precision['measures'] = 'highest'
    said = self.said(
      standard={'manifest': {'precision': precision}, 'measures': False},
      batchnorm={'measures': False},
    )
    self.assertIn(
      'matmul_precision: default (standard) or highest (batchnorm)', said
    )

  def test_lowering_of_training(self):
    """Of the manifest, where a config may say 'auto'; the page has both."""
    lowerings = {'lowering': 'winograd', 'measure_lowering': 'product'}
    named = dict(lowerings, lowering='product')
    runs = dict(
      standard={'manifest': lowerings, 'measures': False},
      batchnorm={'manifest': named, 'measures': False},
    )
    self.assertIn(
      'model.lowering: winograd (standard) or product (batchnorm)',
      self.said(**runs),
    )
    rows = notices.provenance(self.runs(**runs))
    self.assertEqual(
      rows['Convolutions'],
      'winograd in training, product in measures; product in training, product '
      'in measures (the loss of a step and that of a look there differ by '
      'rounding)',
    )
    self.assertNotIn('Convolutions', notices.provenance(self.runs()))

  def test_commands_processors_and_seeds(self):
    runs = self.runs(seeds=(0, 1), standard={'measures': False})
    self.assertNoCommonElements(notices.provenance(runs), ['Command'])
    manifests = [seed.manifest for run in runs for seed in run.seeds]
    for number, manifest in enumerate(manifests):
      manifest |= {'command': f'python {number}', 'processor': 'Fast'}
    rows = notices.provenance(runs)
    self.assertEqual(
      rows['Command'],
      'python 0; python 1; python 2; and 1 more, in manifest.json of seeds',
    )
    self.assertEqual((rows['Processor'], rows['Seeds']), ('Fast', '0, 1'))
    runs[0] = runs[0]._replace(seeds=runs[0].seeds[:1])
    seeds = notices.provenance(runs)['Seeds']
    self.assertEqual(seeds, '0 (standard); 0, 1 (batchnorm)')

  def test_every_seed_is_asked(self):
    runs = self.runs(seeds=(0, 1))
    seeds = runs[0].seeds
    precision = dict(seeds[1].manifest['precision'], dtype='bfloat16')
    other = seeds[1]._replace(manifest=seeds[1].manifest | {
      'precision': precision
    })  # fmt: skip
    runs[0] = runs[0]._replace(seeds=(seeds[0], other))
    (said,) = (s for headline, s in notices.of(runs) if 'Different' in headline)
    self.assertIn(
      'compute_dtype: float32 (standard/seed0, batchnorm) or bfloat16 '
      '(standard/seed1)',
      said,
    )

  def test_data_and_network(self):
    said = self.said(
      standard={
        'data': {'name': 'cifar10', 'resolution': None},
        'model': {'name': 'vgg16', 'width': 0.25},
        'measures': False,
      }
    )
    self.assertIn('data.name: cifar10 (standard) or digits (batchnorm)', said)
    self.assertIn('model.name: vgg16 (standard) or vgg11 (batchnorm)', said)
    self.assertNotIn('width', said)

  def test_of_many_runs_six_are_named(self):
    runs = [
      curves.Run(f'r{k}', (hand_made.seed(steps=k // 8),)) for k in range(16)
    ]
    found = conditions.by_run(runs, lambda seed: f'{seed.manifest["step"]}')
    self.assertStartsWith(found, '0 (r0, r1, r2, r3, r4, r5 and 2 more) or 1 (')

  def test_of_many_values_three_are_named(self):
    """Of lines to another seed each has its own; a caption has them all."""
    runs = [curves.Run(f'r{k}', (hand_made.seed(steps=k),)) for k in range(5)]
    (said,) = conditions.different(
      runs, lambda seed: {'to': f'{seed.manifest["step"]}'}
    )
    self.assertEqual(said, 'to: 0 (r0) or 1 (r1) or 2 (r2) and 2 more')
    self.assertEndsWith(
      conditions.by_run(runs, lambda seed: f'{seed.manifest["step"]}'),
      ' or 3 (r3) or 4 (r4)',
    )

  def test_optimizer_and_schedule(self):
    def run(momentum, rate, **schedule):
      return {
        'optimizer': {'name': 'sgd', 'momentum': momentum},
        'schedule': {'learning_rate': rate, **schedule},
        'measures': False,
      }

    said = self.said(
      standard=run(0.0, 0.1, name='constant'),
      batchnorm=run(0.9, 0.5, name='cosine', warmup_steps=10),
    )
    self.assertIn('optimizer.momentum: 0 (standard) or 0.9 (batchnorm)', said)
    self.assertIn(
      'schedule.name: constant (standard) or cosine (batchnorm)', said
    )
    # The summary has the rates, and the other schedule has no warm-up.
    self.assertNotIn('learning_rate', said)
    self.assertNotIn('warmup', said)

  def test_group_size_only_where_it_differs(self):
    groups = {'norm': {'name': 'batch', 'group_size': 32}}
    self.assertIn(
      'norm.group_size: 32 (standard) or None (batchnorm)',
      self.said(standard=groups),
    )

  def test_how_it_was_looked_at(self):
    said = self.said(
      standard={'measures': measures('landscape', step_factors=[1.0, 2.0])},
      batchnorm={'measures': measures('landscape', every_steps=20)},
    )
    self.assertIn(
      'step_factors: {1, 2} (standard) or {0.5, 1} (batchnorm)', said
    )
    self.assertIn('every_steps: 10 (standard) or 20 (batchnorm)', said)


class CaptionTest(_TwoRuns):
  """A caption says what is true of each of its curves."""

  def test_a_part_of_the_test_set(self):
    part = measures('test', data='test:20')
    runs = self.runs(standard={'measures': part})
    made = training.figure(runs)
    self.assertIn(
      'Test set: its first 20 examples or all of it, with', made.caption
    )
    (test,) = (panel for panel in made.panels if panel.title == 'Test accuracy')
    self.assertLen(test.marks, 2, 'a run has no line')
    self.assertNotIn('first', training.figure(self.runs()).caption)

  def test_landscape(self):
    other = measures('landscape', step_factors=[1.0, 2.0], statistics='running')
    runs = self.runs(standard={'measures': other, 'batch_size': 32})
    caption = pictures.of(landscape.figure, runs).caption
    self.assertIn('{1, 2} (standard) or {0.5, 1} (batchnorm) × the', caption)
    self.assertIn('running (standard) or batch (batchnorm) stat', caption)
    self.assertIn('32 examples (standard) or the current training', caption)
    self.assertIn('every 10 steps', caption)
    self.assertIn(
      '32 (standard) or 64 (batchnorm) examples', training.figure(runs).caption
    )

  def test_activations(self):
    other = measures('activations', every_steps=25, statistics='running')
    caption = pictures.of(
      activations.figure, self.runs(standard={'measures': other})
    ).caption
    self.assertIn('running (standard) or batch (batchnorm) stat', caption)
    self.assertIn('every 25 (standard) or 50 (batchnorm) steps', caption)


if __name__ == '__main__':
  absltest.main()
