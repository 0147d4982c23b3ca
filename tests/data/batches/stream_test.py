import io
import logging
import os
import pathlib
import pickle
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading

import numpy as np
import pytest
import tensorflow_datasets as tfds
from absl.testing import absltest, parameterized
from PIL import Image

from bn_jax import errors
from bn_jax.data.batches import crops, encoded, stream
from bn_jax.data.disk import levels, pixels, store
from tests.fixtures import strict

_CLASSES = 40
GREY = levels.Stated((None, None, 1))
# Splits and their numbers of records; those of 'broken' and 'worse' that are
# cut off are named by their labels.
_SPLITS = {'train': 23, 'test': 10, 'broken': 12, 'worse': 4}
_CUT = {'broken': (2, 7), 'worse': (0, 1, 2, 3)}


class MadeUp(tfds.core.GeneratorBasedBuilder):
  """Images of their own colours; each one's label is its number."""

  VERSION = tfds.core.Version('1.0.0')

  def _info(self):
    return tfds.core.DatasetInfo(
      builder=self,
      features=tfds.features.FeaturesDict(
        {
          'image': tfds.features.Image(shape=(None, None, 3)),
          'label': tfds.features.ClassLabel(num_classes=_CLASSES),
        }
      ),
      supervised_keys=('image', 'label'),
    )

  def _split_generators(self, dl_manager):
    del dl_manager
    return {split: self._generate_examples(split) for split in _SPLITS}

  def _generate_examples(self, split):
    for label in range(_SPLITS[split]):
      data = made_up_jpeg(label)
      if label in _CUT.get(split, ()):
        data = data[: len(data) // 2]
      yield label, {'image': io.BytesIO(data), 'label': label}


def made_up_jpeg(label):
  """An image whose mode and size vary with its label."""
  mode = ('RGB', 'L', 'CMYK')[label % 3]
  rng = np.random.default_rng(label)
  width, height = 30 + label, 60 - label
  channels = {'RGB': 3, 'L': 1, 'CMYK': 4}[mode]
  values = rng.integers(0, 256, (height, width, channels), np.uint8)
  data = io.BytesIO()
  image = Image.frombytes(mode, (width, height), values.tobytes())
  image.save(data, 'JPEG')
  return data.getvalue()


def setUpModule():
  global _folder, prepared, SETTINGS
  _folder = tempfile.TemporaryDirectory()
  tfds.disable_progress_bar()
  builder = MadeUp(data_dir=_folder.name, file_format='array_record')
  builder.download_and_prepare(file_format='array_record')
  prepared = store.opened('made_up', _folder.name)
  # Large enough for no image to be decoded smaller.
  SETTINGS = stream.Settings(size=16)


def tearDownModule():
  _folder.cleanup()


def labels_of(split):
  """The labels of a split, in the order of its records."""
  return [r['label'] for r in store.source(prepared, split)]


def training(steps, *, split='train', batch_size=8, seed=0, **keywords):
  """(images, labels) of the first batches, one after the other."""
  keywords = {'settings': SETTINGS, **keywords}
  with stream.training(
    prepared, split, batch_size=batch_size, seed=seed, **keywords
  ) as batches:
    found = [next(batches) for _ in range(steps)]
  return tuple(np.stack(part) for part in zip(*found))


def evaluation(split='test', *, batch_size=4, settings=None, **keywords):
  with stream.evaluation(
    prepared,
    split,
    batch_size=batch_size,
    settings=settings or SETTINGS,
    **keywords,
  ) as batches:
    return list(batches)


class TrainingTest(parameterized.TestCase):
  def test_shapes_and_types(self):
    images, labels = training(2)
    self.assertEqual(
      (images.shape, images.dtype), ((2, 8, 16, 16, 3), np.uint8)
    )
    self.assertEqual((labels.shape, labels.dtype), ((2, 8), np.int32))

  @parameterized.parameters(1, 5, 8, 23)
  def test_epochs_are_permutations_without_remainder(self, batch_size):
    epochs = 4
    steps = -(-epochs * 23 // batch_size)
    _, labels = training(steps, batch_size=batch_size)
    each = labels.ravel()[: epochs * 23].reshape(epochs, 23)
    np.testing.assert_array_equal(np.sort(each), [range(23)] * epochs)
    self.assertLen({tuple(epoch) for epoch in each}, epochs)

  def test_neighbouring_seeds_share_no_epoch(self):
    found = [training(23, batch_size=4, seed=seed)[1] for seed in range(4)]
    epochs = [tuple(e) for x in found for e in x.ravel().reshape(4, 23)]
    self.assertLen(set(epochs), 16)

  @parameterized.parameters(2, 4)
  def test_processes_read_contiguous_parts_of_the_batch(self, processes):
    want = training(7)
    parts = [
      training(7, process_index=p, process_count=processes)
      for p in range(processes)
    ]
    for one, several in zip(want, zip(*parts)):
      np.testing.assert_array_equal(one, np.concatenate(several, axis=1))

  def test_fixed_batches_are_those_of_the_first_epoch(self):
    settings = SETTINGS._replace(fixed_batches=True)
    _, labels = training(20, batch_size=4, settings=settings)
    _, free = training(5, batch_size=4)
    epochs = [tuple(map(tuple, e)) for e in labels.reshape(4, 5, 4)]
    np.testing.assert_array_equal(epochs[0], free)
    for epoch in epochs:
      self.assertEqual(sorted(epoch), sorted(epochs[0]))
    self.assertLen(set(epochs), 4)
    parts = [
      training(
        20, batch_size=4, settings=settings, process_index=p, process_count=2
      )[1]
      for p in range(2)
    ]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), labels)

  @parameterized.product(step=(1, 3, 6), fixed_batches=(False, True))
  def test_a_restart_goes_on_the_same(self, step, fixed_batches):
    settings = SETTINGS._replace(fixed_batches=fixed_batches)
    want = training(8, settings=settings)
    got = training(8 - step, first_step=step, settings=settings)
    for whole, rest in zip(want, got):
      np.testing.assert_array_equal(whole[step:], rest)

  def test_the_crop_is_that_of_the_position_and_the_seed(self):
    images, labels = training(6, seed=3)
    for position, (image, label) in enumerate(
      zip(images.reshape(-1, 16, 16, 3), labels.ravel())
    ):
      rng = np.random.Generator(np.random.Philox(key=[position, 3]))
      original = pixels.decoded(made_up_jpeg(label))
      want = crops.random_resized(original, 16, rng)
      np.testing.assert_array_equal(image, want)

  def test_area_and_aspect_are_those_of_the_settings(self):
    settings = SETTINGS._replace(area=(1.0, 1.0), aspect=(1.0, 1.0))
    images, labels = training(1, settings=settings, batch_size=1)
    original = pixels.decoded(made_up_jpeg(labels[0, 0]))
    middle = crops.center(original, 16, share=1.0)
    np.testing.assert_array_equal(images[0, 0], middle)

  @pytest.mark.slow
  def test_worker_processes_change_nothing(self):
    want = training(7)
    got = training(7, settings=SETTINGS._replace(workers=2))
    for one, two in zip(want, got):
      np.testing.assert_array_equal(one, two)
    self.assertEqual(type(got[0]), np.ndarray)

  def test_large_images_are_decoded_smaller_and_show_the_same(self):
    y, x = np.mgrid[:1000, :800]
    values = np.stack([x // 4, y // 4, (x + y) // 8], -1).astype(np.uint8)
    data = io.BytesIO()
    Image.fromarray(values).save(data, 'JPEG', quality=95)
    view = encoded.RandomView(5, 16, levels.RGB, (0.3, 1.0), (3 / 4, 4 / 3))
    for position in range(5):
      rng = np.random.Generator(np.random.Philox(key=[position, 5]))
      want = crops.random_resized(Image.fromarray(values), 16, rng, (0.3, 1))
      got = view(data.getvalue(), position)
      np.testing.assert_allclose(got.astype(int), want.astype(int), atol=3)

  def test_refuses_a_split_smaller_than_a_batch(self):
    with self.assertRaisesRegex(
      errors.DataError, '23 examples, fewer than one'
    ):
      training(1, batch_size=24)

  def test_refuses_an_empty_split(self):
    empty = prepared._replace(splits={'train': 0})
    with self.assertRaisesRegex(errors.DataError, 'holds no records'):
      stream.training(empty, 'train', batch_size=1, seed=0, settings=SETTINGS)

  @parameterized.parameters(
    ({'batch_size': 9, 'process_count': 2}, 'multiple of the 2 processes'),
    ({'batch_size': 0}, 'batch_size is 0'),
    ({'process_index': 2, 'process_count': 2}, 'allowed: 0 to 1'),
    ({'seed': -1}, 'seed is -1'),
  )
  def test_refuses_arguments(self, keywords, message):
    with self.assertRaisesRegex(ValueError, message):
      training(1, **keywords)

  def test_a_closed_stream_says_so(self):
    batches = stream.training(
      prepared, 'train', batch_size=4, seed=0, settings=SETTINGS
    )
    next(batches)
    batches.close()
    batches.close()
    with self.assertRaisesRegex(ValueError, 'is closed'):
      next(batches)


class EvaluationTest(parameterized.TestCase):
  @parameterized.parameters(1, 4, 5, 16)
  def test_every_example_once_and_in_order(self, batch_size):
    batches = evaluation(batch_size=batch_size)
    self.assertLen(batches, -(-10 // batch_size))
    for images, labels, mask in batches:
      self.assertEqual(images.shape, (batch_size, 16, 16, 3))
      self.assertEqual(labels.shape, (batch_size,))
      self.assertFalse(images[~mask].any())
      for image, label in zip(images[mask], labels[mask]):
        want = crops.center(pixels.decoded(made_up_jpeg(label)), 16)
        np.testing.assert_array_equal(image, want)
    seen = [label for _, labels, mask in batches for label in labels[mask]]
    self.assertEqual(seen, labels_of('test'))

  @parameterized.parameters(2, 4)
  def test_processes_read_contiguous_parts_of_the_batch(self, processes):
    want = evaluation(batch_size=8)
    parts = [
      evaluation(batch_size=8, process_index=p, process_count=processes)
      for p in range(processes)
    ]
    for one, several in zip(want, zip(*parts)):
      for whole, found in zip(one, zip(*several)):
        np.testing.assert_array_equal(whole, np.concatenate(found))

  def test_144_crops(self):
    for images, labels, mask in evaluation(crop=144):
      self.assertEqual(images.shape, (4, 144, 16, 16, 3))
      for views, label in zip(images[mask], labels[mask]):
        want = crops.paper_144(pixels.decoded(made_up_jpeg(label)), 16)
        np.testing.assert_array_equal(views, want)

  @pytest.mark.slow
  def test_worker_processes_change_nothing(self):
    # More of them than there are batches.
    got = evaluation(settings=SETTINGS._replace(workers=4))
    for one, two in zip(evaluation(), got, strict=True):
      for whole, found in zip(one, two):
        np.testing.assert_array_equal(whole, found)

  def test_its_threads_end_with_it(self):
    batches = stream.evaluation(
      prepared, 'test', batch_size=4, settings=SETTINGS
    )
    self.assertLen(list(batches), 3)
    self.assertEmpty(list(batches))
    threads = [t for t in threading.enumerate() if 'grain-prefetch' in t.name]
    for thread in threads:
      thread.join(timeout=10)
      self.assertFalse(thread.is_alive())

  def test_grey_sets_stay_grey(self):
    grey = prepared._replace(stated=GREY)
    with stream.evaluation(
      grey, 'test', batch_size=5, settings=SETTINGS
    ) as batches:
      images, labels, _ = next(batches)
    want = crops.center(pixels.decoded(made_up_jpeg(labels[0]), GREY), 16)
    np.testing.assert_array_equal(images[0], want)

  def test_the_first_so_many(self):
    images, labels = stream.first(prepared, 'test', 7, SETTINGS)
    self.assertEqual(images.shape, (7, 16, 16, 3))
    self.assertEqual(list(labels), labels_of('test')[:7])
    with self.assertRaisesRegex(errors.DataError, 'holds 10 .* the first 11'):
      stream.first(prepared, 'test', 11, SETTINGS)


class BadRecordsTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.order = labels_of('broken')
    self.bad = [self.order.index(label) for label in _CUT['broken']]

  def replaced_by(self, number):
    """The label of the next good record."""
    while number in self.bad:
      number = (number + 1) % len(self.order)
    return self.order[number]

  @parameterized.parameters('training', 'evaluation')
  def test_one_is_an_error_that_names_it(self, kind):
    number = '|'.join(map(str, self.bad))
    with self.assertRaisesRegex(
      errors.DataError,
      rf'^made_up broken, record ({number}) of made_up-broken.array_record-'
      r'00000-of-00001: damaged image: .*; max_skipped is 0',
    ) as caught:
      if kind == 'training':
        training(3, split='broken')
      else:
        evaluation('broken')
    self.assertNotIn('\n', str(caught.exception))

  def test_training_takes_the_next_good_one_and_warns_once(self):
    settings = SETTINGS._replace(max_skipped=2)
    with self.assertLogs('bn_jax', logging.WARNING) as logs:
      images, labels = training(9, split='broken', settings=settings)
    self.assertLen(logs.output, 2)  # in six epochs
    for number in self.bad:
      self.assertIn(f'record {number} of', ' '.join(logs.output))
    # The same run over a whole set of as many, by its record numbers.
    numbers = self.numbers(9, 8)
    want = [self.replaced_by(number) for number in numbers]
    self.assertEqual(labels.ravel().tolist(), want)
    for position, label in enumerate(want):
      rng = np.random.Generator(np.random.Philox(key=[position, 0]))
      original = pixels.decoded(made_up_jpeg(label))
      np.testing.assert_array_equal(
        images.reshape(-1, 16, 16, 3)[position],
        crops.random_resized(original, 16, rng),
      )

  def numbers(self, steps, batch_size):
    """Records of 'broken' in a run's order, from one without bad records."""

    class Numbers(encoded.Records):
      def example(self, number, position, view):
        return np.zeros(view.shape, np.uint8), number

    view = encoded.RandomView(0, 1, levels.RGB, (0.1, 1), (1, 1))
    made = stream._Training(
      Numbers(prepared, 'broken'), view, stream._Part(batch_size, 0, 1), 1
    )
    return np.concatenate([made[t].labels for t in range(steps)]).tolist()

  def test_one_more_than_allowed_is_an_error(self):
    settings = SETTINGS._replace(max_skipped=1)
    with (
      self.assertLogs('bn_jax', logging.WARNING) as logs,
      self.assertRaisesRegex(errors.DataError, 'max_skipped is 1'),
    ):
      training(3, split='broken', settings=settings)
    self.assertLen(logs.output, 1)

  def test_evaluation_masks_them_out(self):
    settings = SETTINGS._replace(max_skipped=2)
    with self.assertLogs('bn_jax', logging.WARNING):
      batches = evaluation('broken', settings=settings)
    mask = np.concatenate([batch[2] for batch in batches])
    self.assertEqual(np.flatnonzero(~mask).tolist(), sorted(self.bad))
    labels = np.concatenate([batch[1] for batch in batches])
    self.assertEqual(
      labels[mask].tolist(),
      [x for x in self.order if x not in _CUT['broken']],
    )

  def test_a_set_of_nothing_else_ends(self):
    settings = SETTINGS._replace(max_skipped=9)
    with (
      self.assertLogs('bn_jax', logging.WARNING),
      self.assertRaisesRegex(errors.DataError, 'no record that can be read'),
    ):
      training(1, split='worse', batch_size=2, settings=settings)

  def test_a_label_of_no_class_is_an_error(self):
    self.check_label(workers=0)

  @pytest.mark.slow
  def test_a_worker_s_error_is_that_of_a_thread(self):
    self.check_label(workers=1)

  def check_label(self, workers):
    fewer = prepared._replace(class_names=('a',) * 9)
    settings = SETTINGS._replace(workers=workers)
    number = labels_of('test').index(9)
    with (
      stream.evaluation(
        fewer, 'test', batch_size=5, settings=settings
      ) as batches,
      self.assertRaisesRegex(
        errors.DataError,
        rf'^made_up test, record {number} of .*: its label is 9; allowed: 0 to',
      ),
    ):
      list(batches)

  @parameterized.parameters('cut', 'changed', 'gone')
  def test_a_damaged_shard_is_one_line(self, damage):
    with tempfile.TemporaryDirectory() as folder:
      builder = MadeUp(data_dir=folder, file_format='array_record')
      builder.download_and_prepare(file_format='array_record')
      damaged = store.opened('made_up', folder)
      path = store.shards(damaged, 'test')[0][0]
      data = bytearray(path.read_bytes())
      place = data.find(b'\xff\xd8\xff')
      data[place + 600] ^= 1
      path.write_bytes(data[:100_000] if damage == 'cut' else data)
      if damage == 'gone':
        path.unlink()
      with self.assertRaisesRegex(
        errors.DataError, r'record \d+ of made_up-test.*: damaged record: \w+'
      ) as caught:
        stream.first(damaged, 'test', 10, SETTINGS)
      self.assertNotIn('\n', str(caught.exception))


class RecordsTest(absltest.TestCase):
  def test_travel_to_a_worker_as_their_names(self):
    records = encoded.Records(prepared, 'test')
    data = pickle.dumps(records)
    self.assertLess(len(data), 5000)
    again = pickle.loads(data)
    view = encoded.TestView(1, 8, levels.RGB)
    np.testing.assert_array_equal(
      again.example(3, 0, view)[0], records.example(3, 0, view)[0]
    )


_PROGRAM = """
import signal, sys
from bn_jax.data.batches import stream
from bn_jax.data.disk import store

def main():
  asked = []
  for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda *unused: asked.append(1))
  prepared = store.opened('made_up', sys.argv[1])
  batches = stream.training(
    prepared, 'train', batch_size=8, seed=0,
    settings=stream.Settings(size=8, workers=2),
  )
  print('ready', flush=True)
  for batch in batches:
    if asked:
      sys.exit(75)
    print('batch', flush=True)

if __name__ == '__main__':
  main()
"""


@pytest.mark.slow
class SignalsTest(parameterized.TestCase):
  """Ctrl-C and batch systems send a signal to every process of a job."""

  def start(self):
    path = pathlib.Path(_folder.name) / 'program.py'
    path.write_text(textwrap.dedent(_PROGRAM))
    return subprocess.Popen(
      [sys.executable, str(path), _folder.name],
      env={**os.environ, 'PYTHONPATH': str(strict.ROOT)},
      stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
      start_new_session=True,
    )  # fmt: skip

  def wait_for(self, process, word):
    lines = iter(process.stdout.readline, '')
    self.assertTrue(any(word in line for line in lines), 'it has ended')

  @parameterized.parameters(
    (signal.SIGINT, 'ready'),
    (signal.SIGINT, 'batch'),
    (signal.SIGTERM, 'batch'),
  )
  def test_workers_leave_it_to_the_training(self, number, after):
    process = self.start()
    self.wait_for(process, after)
    os.killpg(process.pid, number)
    _, said = process.communicate(timeout=60)
    self.assertEqual((process.returncode, said), (75, ''))

  def test_workers_end_with_a_training_that_is_killed(self):
    process = self.start()
    self.wait_for(process, 'batch')
    process.kill()
    process.communicate(timeout=60)  # they hold its output open till they end


if __name__ == '__main__':
  absltest.main()
