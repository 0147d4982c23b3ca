import pathlib

import chex
import jax
import jax.numpy as jnp
import strict  # noqa: F401
import toys
from absl.testing import absltest, parameterized

from bn_jax import checkpoint, errors


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

  @parameterized.parameters('none', 'batch')
  def test_comes_back_bit_for_bit(self, norm):
    made = toys.classifier(norm, momentum=0.9)
    state = toys.step(made)(made.init(0), toys.split())
    self.open().save(1, state)
    again = self.open()
    self.assertEqual(again.latest(), 1)
    restored = again.restore(1, made.init(5))
    chex.assert_trees_all_equal(restored, state)
    chex.assert_trees_all_equal_dtypes(restored, state)

  def test_keeps_the_newest(self):
    checkpoints = self.open(keep=2)
    for step in (0, 3, 6):
      checkpoints.save(step, self.state)
    self.assertEqual(checkpoints.latest(), 6)
    with self.assertRaises(errors.CheckpointError):
      checkpoints.restore(0, self.state)

  def test_none(self):
    self.assertIsNone(self.open().latest())

  def test_the_same_step_is_left_alone(self):
    checkpoints = self.open()
    checkpoints.save(2, self.state)
    checkpoints.save(2, self.made.init(9))
    restored = checkpoints.restore(2, self.state)
    chex.assert_trees_all_equal(restored.params, self.state.params)

  def test_an_earlier_step_is_refused_aloud(self):
    checkpoints = self.open()
    checkpoints.save(5, self.state)
    with self.assertRaisesRegex(errors.StorageError, 'checkpoint 3'):
      checkpoints.save(3, self.state)

  def test_another_network_is_refused(self):
    checkpoints = self.open()
    checkpoints.save(1, self.state)
    plain = toys.classifier('none').init(0)
    with self.assertRaisesRegex(errors.CheckpointError, 'another network'):
      checkpoints.restore(1, plain)

  def test_another_dtype_is_refused(self):
    """orbax alone casts it without a word."""
    checkpoints = self.open()
    checkpoints.save(1, self.state)
    half = self.state._replace(
      params=jax.tree.map(lambda x: x.astype(jnp.bfloat16), self.state.params)
    )
    with self.assertRaisesRegex(errors.CheckpointError, 'bfloat16'):
      checkpoints.restore(1, half)

  def test_a_damaged_one_is_refused(self):
    self.open().save(1, self.state)
    for file in self.folder.rglob('*'):
      if file.is_file() and file.parent.name == 'd':
        file.write_bytes(b'')
    with self.assertRaises(errors.CheckpointError):
      self.open().restore(1, self.state)


if __name__ == '__main__':
  absltest.main()
