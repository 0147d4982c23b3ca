import json
import math
import pathlib
import tempfile

import made_up
import numpy as np
import strict  # noqa: F401
from absl.testing import absltest, parameterized

from bn_jax import errors
from bn_jax.report import curves


def series(**values):
  values = {name: np.array(v, float) for name, v in values.items()}
  return curves.Series(np.arange(len(next(iter(values.values())))), values)


def seed(accuracy):
  return curves.Seed(0, {}, {'train': series(accuracy=accuracy)}, {}, {})


class CurvesTest(parameterized.TestCase):
  def test_trailing_mean(self):
    values = np.arange(7.0)
    mean = curves.trailing_mean(values, 3)
    np.testing.assert_allclose(mean, [np.nan, np.nan, 1, 2, 3, 4, 5])
    self.assertTrue(np.isnan(curves.trailing_mean(values, 8)).all())

  def test_steps_to_is_the_step_of_the_last_batch_of_the_twenty(self):
    """50 batches at 0, then 1: the mean of 20 is 0.9 with the 18th."""
    rising = seed([0.0] * 50 + [1.0] * 30)
    self.assertEqual(curves.steps_to(rising, 0.90), 50 + 18 - 1)
    self.assertEqual(curves.steps_to(rising, 1.00), 50 + 20 - 1)

  def test_steps_to_is_not_moved_by_rounding(self):
    """Twenty times 0.9 is 17.999999999999996 or so when added up."""
    self.assertLess(np.convolve([0.9] * 20, np.ones(20), 'valid') / 20, 0.9)
    self.assertEqual(curves.steps_to(seed([0.9] * 40), 0.9), 19)

  def test_steps_to_what_is_never_reached(self):
    self.assertEqual(curves.steps_to(seed([0.5] * 100), 0.9), math.inf)
    self.assertEqual(curves.steps_to(seed([1.0] * 19), 0.9), math.inf)
    nothing = curves.Seed(0, {}, {}, {}, {})
    self.assertEqual(curves.steps_to(nothing, 0.9), math.inf)

  def test_final_accuracy_is_of_the_last_twenty(self):
    values = [0.0] * 30 + [1.0] * 5 + [0.6] * 15
    self.assertAlmostEqual(curves.final_train_accuracy(seed(values)), 0.7)
    self.assertTrue(math.isnan(curves.final_train_accuracy(seed([1.0] * 9))))

  def test_band_leaves_nan_out(self):
    nan = math.nan
    low, high = curves.band(
      series(loss=[[3, 1, 2], [nan, 5, 4], [nan, nan, nan]]), 'loss'
    )
    np.testing.assert_array_equal(low, [1, 4, nan])
    np.testing.assert_array_equal(high, [3, 5, nan])

  def test_medians_of_bands(self):
    look = series(loss=[[1, 2], [1, 4], [1, 11], [np.nan, np.nan]])
    made = curves.Seed(0, {}, {'landscape': look}, {}, {})
    self.assertEqual(curves.median_width(made, 'landscape', 'loss'), 3)
    self.assertEqual(curves.median_upper(made, 'landscape', 'loss'), 4)
    self.assertTrue(math.isnan(curves.median_upper(made, 'other', 'loss')))

  @parameterized.parameters(
    # Quantiles of Student's t from a printed table: 12.706, 4.303, 2.776.
    ([1, 3], 2, 12.706), ([1, 2, 3], 2, 4.303 / math.sqrt(3)),
    ([0, 1, 2, 3, 4], 2, 2.776 * math.sqrt(2.5 / 5)),
  )  # fmt: skip
  def test_interval(self, values, mean, half):
    got = curves.mean_and_interval(values)
    np.testing.assert_allclose(got, (mean, half), rtol=1e-3)

  def test_one_seed_has_no_interval(self):
    mean, half = curves.mean_and_interval([4.0])
    self.assertEqual(mean, 4.0)
    self.assertTrue(math.isnan(half))


class LoadTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    folder = tempfile.TemporaryDirectory()
    self.addCleanup(folder.cleanup)
    self.folder = pathlib.Path(folder.name)

  def test_runs_in_the_order_of_the_experiment_and_seeds_in_theirs(self):
    workdir = made_up.workdir(
      self.folder / 'w', seeds=(0, 2, 10), zeta={}, alpha={}
    )
    runs = curves.load([workdir])
    self.assertEqual([run.name for run in runs], ['zeta', 'alpha'])
    self.assertEqual([s.seed for s in runs[0].seeds], [0, 2, 10])
    self.assertEqual(runs[0].seeds[0].seconds, {'train': 4.0, 'landscape': 3.0})
    self.assertEqual(
      runs[0].seeds[0].series['landscape'].values['loss'].shape, (16, 2)
    )

  def test_several_directories_are_told_apart(self):
    places = [self.folder / 'a', self.folder / 'b']
    for place in places:
      made_up.workdir(place, standard={})
    names = [run.name for run in curves.load(places)]
    self.assertEqual(names, ['a/standard', 'b/standard'])

  def test_directories_of_one_name_are_told_apart(self):
    places = [self.folder / 'a' / 'x', self.folder / 'b' / 'x']
    for place in places:
      made_up.workdir(place, standard={})
    names = [run.name for run in curves.load(places)]
    self.assertEqual(names, [f'{place}/standard' for place in places])

  def test_names_that_leave_the_directory_are_refused(self):
    for name in ('../a', 'a/b', '<script>', 'x' * 300, ''):
      workdir = self.folder / str(len(name))
      workdir.mkdir()
      text = json.dumps({'runs': {name: {}}})
      (workdir / 'experiment.json').write_text(text)
      with self.assertRaisesRegex(errors.StorageError, 'no name for a run'):
        curves.load([workdir])

  def test_a_run_that_was_cut_off(self):
    workdir = made_up.workdir(self.folder / 'w', standard={})
    path = workdir / 'standard' / 'seed0' / 'scalars.jsonl'
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    (run,) = curves.load([workdir])
    steps = run.seeds[0].series['train'].step
    np.testing.assert_array_equal(steps, np.arange(len(steps)))
    path.unlink()
    (run,) = curves.load([workdir])
    self.assertEqual(run.seeds[0].series, {})

  def test_what_has_not_begun_is_left_out(self):
    workdir = made_up.workdir(self.folder / 'w', standard={}, batchnorm={})
    (workdir / 'standard' / 'seed0' / 'manifest.json').unlink()
    self.assertEqual([r.name for r in curves.load([workdir])], ['batchnorm'])

  def test_refuses_what_holds_no_experiment(self):
    with self.assertRaisesRegex(errors.StorageError, 'holds no experiment'):
      curves.load([self.folder])
    workdir = made_up.workdir(self.folder / 'w', standard={})
    (workdir / 'standard' / 'seed0' / 'manifest.json').unlink()
    with self.assertRaisesRegex(errors.StorageError, 'nothing was recorded'):
      curves.load([workdir])


if __name__ == '__main__':
  absltest.main()
