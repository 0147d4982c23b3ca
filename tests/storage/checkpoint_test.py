import collections
import json
import os
import pathlib
import shutil
import subprocess
import sys
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import absltest, parameterized

from bn_jax import errors
from bn_jax.storage import checkpoint, digests
from tests.fixtures import same_bits, strict, toys


class CheckpointsTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path) / 'checkpoints'
    self.made = toys.classifier('batch', momentum=0.9)
    self.state = self.made.init(0)

  def open(self, **keywords):
    checkpoints = checkpoint.Checkpoints(self.folder, **keywords)
    self.addCleanup(checkpoints.close)
    return checkpoints

  def saved(self, *steps, **keywords):
    checkpoints = self.open(**keywords)
    for step in steps:
      checkpoints.save(step, self.at(step))
      checkpoints.wait()
    return checkpoints

  def at(self, step):
    """A state that says of which step it is."""
    return self.state._replace(step=jnp.asarray(step, jnp.int32))

  @parameterized.parameters('none', 'batch')
  def test_comes_back_bit_for_bit(self, norm):
    made = toys.classifier(norm, momentum=0.9)
    state = toys.step(made)(made.init(0), toys.split())
    checkpoints = self.open()
    checkpoints.save(1, state)
    checkpoints.wait()
    again = self.open()
    self.assertEqual(again.latest(), 1)
    for restored in (again.restore(1, made.init(5)), again.newest(state)):
      same_bits.assert_same(restored, state)

  def test_a_state_that_is_older_than_a_field(self):
    """As it was saved before states had an average, or numbers."""
    newer = 'average', 'numbers'
    fields = [name for name in self.state._fields if name not in newer]
    old_state = collections.namedtuple('TrainState', fields)
    old = old_state(*(getattr(self.state, name) for name in fields))
    checkpoints = self.open()
    with mock.patch.object(checkpoint, '_fields', lambda tree: tree):
      checkpoints.save(0, old)
      checkpoints.wait()
    again = self.open()
    same_bits.assert_same(again.restore(0, self.made.init(5)), self.state)
    averaging = toys.classifier('batch', momentum=0.9, ema=0.9)
    with self.assertRaisesRegex(
      errors.CheckpointError, '8 arrays differ: average/'
    ):
      again.restore(0, averaging.init(0))

  def test_a_state_with_an_average(self):
    made = toys.classifier('batch', ema=0.9)
    state = toys.step(made)(made.init(0), toys.split())
    checkpoints = self.open()
    checkpoints.save(1, state)
    checkpoints.wait()
    same_bits.assert_same(self.open().restore(1, made.init(5)), state)

  @parameterized.parameters(
    '[1]', '{1}', 'a\\1', 'a*', 'a?', "'", '"', 'a\nb', '%j', 'ä', '\udce4'
  )
  def test_in_a_folder_of_any_name(self, name):
    """24.8, 24.18: orbax and C++ take such paths for something else."""
    self.folder = self.folder.with_name(name) / 'checkpoints'
    self.folder.parent.mkdir()
    self.saved(1)
    same_bits.assert_same(self.open().restore(1, self.state), self.at(1))
    self.assertEqual(list(self.folder.parent.iterdir()), [self.folder])

  def test_in_a_locale_without_its_letters(self):
    """24.18."""
    code = (
      'import pathlib, sys\n'
      'import numpy as np\n'
      'from bn_jax.storage import checkpoint\n'
      'at = checkpoint.Checkpoints(pathlib.Path(sys.argv[1]))\n'
      'state = {"a": np.arange(3.0)}\n'
      'at.save(1, state)\n'
      'at.wait()\n'
      'np.testing.assert_array_equal(at.restore(1, state)["a"], state["a"])\n'
    )
    done = subprocess.run(
      [sys.executable, '-c', code, f'{self.folder}ä'], cwd=strict.ROOT,
      env={**os.environ, 'PYTHONUTF8': '0', 'PYTHONCOERCECLOCALE': '0',
           'LC_ALL': 'C'},
      capture_output=True, text=True,
    )  # fmt: skip
    self.assertEqual(done.returncode, 0, done.stderr)

  def test_shapes_are_enough_to_restore(self):
    self.saved(1)
    shapes = jax.eval_shape(self.made.init, 0)
    same_bits.assert_same(self.open().newest(shapes), self.at(1))

  def test_what_is_saved_is_a_copy(self):
    """The step consumes the state, and arrays may be written over."""
    checkpoints = self.open()
    arrays = jax.tree.map(np.array, self.state)
    checkpoints.save(1, arrays)
    for array in jax.tree.leaves(arrays):
      array[...] = 0
    checkpoints.wait()
    restored = self.open().restore(1, self.state)
    same_bits.assert_same(restored, self.state)

  def test_keeps_the_newest(self):
    checkpoints = self.saved(0, 3, 6, keep=2)
    self.assertEqual(checkpoints.steps(), (3, 6))
    with self.assertRaisesRegex(errors.CheckpointError, 'there are: 3, 6'):
      checkpoints.restore(0, self.state)
    self.assertEqual({p.name for p in self.folder.iterdir()}, {'3', '6'})

  def test_none(self):
    self.assertIsNone(self.open().latest())
    self.assertIsNone(self.open().newest(self.state))
    self.assertFalse(self.folder.exists())  # reading makes nothing

  def test_the_same_step_is_left_alone(self):
    checkpoints = self.saved(2)
    checkpoints.save(2, self.made.init(9))
    checkpoints.wait()
    restored = checkpoints.restore(2, self.state)
    same_bits.assert_same(restored.params, self.state.params)

  def test_an_earlier_step_is_refused_aloud(self):
    checkpoints = self.saved(5)
    with self.assertRaisesRegex(errors.StorageError, 'checkpoint 3'):
      checkpoints.save(3, self.state)

  def test_another_network_is_refused(self):
    checkpoints = self.saved(1)
    plain = toys.classifier('none').init(0)
    for restore in (checkpoints.newest, lambda s: checkpoints.restore(1, s)):
      with self.assertRaisesRegex(
        errors.CheckpointError, r'another network: .*\w is float32\[\d.* there'
      ):
        restore(plain)

  def test_another_optimizer_is_named(self):
    checkpoints = self.saved(1)
    plain = toys.classifier('batch').init(0)  # no momentum
    with self.assertRaisesRegex(errors.CheckpointError, 'another optimizer'):
      checkpoints.newest(plain)

  def test_another_dtype_is_refused(self):
    """orbax alone casts it without a word."""
    checkpoints = self.saved(1)
    half = self.state._replace(
      params=jax.tree.map(lambda x: x.astype(jnp.bfloat16), self.state.params)
    )
    with self.assertRaisesRegex(errors.CheckpointError, 'bfloat16'):
      checkpoints.restore(1, half)

  def test_another_experiment_is_refused(self):
    self.saved(1, about={'rate': 1})

    def differs(about):
      return None if about['rate'] == 1 else f'rate was {about["rate"]}'

    self.assertIsNotNone(self.open(differs=differs).newest(self.state))
    self.saved(2, about={'rate': 3})
    with self.assertRaisesRegex(errors.CheckpointError, 'rate was 3'):
      self.open(differs=differs).newest(self.state)

  def test_a_newer_format_is_refused(self):
    self.saved(1)
    path = self.folder / '1' / digests.NAME
    body = json.loads(path.read_text())
    del body['digest']
    path.write_bytes(digests._signed({**body, 'format': 2}))
    with self.assertRaisesRegex(errors.CheckpointError, 'has format 2'):
      self.open().newest(self.state)

  def test_an_earlier_version_is_named(self):
    self.saved(1)
    (self.folder / '1' / digests.NAME).unlink()
    (self.folder / '1' / '_CHECKPOINT_METADATA').write_text('{}')
    with self.assertRaisesRegex(errors.CheckpointError, 'an earlier version'):
      self.open().newest(self.state)

  def test_one_that_training_lets_go_is_not_damaged(self):
    """Read while it trains: what was newest is gone, and newer are there."""
    checkpoints = self.saved(1)
    verify, went = digests.verify, []

    def verified(folder, facts):
      if not went:
        went.append(folder)
        self.saved(2)
        shutil.rmtree(folder)
      verify(folder, facts)

    with (
      mock.patch.object(digests, 'verify', verified),
      self.assertNoLogs('bn_jax', 'WARNING'),
    ):
      found = checkpoints.newest(self.state)
    self.assertEqual(int(found.step), 2)
    with self.assertRaisesRegex(errors.CheckpointError, '1 .* is not there'):
      checkpoints.restore(1, self.state)

  def test_a_folder_that_is_removed_is_not_made_anew(self):
    checkpoints = self.saved(1)
    shutil.rmtree(self.folder.parent)
    checkpoints.save(2, self.at(2))
    with self.assertRaisesRegex(errors.StorageError, 'somebody removed it'):
      checkpoints.wait()
    self.assertFalse(self.folder.parent.exists())

  def test_what_cannot_be_removed_now_does_not_end_training(self):
    checkpoints = self.saved(1, keep=1)
    remove = shutil.rmtree

    def busy(path, ignore_errors=False):
      if str(path).endswith('.old') and not ignore_errors:
        raise OSError(39, 'Directory not empty')
      remove(path, ignore_errors=ignore_errors)

    with mock.patch.object(shutil, 'rmtree', busy):
      checkpoints.save(2, self.at(2))
      checkpoints.wait()
    self.assertEqual(checkpoints.steps(), (2,))

  def test_leftovers_are_cleaned_and_nothing_else(self):
    checkpoints = self.saved(1, 2)
    for name in ('7.new', '1.old', '9.damaged'):
      shutil.copytree(self.folder / '1', self.folder / name)
    self.assertEqual(checkpoints.steps(), (1, 2))
    checkpoints.clean()
    names = {path.name for path in self.folder.iterdir()}
    self.assertEqual(names, {'1', '2', '9.damaged'})

  def test_a_save_that_failed_is_told_and_the_last_good_one_stays(self):
    checkpoints = self.saved(1)
    # Where the next one is made lies a file.
    self.folder.joinpath('2.new').write_text('')
    checkpoints.save(2, self.at(2))
    with self.assertRaisesRegex(
      errors.StorageError, 'checkpoint 2 .* newest whole one is that of step 1'
    ):
      checkpoints.wait()
    self.folder.joinpath('2.new').unlink()
    self.assertEqual(int(checkpoints.newest(self.state).step), 1)
    checkpoints.save(2, self.at(2))
    checkpoints.wait()
    self.assertEqual(checkpoints.latest(), 2)

  def test_check_waits_for_nothing_and_tells(self):
    checkpoints = self.saved(1)
    self.folder.joinpath('2.new').write_text('')
    checkpoints.check()
    checkpoints.save(2, self.at(2))
    checkpoints._saving.exception()  # it has ended
    with self.assertRaises(errors.StorageError):
      checkpoints.check()


class DamageTest(parameterized.TestCase):
  """Every file of a checkpoint, damaged in every way."""

  def setUp(self):
    super().setUp()
    self.root = pathlib.Path(self.create_tempdir().full_path)
    self.state = toys.classifier('batch', momentum=0.9).init(0)
    made = checkpoint.Checkpoints(self.root / 'whole')
    for step in (1, 2):
      made.save(step, self.state._replace(step=jnp.asarray(step, jnp.int32)))
    made.wait()
    made.close()

  def files(self, *steps):
    """Of these checkpoints, relative to their folder."""
    return [
      path.relative_to(self.root / 'whole')
      for step in steps
      for path in sorted((self.root / 'whole' / str(step)).rglob('*'))
      if path.is_file()
    ]

  def copy(self, name):
    folder = self.root / name
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(self.root / 'whole', folder)
    checkpoints = checkpoint.Checkpoints(folder)
    self.addCleanup(checkpoints.close)
    return folder, checkpoints

  def damage(self, path, how, generator):
    """One flipped bit, a shorter file, or none."""
    content = bytearray(path.read_bytes())
    if how == 'flip' and content:
      place = int(generator.integers(len(content) * 8))
      content[place // 8] ^= 1 << place % 8
    elif how == 'cut':
      content = content[: int(generator.integers(len(content)))]
    if how == 'delete':
      path.unlink()
    else:
      path.write_bytes(content)

  @parameterized.parameters('flip', 'cut', 'delete')
  def test_none_is_restored_silently(self, how):
    """The newest is damaged: the one before it is taken, and it is said."""
    generator = np.random.default_rng(0)
    files = [
      f for f in self.files(2) if (self.root / 'whole' / f).stat().st_size
    ]
    cases = 0
    for file in files:
      folder, checkpoints = self.copy('damaged')
      self.damage(folder / file, how, generator)
      with self.assertLogs('bn_jax', 'WARNING') as said:
        restored = checkpoints.newest(self.state, set_aside=True)
      self.assertEqual(int(restored.step), 1, file)
      self.assertIn('checkpoint 2', said.output[0])
      with self.assertRaises(errors.CheckpointError):
        checkpoint.Checkpoints(folder).restore(2, self.state)
      # There is room for a new one, and the damaged one is not lost.
      self.assertEqual(checkpoints.steps(), (1,))
      self.assertTrue((folder / '2.damaged').is_dir())
      cases += 1
    self.assertGreaterEqual(cases, 10)

  @pytest.mark.slow
  def test_none_of_three_hundred(self):
    """Any file, any place in it, in any way; and of both at once."""
    generator = np.random.default_rng(1)
    files = self.files(1, 2)
    for case in range(300):
      folder, checkpoints = self.copy('damaged')
      hit = set()
      for file in generator.choice(
        len(files), size=1 + case % 3, replace=False
      ):
        path = folder / files[file]
        if path.stat().st_size:
          how = str(generator.choice(['flip', 'cut', 'delete']))
          self.damage(path, how, generator)
          hit.add(int(files[file].parts[0]))
      if hit == {1, 2}:
        with self.assertRaises(errors.CheckpointError):
          checkpoints.newest(self.state)
        continue
      restored = checkpoints.newest(self.state)
      want = 1 if 2 in hit else 2
      same_bits.assert_same(
        restored, self.state._replace(step=np.asarray(want, np.int32))
      )

  def test_the_digests_are_looked_at_too(self):
    """A config or a shape there that changed is still JSON."""
    folder, checkpoints = self.copy('digests')
    path = folder / '2' / digests.NAME
    path.write_text(path.read_text().replace('"step": 2', '"step": 3'))
    with self.assertLogs('bn_jax', 'WARNING'):
      self.assertEqual(int(checkpoints.newest(self.state).step), 1)

  def test_nothing_is_left(self):
    folder, checkpoints = self.copy('nothing')
    for step in (1, 2):
      (folder / str(step) / digests.NAME).unlink()
    with self.assertRaisesRegex(
      errors.CheckpointError,
      'no checkpoint .* is whole: 2 tried, the newest, 2',
    ):
      checkpoints.newest(self.state)
    self.assertEqual(checkpoints.steps(), (1, 2))  # nothing is moved away

  def test_an_empty_folder_is_no_checkpoint(self):
    folder, checkpoints = self.copy('empty')
    (folder / '4').mkdir()
    self.assertEqual(int(checkpoints.newest(self.state).step), 2)

  def test_a_read_does_not_move_anything(self):
    folder, checkpoints = self.copy('read')
    (folder / '2' / digests.NAME).unlink()
    checkpoints.newest(self.state)
    self.assertEqual(checkpoints.steps(), (1, 2))

  def test_training_goes_on_over_the_damaged_one(self):
    folder, checkpoints = self.copy('over')
    (folder / '2' / 'state' / '_METADATA').write_text('{}')
    restored = checkpoints.newest(self.state, set_aside=True)
    checkpoints.save(2, restored._replace(step=np.asarray(2, np.int32)))
    checkpoints.wait()
    self.assertEqual(int(checkpoints.newest(self.state).step), 2)


if __name__ == '__main__':
  absltest.main()
