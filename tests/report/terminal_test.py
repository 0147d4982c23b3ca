"""The table that training ends with."""

import pathlib

from absl.testing import absltest

from bn_jax.report import terminal
from bn_jax.report.results import read
from tests.fixtures import (
  made_up,
  strict,  # noqa: F401
)


def recalibrated(runs, *accuracies):
  """The runs, the first one's seeds with these by new statistics."""
  seeds = tuple(
    seed._replace(
      population={
        'step': seed.manifest['step'],
        'test': {'population': {'accuracy': accuracy}},
      }
    )
    for seed, accuracy in zip(runs[0].seeds, accuracies)
  )
  return [runs[0]._replace(seeds=seeds), *runs[1:]]


class TableTest(absltest.TestCase):
  def runs(self, seeds=(0,), **runs):
    folder = pathlib.Path(self.create_tempdir().full_path) / 'w'
    return read.runs([made_up.workdir(folder, seeds, **runs)])

  def test_a_row_a_run(self):
    """Seconds: 1.5 + 2.5 of training, and 3 of a look."""
    runs = recalibrated(
      self.runs(
        standard={},
        late={'status': 'diverged', 'steps': 40},
        regression={'accuracy': False},
      ),
      0.99,
    )
    self.assertEqual(
      terminal.table(runs),
      [
        'run         steps           training  test       recalibrated  time',
        'standard    150             100.0 %   75.0 %     99.0 %        7 s',
        'late        diverged at 40  10.0 %    75.0 %     -             7 s',
        'regression  150             loss 230  loss 2.06  -             7 s',
      ],
    )

  def test_many_runs_and_seeds_fit(self):
    """In ten lines of 80 columns, without intervals where there is no room."""
    names = [f'{"run" * 20}{number}' for number in range(12)]
    runs = self.runs((0, 1), **{name: {'steps': 30} for name in names})
    self.assertIn('10.0 % ± 0.0 %', terminal.table(runs)[1])
    runs = recalibrated(runs, 0.2, 0.9)
    lines = terminal.table(runs)
    self.assertLen(lines, 10)
    self.assertEqual(lines[-1], 'and 4 more runs, on the page')
    self.assertLessEqual(max(map(len, lines)), 80)
    self.assertRegex(lines[1], r'^runrun.*\.\.\..*n0  2 .*  10.0 %  .*  55.0 %')
    nine = terminal.table(runs[:9])
    self.assertLen(nine, 10)
    self.assertTrue(nine[-1].startswith('runrun'))


if __name__ == '__main__':
  absltest.main()
