import numpy as np
from absl.testing import absltest, parameterized
from PIL import Image

from bn_jax.data.batches import crops
from tests.fixtures import strict  # noqa: F401


def coordinates(width, height):
  """An image whose red says the column and whose green says the row, in 1/255
  of its long side.
  """
  y, x = np.mgrid[:height, :width]
  scale = 255 / max(width, height)
  values = np.stack([(x + 0.5) * scale, (y + 0.5) * scale, 0 * x], -1)
  return Image.fromarray(np.rint(values).astype(np.uint8))


def seen(pixels, extent):
  """(left, top, right, bottom) of what a crop of `coordinates` shows."""
  scale = max(extent) / 255
  x, y = pixels[..., 0] * scale, pixels[..., 1] * scale
  # A pixel stands in the middle of what it covers.
  half = [(v.max() - v.min()) / (v.shape[0] - 1) / 2 for v in (x, y)]
  return np.array(
    [x.min() - half[0], y.min() - half[1], x.max() + half[0], y.max() + half[1]]
  )


class RandomTest(parameterized.TestCase):
  def boxes(self, extent, count, **keywords):
    rng = np.random.default_rng(0)
    return np.array(
      [crops.random_box(extent, rng, **keywords) for _ in range(count)]
    )

  def test_shares_and_aspects_are_those_asked_for(self):
    boxes = self.boxes((4000, 3000), 4000)
    width, height = (boxes[:, 2:] - boxes[:, :2]).T
    self.assertGreaterEqual(boxes.min(), 0)
    self.assertLessEqual(boxes[:, 2].max(), 4000)
    self.assertLessEqual(boxes[:, 3].max(), 3000)
    area, aspect = width * height / 12e6, width / height
    self.assertBetween(area.min(), 0.0799, 0.09)
    self.assertBetween(area.max(), 0.98, 1.0)
    self.assertBetween(aspect.min(), 0.7495, 0.76)
    self.assertBetween(aspect.max(), 1.32, 1.334)
    # Small ones always fit, so that they are not chosen by their shape: the
    # share is even there, and the logarithm of the aspect.
    small = area < 0.5
    np.testing.assert_allclose(area[small].mean(), 0.29, atol=0.01)
    self.assertAlmostEqual(np.log(aspect[small]).mean(), 0.0, delta=0.02)
    self.assertAlmostEqual(
      np.log(aspect[small]).std(), np.log(16 / 9) / 12**0.5, delta=0.01
    )

  def test_places_are_even(self):
    boxes = self.boxes((400, 300), 4000, area=(0.1, 0.1), aspect=(1, 1))
    side = round((0.1 * 400 * 300) ** 0.5)
    np.testing.assert_array_equal(boxes[:, 2] - boxes[:, 0], side)
    for axis, room in ((0, 400 - side), (1, 300 - side)):
      places = boxes[:, axis]
      self.assertEqual((places.min(), places.max()), (0, room))
      self.assertAlmostEqual(places.mean(), room / 2, delta=4)

  @parameterized.parameters(
    ((1000, 100), (433.5, 0, 566.5, 100)), ((100, 1000), (0, 433.5, 100, 566.5))
  )
  def test_of_what_never_fits_it_is_the_middle(self, extent, want):
    got = crops.random_box(extent, np.random.default_rng(0), area=(0.9, 1.0))
    np.testing.assert_allclose(got, want)

  def test_a_crop_shows_its_box(self):
    extent = (200, 120)
    box = crops.random_box(extent, np.random.default_rng(5))
    rng = np.random.default_rng(5)
    got = crops.random_resized(coordinates(*extent), 32, rng)
    self.assertEqual((got.shape, got.dtype), ((32, 32, 3), np.uint8))
    np.testing.assert_allclose(seen(got, extent), box, atol=2)

  def test_one_generator_is_one_crop(self):
    image = coordinates(60, 40)

    def crop(seed):
      return crops.random_resized(image, 8, np.random.default_rng(seed))

    np.testing.assert_array_equal(crop(1), crop(1))
    self.assertTrue((crop(1) != crop(2)).any())


class CenterTest(parameterized.TestCase):
  @parameterized.parameters(
    ((320, 256), (48, 16, 272, 240)),
    ((256, 512), (16, 144, 240, 368)),
    ((640, 512), (96, 32, 544, 480)),
  )
  def test_shows_seven_eighths_of_the_short_side(self, extent, want):
    got = crops.center(coordinates(*extent), 224)
    self.assertEqual(got.shape, (224, 224, 3))
    np.testing.assert_allclose(seen(got, extent), want, atol=2)

  def test_without_scaling_it_is_the_pixels_themselves(self):
    image = coordinates(320, 256)
    want = np.asarray(image)[16:240, 48:272]
    np.testing.assert_array_equal(crops.center(image, 224), want)

  def test_is_the_resized_image_s_middle(self):
    image = coordinates(640, 512)
    smaller = image.resize((320, 256), Image.Resampling.BILINEAR)
    want = np.asarray(smaller, int)[16:240, 48:272]
    got = crops.center(image, 224).astype(int)
    self.assertLessEqual(np.abs(got - want).max(), 1)

  def test_leaves_an_image_of_its_size_as_it_is(self):
    image = coordinates(24, 24)
    np.testing.assert_array_equal(crops.center(image, 24), np.asarray(image))

  def test_grey_has_one_channel(self):
    grey = coordinates(50, 40).convert('L')
    self.assertEqual(crops.center(grey, 16).shape, (16, 16, 1))


class Paper144Test(parameterized.TestCase):
  SIZE = 56  # a quarter of 224: short sides 64, 72, 80, 88

  def found(self, extent):
    got = crops.paper_144(coordinates(*extent), self.SIZE)
    self.assertEqual(got.shape, (144, 56, 56, 3))
    return got

  @parameterized.parameters(((320, 160),), ((160, 320),), ((251, 170),))
  def test_all_are_different(self, extent):
    got = self.found(extent)
    self.assertLen({crop.tobytes() for crop in got}, 144)

  @parameterized.parameters(((320, 160),), ((160, 320),))
  def test_every_other_one_is_mirrored(self, extent):
    got = self.found(extent)
    np.testing.assert_array_equal(got[1::2], got[::2, :, ::-1])

  @parameterized.parameters(((320, 160),), ((160, 320),))
  def test_each_shows_the_place_that_the_order_says(self, extent):
    got = self.found(extent)[::2].reshape(4, 3, 6, 56, 56, 3)
    wide = extent[0] > extent[1]
    for s, short in enumerate((64, 72, 80, 88)):
      unit = 160 / short  # pixels of the original in one of the scaled image
      for q in range(3):
        start = q * 160 / 2  # the long side is twice the short one
        left, top = (start, 0) if wide else (0, start)
        far, middle = (short - 56) * unit, (short - 56) // 2 * unit
        corners = [(0, 0), (far, 0), (0, far), (far, far), (middle, middle)]
        for k, (x, y) in enumerate(corners):
          x, y = left + x, top + y
          want = (x, y, x + 56 * unit, y + 56 * unit)
          np.testing.assert_allclose(
            seen(got[s, q, k], extent), want, atol=3, err_msg=f'{s}{q}{k}'
          )
        whole = (left, top, left + 160, top + 160)
        np.testing.assert_allclose(seen(got[s, q, 5], extent), whole, atol=4)

  def test_one_scale_s_corners_are_pixels_of_the_scaled_image(self):
    image = coordinates(128, 64)
    got = crops.paper_144(image, self.SIZE)
    want = np.asarray(image)  # its short side is the first scale's
    np.testing.assert_array_equal(got[0], want[:56, :56])
    np.testing.assert_array_equal(got[24 + 6], want[8:, 128 - 56 :])

  @parameterized.parameters((0, 256), (1, 288), (2, 320), (3, 352))
  def test_the_scales_of_224_pixels(self, scale, short):
    image = coordinates(short + 32, short)
    got = crops.paper_144(image, 224)
    # An image of the scale's own size is not resampled.
    np.testing.assert_array_equal(
      got[36 * scale], np.asarray(image)[:224, :224]
    )


class CropsTest(absltest.TestCase):
  def test_each_number_is_the_number_of_crops(self):
    image = coordinates(40, 30)
    for count in crops.CROPS:
      got = crops.crops(count).take(image, 8)
      self.assertEqual(got.reshape(-1, 8, 8, 3).shape[0], count)

  def test_refuses_another_number(self):
    with self.assertRaisesRegex(
      ValueError, 'crops is 10; allowed, for each image: 1, 144'
    ):
      crops.crops(10)


if __name__ == '__main__':
  absltest.main()
