import pathlib

import jax
import numpy as np
import pytest
from absl.testing import absltest

from bn_jax import errors
from bn_jax.config import files, resolve
from bn_jax.data import datasets
from bn_jax.experiment import experiment
from tests.fixtures import made_sets, scratch, strict, trained


class StreamedTest(absltest.TestCase):
  """A small set that is read while it is used."""

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.folder = scratch.folder(cls)
    made_sets.write(cls.folder, train=20, test=7)

  def source(self, **keywords):
    return datasets.make(
      'made', data_dir=self.folder, streaming=True, **keywords
    )

  def feed(self, seed=0, first_step=0, batch_size=4):
    feed = self.source().load().train.feed(batch_size)
    self.addCleanup(feed.close)
    feed.start(seed=seed, first_step=first_step)
    return feed

  def labels(self, feed, steps):
    return np.stack([np.asarray(feed.take().labels) for _ in range(steps)])

  def test_shapes_are_those_of_a_batch(self):
    shapes, split = self.source().shapes(4), self.feed().take()
    for shape, array in zip(shapes, split):
      self.assertEqual((shape.shape, shape.dtype), (array.shape, array.dtype))

  def test_a_step_is_its_batch_wherever_one_starts(self):
    whole = self.labels(self.feed(), 12)
    np.testing.assert_array_equal(
      self.labels(self.feed(first_step=7), 5), whole[7:]
    )
    self.assertTrue((self.labels(self.feed(seed=1), 12) != whole).any())
    counts = np.bincount(whole[:5].ravel(), minlength=4)  # an epoch
    np.testing.assert_array_equal(counts, 5)

  def test_what_is_looked_at_stays_the_next(self):
    feed = self.feed()
    looked = [feed.peek() for _ in range(2)]
    taken = feed.take()
    for split in looked:
      np.testing.assert_array_equal(split.images, taken.images)
    self.assertTrue((feed.peek().images != taken.images).any())

  def test_a_new_start_forgets_what_was_read(self):
    feed = self.feed()
    first = feed.take()
    feed.peek()
    feed.start(seed=0, first_step=0)
    np.testing.assert_array_equal(feed.take().images, first.images)

  def test_every_test_image_once_and_padded(self):
    test = self.source().load().test
    images, labels = made_sets.arrays(7, first=100)
    seen, pixels = [], []
    for batch in test.batches(4):
      self.assertLen(batch.labels, 4)
      mask = np.asarray(batch.mask)
      seen.extend(np.asarray(batch.labels)[mask])
      pixels.extend(np.asarray(batch.images)[mask])
    np.testing.assert_array_equal(seen, labels)
    self.assertEqual(test.num_examples, 7)
    split = test.split(images, labels)
    want = (images - np.asarray(split.mean)) / np.asarray(split.std)
    np.testing.assert_allclose(pixels, want, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(test.first(3).images, want[:3], rtol=1e-5,
                               atol=1e-5)  # fmt: skip

  def test_crops_stand_side_by_side(self):
    (batch, last) = self.source().load().test.crops(4, 144)
    self.assertEqual(batch.images.shape, (576, 6, 6, 3))
    _, labels = made_sets.arrays(7, first=100)
    np.testing.assert_array_equal(batch.labels, np.repeat(labels[:4], 144))
    real = np.repeat([True, True, True, False], 144)
    np.testing.assert_array_equal(last.mask, real)

  def config(self, **overrides):
    config = files.load(str(strict.FIXTURES / 'small_config.py'))
    config.unlock()
    config.update_from_flattened_dict(
      {
        'data.name': 'made', 'data.streaming': True, 'seeds': (0,),
        'data_dir': str(self.folder), 'checkpoint.every_steps': 2, **overrides,
      }
    )  # fmt: skip
    return resolve.experiment(config.to_dict(), {})

  def parameters(self, workdir):
    *_, state = trained.newest(workdir)
    return jax.device_get(state.params)

  @pytest.mark.slow  # trains twice
  def test_devices_change_nothing(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    experiment.run(self.config(), str(folder / 'one'))
    experiment.run(
      self.config(devices=4, layout='shard_map', micro_batch_size=16),
      str(folder / 'four'),
    )
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
      self.parameters(folder / 'four'),
      self.parameters(folder / 'one'),
    )

  @pytest.mark.slow  # trains three times
  def test_a_run_that_goes_on_is_the_run_that_never_stopped(self):
    """With what looks at the batch to come, and changes it at random."""
    folder = pathlib.Path(self.create_tempdir().full_path)
    changes = {
      'data.flip': True,
      'data.crop_padding': 1,
      'measures': {
        'landscape': dict(
          name='along_gradient', data='current_batch', every_steps=3,
          step_factors=(1.0,), statistics='batch', spread='batch',
        )
      },
    }  # fmt: skip
    experiment.run(self.config(**changes), str(folder / 'whole'))
    for steps in (2, 4):
      experiment.run(self.config(steps=steps, **changes), str(folder / 'parts'))
    jax.tree.map(
      np.testing.assert_array_equal,
      self.parameters(folder / 'parts'),
      self.parameters(folder / 'whole'),
    )

  def test_a_batch_larger_than_the_set(self):
    folder = self.create_tempdir().full_path
    with self.assertRaisesRegex(
      errors.DataError, 'made has 20 .*fewer than one batch of 21'
    ):
      experiment.run(self.config(batch_size=21), f'{folder}/large')


class KnownTest(absltest.TestCase):
  def test_what_lies_there_is_not_what_its_name_promises(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    made_sets.write(folder, train=20, test=7)
    (folder / 'made').rename(folder / 'cifar10')
    for info in folder.glob('cifar10/*/dataset_info.json'):
      info.write_text(info.read_text().replace('"made"', '"cifar10"'))
    for shard in folder.glob('cifar10/*/made-*'):
      shard.rename(shard.with_name(shard.name.replace('made', 'cifar10')))
    for streaming in (True, False):
      source = datasets.make('cifar10', data_dir=folder, streaming=streaming)
      with self.assertRaisesRegex(
        errors.DataError,
        r'has 4 classes, 20 examples in train and 7 in test, of shape '
        r'\(6, 6, 3\), uint8; expected: 10 classes, 50000 .* 10000',
      ):
        source.load()


if __name__ == '__main__':
  absltest.main()
