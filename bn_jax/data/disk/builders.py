"""CIFAR and MNIST as tensorflow-datasets has them, written without TensorFlow.

Name, version, features and description are those of the builders of
tensorflow-datasets, so that it reads what is written here as its own; only
where the examples come from differs.
"""

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from bn_jax.data.disk import layouts


class _FromContent:
  """Examples out of `content`, which is set before anything is prepared."""

  content: layouts.Content

  def _split_generators(self, dl_manager):
    del dl_manager  # the archives are read already
    for label, names in self.content.class_names.items():
      self.info.features[label].names = names
    return {
      split: self._generate_examples(split, examples)
      for split, examples in self.content.splits.items()
    }

  def _generate_examples(
    self, split: str, examples: layouts.Labelled
  ) -> Iterator[tuple[int, dict[str, Any]]]:
    for key, image in enumerate(examples.images):
      labels = {name: int(x_N[key]) for name, x_N in examples.labels.items()}
      # The keys are those of tensorflow-datasets, and so is the order.
      yield key, {'image': _png(image), **labels, **self._more(split, key)}

  def _more(self, split: str, key: int) -> dict[str, Any]:
    del split, key
    return {}


class _Cifar(_FromContent):
  def _more(self, split: str, key: int) -> dict[str, Any]:
    return {'id': f'{split}_{key:05d}'}


_known = tfds.image_classification


class Cifar10(_Cifar, _known.Cifar10, skip_registration=True):
  """CIFAR-10."""


class Cifar100(_Cifar, _known.Cifar100, skip_registration=True):
  """CIFAR-100."""


class MNIST(_FromContent, _known.MNIST, skip_registration=True):
  """MNIST."""


class FashionMNIST(_FromContent, _known.FashionMNIST, skip_registration=True):
  """Fashion-MNIST."""


BUILDERS = {
  builder.name: builder for builder in (Cifar10, Cifar100, MNIST, FashionMNIST)
}


def _png(image_HWC: np.ndarray) -> io.BytesIO:
  """The image as PNG: TFDS would need TensorFlow to encode an array."""
  pixels = image_HWC[..., 0] if image_HWC.shape[-1] == 1 else image_HWC
  encoded = io.BytesIO()
  Image.fromarray(np.ascontiguousarray(pixels)).save(encoded, 'PNG')
  encoded.seek(0)
  return encoded
