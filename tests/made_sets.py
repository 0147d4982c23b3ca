"""A small set of images on disk, as any other TFDS set in array_record."""

import contextlib
import io
import pathlib

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

NUM_CLASSES = 4


def arrays(count, first=0):
  """(images [count, 6, 6, 3] uint8, labels [count] int32), from a number on."""
  images, labels = [], []
  for number in range(first, first + count):
    generator = np.random.default_rng(number)
    images.append(generator.integers(256, size=(6, 6, 3), dtype=np.uint8))
    labels.append(number * 7 % NUM_CLASSES)
  return np.stack(images), np.array(labels, np.int32)


class Made(tfds.core.GeneratorBasedBuilder):
  """The set; how large it is and which image is cut off is set on it."""

  train, test, damaged = 0, 0, None
  VERSION = tfds.core.Version('1.0.0')

  def _info(self):
    return tfds.core.DatasetInfo(
      builder=self,
      features=tfds.features.FeaturesDict(
        {
          'image': tfds.features.Image(shape=(6, 6, 3), encoding_format='png'),
          'label': tfds.features.ClassLabel(num_classes=NUM_CLASSES),
        }
      ),
      supervised_keys=('image', 'label'),
      disable_shuffling=True,
    )

  def _split_generators(self, dl_manager):
    return {
      'train': self._generate_examples(self.train, 0),
      'test': self._generate_examples(self.test, 100),
    }

  def _generate_examples(self, count, first):
    for number, (image, label) in enumerate(zip(*arrays(count, first))):
      encoded = io.BytesIO()
      Image.fromarray(image).save(encoded, 'PNG')
      if number == self.damaged and not first:
        encoded.truncate(60)
      encoded.seek(0)
      yield number, {'image': encoded, 'label': int(label)}


def write(data_dir, *, train, test, damaged=None):
  """Prepares the set 'made' in a folder; `damaged`: a training image cut off.

  The records lie in the order of their numbers.
  """

  tfds.disable_progress_bar()
  with contextlib.redirect_stdout(io.StringIO()):
    builder = Made(data_dir=str(data_dir), file_format='array_record')
    builder.train, builder.test, builder.damaged = train, test, damaged
    builder.download_and_prepare(file_format='array_record')
  return pathlib.Path(str(builder.data_path))
