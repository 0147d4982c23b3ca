"""The one type for a run with one seed on disk."""

import json
import os
import pathlib
import shutil

import numpy as np
from absl.testing import absltest

from bn_jax import errors
from bn_jax.storage import files, run_folder
from tests.fixtures import made_up


class RunFolderTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    folder = pathlib.Path(self.create_tempdir().full_path)
    self.workdir = made_up.workdir(
      folder / 'work', seeds=(10, 2), b={'norm': 'batch'}, a={}
    )

  def labels(self, folders):
    return [folder.label for folder in folders]

  def test_in_the_order_of_runs_and_seeds(self):
    found = run_folder.below(self.workdir)
    want = ['a/seed2', 'a/seed10', 'b/seed2', 'b/seed10']
    self.assertEqual(self.labels(found), want)
    self.assertEqual(self.labels(run_folder.below(self.workdir, 'b')), want[2:])
    self.assertEqual(found[0].workdir, self.workdir)

  def test_what_is_no_seed_is_left_alone(self):
    for name in ('seed2.bak', 'seed02', 'seed', 'old_seed2', 'seed-2'):
      shutil.copytree(self.workdir / 'a' / 'seed2', self.workdir / 'a' / name)
    (self.workdir / 'a' / 'seed7').mkdir()  # has not begun
    self.assertLen(run_folder.below(self.workdir), 4)
    self.assertLen(run_folder.find(self.workdir / 'a'), 2)

  def test_the_folder_of_another_seed(self):
    shutil.copytree(self.workdir / 'a' / 'seed2', self.workdir / 'a' / 'seed3')
    copied = run_folder.at(self.workdir, 'a', 3)
    with self.assertRaisesRegex(errors.StorageError, "of run 'a' with seed 2"):
      _ = copied.manifest
    for path in (copied.path, copied.path.parent):
      with self.assertRaisesRegex(
        errors.StorageError, "of run 'a' with seed 2"
      ):
        run_folder.find(path)

  def test_found_at_any_height(self):
    place = self.workdir / 'b'
    for path, want in (
      (self.workdir, ['a/seed2', 'a/seed10', 'b/seed2', 'b/seed10']),
      (place, ['b/seed2', 'b/seed10']),
      (place / 'seed10', ['b/seed10']),
    ):
      self.assertEqual(self.labels(run_folder.find(path)), want)
    before = os.getcwd()
    self.addCleanup(os.chdir, before)
    os.chdir(place)
    found = run_folder.find(pathlib.Path())
    self.assertEqual(self.labels(found), ['b/seed2', 'b/seed10'])
    shutil.move(place / 'seed10', self.workdir / 'kept')
    found = run_folder.find(self.workdir / 'kept')
    self.assertEqual(self.labels(found), ['b/seed10'])
    shutil.move(place, self.workdir / 'renamed')
    found = run_folder.find(self.workdir / 'renamed')
    self.assertEqual(self.labels(found), ['b/seed2'])
    for path in ('nowhere', 'experiment.json', 'a/seed2/manifest.json'):
      with self.assertRaisesRegex(errors.ConfigError, 'holds no run'):
        run_folder.find(self.workdir / path)

  def test_how_far_it_is(self):
    folder = run_folder.at(self.workdir, 'a', 2)
    self.assertEqual((folder.status, folder.step), ('done', 150))
    self.assertTrue(folder.has_ended)
    manifest = {**folder.manifest, 'status': 'running', 'step': None}
    files.write_json(folder.manifest_file, manifest)
    self.assertEqual(folder.step, 150)  # as it was read
    again = folder.again()
    self.assertEqual((again.status, again.step), ('running', 0))
    self.assertFalse(again.has_ended)
    self.assertTrue(again.has_records)
    absent = run_folder.at(self.workdir, 'a', 4)
    self.assertIsNone(absent.manifest)
    self.assertEqual((absent.status, absent.step), (None, 0))
    self.assertFalse(absent.has_records)

  def test_seconds_add_up_by_name(self):
    folder = run_folder.at(self.workdir, 'a', 2)
    rows = [('train', 0, 1.5), ('test', 0, 2.0), ('train', 5, 0.25)]
    lines = [
      {'step': step, 'name': name, 'values': {'seconds': seconds}}
      for name, step, seconds in rows
    ]
    folder.timing.write_text(''.join(json.dumps(x) + '\n' for x in lines))
    self.assertEqual(folder.seconds(), {'train': 1.75, 'test': 2.0})
    lines[0]['values'] = {}
    lines[1]['values'] = {'seconds': 'long'}
    texts = [*map(json.dumps, lines), '{"step": 5,', '[' * 10**5]
    folder.timing.write_text(''.join(f'{text}\n' for text in texts))
    self.assertEqual(
      folder.seconds(), {'train': 0.25}
    )  # the lines that are whole

  def test_a_changed_manifest_is_named(self):
    folder = run_folder.at(self.workdir, 'a', 2)
    optional = (
      'step', 'git_commit', 'measures', 'modules', 'normalization', 'records',
      'lowering', 'measure_lowering', 'seeds_at_once', 'numbers', 'command',
      'processor',
    )  # fmt: skip
    for key in run_folder.WHOLE.keys() - set(optional):
      changed = {k: v for k, v in folder.manifest.items() if k != key}
      files.write_json(folder.manifest_file, changed)
      with self.assertRaisesRegex(errors.StorageError, f"'{key}' is None"):
        folder.again().whole_manifest()
      if key in run_folder.MANIFEST:
        with self.assertRaisesRegex(errors.StorageError, f"'{key}' is None"):
          _ = folder.again().manifest
      else:  # it goes on without
        self.assertEqual(folder.again().status, 'done')

  def test_population_statistics_of_a_network_that_diverged(self):
    folder = run_folder.at(self.workdir, 'a', 2)
    numbers = {'loss': files.storable(float('nan')), 'accuracy': 0.5}
    files.write_json(folder.population_file, {
      'step': 1, 'batches': 2, 'test': dict.fromkeys(
        ('running', 'population'), numbers,
      ),
    })  # fmt: skip
    test = folder.read_population()['test']['running']
    np.testing.assert_equal(test, {'loss': float('nan'), 'accuracy': 0.5})

  def test_the_experiment(self):
    content = {'runs': {'a': {}}, 'seeds': [0]}
    run_folder.write_experiment(self.workdir, content)
    self.assertEqual(run_folder.read_experiment(self.workdir), content)
    self.assertIsNone(run_folder.read_experiment(self.workdir / 'a'))
    run_folder.write_experiment(
      self.workdir, {'runs': {'../x': {}}, 'seeds': []}
    )
    with self.assertRaisesRegex(errors.StorageError, 'is no name for a run'):
      run_folder.read_experiment(self.workdir)


if __name__ == '__main__':
  absltest.main()
