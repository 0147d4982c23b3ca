"""Files of weights: what is written is what was there, and read in parts."""

import pathlib
import tempfile
from unittest import mock

import numpy as np
from absl.testing import absltest

from bn_jax.storage import tensors
from tests.fixtures import strict  # noqa: F401


class TensorsTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    place = self.enterContext(tempfile.TemporaryDirectory())
    self.file = pathlib.Path(place) / 'a.safetensors'

  def test_a_transposed_kernel(self):
    """findings/safetensors_transposed.sh: else the order of memory."""
    kernel = np.arange(120, dtype=np.float32).reshape(2, 3, 4, 5)
    arrays = {
      'conv': kernel.transpose(3, 2, 0, 1), 'dense': kernel.reshape(6, 20).T,
      'reversed': kernel[:, :, ::-1], 'count': np.asarray(3, np.int64),
    }  # fmt: skip
    tensors.write(self.file, arrays, {'format': 'pt'})
    header = tensors.header(self.file)
    self.assertEqual(header.metadata, {'format': 'pt'})
    for name, array in arrays.items():
      self.assertEqual(header.shapes[name], array.shape)
      copy = np.zeros(array.shape, np.float32)

      def put(rows, part, copy=copy):
        copy[rows if copy.ndim else ...] = part

      with mock.patch.object(tensors, '_PART', 200):  # a few rows at a time
        rows = array.shape[0] if array.ndim else 0
        tensors.read(self.file, name, rows, put)
      np.testing.assert_array_equal(copy, array, name)


if __name__ == '__main__':
  absltest.main()
