import ml_dtypes
import numpy as np
from absl.testing import absltest, parameterized

from bn_jax.data.disk import levels
from tests.fixtures import strict  # noqa: F401

_FLOATS = (np.float16, ml_dtypes.bfloat16, np.float32, np.float64)
_INTEGERS = (np.int8, np.int16, np.int32, np.int64, np.uint32, np.uint64)


class LevelsTest(parameterized.TestCase):
  def test_bytes_stay_as_they_are(self):
    values = np.arange(256, dtype=np.uint8)
    self.assertIs(levels.of(values), values)

  def test_booleans_are_black_and_white_bytes(self):
    got = levels.of(np.array([False, True]))
    self.assertEqual((got.dtype, got.tolist()), (np.uint8, [0, 255]))

  def test_each_of_16_bits_has_its_own_level(self):
    values = np.arange(2**16, dtype=np.uint16)
    got = levels.of(values)
    self.assertEqual(got.dtype, np.float32)
    np.testing.assert_array_equal(got, (values / 257).astype(np.float32))
    self.assertTrue((np.diff(got) > 0).all())
    # A byte that was widened is that byte again.
    np.testing.assert_array_equal(got[::257], np.arange(256))

  @parameterized.parameters(*_FLOATS)
  def test_floating_point_has_white_at_1(self, dtype):
    values = np.array([0, 1, 0.5, -0.25, 3], dtype)
    got = levels.of(values)
    self.assertEqual(got.dtype, np.float32)
    self.assertEqual(got.tolist(), [0, 255, 127.5, -63.75, 765])

  def test_floating_point_rounds_once(self):
    values = np.random.default_rng(0).random(1000)
    for each in (values, values.astype(np.float32)):
      want = (each.astype(np.longdouble) * 255).astype(np.float32)
      np.testing.assert_array_equal(levels.of(each), want)

  @parameterized.parameters(*_INTEGERS)
  def test_other_integers_stand_for_themselves(self, dtype):
    values = np.array([0, 7, 100, np.iinfo(dtype).min // 2**40], dtype)
    got = levels.of(values)
    self.assertEqual(got.dtype, np.float32)
    self.assertEqual(got.tolist(), values.tolist())

  def test_all_dtypes_are_here(self):
    dtypes = {np.dtype(x).name for x in (*_FLOATS, *_INTEGERS)}
    self.assertEqual({*levels.WHITES}, {*dtypes, 'bool', 'uint8', 'uint16'})

  @parameterized.parameters(
    (np.float32([1, np.nan]), 'a pixel is nan; allowed: finite'),
    (np.float16([1, -np.inf]), 'a pixel is -inf'),
    (ml_dtypes.bfloat16(np.nan).reshape(1), 'a pixel is nan'),
    (np.float64([1e300]), r'a pixel is 1e\+300'),
    (np.float32([3e38]), r'a pixel is 3e\+38'),
    (np.int32([5, 2**24 + 1]), 'its pixels are 5 to 16777217; allowed: -16777'),
    (np.int64([-(2**63), 5]), 'its pixels are -9223372036854775808 to 5'),
    (np.uint64([2**64 - 1]), 'its pixels are 18446744073709551615 to'),
  )
  def test_refuses(self, values, message):
    with self.assertRaisesRegex(ValueError, message):
      levels.of(values)

  @parameterized.parameters(
    (((4, 4), 'uint8'), 'allowed: [height, width, channels]'),
    (((4, 4, 4, 3), 'uint8'), 'allowed: [height, width, channels]'),
    (((4, 4, None), 'uint8'), 'allowed: [height, width, channels]'),
    (((3, 32, 32), 'uint8'), 'with the channels last'),
    (((1, 28, 28), 'float32'), 'with the channels last'),
    (((4, 4, 3), 'complex64'), 'its pixels are complex64; allowed: bfloat16, '),
  )
  def test_check(self, stated, message):
    with self.assertRaises(ValueError) as caught:
      levels.check(levels.Stated(*stated))
    self.assertIn(message, str(caught.exception))

  @parameterized.parameters(
    ((3, 4, 3),), ((64, 64, 13),), ((1, 32, 1),), ((None, None, 3),),
    ((None, 28, 1),), ((2, 2, 8),),
  )  # fmt: skip
  def test_channels_that_are_last(self, shape):
    levels.check(levels.Stated(shape))

  def test_brightness(self):
    levels.check_brightness(np.float32([0, 255]), 'binarize')
    with self.assertRaisesRegex(
      ValueError, r'are 0 to 255; allowed for binarize: 0 \(black\) to 1'
    ):
      levels.check_brightness(levels.of(np.float32([0, 255])), 'binarize')
    with self.assertRaisesRegex(ValueError, 'are -0.5 to 1'):
      levels.check_brightness(levels.of(np.float32([-0.5, 1])), 'a stream')

  def test_pictures_to_look_at(self):
    byte = np.full((2, 2, 4), 7, np.uint8)
    np.testing.assert_array_equal(levels.picture(byte), byte[..., :3])
    deep = np.float32([0, 127.4, 255]).reshape(1, 3, 1)
    self.assertEqual(levels.picture(deep).ravel().tolist(), [0, 127, 255])
    wide = np.float32([-255, 0, 510]).reshape(1, 3, 1)
    self.assertEqual(levels.picture(wide).ravel().tolist(), [0, 85, 255])


if __name__ == '__main__':
  absltest.main()
