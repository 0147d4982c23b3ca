"""The section of the page: what it counts, and which words stand there."""

import pathlib

from absl.testing import absltest

from bn_jax.report.claims import showing
from bn_jax.report.results import read
from tests.fixtures import (
  made_up,
  strict,  # noqa: F401
)


class SectionTest(absltest.TestCase):
  def section(self, seeds, **batchnorm):
    folder = pathlib.Path(self.create_tempdir().full_path)
    workdir = made_up.workdir(
      folder / 'work', seeds, standard={'scale': 1.0},
      batchnorm={'norm': 'batch', 'reaches': 30, **batchnorm},
    )  # fmt: skip
    text = showing.section([workdir], read.runs([workdir]))
    return ' '.join(text.split())

  def test_verdicts_are_counted_by_their_words(self):
    text = self.section((0, 1, 2), scale=0.1)
    self.assertIn('4 hold, 0 contradicted, 0 undecided, 0 not measured', text)
    self.assertEqual(text.count('<b class="holds">holds</b>'), 4)
    self.assertIn('Compared: standard (none), batchnorm (batch)', text)
    self.assertNotIn('Of the claims of figures', text)
    text = self.section((0, 1, 2), scale=2.0)
    self.assertIn('1 hold, 3 contradicted, 0 undecided, 0 not measured', text)
    self.assertEqual(text.count('<b class="contradicted">contradicted</b>'), 3)

  def test_one_seed_is_undecided(self):
    text = self.section((0,), scale=0.1)
    self.assertIn('0 hold, 0 contradicted, 4 undecided, 0 not measured', text)
    self.assertEqual(
      text.count('<b class="undecided">undecided (one seed)</b>'), 4
    )
    self.assertIn('batch 0.1 → none 1; ratio 10, 1 seed', text)

  def test_nothing_where_there_is_no_claim(self):
    self.assertEqual(self.section((0,), batch_size=32), '')


if __name__ == '__main__':
  absltest.main()
