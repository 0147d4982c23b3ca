"""Claims about any runs that differ in the norm alone."""

import pathlib
import shutil

from absl.testing import absltest, parameterized

from bn_jax.report.claims import alike
from bn_jax.report.claims import rows as rows_lib
from bn_jax.report.results import read
from tests.fixtures import (
  made_up,
  strict,  # noqa: F401
)


class RowsTest(parameterized.TestCase):
  """On made-up runs of which the answer is known."""

  def workdir(self, seeds=(0,), batchnorm=None, **runs):
    folder = pathlib.Path(self.create_tempdir().full_path)
    fast = {'norm': 'batch', 'reaches': 30, 'scale': 0.1, 'drift': 0.01}
    runs = {
      'standard': {}, **runs, 'batchnorm': {**fast, **(batchnorm or {})},
    }  # fmt: skip
    return made_up.workdir(folder / 'work', seeds, **runs)

  def rows(self, **keywords):
    groups = alike.groups(read.runs([self.workdir(**keywords)]))
    return [row for group in groups for row in group.rows]

  def verdicts(self, **keywords):
    return [row['verdict'] for row in self.rows(**keywords)]

  def test_hold(self):
    rows = self.rows(seeds=(0, 1, 2))
    self.assertEqual([row['verdict'] for row in rows], ['holds'] * 4)
    speed, loss, *_ = rows
    # Steps to 90 %: 18 batches after the jump, which is at 30 and 100 + seed.
    # On logarithms the mean of 117 / 47, 118 / 48 and 119 / 49 is 2.46 too.
    self.assertEqual(
      speed['measured'],
      'batch 48 → none 118; ratio 2.46 (2.38 to 2.54), 3 seeds',
    )
    # (117 / 47 + 118 / 48 + 119 / 49) / 3, and t * s / sqrt(3).
    self.assertEqual(
      speed['detail'],
      '3 of 3 seeds on the claimed side; mean ratio 2.46 ± 0.076',
    )
    self.assertEqual(speed['threshold'], 'none / batch at least 1')
    self.assertEqual(speed['statistic'], 'steps_to_accuracy(accuracy=0.9)')
    self.assertEqual(
      loss['statistic'], 'band_width(name=landscape, value=loss, reduce=median)'
    )

  def test_one_seed_decides_nothing(self):
    for row in self.rows():
      self.assertEqual(rows_lib.said(row), 'undecided (one seed)')
      self.assertEqual(row['detail'], 'on the claimed side')

  def test_contradicted_where_it_is_the_other_way_round(self):
    worse = {'reaches': 120, 'scale': 2.0}
    verdicts = self.verdicts(seeds=(0, 1, 2), batchnorm=worse)
    self.assertEqual(verdicts, ['contradicted'] * 4)

  def test_equal_is_no_improvement(self):
    same = {'reaches': 100, 'scale': 1.0}
    for row in self.rows(seeds=(0, 1, 2), batchnorm=same):
      self.assertEqual(row['verdict'], 'undecided')
      self.assertStartsWith(row['detail'], 'all at 1 itself')

  def test_seeds_that_disagree_leave_it_undecided(self):
    workdir = self.workdir(seeds=(0,))
    fast = dict(norm='batch', reaches=30, scale=0.1)
    slow = dict(norm='batch', reaches=120, scale=9.0)
    made_up.run(workdir / 'standard' / 'seed1', seed=1)
    made_up.run(workdir / 'standard' / 'seed2', seed=2)
    made_up.run(workdir / 'batchnorm' / 'seed1', seed=1, **fast)
    made_up.run(workdir / 'batchnorm' / 'seed2', seed=2, **slow)
    shutil.rmtree(workdir / 'batchnorm' / 'seed0')
    (group,) = alike.groups(read.runs([workdir]))
    self.assertEqual([row['verdict'] for row in group.rows], ['undecided'] * 4)
    self.assertStartsWith(
      group.rows[0]['detail'],
      'the interval reaches across 1; 1 of 2 seeds on the claimed side',
    )

  def test_never_reached_by_one_counts_and_by_all_does_not(self):
    never = {'reaches': 150}
    speed, *_ = self.rows(seeds=(0, 1, 2), standard=never)
    self.assertEqual(speed['verdict'], 'holds')
    self.assertStartsWith(speed['measured'], 'batch 48 → none never; ')
    both, *_ = self.rows(standard=never, batchnorm=never)
    self.assertEqual(
      (both['verdict'], both['detail']),
      ('not measured', 'never reached by any run'),
    )

  def test_steps_are_counted_to_what_all_of_them_reach(self):
    """100 % from step 135 on, of 150: the mean of 20 ends at 77.5 %."""
    speed, *_ = self.rows(standard={'reaches': 135})
    self.assertIn('(to 70 % accuracy on training batches)', speed['statement'])
    self.assertStartsWith(speed['measured'], 'batch 43 → none 148; ')

  def test_where_the_plain_one_gets_nowhere_to_what_the_others_reach(self):
    speed, *_ = self.rows(standard={'reaches': 150}, batchnorm={'reaches': 135})
    self.assertIn('(to 70 % accuracy on training batches)', speed['statement'])
    self.assertStartsWith(speed['measured'], 'batch 148 → none never; ')

  def test_no_pair_no_claim(self):
    """Other learning rates: their difference is not that of the norm."""
    other = {'schedule': {'name': 'constant', 'learning_rate': 0.3}}
    self.assertEqual(self.rows(batchnorm=other), [])

  def test_three_models(self):
    noisy = {'norm': 'noisy', 'reaches': 50, 'drift': 0.3}
    rows = self.rows(seeds=(0, 1, 2), noisy=noisy)
    self.assertLen(rows, 2 + 3 + 2 * 2)
    self.assertEqual({row['verdict'] for row in rows}, {'holds'})
    self.assertStartsWith(
      rows[1]['measured'], 'batch 48 → noisy 68 → none 118; ratios 1.42 ('
    )
    # (67 / 47 + 68 / 48 + 69 / 49) / 3, and t * s / sqrt(3).
    self.assertIn('mean ratios 1.42 ± 0.022, ', rows[1]['detail'])
    drift = {
      row['statement'].partition(' of activations')[0]: row['measured']
      for row in rows[5:]
    }
    self.assertStartsWith(
      drift['conv2: the mean'], 'batch 0.01 → none 0.1 → noisy 0.3; '
    )
    self.assertStartsWith(
      drift['conv2: the variance'], 'batch 0.001 → none 0.01 → noisy 0.03; '
    )

  def test_three_models_one_of_which_is_out_of_order(self):
    noisy = {'norm': 'noisy', 'reaches': 120, 'drift': 0.05}
    rows = self.rows(seeds=(0, 1, 2), noisy=noisy)
    self.assertEqual(rows[1]['verdict'], 'contradicted')
    self.assertEqual({row['verdict'] for row in rows[5:]}, {'contradicted'})

  def test_noise_alone_takes_no_part(self):
    alone = {'norm': 'noise', 'reaches': 150, 'status': 'diverged'}
    self.assertLen(self.rows(noise_alone=alone), 4)

  @parameterized.parameters('running', 'interrupted')
  def test_of_what_goes_on_nothing_is_known(self, status):
    """Neither that it fails, nor, of the plain one, that it holds."""
    goes_on = {'steps': 40, 'status': status}
    for norm, run in (('none', 'standard'), ('batch', 'batchnorm')):
      for row in self.rows(**{run: goes_on}):
        self.assertEqual(
          (row['verdict'], row['detail']),
          ('not measured', f'0 of 1 seeds; not finished: {norm}/seed0'),
        )

  def test_what_diverged_has_ended(self):
    speed, *_ = self.rows(standard={'steps': 40, 'status': 'diverged'})
    self.assertEqual(speed['verdict'], 'undecided')
    self.assertStartsWith(speed['measured'], 'batch 47 → none never; ')

  def test_only_seeds_that_have_ended_count(self):
    workdir = self.workdir(seeds=(0, 1))
    for name, norm in (('standard', 'none'), ('batchnorm', 'batch')):
      made_up.run(
        workdir / name / 'seed2', seed=2, norm=norm, steps=20, status='running'
      )
    (group,) = alike.groups(read.runs([workdir]))
    speed = group.rows[0]
    self.assertIn('(to 90 %', speed['statement'])
    self.assertStartsWith(speed['measured'], 'batch 47.5 → none 118; ratio ')
    self.assertEndsWith(speed['measured'], ', 2 seeds')
    self.assertStartsWith(speed['detail'], '2 of 2 seeds')
    self.assertEndsWith(
      speed['detail'], '; not finished: batch/seed2, none/seed2'
    )

  def test_no_ratio_to_zero(self):
    _, loss, *_ = self.rows(seeds=(0, 1), batchnorm={'scale': 0.0})
    self.assertEqual(
      (loss['verdict'], loss['detail']),
      (
        'not measured',
        '0 of 1 seeds; no ratio of positive numbers: seed0, seed1',
      ),
    )


class GroupsTest(parameterized.TestCase):
  """Which runs are compared, of several working directories."""

  def groups(self, **workdirs):
    folder = pathlib.Path(self.create_tempdir().full_path)
    places = [
      made_up.workdir(folder / name, **runs) for name, runs in workdirs.items()
    ]
    return [
      [run.name for run in group.runs.values()]
      for group in alike.groups(read.runs(places))
    ]

  def test_each_directory_by_itself(self):
    runs = {'standard': {}, 'batchnorm': {'norm': 'batch'}}
    self.assertEqual(
      self.groups(a=runs, b=runs),
      [['a/standard', 'a/batchnorm'], ['b/standard', 'b/batchnorm']],
    )

  def test_what_one_lacks_comes_from_another(self):
    noisy = {'norm': 'noisy'}
    runs = {'standard': {}, 'batchnorm': {'norm': 'batch'}}
    self.assertEqual(
      self.groups(a=runs, b={'shaken': noisy}),
      [['a/standard', 'a/batchnorm', 'b/shaken']],
    )


if __name__ == '__main__':
  absltest.main()
