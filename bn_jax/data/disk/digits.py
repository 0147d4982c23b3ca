"""Real handwritten digits that need no download, as a TFDS dataset.

The 1,797 images of 8 x 8 pixels and 17 grey levels that ship with scikit-learn:
the test part of "Optical Recognition of Handwritten Digits" (Alpaydin and
Kaynak, 1998, UCI). Every fifth image of each class is held out: 1,442 to train
on, 355 to test on.
"""

import collections
import io

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from sklearn import datasets

_HOLD_OUT = 5
_GREY_LEVELS = 16  # the darkest of them; there are 17


class Digits(tfds.core.GeneratorBasedBuilder):
  """The dataset 'digits'; it is prepared offline, in half a second."""

  VERSION = tfds.core.Version('1.0.0')

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self,
      description=__doc__,
      features=tfds.features.FeaturesDict(
        {
          'image': tfds.features.Image(shape=(8, 8, 1), encoding_format='png'),
          'label': tfds.features.ClassLabel(num_classes=10),
        }
      ),
      supervised_keys=('image', 'label'),
      homepage='https://archive.ics.uci.edu/dataset/80',
    )

  def _split_generators(self, dl_manager):
    del dl_manager  # nothing is downloaded
    return {
      'train': self._generate_examples(held_out=False),
      'test': self._generate_examples(held_out=True),
    }

  def _generate_examples(self, held_out):
    digits = datasets.load_digits()
    seen = collections.Counter()
    for key, (image, label) in enumerate(zip(digits.images, digits.target)):
      seen[label] += 1
      if (seen[label] % _HOLD_OUT == 0) == held_out:
        yield key, {'image': _png(image), 'label': int(label)}


def _png(image: np.ndarray) -> io.BytesIO:
  """The image as PNG: TFDS would need TensorFlow to encode an array."""
  grey = np.rint(image * (255 / _GREY_LEVELS)).astype(np.uint8)
  encoded = io.BytesIO()
  Image.fromarray(grey).save(encoded, 'PNG')
  encoded.seek(0)
  return encoded
