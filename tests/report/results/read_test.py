import json
import pathlib
import shutil

import numpy as np
from absl.testing import absltest, parameterized

from bn_jax import errors
from bn_jax.report.results import curves, read
from bn_jax.storage import files
from tests.fixtures import (
  made_up,
  scratch,
  strict,  # noqa: F401
)


class LoadTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = scratch.folder(self)

  def test_runs_in_the_order_of_the_experiment_and_seeds_in_theirs(self):
    workdir = made_up.workdir(
      self.folder / 'w', seeds=(0, 2, 10), zeta={}, alpha={}
    )
    runs = read.runs([workdir])
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
    names = [run.name for run in read.runs(places)]
    self.assertEqual(names, ['a/standard', 'b/standard'])

  def test_directories_of_one_name_are_told_apart(self):
    places = [self.folder / 'a' / 'x', self.folder / 'b' / 'x']
    for place in places:
      made_up.workdir(place, standard={})
    names = [run.name for run in read.runs(places)]
    self.assertEqual(names, [f'{place}/standard' for place in places])

  def test_names_that_leave_the_directory_are_refused(self):
    for name in ('../a', 'a/b', '<script>', 'x' * 300, ''):
      workdir = self.folder / str(len(name))
      workdir.mkdir()
      text = json.dumps({'runs': {name: {}}, 'seeds': [0]})
      (workdir / 'experiment.json').write_text(text)
      with self.assertRaisesRegex(errors.StorageError, 'no name for a run'):
        read.runs([workdir])

  def test_a_run_that_was_cut_off(self):
    workdir = made_up.workdir(self.folder / 'w', standard={})
    path = workdir / 'standard' / 'seed0' / 'scalars.jsonl'
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    (run,) = read.runs([workdir])
    steps = run.seeds[0].series['train'].step
    np.testing.assert_array_equal(steps, np.arange(len(steps)))
    path.unlink()
    (run,) = read.runs([workdir])
    self.assertEqual(run.seeds[0].series, {})

  def test_what_has_not_begun_is_left_out(self):
    workdir = made_up.workdir(self.folder / 'w', standard={}, batchnorm={})
    shutil.rmtree(workdir / 'standard' / 'seed0')
    self.assertEqual([r.name for r in read.runs([workdir])], ['batchnorm'])

  def test_refuses_what_holds_no_experiment(self):
    with self.assertRaisesRegex(errors.StorageError, 'holds no experiment'):
      read.runs([self.folder])
    workdir = made_up.workdir(self.folder / 'w', standard={})
    (workdir / 'standard' / 'seed0' / 'manifest.json').unlink()
    with self.assertRaisesRegex(errors.StorageError, 'is missing: restore it'):
      read.runs([workdir])
    shutil.rmtree(workdir / 'standard' / 'seed0')
    with self.assertRaisesRegex(errors.StorageError, 'nothing was recorded'):
      read.runs([workdir])

  def test_one_directory_twice_is_refused(self):
    workdir = made_up.workdir(self.folder / 'w', standard={})
    (self.folder / 'link').symlink_to(workdir)
    for other in (workdir, workdir / '..' / 'w', self.folder / 'link'):
      with self.assertRaisesRegex(errors.ConfigError, 'one directory'):
        read.runs([workdir, other])

  def test_a_run_that_was_killed_has_come_as_far_as_its_records(self):
    """Its manifest says where it began; rows of steps 0 to 34, a look at 30."""
    killed = {'status': 'running', 'steps': 34, 'manifest': {'step': 0}}
    workdir = made_up.workdir(self.folder / 'w', standard=killed)
    (run,) = read.runs([workdir])
    self.assertEqual(curves.reached(run.seeds[0]), 34)

  def test_a_measure_of_one_seed_alone_is_there(self):
    workdir = made_up.workdir(self.folder / 'w', standard={'measures': False})
    made_up.run(workdir / 'standard' / 'seed1', seed=1)
    (run,) = read.runs([workdir])
    self.assertEqual(curves.names(run, 'evaluation'), ['test'])


class DamagedTest(parameterized.TestCase):
  """One line, and the files as they were."""

  def setUp(self):
    super().setUp()
    folder = pathlib.Path(self.create_tempdir().full_path)
    self.workdir = made_up.workdir(folder / 'w', standard={'steps': 9})
    self.seed = self.workdir / 'standard' / 'seed0'

  def assert_refused(self, path, content, message):
    path.write_bytes(content)
    with self.assertRaisesRegex(errors.StorageError, message) as caught:
      read.runs([self.workdir])
    self.assertIn(str(path), str(caught.exception))
    self.assertNotIn('\n', str(caught.exception))
    self.assertLess(len(str(caught.exception)) - len(str(path)), 250)
    self.assertEqual(path.read_bytes(), content)

  @parameterized.parameters(
    (b'{}', "'runs' is None, allowed: dict"),
    (b'[]', r'its content is \[\], allowed: dict'),
    (b'{"runs": null}', "'runs' is None"),
    (b'{"runs": ["a"]}', "'runs' is"),
    (b'{"runs": {"\xff', 'is not JSON'),
  )
  def test_experiment(self, content, message):
    self.assert_refused(self.workdir / 'experiment.json', content, message)

  @parameterized.parameters(
    (b'{}', "'status' is None, allowed: str"),
    (b'[]', 'its content is'),
    (b'{"seed": 0}', "'status' is None"),
    (b'"manifest"', 'its content is'),
  )
  def test_manifest(self, content, message):
    self.assert_refused(self.seed / 'manifest.json', content, message)

  def test_every_field_of_a_manifest(self):
    """Each that is taken away is either not needed, or named."""
    path = self.seed / 'manifest.json'
    whole = files.read_json(path)
    for key in whole:
      left = {name: value for name, value in whole.items() if name != key}
      path.write_text(json.dumps(left))
      try:
        read.runs([self.workdir])
      except errors.StorageError as error:
        self.assertIn(repr(key), str(error))
    path.write_text(json.dumps(whole | {'config': {}}))
    with self.assertRaisesRegex(errors.StorageError, "'batch_size' is None"):
      read.runs([self.workdir])
    broken = json.loads(json.dumps(whole))
    del broken['config']['measures']['test']['data']
    path.write_text(json.dumps(broken))
    with self.assertRaisesRegex(errors.StorageError, "'data' is None"):
      read.runs([self.workdir])

  def test_a_torn_last_line_that_is_no_text(self):
    path = self.seed / 'scalars.jsonl'
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"step": 9, "na\xff\xfe\x00')
    (run,) = read.runs([self.workdir])
    np.testing.assert_array_equal(
      run.seeds[0].series['train'].step, np.arange(9)
    )

  @parameterized.parameters(
    (b'{"step": 1, "name": "train", "values": {"loss": 1}}\n', 'different'),
    (b'{"step": 1, "name": "x", "values": {"a": "b"}}\n', 'is no record'),
    (b'\xff\xfe\n', 'is no record'),
  )
  def test_a_line_that_was_changed(self, line, message):
    path = self.seed / 'scalars.jsonl'
    self.assert_refused(path, path.read_bytes() + line, message)

  def test_times(self):
    """Nothing but a time is read from them: what is damaged is left out."""
    line = b'{"step": 1, "name": "train", "values": {}}\nno record\n'
    (self.seed / 'timing.jsonl').write_bytes(line)
    (run,) = read.runs([self.workdir])
    self.assertEqual(run.seeds[0].seconds, {})


if __name__ == '__main__':
  absltest.main()
