import pathlib
import tempfile
from unittest import mock

import numpy as np
from absl.testing import absltest, parameterized

from bn_jax import errors
from bn_jax.data.disk import arrays, own
from tests.fixtures import strict  # noqa: F401

_X = np.arange(6 * 4 * 4, dtype=np.uint8).reshape(6, 4, 4)


def made(x=_X, y=(0, 1, 2, 0, 1, 2), **more):
  return arrays.of('x.npz', pathlib.Path('/d'), {'x': x, 'y': y, **more})


class ArraysTest(parameterized.TestCase):
  @parameterized.parameters(
    ((6, 4, 5), (4, 5, 1)), ((6, 4, 5, 1), (4, 5, 1)),
    ((6, 4, 5, 3), (4, 5, 3)), ((6, 9), (9,)),
  )  # fmt: skip
  def test_shapes(self, shape, want):
    dataset = made(np.ones(shape))
    self.assertEqual(dataset.shape, want)
    self.assertEqual(dataset.stated is None, len(shape) == 2)

  @parameterized.parameters(
    ([1, 2, 3, 1, 2, 3], ('1', '2', '3')),
    ([0, 2, 0, 2, 0, 2], ('0', '2')),
    ([-1, 1, 1, 1, 1, 1], ('-1', '1')),
    (np.uint8([[9], [10], [9], [9], [9], [9]]), ('9', '10')),
    (np.array([True, False] * 3), ('0', '1')),
    (np.array(['dog', 'cat'] * 3), ('cat', 'dog')),
  )
  def test_labels_become_numbers_from_0_on(self, y, names):
    dataset = made(y=y)
    self.assertEqual(dataset.class_names, names)
    labels = dataset.known_labels('train')
    self.assertEqual(labels.dtype, np.int32)
    kept = np.asarray(y)
    kept = (kept.astype(int) if kept.dtype.kind in 'bu' else kept).reshape(-1)
    self.assertEqual([names[k] for k in labels], list(map(str, kept)))

  @parameterized.parameters(((6,), 1), ((6, 1), 1), ((6, 3), 3))
  def test_targets(self, shape, size):
    y = np.random.default_rng(0).normal(size=shape)
    dataset = made(y=y)
    self.assertFalse(dataset.classifies)
    self.assertEqual(dataset.num_classes, size)
    np.testing.assert_array_equal(
      dataset.known_labels('train'), np.float32(y.reshape(6, size)), strict=True
    )

  def test_the_names_of_keras(self):
    train = {'x_train': _X, 'y_train': [0, 1] * 3}
    test = {'x_test': _X[:2], 'y_test': [1, 1]}
    dataset = arrays.of('x.npz', pathlib.Path('/d'), train | test)
    self.assertEqual(dataset.splits, {'train': 6, 'test': 2})
    self.assertEqual(dataset.known_labels('test').tolist(), [1, 1])

  def test_vectors_of_large_integers(self):
    np.testing.assert_array_equal(
      made(np.full((6, 2), 2**24)).records('train').read([0])[0][0], [2**24] * 2
    )
    with self.assertRaisesRegex(errors.DataError, '2.24, which float32 holds'):
      made(np.full((6, 2), 2**24 + 1))
    with self.assertRaisesRegex(errors.DataError, 'example 0 of x has a inf'):
      made(np.full((6, 2), 1e39))

  def test_the_digest_tells_the_numbers(self):
    digests = {made().digest(), made(_X.copy(order='F')).digest()}
    self.assertLen(digests, 1)
    other = _X.copy()
    other[3, 2, 1] += 1
    digests |= {
      made(other).digest(), made(y=[0, 1, 2, 0, 1, 1]).digest(),
      made(_X.astype(int)).digest(), made(_X[..., None, :]).digest(),
      made(y=[0, 1, 3, 0, 1, 3]).digest(),
    }  # fmt: skip
    zeros = np.zeros_like(_X)
    digests |= {made(zeros).digest(), made(zeros.view(np.int8)).digest()}
    self.assertLen(digests, 8)

  @parameterized.product(
    at_once=(1, 5, 12, 2**22), number=(0, 4, 5), dtype=('float16', 'float64')
  )
  def test_the_first_that_is_not_finite_is_named(self, at_once, number, dtype):
    x = np.ones((6, 2, 2, 1), dtype)
    x[number, 1, 0] = -np.inf
    x[5, 1, 1] = np.nan
    with (
      mock.patch.object(arrays, '_AT_ONCE', at_once),
      self.assertRaisesRegex(
        errors.DataError, f'example {number} of x has a -inf'
      ),
    ):
      made(x)

  def test_vectors_take_no_loop_over_examples(self):
    x = np.ones((300_000, 4), np.float32)
    asked, isfinite = [], np.isfinite
    with mock.patch.object(
      np, 'isfinite', lambda x: (asked.append(len(x)), isfinite(x))[1]
    ):
      made(x, np.arange(len(x)) % 2)
    self.assertEqual(asked, [len(x)] * 2)


class FilesTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    folder = self.enterContext(tempfile.TemporaryDirectory())
    self.folder = pathlib.Path(folder)

  def test_an_npz_and_a_pair_of_npy_are_the_same(self):
    y = np.arange(6) % 3
    np.savez_compressed(self.folder / 'a.npz', x=_X, y=y)
    np.save(self.folder / 'x.npy', _X)
    np.save(self.folder / 'y.npy', y)
    sets = [
      own.opened(name.format(self.folder))
      for name in ('{0}/a.npz', 'arrays:{0}/a.npz', '{0}/x.npy,{0}/y.npy')
    ]
    self.assertLen({dataset.digest() for dataset in sets}, 1)
    four = own.opened(
      f'{self.folder}/x.npy,{self.folder}/y.npy,{self.folder}/x.npy,{self.folder}/y.npy'
    )
    self.assertEqual(four.splits, {'train': 6, 'test': 6})

  def test_a_file_of_the_other_kind(self):
    np.savez(self.folder / 'a.npz', x=_X)
    (self.folder / 'a.npz').rename(self.folder / 'x.npy')
    np.save(self.folder / 'y.npy', _X)
    with self.assertRaisesRegex(errors.DataError, 'x.npy is no .npy file'):
      own.opened(f'{self.folder}/x.npy,{self.folder}/y.npy')


class NamesTest(parameterized.TestCase):
  @parameterized.parameters(
    'folder:pets', 'x.npz', 'X.NPZ', 'arrays:x.npz', 'x.npy,y.npy', 'a/b.npy'
  )
  def test_own(self, name):
    self.assertTrue(own.is_own(name))

  @parameterized.parameters('digits', 'npz', 'my_data:make', 'a/b', '')
  def test_not_own(self, name):
    self.assertFalse(own.is_own(name))

  def test_absolute(self):
    here = pathlib.Path.cwd()
    home = pathlib.Path.home()
    for name, want in (
      ('folder:a/../pets', f'folder:{here}/pets'),
      ('folder:/x,y', 'folder:/x,y'),
      ('x.npz', f'{here}/x.npz'),
      ('arrays:~/x.npz', f'arrays:{home}/x.npz'),
      ('x.npy,/y.npy', f'{here}/x.npy,/y.npy'),
    ):
      self.assertEqual(own.absolute(name), want)
      self.assertEqual(own.absolute(want), want)

  @parameterized.parameters(
    'folder:', 'x.npy', 'x.npz,y.npz', 'x.npy,y.npy,z.npy', 'arrays:x',
    'folder:gs://a/b', 's3://a/x.npz', 'folder:~nobody-is-called-so/x',
  )  # fmt: skip
  def test_refused(self, name):
    with self.assertRaisesRegex(errors.ConfigError, 'data: '):
      own.absolute(name)


if __name__ == '__main__':
  absltest.main()
