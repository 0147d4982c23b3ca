import io

import numpy as np
from absl.testing import absltest, parameterized
from PIL import Image

from bn_jax.data.disk import pixels
from tests.fixtures import strict  # noqa: F401


def encoded(image, kind='PNG', **keywords):
  stream = io.BytesIO()
  image.save(stream, kind, **keywords)
  return stream.getvalue()


def noise(mode='RGB', extent=(40, 30)):
  """An image that compresses badly, so that a JPEG of it is long."""
  channels = len(Image.new(mode, (1, 1)).getbands())
  values = np.random.default_rng(0).integers(
    0, 256, (extent[1], extent[0], channels), np.uint8
  )
  return Image.frombytes(mode, extent, values.tobytes())


class ConvertedTest(parameterized.TestCase):
  # (1, 2, 3) has the luma 0.299 + 1.174 + 0.342 = 1.8.
  @parameterized.parameters(
    ('1', 1, (255, 255, 255), 255),
    ('L', 7, (7, 7, 7), 7),
    ('LA', (7, 0), (7, 7, 7), 7),
    ('RGB', (1, 2, 3), (1, 2, 3), 2),
    ('RGBA', (1, 2, 3, 0), (1, 2, 3), 2),
    ('I;16', 0x1234, (0x12, 0x12, 0x12), 0x12),
  )
  def test_every_mode_becomes_colour_or_grey(self, mode, value, colour, grey):
    data = encoded(Image.new(mode, (3, 2), value))
    in_colour = pixels.decoded(data)
    self.assertEqual((in_colour.mode, in_colour.size), ('RGB', (3, 2)))
    self.assertEqual(in_colour.getpixel((2, 1)), colour)
    in_grey = pixels.decoded(data, 1)
    self.assertEqual(in_grey.mode, 'L')
    self.assertEqual(in_grey.getpixel((2, 1)), grey)

  def test_a_transparent_entry_of_a_palette_keeps_its_colour(self):
    image = Image.new('P', (3, 2), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    data = encoded(image, transparency=bytes([255, 0]))
    self.assertEqual(pixels.decoded(data).getpixel((0, 0)), (10, 20, 30))

  def test_cmyk_is_the_product_of_what_each_ink_lets_through(self):
    inks = (20, 100, 200, 51)
    data = encoded(Image.new('CMYK', (16, 16), inks), 'JPEG', quality=100)
    self.assertIn(b'Adobe', data)  # which stores them inverted
    want = [(255 - ink) * (255 - inks[3]) / 255 for ink in inks[:3]]
    got = pixels.decoded(data).getpixel((8, 8))
    np.testing.assert_allclose(got, want, atol=2)

  @parameterized.parameters(('I', 5), ('F', 0.5))
  def test_refuses_what_has_no_8_or_16_bits(self, mode, value):
    data = encoded(Image.new(mode, (3, 2), value), 'TIFF')
    with self.assertRaisesRegex(ValueError, 'allowed: 8 or 16 bits'):
      pixels.decoded(data)

  def test_refuses_other_channels(self):
    with self.assertRaisesRegex(ValueError, r'allowed: 1 \(grey\) or 3'):
      pixels.decoded(encoded(noise()), 4)


class DamagedTest(parameterized.TestCase):
  @parameterized.product(
    kind=('JPEG', 'progressive', 'PNG'),
    share=(0.0, 0.01, 0.1, 0.5, 0.9, 0.999),
  )
  def test_refuses_an_image_that_is_cut_off(self, kind, share):
    progressive = {'progressive': True} if kind == 'progressive' else {}
    kind = 'PNG' if kind == 'PNG' else 'JPEG'
    data = encoded(noise(extent=(200, 150)), kind, **progressive)
    pixels.decoded(data)
    with self.assertRaisesRegex(ValueError, 'damaged image|no image') as caught:
      pixels.decoded(data[: int(share * len(data))])
    self.assertNotIn('\n', str(caught.exception))

  def test_refuses_a_tail_of_zeros(self):
    data = encoded(noise(extent=(200, 150)), 'JPEG')
    half = len(data) // 2
    with self.assertRaisesRegex(ValueError, 'have no end'):
      pixels.decoded(data[:half] + bytes(len(data) - half))

  def test_a_thumbnail_s_end_is_not_the_image_s(self):
    exif = b'Exif\0\0' + encoded(noise(), 'JPEG')
    data = encoded(noise(extent=(200, 150)), 'JPEG', exif=exif)
    half = len(data) // 2
    self.assertIn(b'\xff\xd9', data[:half])
    with self.assertRaisesRegex(ValueError, 'have no end'):
      pixels.decoded(data[:half] + bytes(len(data) - half))

  def test_takes_what_follows_the_end(self):
    data = encoded(noise(), 'JPEG')
    want = np.asarray(pixels.decoded(data))
    np.testing.assert_array_equal(pixels.decoded(data + b'more'), want)

  def test_refuses_what_is_no_image(self):
    with self.assertRaisesRegex(ValueError, r'no image \(5 bytes\)'):
      pixels.decoded(b'hello')

  def test_a_checksum_of_png_is_checked(self):
    data = bytearray(encoded(noise()))
    data[len(data) // 2] ^= 1
    with self.assertRaisesRegex(ValueError, 'damaged image'):
      pixels.decoded(bytes(data))


class DraftTest(parameterized.TestCase):
  @parameterized.parameters(
    ((400, 300), (100, 75), (100, 75)),
    ((400, 300), (101, 75), (150, 113)),
    ((400, 300), (100, 80), (150, 113)),
    ((403, 300), (300, 220), (403, 300)),
    ((403, 305), (50, 38), (51, 39)),
  )
  def test_reduces_by_eighths_and_never_below(self, extent, draft, got):
    data = encoded(noise(extent=extent), 'JPEG')
    self.assertEqual(pixels.decoded(data, draft=draft).size, got)

  def test_reduced_pixels_are_means_of_the_others(self):
    y, x = np.mgrid[:256, :256]
    values = np.stack([x, y, (x + y) // 2], -1).astype(np.uint8)
    data = encoded(Image.fromarray(values), 'JPEG', quality=95, subsampling=0)
    got = np.asarray(pixels.decoded(data, draft=(128, 128)), float)
    want = values.reshape(128, 2, 128, 2, 3).mean((1, 3))
    self.assertLess(np.abs(got - want).mean(), 1.5)

  def test_does_nothing_to_another_format(self):
    data = encoded(noise(extent=(400, 300)))
    self.assertEqual(pixels.decoded(data, draft=(50, 40)).size, (400, 300))

  @parameterized.parameters(
    (1000, 250, (500, 400)), (1000, 125, (250, 200)), (1000, 251, None)
  )
  def test_leaves_twice_what_is_needed(self, side, needed, want):
    self.assertEqual(pixels.enough((1000, 800), side, needed), want)


if __name__ == '__main__':
  absltest.main()
