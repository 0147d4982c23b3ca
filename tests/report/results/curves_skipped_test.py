"""Updates that were left out: said, and not averaged with the others."""

import pathlib

import numpy as np
from absl.testing import absltest, parameterized

from bn_jax.report import notices
from bn_jax.report.results import curves, read
from bn_jax.storage import records
from bn_jax.storage.records import Record
from tests.fixtures import strict  # noqa: F401

NAN = float('nan')


def seed(values, number=0):
  count = len(next(iter(values.values())))
  values = {name: np.array(value, float) for name, value in values.items()}
  train = curves.Series(np.arange(count), values)
  manifest = {'status': 'done', 'step': count, 'config': {'measures': {}}}
  manifest['precision'] = {'dtype': 'float32', 'training': 'highest'}
  return curves.Seed(number, manifest, {'train': train}, {}, {})


class SkipsTest(parameterized.TestCase):
  @parameterized.parameters(
    ([0, 0, 1, 1, 2], [2, 4]),
    ([1, 1, 2], [0, 2]),
    ([0, 0, 0], []),
    ([NAN, NAN, 1, 1], [2]),  # allowed from step 2 on
    ([0, 1, NAN, NAN], [1]),  # no more from step 2 on
    ([0, 1, NAN, 1, 2], [1, 4]),
  )
  def test_where_the_count_rises(self, skipped, want):
    train = seed({'x': np.zeros(len(skipped)), 'skipped': skipped})
    found = np.flatnonzero(curves.skipped(train.series['train']))
    np.testing.assert_array_equal(found, want)

  def test_nothing_where_nothing_is_counted(self):
    values = {'x': np.array([1.0, NAN])}
    train = curves.Series(np.array([4, 5]), values)
    self.assertFalse(curves.skipped(train).any())
    made = curves.Seed(0, {}, {'train': train}, {}, {})
    step_T, value_T = curves.trained(made, 'x')
    np.testing.assert_array_equal(step_T, [4, 5])
    np.testing.assert_array_equal(value_T, values['x'])

  @parameterized.parameters(
    ([{}, {'skipped': 1}], [NAN, 1]), ([{'skipped': 1}, {}], [1, NAN]),
  )  # fmt: skip
  def test_read_where_it_was_allowed_on_the_way(self, more, want):
    path = pathlib.Path(self.create_tempdir().full_path) / 'scalars.jsonl'
    records.write_all(
      path, [Record(t, 'train', {'x': t, **m}) for t, m in enumerate(more)]
    )
    found = read.series(path)['train']
    np.testing.assert_array_equal(found.values['skipped'], want)
    np.testing.assert_array_equal(found.values['x'], [0, 1])


class ReportTest(absltest.TestCase):
  def setUp(self):
    """30 batches: update 25, of a batch that is all wrong, was left out."""
    super().setUp()
    self.accuracy = np.linspace(0.1, 0.9, 30)
    self.accuracy[25] = 0
    loss = 1 - self.accuracy
    loss[25] = NAN
    skipped = np.arange(30) >= 25
    values = {'accuracy': self.accuracy, 'data_loss': loss, 'skipped': skipped}
    self.seed = seed(values)
    self.kept = np.delete(self.accuracy, 25)

  def test_means_are_without_it(self):
    mean = self.kept[-curves.WINDOW :].mean()
    self.assertAlmostEqual(curves.final_train_accuracy(self.seed), mean)
    self.assertAlmostEqual(curves.final_train_loss(self.seed), 1 - mean)
    # The last 20 of 29 have this mean at step 29 alone.
    self.assertEqual(curves.steps_to(self.seed, mean), 29)

  def test_it_is_said(self):
    clean = seed({'data_loss': np.ones(3), 'skipped': np.zeros(3)}, number=1)
    many = seed({'data_loss': np.ones(9), 'skipped': np.arange(9)}, number=2)
    run = curves.Run('batchnorm', (self.seed, clean, many))
    (said,) = (s for headline, s in notices.of([run]) if 'finite' in headline)
    self.assertIn('1 of 30 updates of batchnorm/seed0', said)
    self.assertIn('left out, at step 25;', said)
    self.assertNotIn('seed1', said)
    self.assertIn('8 of 9 updates of batchnorm/seed2', said)
    self.assertIn('at step 1, 2, 3, 4, 5 and others.', said)

  def test_nothing_is_said_of_others(self):
    run = curves.Run('batchnorm', (seed({'data_loss': [1.0, NAN]}),))
    self.assertFalse([h for h, _ in notices.of([run]) if 'finite' in h])


if __name__ == '__main__':
  absltest.main()
