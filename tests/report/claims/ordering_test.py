import pathlib

from absl.testing import absltest, parameterized

from bn_jax.report.claims import ordering
from bn_jax.report.results import read
from tests.fixtures import (
  made_up,
  strict,  # noqa: F401
)


class AnswersTest(parameterized.TestCase):
  """On made-up runs of which the answer is known."""

  def claims(self, seeds=(0,), batchnorm=None, **runs):
    folder = pathlib.Path(self.create_tempdir().full_path)
    batchnorm = {
      'reaches': 30,
      'scale': 0.1,
      'drift': 0.01,
      **(batchnorm or {}),
    }
    given = {
      'standard': {},
      **runs,
      'batchnorm': {'norm': 'batch', **batchnorm},
    }
    workdir = made_up.workdir(folder / 'work', seeds, **given)
    groups = ordering.groups(read.runs([workdir]))
    return [claim for group in groups for claim in ordering.claims(group)]

  def verdicts(self, **keywords):
    return [claim.verdict for claim in self.claims(**keywords)]

  def test_hold(self):
    made = self.claims(seeds=(0, 1, 2))
    self.assertEqual([claim.verdict for claim in made], ['holds'] * 4)
    # Steps to 90 %: 18 batches after the jump, which is at 30 and 100 + seed.
    self.assertEqual(made[0].numbers, 'batch 48 → none 118')
    # (117 / 47 + 118 / 48 + 119 / 49) / 3, and t * s / sqrt(3).
    self.assertEqual(made[0].detail, '3 of 3 seeds; ratio 2.46 ± 0.076')

  def test_fail_where_it_is_the_other_way_round(self):
    worse = {'reaches': 120, 'scale': 2.0}
    self.assertEqual(self.verdicts(batchnorm=worse), ['fails'] * 4)

  def test_equal_is_no_improvement(self):
    same = {'reaches': 100, 'scale': 1.0}
    self.assertEqual(self.verdicts(batchnorm=same), ['fails'] * 4)

  def test_seeds_that_disagree_are_mixed(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    workdir = made_up.workdir(folder / 'work', (0,), standard={}, batchnorm={})
    fast = dict(norm='batch', reaches=30, scale=0.1)
    slow = dict(norm='batch', reaches=120, scale=9.0)
    made_up.run(workdir / 'standard' / 'seed1', seed=1)
    made_up.run(workdir / 'standard' / 'seed2', seed=2)
    made_up.run(workdir / 'batchnorm' / 'seed1', seed=1, **fast)
    made_up.run(workdir / 'batchnorm' / 'seed2', seed=2, **slow)
    (workdir / 'batchnorm' / 'seed0' / 'manifest.json').unlink()
    (group,) = ordering.groups(read.runs([workdir]))
    made = ordering.claims(group)
    self.assertEqual([claim.verdict for claim in made], ['mixed'] * 4)
    self.assertStartsWith(made[0].detail, '1 of 2 seeds')

  def test_never_reached_by_one_counts_and_by_all_does_not(self):
    never = {'reaches': 150}
    (first, *_) = self.claims(standard=never)
    self.assertEqual(first.verdict, 'holds')
    self.assertEqual(first.numbers, 'batch 47 → none never')
    both = self.verdicts(standard=never, batchnorm=never)
    self.assertEqual(both[0], 'not measured')

  def test_steps_are_counted_to_what_all_of_them_reach(self):
    """100 % from step 135 on, of 150: the mean of 20 ends at 77.5 %."""
    (first, *_) = self.claims(standard={'reaches': 135})
    self.assertIn('(to 70 % of training batches)', first.statement)
    self.assertEqual(first.numbers, 'batch 43 → none 148')

  def test_where_the_plain_one_gets_nowhere_to_what_the_others_reach(self):
    (first, *_) = self.claims(
      standard={'reaches': 150}, batchnorm={'reaches': 135}
    )
    self.assertIn('(to 70 % of training batches)', first.statement)
    self.assertEqual(first.numbers, 'batch 148 → none never')
    self.assertEqual(first.verdict, 'holds')

  def test_no_pair_no_claim(self):
    """Other learning rates: their difference is not that of the norm."""
    other = {'schedule': {'name': 'constant', 'learning_rate': 0.3}}
    self.assertEqual(self.verdicts(batchnorm=other), [])

  def test_three_models(self):
    noisy = {'norm': 'noisy', 'reaches': 50, 'drift': 0.3}
    made = self.claims(seeds=(0, 1), noisy=noisy)
    self.assertLen(made, 2 + 3 + 2 * 2)
    self.assertEqual({claim.verdict for claim in made}, {'holds'})
    self.assertEqual(made[1].numbers, 'batch 48 → noisy 68 → none 118')
    self.assertIn('ratios 1.42 ± ', made[1].detail)
    drift = [claim for claim in made if claim.statement.startswith('conv2')]
    self.assertEqual(drift[0].numbers, 'batch 0.01 → none 0.1 → noisy 0.3')
    self.assertEqual(drift[1].numbers, 'batch 0.001 → none 0.01 → noisy 0.03')

  def test_three_models_that_fail(self):
    noisy = {'norm': 'noisy', 'reaches': 120, 'drift': 0.05}
    made = self.claims(noisy=noisy)
    self.assertEqual(made[1].verdict, 'fails')
    self.assertEqual({claim.verdict for claim in made[5:]}, {'fails'})

  def test_noise_alone_takes_no_part(self):
    alone = {'norm': 'noise', 'reaches': 150, 'status': 'diverged'}
    self.assertEqual(self.verdicts(noise_alone=alone), ['holds'] * 4)

  @parameterized.parameters('running', 'interrupted')
  def test_of_what_goes_on_nothing_is_known(self, status):
    """Neither that it fails, nor, of the plain one, that it holds."""
    goes_on = {'steps': 40, 'status': status}
    for runs in ({'standard': goes_on}, {'batchnorm': goes_on}):
      for claim in self.claims(**runs):
        self.assertEqual(
          (claim.verdict, claim.detail), ('not measured', 'not finished')
        )

  def test_what_diverged_has_ended(self):
    (first, *_) = self.claims(standard={'steps': 40, 'status': 'diverged'})
    self.assertEqual(first.verdict, 'holds')
    self.assertEqual(first.numbers, 'batch 47 → none never')

  def test_only_seeds_that_have_ended_count(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    fast = dict(norm='batch', reaches=30, scale=0.1)
    workdir = made_up.workdir(
      folder / 'work', (0, 1), standard={}, batchnorm=fast
    )
    for name, keywords in (('standard', {}), ('batchnorm', fast)):
      made_up.run(
        workdir / name / 'seed2', seed=2, steps=20, status='running', **keywords
      )
    (group,) = ordering.groups(read.runs([workdir]))
    (first, *_) = ordering.claims(group)
    self.assertIn('(to 90 %', first.statement)
    self.assertEqual(first.numbers, 'batch 48 → none 118')
    self.assertStartsWith(first.detail, '2 of 2 seeds')
    self.assertEndsWith(first.detail, '; 1 not finished')

  def test_a_ratio_is_said_though_another_is_infinite(self):
    noisy = {'norm': 'noisy', 'reaches': 50}
    made = self.claims(seeds=(0, 1, 2), noisy=noisy, standard={'reaches': 149})
    self.assertEqual(made[1].numbers, 'batch 48 → noisy 68 → none never')
    # (67 / 47 + 68 / 48 + 69 / 49) / 3, and t * s / sqrt(3).
    self.assertEqual(
      made[1].detail, '3 of 3 seeds; ratios 1.42 ± 0.022, never in 3 of 3'
    )

  def test_no_ratio_to_zero(self):
    made = self.claims(seeds=(0, 1), batchnorm={'scale': 0.0})
    self.assertEqual(made[1].detail, '2 of 2 seeds; ratio undefined')


class GroupsTest(parameterized.TestCase):
  """Which runs are compared, of several working directories."""

  def groups(self, **workdirs):
    folder = pathlib.Path(self.create_tempdir().full_path)
    places = [
      made_up.workdir(folder / name, **runs) for name, runs in workdirs.items()
    ]
    return [
      [run.name for run in group.runs]
      for group in ordering.groups(read.runs(places))
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
