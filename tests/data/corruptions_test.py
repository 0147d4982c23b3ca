"""Corruptions of images, by their definitions and what follows of them."""

import re

import numpy as np
from absl.testing import absltest, parameterized

from bn_jax.data import corruptions
from bn_jax.data.corruptions import blurs, weather
from tests.fixtures import strict

# Constants are published that do not change images more from 1 to 5: glass has
# fewer passes between, motion a longer blur of the same width, the three points
# of elastic_transform move less, mud covers less than water, and saturate takes
# colour away before it adds some.
_NOT_IN_ORDER = (
  'elastic_transform', 'glass_blur', 'motion_blur', 'saturate', 'spatter',
)  # fmt: skip
_RANDOM = (
  'elastic_transform', 'fog', 'gaussian_noise', 'glass_blur', 'impulse_noise',
  'motion_blur', 'shot_noise', 'snow', 'spatter', 'speckle_noise',
)  # fmt: skip


def images(count=12, side=32, channels=3):
  """Smooth ones, with an edge, as bytes."""
  rng = np.random.default_rng(0)
  x = blurs.gaussian(rng.random((count, side, side, channels)), 2)
  x = 0.5 + 6 * (x - x.mean())
  x[:, side // 4 : side // 2, side // 4 : side // 2] += 0.3
  return np.uint8(255 * np.clip(x, 0, 1))


def of_grey(level, side=32):
  return np.full((8, side, side, 3), level, np.uint8)


def rngs(count):
  return [np.random.default_rng(i) for i in range(count)]


class AllTest(parameterized.TestCase):
  @parameterized.parameters(*corruptions.CORRUPTIONS)
  def test_bytes_that_change_more_from_strength_to_strength(self, name):
    x = images()
    changes = []
    for strength in corruptions.STRENGTHS:
      y = corruptions.corrupted(x, name, strength)
      self.assertEqual((y.shape, y.dtype), (x.shape, x.dtype))
      changes.append(((np.float64(y) - x) ** 2).mean())
    self.assertGreater(min(changes), 1)
    if name not in _NOT_IN_ORDER:
      self.assertEqual(changes, sorted(changes))

  @parameterized.parameters(*corruptions.CORRUPTIONS)
  def test_an_image_gets_the_same_in_any_batch(self, name):
    x = images(4)
    together = corruptions.corrupted(x, name, 2)
    alone = corruptions.corrupted(x[3:], name, 2, first=3)
    np.testing.assert_array_equal(alone, together[3:])
    others = [
      corruptions.corrupted(x, name, 2, seed=1),
      corruptions.corrupted(x, name, 2, first=1),
    ]
    for other in others:
      self.assertEqual((other != together).any(), name in _RANDOM)

  @parameterized.parameters(*corruptions.CORRUPTIONS)
  def test_grey_and_small_images(self, name):
    for side in (8, 28):
      x = images(2, side, 1)
      if name == 'saturate':
        with self.assertRaisesRegex(ValueError, 'saturate: images are grey'):
          corruptions.corrupted(x, name, 5)
      else:
        y = corruptions.corrupted(x, name, 5)
        self.assertEqual((y.shape, y.dtype), (x.shape, x.dtype))

  def test_the_docs_name_them_all(self):
    text = (strict.ROOT / 'docs' / 'data.md').read_text()
    (table,) = re.findall(r'\n(\| noise \|.*?)\n\n', text, re.DOTALL)
    self.assertCountEqual(re.findall('`(.*?)`', table), corruptions.CORRUPTIONS)

  def test_what_is_no_such_image(self):
    for shape, dtype, wrong in (
      ((2, 8), 'uint8', 'vectors'),
      ((2, 8, 9, 3), 'uint8', '8 x 9 with 3'),
      ((2, 8, 8, 2), 'uint8', 'with 2 channels'),
      ((2, 8, 8, 3), 'float32', 'float32; allowed: uint8'),
    ):
      with self.assertRaisesRegex(ValueError, f'fog: .*{wrong}'):
        corruptions.corrupted(np.zeros(shape, dtype), 'fog', 1)


class NoiseTest(parameterized.TestCase):
  @parameterized.parameters(
    ('gaussian_noise', 2, 0.06), ('speckle_noise', 2, 0.1 * 0.4),
    ('shot_noise', 5, np.sqrt(0.4 / 50)),
  )  # fmt: skip
  def test_deviation(self, name, strength, want):
    y = corruptions.corrupted(of_grey(102), name, strength) / 255  # 0.4
    self.assertAlmostEqual(y.std() / want, 1, delta=0.02)
    # Rounding down takes half a level.
    self.assertAlmostEqual(y.mean() + 0.5 / 255, 0.4, delta=0.002)

  def test_impulses_are_black_and_white(self):
    y = corruptions.corrupted(of_grey(102), 'impulse_noise', 4)
    values, counts = np.unique(y, return_counts=True)
    np.testing.assert_array_equal(values, [0, 102, 255])
    np.testing.assert_allclose(counts / y.size, [0.025, 0.95, 0.025], atol=4e-3)


class BlursTest(parameterized.TestCase):
  def test_kernels_sum_to_one(self):
    """A constant image stays, and rounding down takes a level at most."""
    for name in ('defocus_blur', 'gaussian_blur', 'motion_blur', 'zoom_blur'):
      y = corruptions.corrupted(of_grey(102)[:2], name, 5)
      self.assertLessEqual(np.abs(y - 102.0).max(), 1, name)
    for constants in corruptions.CORRUPTIONS['defocus_blur'].constants:
      self.assertAlmostEqual(blurs.lens(*constants).sum(), 1)

  def test_a_lens_is_a_disk(self):
    lens = blurs.lens(1.5, 0.1)  # the edge is hardly smoothed
    np.testing.assert_allclose(lens[2:5, 2:5], np.full((3, 3), 1 / 9))

  def test_motion_comes_from_one_side(self):
    x = np.zeros((2, 9, 9, 1))
    x[:, 4, 6] = 1
    y = blurs.along(x, 2, 1.0, np.array([0.0, 90.0]))
    weights = np.exp(-(np.arange(5.0) ** 2) / 2)
    weights = np.rint(255 * weights / weights.sum()) / 255
    np.testing.assert_allclose(y[0, 4, 6:1:-1, 0], weights)
    np.testing.assert_allclose(y[1, 4:0:-1, 6, 0], weights[:4])

  def test_glass_moves_pixels_by_one(self):
    levels = np.arange(32 * 32).reshape(1, 32, 32, 1) % 251
    x = np.broadcast_to(levels, (1, 32, 32, 3)) / 255
    y = np.rint(255 * blurs.glass(x, (0.05, 1, 1), rngs(1)))[0, ..., 0]
    x = np.rint(255 * x)[0, ..., 0]
    np.testing.assert_array_equal(y[:2], x[:2])  # its border stays
    up_left = [x[1:-1, 1:-1], x[:-2, 1:-1], x[1:-1, :-2], x[:-2, :-2]]
    self.assertTrue(np.any([y[1:-1, 1:-1] == one for one in up_left], 0).all())

  def test_zoom_keeps_the_middle(self):
    line = np.linspace(-1, 1, 32)
    x = np.broadcast_to(line[None, :, None, None], (1, 32, 32, 1))
    y = blurs.zoomed(x, 1.25)  # ceil(32 / 1.25) = 26 pixels become 32
    want = np.interp(np.linspace(3, 28, 32), np.arange(32), line)
    np.testing.assert_allclose(y[0, :, 5, 0], want, atol=1e-12)


class WeatherTest(parameterized.TestCase):
  def test_fog_keeps_what_is_brightest(self):
    x = images(4)
    for strength, density in ((1, 0.2), (5, 1.5)):
      y = corruptions.corrupted(x, 'fog', strength)
      self.assertLessEqual(y.max(), x.max())
      # Black becomes the fog alone, from 0 to its share of the brightest.
      black = np.zeros_like(x)
      black[:, 0, 0] = 255
      alone = corruptions.corrupted(black, 'fog', strength)
      largest = alone.reshape(4, -1, 3)[:, 1:].max(axis=(1, 2))
      np.testing.assert_allclose(largest, 255 * density / (1 + density), atol=9)

  def test_heights_are_rougher_where_waves_decay_slowly(self):
    slow, fast = (weather.plasma(rngs(32), 32, decay) for decay in (1.1, 3))
    roughness = lambda x: np.abs(np.diff(x, axis=1)).mean()
    self.assertGreater(roughness(slow), 3 * roughness(fast))
    for heights in (slow, fast):
      self.assertEqual((heights.min(), heights.max()), (0, 1))

  def test_edges(self):
    x = np.zeros((2, 12, 12))
    x[0, 3:8, 3:8] = 200
    x[1, 3:8, 3:8] = 12  # its gradient, 48, is below the weak threshold
    edges = weather.edges(x)
    self.assertFalse(edges[1].any())
    ring = np.zeros((12, 12), bool)
    ring[3:8, 3:8] = True
    ring[4:7, 4:7] = False
    outside = np.ones_like(ring)
    outside[2:8, 2:8] = False
    self.assertFalse((edges[0] & outside).any())
    self.assertGreaterEqual(edges[0].sum(), 16)
    self.assertFalse(edges[0, 5, 5])

  def test_no_drop_no_light(self):
    constants = (0.1, 0.01, 0.7, 0.7, 0.5, False)
    x = images(2) / 255
    np.testing.assert_array_equal(weather.spatter(x, constants, rngs(2)), x)


class DigitalTest(parameterized.TestCase):
  def test_brightness_adds_to_the_largest_colour(self):
    x = np.uint8([[[[100, 50, 0], [0, 0, 0]], [[250, 125, 25], [200, 0, 9]]]])
    y = corruptions.corrupted(x, 'brightness', 3)  # 0.15, 38.25 levels
    np.testing.assert_allclose(
      y[0],
      [
        [[138.25, 69.125, 0], [38.25] * 3],
        [[255, 127.5, 25.5], [238.25, 0, 10.72]],
      ],
      atol=1,
    )

  def test_contrast(self):
    x = images(2)
    means = x.mean(axis=(1, 2), keepdims=True)
    y = corruptions.corrupted(x, 'contrast', 5)
    self.assertLessEqual(np.abs(y - (means + 0.15 * (x - means))).max(), 1)

  def test_saturation(self):
    x = np.uint8([[[[200, 100, 0], [80, 80, 80]]] * 2])
    y = corruptions.corrupted(x, 'saturate', 2)  # a tenth of it
    np.testing.assert_allclose(y[0, 0], [[200, 190, 180], [80] * 3], atol=1)
    y = corruptions.corrupted(x, 'saturate', 4)  # twice, and 0.1 more
    np.testing.assert_allclose(y[0, 0], [[200, 100, 0], [80, 72, 72]], atol=1)

  def test_an_elastic_image_that_no_one_pulls_at(self):
    x = images(2) / 255
    function = corruptions.CORRUPTIONS['elastic_transform'].function
    np.testing.assert_allclose(function(x, (0, 0, 0), rngs(2)), x, atol=1e-9)

  def test_pixels_of_boxes(self):
    function = corruptions.CORRUPTIONS['pixelate'].function
    x = images(2) / 255
    y = function(x, 0.5)
    boxes = x.reshape(2, 16, 2, 16, 2, 3).mean(axis=(2, 4))
    want = boxes.repeat(2, 1).repeat(2, 2)
    np.testing.assert_allclose(y, want, atol=1.1 / 255)  # rounded twice


if __name__ == '__main__':
  absltest.main()
