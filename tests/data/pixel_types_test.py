"""Sets of every kind of pixel, from disk to the arrays that a step gets.

In memory and in a stream alike; the rules themselves are tested with `levels`
and `pixels`.
"""

import io
import os
import pathlib
import subprocess
import sys
import types
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow_datasets as tfds
from absl.testing import absltest, parameterized
from PIL import Image

from bn_jax import errors
from bn_jax.data import datasets, reading
from bn_jax.data.batches import stream
from bn_jax.data.disk import features, levels, show, store
from tests.fixtures import made_sets, strict

_COUNT = 9
_FLOATS = ('float16', 'bfloat16', 'float32', 'float64')
_INTEGERS = ('int8', 'int16', 'int32', 'int64', 'uint32', 'uint64')


def values_of(dtype, channels=3):
  """[_COUNT, 6, 6, channels] of a dtype, between its black and white."""
  rng = np.random.default_rng(3)
  shape = (_COUNT, 6, 6, channels)
  if dtype in _FLOATS:
    return rng.random(shape).astype(np.dtype(dtype))
  high = {'bool': 2, 'uint16': 4096}.get(dtype, 120)
  return rng.integers(0, high, shape).astype(dtype)


def levels_of(values):
  """What a network should get: in float64, by the rules of the docs."""
  wide = values.astype(np.float64)
  name = values.dtype.name
  if name == 'uint16':
    return wide / 257
  return wide * (255 if name in (*_FLOATS, 'bool') else 1)


def labelled(images):
  examples = [(image, i % made_sets.NUM_CLASSES)
              for i, image in enumerate(images)]  # fmt: skip
  return dict(train=examples, test=examples[:4])


def image_feature(shape, dtype='uint8'):
  return tfds.features.Image(
    shape=shape, dtype=np.dtype(dtype), encoding_format='png'
  )


def in_memory(folder, **keywords):
  return datasets.make('made', data_dir=folder, **keywords).load()


def arrays_in_memory(folder):
  return np.asarray(in_memory(folder).train.split.images)


def arrays_of_stream(folder, size=6, count=_COUNT):
  prepared = store.opened('made', folder)
  return stream.first(prepared, 'train', count, stream.Settings(size))[0]


class Folder(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)

  def assert_levels(self, values, got):
    """The pixels are those that were written, up to a rounding of float32."""
    want = levels_of(values)
    kept = levels.kept(values.dtype.name)
    self.assertEqual((got.shape, got.dtype), (values.shape, kept))
    np.testing.assert_array_equal(got, want.astype(kept))


class TypesTest(Folder):
  @parameterized.product(
    dtype=tuple(levels.WHITES), encoding=('none', 'bytes', 'zlib')
  )
  def test_a_tensor(self, dtype, encoding):
    if (dtype, encoding) == ('bfloat16', 'none'):
      self.skipTest('TFDS cannot write it')
    values = values_of(dtype)
    if dtype == 'float64' and encoding == 'none':  # TFDS writes float32 of it
      values = values.astype(np.float32).astype(np.float64)
    feature = tfds.features.Tensor(
      shape=(6, 6, 3), dtype=np.dtype(dtype), encoding=encoding
    )
    made_sets.of(self.folder, feature, **labelled(values))
    self.assert_levels(values, arrays_in_memory(self.folder))
    if dtype in _INTEGERS:
      with self.assertRaisesRegex(
        ValueError, f'made are {dtype}, without a white.*streaming=False'
      ):
        in_memory(self.folder, streaming=True)
    else:
      self.assert_levels(values, arrays_of_stream(self.folder))

  @parameterized.product(
    dtype=('uint8', 'uint16', 'float32'), channels=(1, 2, 3, 4)
  )
  def test_an_image(self, dtype, channels):
    if dtype == 'float32' and channels > 1:
      self.skipTest('TFDS has it of one channel alone')
    values = values_of(dtype, channels)
    feature = image_feature((6, 6, channels), dtype)
    encode = {
      'uint8': made_sets.png,
      'uint16': made_sets.deep_png,
      'float32': lambda image: made_sets.png(image.view(np.uint8)),
    }[dtype]
    files = [encode(image) for image in values]
    with mock.patch.object(
      type(feature._image_encoder),
      'encode_image_or_path',
      lambda _, x: x.read(),
    ):  # of float32 it takes arrays alone, which need TensorFlow
      made_sets.of(self.folder, feature, **labelled(files))
    self.assert_levels(values, arrays_in_memory(self.folder))
    self.assert_levels(values, arrays_of_stream(self.folder))

  @parameterized.parameters('uint8', 'uint16', 'float32', 'bool')
  def test_a_step_gets_the_same_from_memory_and_from_a_stream(self, dtype):
    feature = tfds.features.Tensor(shape=(6, 6, 3), dtype=np.dtype(dtype))
    values = values_of(dtype)
    made_sets.of(self.folder, feature, **labelled(values))
    for streaming in (False, True):
      source = datasets.make('made', data_dir=self.folder, streaming=streaming)
      dataset = source.load()
      feed = dataset.train.feed(4)
      feed.start(seed=0, first_step=0)
      split, shapes = feed.take(), source.shapes(4)
      feed.close()
      self.assertEqual(split.images.shape, shapes.images.shape)
      self.assertEqual(split.images.dtype, shapes.images.dtype)
      mean, std = (np.asarray(x, np.float64) for x in (split.mean, split.std))
      np.testing.assert_allclose(
        dataset.train.first(_COUNT).images,
        (levels_of(values) - mean) / std,
        atol=1e-5,
      )

  def test_a_picture_gives_the_same_batches_whatever_its_dtype(self):
    values = values_of('uint8')
    batches = []
    for number, pictures in enumerate(
      (values, values.astype(np.uint16) * 257, values / np.float32(255))
    ):
      folder = self.folder / str(number)
      folder.mkdir()
      feature = tfds.features.Tensor(shape=(6, 6, 3), dtype=pictures.dtype)
      made_sets.of(folder, feature, **labelled(pictures))
      keywords = dict(flip=True, crop_padding=1, photometric=1.0)
      source = datasets.make('made', data_dir=folder, **keywords)
      train = source.load().train
      take = source.sampler(4).take
      key = jax.random.key(1)
      streamed = in_memory(folder, streaming=True).train
      feed = streamed.feed(8)
      feed.start(seed=5, first_step=2)
      batches.append(
        dict(
          drawn=take(train.split, jnp.arange(4), key).images,
          crops=next(train.crops(2, 144)).images,
          streamed=streamed.first(_COUNT).images,
          drawn_of_stream=feed.take().images,
        )
      )
      feed.close()
    for other in batches[1:]:
      for name, want in batches[0].items():
        want, got = (np.asarray(x, float) for x in (want, other[name]))
        # Bytes are rounded when they are resized: a level, which is 0.05 of
        # the normalised crops.
        atol = {'drawn_of_stream': 1.01, 'crops': 0.05}.get(name, 1e-4)
        np.testing.assert_allclose(got, want, atol=atol, err_msg=name)

  @parameterized.parameters('float32', 'uint16', 'int64', 'bool')
  def test_moments_of_the_training_split(self, dtype):
    values = values_of(dtype)
    feature = tfds.features.Tensor(shape=(6, 6, 3), dtype=np.dtype(dtype))
    made_sets.of(self.folder, feature, **labelled(values))
    train = in_memory(self.folder).train
    want = levels_of(values)
    np.testing.assert_allclose(
      train.split.mean, want.mean((0, 1, 2)), rtol=1e-6
    )
    np.testing.assert_allclose(train.split.std, want.std((0, 1, 2)), rtol=1e-6)
    got = np.asarray(train.first(_COUNT).images, np.float64)
    np.testing.assert_allclose(got.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(got.std((0, 1, 2)), 1, atol=1e-5)

  def test_a_constant_channel_becomes_0(self):
    values = values_of('float32')
    values[..., 1] = 0.1
    feature = tfds.features.Tensor(shape=(6, 6, 3), dtype=np.float32)
    made_sets.of(self.folder, feature, **labelled(values))
    train = in_memory(self.folder).train
    np.testing.assert_array_equal(train.first(_COUNT).images[..., 1], 0)
    self.assertEqual(train.split.std[1], 1)

  def test_many_channels_and_other_sides(self):
    values = np.random.default_rng(0).normal(size=(_COUNT, 9, 7, 13))
    feature = tfds.features.Tensor(shape=(9, 7, 13), dtype=np.float64,
                                   encoding='bytes')  # fmt: skip
    made_sets.of(self.folder, feature, **labelled(values))
    self.assert_levels(values, arrays_in_memory(self.folder))
    small = in_memory(self.folder, resolution=4).train.split.images
    self.assertEqual(small.shape, (_COUNT, 4, 4, 13))
    self.assertGreater(np.corrcoef(
      np.asarray(small).mean((1, 2)).ravel(),
      values[:, 1:8].mean((1, 2)).ravel(),
    )[0, 1], 0.8)  # fmt: skip

  def test_a_tensor_without_an_axis_of_channels_is_grey(self):
    values = values_of('float32', 1)
    feature = tfds.features.Tensor(shape=(6, 6), dtype=np.float32)
    made_sets.of(self.folder, feature, **labelled(values[..., 0]))
    self.assert_levels(values, arrays_in_memory(self.folder))
    self.assert_levels(values, arrays_of_stream(self.folder))

  def test_tensors_of_many_sizes(self):
    values = [np.full((4 + i, 9, 3), i, np.uint8) for i in range(_COUNT)]
    feature = tfds.features.Tensor(shape=(None, None, 3), dtype=np.uint8,
                                   encoding='zlib')  # fmt: skip
    made_sets.of(self.folder, feature, **labelled(values))
    want = np.arange(_COUNT).reshape(-1, 1, 1) * np.ones((5, 5))
    for streaming in (True, False):
      made = in_memory(self.folder, resolution=5, streaming=streaming)
      images = np.asarray(made.train.first(_COUNT).images)
      self.assertEqual(images.shape, (_COUNT, 5, 5, 3))
      red = images[..., 0].ravel()
      self.assertGreater(np.corrcoef(red, want.ravel())[0, 1], 0.999999)

  @parameterized.parameters(0.25, 0.5)
  def test_binarised_at_a_share_of_white(self, share):
    for number, dtype in enumerate(('float32', 'uint16')):
      values = values_of(dtype)
      feature = tfds.features.Tensor(shape=(6, 6, 3), dtype=np.dtype(dtype))
      folder = self.folder / str(number)
      folder.mkdir()
      made_sets.of(folder, feature, **labelled(values))
      source = datasets.make('made', data_dir=folder, binarize=share)
      split = source.load().train.split
      self.assertEqual(split.images.dtype, source.shapes(1).images.dtype)
      np.testing.assert_array_equal(
        split.images, levels_of(values) > share * 255
      )

  def test_data_info_draws_what_a_network_gets(self):
    values = values_of('uint16', 1) * 16  # to be seen
    files = [made_sets.deep_png(image) for image in values]
    made_sets.of(self.folder, image_feature((6, 6, 1), 'uint16'),
                 **labelled(files))  # fmt: skip
    prepared = store.opened('made', self.folder)
    images = show.glance(prepared, classes=4, each=8).images[0]
    for image, want in zip(images, values[::4]):
      np.testing.assert_array_equal(
        np.asarray(image), np.rint(want[..., 0] / 257)
      )


class RefusedTest(Folder):
  """What is no such set, or has a record that is not what its features say."""

  def assert_refused(self, message, **keywords):
    for streaming in (False, True):
      with self.assertRaisesRegex(errors.DataError, message):
        made = in_memory(self.folder, streaming=streaming, **keywords)
        made.train.first(_COUNT)

  @parameterized.parameters((5, 6), (6, 5), (7, 7))
  def test_an_image_of_another_size(self, height, width):
    files = [made_sets.png(x) for x in values_of('uint8')]
    files[7] = made_sets.png(np.zeros((height, width, 3), np.uint8))
    made_sets.of(self.folder, image_feature((6, 6, 3)), **labelled(files))
    message = rf'record 7 .*has {height} x {width} pixels.*say 6 x 6'
    self.assert_refused(message)
    self.assert_refused(message, resolution=4)

  def test_an_image_of_one_side_that_is_stated(self):
    files = [made_sets.png(x) for x in values_of('uint8')]
    files[7] = made_sets.png(np.zeros((8, 5, 3), np.uint8))
    made_sets.of(self.folder, image_feature((None, 6, 3)), **labelled(files))
    self.assert_refused('record 7 .*has 8 x 5.*say any x 6', resolution=4)

  def test_a_random_crop_of_an_image_of_another_size(self):
    files = [made_sets.png(np.zeros((7, 7, 3), np.uint8))] * _COUNT
    files[0] = made_sets.png(values_of('uint8')[0])  # `load` looks at it
    made_sets.of(self.folder, image_feature((6, 6, 3)), **labelled(files))
    feed = in_memory(self.folder, streaming=True).train.feed(4)
    feed.start(seed=0, first_step=0)
    with self.assertRaisesRegex(errors.DataError, 'has 7 x 7.*say 6 x 6'):
      feed.take()
    feed.close()

  @parameterized.parameters(np.nan, np.inf, -np.inf)
  def test_a_pixel_that_is_not_finite(self, pixel):
    values = values_of('float32')
    values[7, 2, 3, 1] = pixel
    feature = tfds.features.Tensor(shape=(6, 6, 3), dtype=np.float32)
    made_sets.of(self.folder, feature, **labelled(values))
    self.assert_refused(f'record 7 .*a pixel is {pixel}; allowed: finite')

  def test_16_bits_where_8_are_stated(self):
    files = [made_sets.png(x) for x in values_of('uint8')]
    files[7] = made_sets.deep_png(values_of('uint16')[0])
    made_sets.of(self.folder, image_feature((6, 6, 3)), **labelled(files))
    self.assert_refused('record 7 .*8 bits.*say uint8; allowed: uint16')

  @parameterized.parameters(
    ('int32', 300, 'uint8'), ('int32', -1, 'uint8'), ('float32', 0.5, 'uint8'),
    ('int32', 2, 'bool'),
  )  # fmt: skip
  def test_numbers_that_the_stated_dtype_cannot_hold(self, real, value, stated):
    values = np.zeros((_COUNT, 6, 6, 3), real)
    values[7, 0] = value
    feature = tfds.features.Tensor(shape=(6, 6, 3), dtype=np.dtype(real))
    folder = made_sets.of(self.folder, feature, **labelled(values))
    made_sets.stated(folder, dtype=stated)
    self.assert_refused(f'record 7 .*which are no {stated}')

  @parameterized.parameters((0, 255), (-1, 1))
  def test_floating_point_beyond_white(self, low, high):
    values = values_of('float32') * (high - low) + low
    feature = tfds.features.Tensor(shape=(6, 6, 3), dtype=np.float32)
    made_sets.of(self.folder, feature, **labelled(values))
    # In memory it does no harm: the scale cancels.
    got = in_memory(self.folder).train.first(_COUNT).images
    want = (values - values.mean((0, 1, 2))) / values.std((0, 1, 2))
    np.testing.assert_allclose(got, want, atol=1e-4)
    for keywords, what in (
      (dict(streaming=True), 'a stream'), (dict(binarize=0.5), 'binarize'),
      (dict(photometric=1.0), 'photometric'),
    ):  # fmt: skip
      with self.assertRaisesRegex(
        errors.DataError, f'allowed for {what}: 0 .black. to 1'
      ):
        in_memory(self.folder, **keywords).train.first(_COUNT)

  @parameterized.parameters('binarize', 'photometric')
  def test_what_needs_a_white(self, keyword):
    feature = tfds.features.Tensor(shape=(6, 6, 3), dtype=np.int32)
    made_sets.of(self.folder, feature, **labelled(values_of('int32')))
    with self.assertRaisesRegex(
      ValueError, f'are int32, without a white; allowed with {keyword}: bool'
    ):
      datasets.make('made', data_dir=self.folder, **{keyword: 0.5})

  def features_of(self, **of_a_set):
    info = types.SimpleNamespace(
      features=tfds.features.FeaturesDict(of_a_set),
      supervised_keys=('image', 'label'),
    )
    return features.of('made', info)

  @parameterized.parameters(
    (tfds.features.Tensor(shape=(12,), dtype=np.float32), 'the shape (12,); '
     'allowed: [height, width, channels]'),
    (tfds.features.Tensor(shape=(3, 32, 32), dtype=np.float32),
     'with the channels last'),
    (tfds.features.Tensor(shape=(2, 2, 1), dtype=np.complex64), 'complex64'),
    (tfds.features.Text(), 'its pixels are object; allowed'),
    (tfds.features.FeaturesDict({}), 'a FeaturesDict; allowed: an Image, or'),
  )  # fmt: skip
  def test_features_that_are_no_images(self, feature, message):
    label = tfds.features.ClassLabel(num_classes=4)
    with self.assertRaises(errors.DataError) as caught:
      self.features_of(image=feature, label=label)
    self.assertIn(message, str(caught.exception))

  @parameterized.parameters(
    (tfds.features.Scalar(np.int32), 'label is a Scalar; allowed: a ClassL'),
    (tfds.features.Tensor(shape=(2,), dtype=np.float32), 'label is a Tensor'),
    (tfds.features.ClassLabel(), 'its label has no number of classes'),
  )
  def test_features_that_are_no_labels(self, feature, message):
    with self.assertRaises(errors.DataError) as caught:
      self.features_of(image=image_feature((6, 6, 3)), label=feature)
    self.assertIn(message, str(caught.exception))

  @parameterized.parameters(-1, 4, 2**32 + 1, -(2**32))
  def test_a_label_that_is_no_class(self, label):
    files = [made_sets.png(x) for x in values_of('uint8')]
    examples = labelled(files)
    examples['train'][7] = (files[7], label)
    with mock.patch.object(
      tfds.features.ClassLabel, 'encode_example', lambda _, x: x
    ):
      made_sets.of(self.folder, image_feature((6, 6, 3)), **examples)
    prepared = store.opened('made', self.folder)
    message = f'label.*{label}'
    self.assert_refused(message)
    with self.assertRaisesRegex(errors.DataError, message):
      reading.labels(prepared, 'train')
    with self.assertRaisesRegex(errors.DataError, message):
      datasets.make('made', data_dir=self.folder, classes=(1, 3))


class CacheTest(Folder):
  def test_arrays_of_another_dtype_are_not_used(self):
    values = values_of('uint16', 1)
    files = [made_sets.deep_png(image) for image in values]
    folder = made_sets.of(self.folder, image_feature((6, 6, 1), 'uint16'),
                          **labelled(files))  # fmt: skip
    with mock.patch.object(store, '_SMALLEST', 0):
      self.assert_levels(values, arrays_in_memory(self.folder))
      (file,) = (folder / 'decoded').glob('train-*')
      first = file.read_bytes()
      made_sets.stated(folder, shape={'dimensions': ['6', '6', '3']})
      got = arrays_in_memory(self.folder)
      self.assert_levels(np.repeat(values, 3, -1), got)
      self.assertNotEqual(file.read_bytes(), first)
      made_sets.stated(folder, dtype='uint8')
      with self.assertRaisesRegex(errors.DataError, '8 bits.*say uint8'):
        arrays_in_memory(self.folder)


def mode_files():
  """Files of 6 x 6 pixels of all modes that PNG and JPEG have, by name."""
  rng = np.random.default_rng(0)
  grey, alpha = rng.integers(0, 256, (2, 6, 6), np.uint8)
  colour = rng.integers(0, 256, (6, 6, 3), np.uint8)
  with_palette = Image.fromarray(colour).quantize(8)
  images = {
    '1': Image.fromarray(grey).convert('1'),
    'L': Image.fromarray(grey),
    'LA': Image.merge('LA', [Image.fromarray(x) for x in (grey, alpha)]),
    'RGB': Image.fromarray(colour),
    'RGBA': Image.fromarray(np.dstack([colour, alpha])),
    'P': with_palette,
  }
  files = {mode: made_file(image) for mode, image in images.items()}
  files['P transparent'] = made_file(with_palette, transparency=bytes([0, 99]))
  files['CMYK'] = made_file(images['RGB'].convert('CMYK'), 'JPEG')
  files['grey JPEG'] = made_file(images['L'], 'JPEG')
  files['JPEG'] = made_file(images['RGB'], 'JPEG')
  files['GIF'] = made_file(images['RGB'], 'GIF')
  return files


def made_file(image, kind='PNG', **keywords):
  data = io.BytesIO()
  image.save(data, kind, **keywords)
  return data.getvalue()


def write_modes(folder, channels):
  files = list(mode_files().values())
  made_sets.of(
    folder, tfds.features.Image(shape=(6, 6, channels)), **labelled(files)
  )
  return len(files)


# Of a process of its own: whether TFDS decodes by OpenCV, how many records it
# then decodes to other pixels than ours, and the digests of ours.
_DIGESTS = """
import hashlib, sys
import numpy as np
import tensorflow_datasets as tfds
from bn_jax.data import datasets
from bn_jax.data.batches import stream
from bn_jax.data.disk import store

folder, count = sys.argv[1], int(sys.argv[2])
made = datasets.make('made', data_dir=folder).load()
prepared = store.opened('made', folder)
images = np.asarray(made.train.split.images)
streamed, _ = stream.first(prepared, 'train', count, stream.Settings(6))
source = tfds.data_source('made', split='train', data_dir=folder)
theirs = [record['image'] for record in source]
print(tfds.core.features.image_feature.cv2 is not None)
print(sum(not np.array_equal(a, b) for a, b in zip(theirs, images)))
for array in (images, streamed):
  print(hashlib.sha256(array.tobytes()).hexdigest())
"""


class DecodingTest(Folder):
  @parameterized.parameters(1, 3, 4)
  def test_every_mode_is_the_same_in_memory_and_in_a_stream(self, channels):
    count = write_modes(self.folder, channels)
    got = arrays_in_memory(self.folder)
    self.assertEqual(got.shape, (count, 6, 6, channels))
    np.testing.assert_array_equal(got, arrays_of_stream(self.folder, 6, count))
    self.assertGreater(min(np.ptp(image) for image in got), 100)

  def test_tfds_decodes_nothing(self):
    count = write_modes(self.folder, 3)
    with mock.patch.object(
      tfds.features.Image, 'decode_example_np', side_effect=AssertionError
    ):
      arrays_in_memory(self.folder)
      arrays_of_stream(self.folder, 6, count)
      show.glance(store.opened('made', self.folder), classes=4, each=9)

  @pytest.mark.slow
  def test_opencv_changes_no_pixel(self):
    count = write_modes(self.folder, 3)
    packages = self.create_tempdir().full_path
    done = subprocess.run(
      [sys.executable, '-m', 'pip', 'install', '--quiet', '--no-deps',
       f'--target={packages}', 'opencv-python-headless'],
      capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
      self.skipTest(f'OpenCV cannot be installed: {done.stderr[-300:]}')
    outcomes = []
    for path in ([], [packages]):
      variables = {
        **os.environ, 'PYTHONPATH': os.pathsep.join([str(strict.ROOT), *path]),
        'JAX_PLATFORMS': 'cpu',
      }  # fmt: skip
      done = subprocess.run(
        [sys.executable, '-c', _DIGESTS, self.folder, str(count)],
        env=variables, capture_output=True, text=True,
      )  # fmt: skip
      self.assertEqual(done.returncode, 0, done.stderr)
      outcomes.append(done.stdout.split())
    without, with_opencv = outcomes
    self.assertEqual((without[0], with_opencv[0]), ('False', 'True'))
    self.assertNotEqual(without[1], with_opencv[1])  # TFDS' own change
    self.assertEqual(without[2:], with_opencv[2:])
    self.assertEqual(without[2], without[3])


if __name__ == '__main__':
  absltest.main()
