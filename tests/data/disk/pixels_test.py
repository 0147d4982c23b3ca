import io
import struct

import numpy as np
from absl.testing import absltest, parameterized
from PIL import Image

from bn_jax.data.batches import crops
from bn_jax.data.disk import levels, pixels
from tests.fixtures import made_sets, strict


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


def stated(channels, dtype='uint8'):
  return levels.Stated((None, None, channels), dtype)


def array(data, channels=3, dtype='uint8'):
  return pixels.array(pixels.opened(data, stated(channels, dtype)))


def deep(channels, extent=(11, 9)):
  """An image of 16 bits a channel, of which 12 are used."""
  shape = (extent[1], extent[0], channels)
  return np.random.default_rng(channels).integers(0, 4096, shape, np.uint16)


def tiff(pixels_of_file, *, bits, photometric, extent=(11, 9)):
  """A grey TIFF, which Pillow would not write with these tags."""
  offset = 8 + len(pixels_of_file)
  tags = {
    256: extent[0], 257: extent[1], 258: bits, 259: 1, 262: photometric,
    273: 8, 277: 1, 278: extent[1], 279: len(pixels_of_file),
  }  # fmt: skip
  return (
    struct.pack('<2sHI', b'II', 42, offset)
    + pixels_of_file
    + struct.pack('<H', len(tags))
    + b''.join(struct.pack('<HHII', key, 4, 1, x) for key, x in tags.items())
    + bytes(4)
  )


class ConvertedTest(parameterized.TestCase):
  # (1, 2, 3) has the luma 0.299 + 1.174 + 0.342 = 1.8.
  @parameterized.parameters(
    ('1', 1, (255, 255, 255), 255, 255),
    ('L', 7, (7, 7, 7), 7, 255),
    ('LA', (7, 0), (7, 7, 7), 7, 0),
    ('RGB', (1, 2, 3), (1, 2, 3), 2, 255),
    ('RGBA', (1, 2, 3, 0), (1, 2, 3), 2, 0),
    ('RGBA', (1, 2, 3, 99), (1, 2, 3), 2, 99),
  )
  def test_every_mode_gets_the_channels_that_are_stated(
    self, mode, value, colour, grey, alpha
  ):
    data = encoded(Image.new(mode, (3, 2), value))
    for channels, want in (
      (1, (grey,)), (2, (grey, alpha)), (3, colour), (4, (*colour, alpha)),
    ):  # fmt: skip
      for dtype in ('uint8', 'uint16'):
        got = array(data, channels, dtype)
        self.assertEqual(got.shape, (2, 3, channels))
        self.assertEqual(got.dtype, stated(channels, dtype).levels)
        self.assertEqual(tuple(got[1, 2]), want)

  @parameterized.parameters('uint8', 'uint16')
  def test_a_transparent_entry_of_a_palette_keeps_its_colour(self, dtype):
    image = Image.new('P', (3, 2), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    data = encoded(image, transparency=bytes([255, 0]))
    self.assertEqual(tuple(array(data, 3, dtype)[0, 0]), (10, 20, 30))
    self.assertEqual(tuple(array(data, 4, dtype)[0, 0]), (10, 20, 30, 0))

  def test_cmyk_is_the_product_of_what_each_ink_lets_through(self):
    inks = (20, 100, 200, 51)
    data = encoded(Image.new('CMYK', (16, 16), inks), 'JPEG', quality=100)
    self.assertIn(b'Adobe', data)  # which stores them inverted
    want = [(255 - ink) * (255 - inks[3]) / 255 for ink in inks[:3]]
    got = pixels.decoded(data).getpixel((8, 8))
    np.testing.assert_allclose(got, want, atol=2)

  @parameterized.parameters(1, 2, 4)
  def test_grey_of_fewer_bits_reaches_white(self, bits):
    values = np.arange(16, dtype=np.uint8).reshape(4, 4) % 2**bits
    image = Image.fromarray(values)
    image.putpalette([v * 255 // (2**bits - 1) for v in range(2**bits)
                      for _ in range(3)])  # fmt: skip
    got = array(encoded(image, bits=bits), 1)
    want = values.astype(int) * 255 // (2**bits - 1)
    np.testing.assert_array_equal(got[..., 0], want)

  def test_an_image_of_exif_is_not_turned(self):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to see it
    for kind in ('JPEG', 'PNG'):
      data = encoded(noise(extent=(40, 30)), kind, exif=exif)
      self.assertEqual(array(data).shape, (30, 40, 3))

  def test_the_first_of_several_frames(self):
    frames = [Image.new('RGB', (4, 4), (shade,) * 3) for shade in (10, 200)]
    data = encoded(frames[0], 'GIF', save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(array(data), np.full((4, 4, 3), 10))

  @parameterized.parameters(('I', 5), ('F', 0.5))
  def test_refuses_what_has_no_8_or_16_bits(self, mode, value):
    data = encoded(Image.new(mode, (3, 2), value), 'TIFF')
    with self.assertRaisesRegex(ValueError, 'allowed: 8 or 16 bits'):
      pixels.decoded(data)

  def test_refuses_another_size_than_stated(self):
    data = encoded(noise(extent=(40, 30)))
    for height, width in ((30, 40), (None, 40), (30, None)):
      pixels.opened(data, levels.Stated((height, width, 3)))
    for height, width, said in ((30, 41, '30 x 41'), (40, 30, '40 x 30'),
                                (None, 30, 'any x 30')):  # fmt: skip
      with self.assertRaisesRegex(
        ValueError, rf'has 30 x 40 pixels .* of the set say {said}'
      ):
        pixels.opened(data, levels.Stated((height, width, 3)))

  def test_the_docs_have_the_rules(self):
    docs = (strict.ROOT / 'docs' / 'data.md').read_text()
    for kind, becomes in pixels.RULES:
      self.assertIn(f'| {kind} | {becomes} |', docs)


class DeepTest(parameterized.TestCase):
  @parameterized.product(channels=(1, 2, 3, 4), interlaced=(False, True))
  def test_all_16_bits_are_read(self, channels, interlaced):
    values = deep(channels)
    data = made_sets.deep_png(values, interlaced)
    np.testing.assert_array_equal(
      array(data, channels, 'uint16'), np.float32(values / 257)
    )

  @parameterized.parameters(1, 2, 3, 4)
  def test_other_channels_than_the_file_has(self, channels):
    values = deep(channels) / 257
    data = made_sets.deep_png(deep(channels))
    colour = values[..., :3] if channels > 2 else values[..., [0, 0, 0]]
    luma = colour @ [0.299, 0.587, 0.114]
    alpha = values[..., -1] if channels in (2, 4) else np.full((9, 11), 255)
    for wanted, want in (
      (1, luma[..., None]),
      (2, np.stack([luma, alpha], -1)),
      (3, colour),
      (4, np.concatenate([colour, alpha[..., None]], -1)),
    ):
      got = array(data, wanted, 'uint16')
      self.assertEqual(got.dtype, np.float32)
      np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)

  def test_a_grey_tiff(self):
    values = deep(1)
    data = encoded(Image.fromarray(values[..., 0]), 'TIFF')
    np.testing.assert_array_equal(
      array(data, 1, 'uint16'), np.float32(values / 257)
    )

  def test_a_grey_tiff_whose_0_is_white(self):
    values = deep(1)
    data = tiff(values.astype('<u2').tobytes(), bits=16, photometric=0)
    np.testing.assert_array_equal(
      array(data, 1, 'uint16'), np.float32((65_535 - values) / 257)
    )
    plain = tiff(values.astype('<u2').tobytes(), bits=16, photometric=1)
    np.testing.assert_array_equal(
      array(plain, 1, 'uint16'), np.float32(values / 257)
    )

  def test_refuses_a_grey_tiff_of_12_bits(self):
    data = tiff(bytes(17 * 9), bits=12, photometric=1)
    with self.assertRaisesRegex(ValueError, 'TIFF of more.* and of 16 bits'):
      array(data, 1, 'uint16')

  @parameterized.parameters('uint8', 'float32')
  def test_is_refused_where_something_else_is_stated(self, dtype):
    for channels in (1, 3):
      with self.assertRaisesRegex(
        ValueError, f'more than 8 bits a channel.*say {dtype}; allowed: uint16'
      ):
        array(made_sets.deep_png(deep(channels)), 1, dtype)

  def test_other_formats_that_pillow_cuts_to_8_bits(self):
    for header in (b'P6 11 9 65535', b'P5 11 9 65535', b'P5 11 9 4095'):
      values = deep(3 if header[:2] == b'P6' else 1)
      data = header + b'\n' + values.astype('>u2').tobytes()
      with self.assertRaisesRegex(ValueError, 'has more than 8 bits a channel'):
        array(data)
      with self.assertRaisesRegex(ValueError, 'PPM of more.*allowed: a PNG'):
        array(data, 3, 'uint16')

  def test_a_damaged_one(self):
    data = made_sets.deep_png(deep(3))
    with self.assertRaisesRegex(ValueError, 'damaged image'):
      array(data[:100], 3, 'uint16')

  def test_floating_point_of_tfds(self):
    values = np.random.default_rng(0).random((9, 11, 1), np.float32)
    data = made_sets.png(values.view(np.uint8))
    np.testing.assert_array_equal(array(data, 1, 'float32'), values * 255)
    with self.assertRaisesRegex(
      ValueError, 'a PNG of mode RGB; allowed for fl'
    ):
      array(encoded(noise()), 1, 'float32')
    with self.assertRaisesRegex(ValueError, 'a JPEG of mode RGB; allowed for'):
      array(encoded(noise(), 'JPEG'), 1, 'float32')
    values[3, 2] = np.nan
    with self.assertRaisesRegex(ValueError, 'a pixel is nan'):
      array(made_sets.png(values.view(np.uint8)), 1, 'float32')


class PlanesTest(parameterized.TestCase):
  @parameterized.parameters((1, 'float32'), (3, 'float32'), (4, 'uint8'))
  def test_resized_as_each_channel_alone(self, channels, dtype):
    values = np.random.default_rng(0).random((30, 40, channels)) * 255
    values = values.astype(dtype)
    got = crops.center(pixels.of_levels(values), 16)
    self.assertEqual((got.shape, got.dtype), ((16, 16, channels), dtype))
    for channel in range(channels):
      alone = Image.fromarray(np.ascontiguousarray(values[..., channel]))
      np.testing.assert_array_equal(
        got[..., channel], crops.center(alone, 16)[..., 0]
      )

  def test_floating_point_is_resized_as_bytes_are_but_for_rounding(self):
    values = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    rng = lambda: np.random.default_rng(1)
    for take in (
      lambda image: crops.center(image, 16),
      lambda image: crops.random_resized(image, 16, rng()),
      lambda image: crops.paper_144(image, 16),
    ):
      want = take(pixels.of_levels(values)).astype(float)
      got = take(pixels.of_levels(values.astype(np.float32)))
      self.assertLess(np.abs(got - want).max(), 2.5)
      self.assertLess(np.abs(got - want).mean(), 0.5)


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
    with self.assertRaisesRegex(
      ValueError, r'no image \(5 bytes\); allowed: BMP, GIF'
    ):
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
