"""A measure is one file: trained with, analysed, costed, found on the page."""

import csv
import json
import shutil
from unittest import mock

import jax
import numpy as np
from absl.testing import absltest

from bn_jax import analysis
from bn_jax.config import files, resolve
from bn_jax.experiment import experiment
from bn_jax.storage import files as files_lib
from bn_jax.storage import records, run_folder
from tests.fixtures import (
  commanded,
  made_up,
  one_file_measure,
  scratch,
  strict,
  trained,
)

_NAME = 'sizes_of_parameters'


def setUpModule():
  jax.config.update('jax_disable_most_optimizations', True)


def tearDownModule():
  jax.config.update('jax_disable_most_optimizations', False)


class OneFileTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.workdir = scratch.folder(cls)
    # The one line in the table of measures.
    cls.enterClassContext(
      mock.patch.dict(analysis.MEASURES, {_NAME: one_file_measure.KIND})
    )
    config = files.load(str(strict.FIXTURES / 'small_config.py'))
    config.seeds = (0,)
    config.measures = {
      'sizes': {'name': _NAME, 'data': 'current_batch', 'every_steps': 2}
    }
    experiment.run(resolve.experiment(config.to_dict(), {}), cls.workdir)
    cls.seed = run_folder.at(cls.workdir, 'batchnorm', 0)

  def setUp(self):
    super().setUp()
    analyses = self.seed.path / 'analysis'
    self.addCleanup(shutil.rmtree, analyses, ignore_errors=True)

  def main(self, *words):
    """(exit code, stdout, stderr) of python -m bn_jax."""
    return commanded.run(*words)

  def analyze(self, *words):
    return self.main('analyze', self.seed.path, f'--measure={_NAME}', *words)

  def report(self):
    code, _, wrong = self.main('report', self.workdir)
    self.assertEqual(code, 0, wrong)
    page = (self.workdir / 'report.html').read_text()
    rows = csv.DictReader((self.workdir / 'figures' / 'summary.csv').open())
    return page, {(row['run'], row['quantity']): row['value'] for row in rows}

  def test_trained_with_and_recorded(self):
    looks = [r for r in records.read(self.seed.scalars) if r.name == 'sizes']
    self.assertEqual([look.step for look in looks], [0, 2, 4])
    *_, state = trained.newest(self.seed.path)
    sizes = np.abs(
      np.concatenate([np.ravel(x) for x in jax.tree.leaves(state.params)])
    )
    np.testing.assert_allclose(
      looks[-1].values['mean_power'],
      [sizes.mean(), np.square(sizes).mean()],
      rtol=1e-6,
    )
    self.assertEqual(looks[0].conditions['data'], 'current_batch')

  def test_analysed_afterwards_to_the_same_bits(self):
    code, said, wrong = self.analyze('--steps=4', '--name=later')
    self.assertEqual((code, wrong), (0, ''), said)
    (look,) = records.read(self.seed.analysis('later').scalars)
    recorded = list(records.read(self.seed.scalars))[-1]
    self.assertEqual(look.values, recorded.values)
    page, _ = self.report()
    self.assertIn('Sizes of parameters (analysis/later)', page)
    # Its words lie beside it too: training may have measured something else.
    path = self.seed.manifest_file
    self.addCleanup(path.write_text, path.read_text())
    manifest = made_up.changed(files_lib.read_json(path), 'measures', None)
    files_lib.write_json(path, manifest)
    page, _ = self.report()
    self.assertIn('Mean of |w|ᵖ', page)

  def test_flags_are_of_the_types_of_its_keywords(self):
    code, _, wrong = self.analyze('--steps=4', '--unit=0.5', '--powers=1')
    self.assertEqual((code, wrong), (0, ''))
    (look,) = records.read(self.seed.analysis(_NAME).scalars)
    *_, state = trained.newest(self.seed.path)
    leaves = [np.ravel(leaf) for leaf in jax.tree.leaves(state.params)]
    want = 2 * np.abs(np.concatenate(leaves)).mean()
    np.testing.assert_allclose(look.values['mean_power'], [want], rtol=1e-6)
    code, _, wrong = self.analyze('--unit=wide')
    self.assertEqual(code, 2)
    self.assertIn("--unit: 'wide'; allowed: numbers", wrong)

  def test_its_cost_is_known_before(self):
    code, said, wrong = self.analyze('--plan')
    self.assertEqual((code, wrong), (0, ''))
    self.assertIn(f'{_NAME} of 16 examples (current_batch)', said)
    self.assertRegex(said, r'evaluations +1 values \(1 chunk x 1 checkpoint\)')

  def test_its_help_says_what_it_gives(self):
    code, said, _ = self.analyze('--help')
    self.assertEqual(code, 0)
    self.assertIn('Means of |w|^p over all parameters', said)
    self.assertRegex(said, r'mean_power +Mean of \|w\|ᵖ')
    self.assertRegex(said, r'--powers=POWERS +.*; default: 1.0,2.0')

  def test_found_on_the_page(self):
    page, summary = self.report()
    self.assertIn('<h2>Sizes of parameters</h2>', page)
    self.assertIn('A line a layer.', page)
    *_, state = trained.newest(self.seed.path)
    largest = [
      max(np.abs(x).max() for x in jax.tree.leaves(state.params[name]))
      for name in ('dense1', 'logits')
    ]
    label = (
      'Sizes of parameters: Largest |w|, median of the layers, last measurement'
    )
    value = float(summary['batchnorm', label])
    np.testing.assert_allclose(value, np.median(largest), rtol=1e-6)
    table = csv.DictReader(
      (self.workdir / 'figures' / 'sizes-of-parameters.csv').open()
    )
    found = [r for r in table if r['run'] == 'batchnorm' and r['step'] == '4']
    self.assertEqual(
      {(r['key'], r['quantity']) for r in found},
      {
        ('Whole network', 'mean_power_min'),
        ('Whole network', 'mean_power_max'), ('Whole network', 'loss'),
        ('dense1', 'largest'), ('logits', 'largest'),
      },
    )  # fmt: skip

  def test_on_the_page_of_one_who_lacks_the_file(self):
    with mock.patch.dict(analysis.MEASURES):
      del analysis.MEASURES[_NAME]
      page, _ = self.report()
    self.assertIn('Mean of |w|ᵖ', page)
    manifest = json.loads(self.seed.manifest_file.read_text())
    self.assertEqual(manifest['measures'][_NAME], one_file_measure.KIND.page())


if __name__ == '__main__':
  absltest.main()
