import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from jax.sharding import NamedSharding, PartitionSpec
from scipy import stats

from bn_jax.data.batches import augment
from tests.fixtures import strict  # noqa: F401

KEY = jax.random.key(5)
ALL = dict(crop_padding=2, flip=True, photometric=1.0)


def setUpModule():
  # Numbers do not matter here, compilation takes the time.
  jax.config.update('jax_disable_most_optimizations', True)


def tearDownModule():
  jax.config.update('jax_disable_most_optimizations', False)


def pictures(count=6, shape=(8, 6, 3), low=0, high=256):
  generator = np.random.default_rng(0)
  return generator.integers(low, high, (count, *shape)).astype(np.uint8)


def levels(channels=3):
  """Grey levels that no pixel has."""
  return 100.5 + jnp.arange(channels)


def applied(images, key=KEY, first=0, **keywords):
  augmentation = augment.make(**keywords)
  apply = jax.jit(functools.partial(augment.apply, augmentation))
  fill = levels(images.shape[-1])
  return np.asarray(apply(jnp.asarray(images), key, first, fill=fill))


@functools.partial(jax.jit, static_argnums=(0, 2))
def draws(augmentation, key, count):
  one = functools.partial(augment.drawn, augmentation, key)
  return jax.vmap(one)(jnp.arange(count))


def grey(x):
  return np.float64(x) @ [0.299, 0.587, 0.114]


class DrawnTest(parameterized.TestCase):
  def uniform(self, values, possible):
    """The chi-squared test of equal shares, at one in a thousand."""
    found, counts = np.unique(values, return_counts=True)
    np.testing.assert_array_equal(found, possible)
    self.assertGreater(stats.chisquare(counts).pvalue, 1e-3)

  def test_all_places_are_equally_likely(self):
    drawn = draws(augment.make(crop_padding=2, flip=True), KEY, 20_000)
    shifts = np.arange(-2, 3)
    self.uniform(drawn.row, shifts)
    self.uniform(drawn.column, shifts)
    # Together too, so that none of the three follows from the others.
    both = 100 * (drawn.row + 2) + 10 * (drawn.column + 2) + drawn.flip
    places = np.arange(5)
    want = 100 * places[:, None] + 10 * places[None]
    self.uniform(both, np.sort([*want.ravel(), *(want.ravel() + 1)]))

  def test_half_are_mirrored(self):
    drawn = draws(augment.make(flip=True), KEY, 20_000)
    # The share's standard deviation is 0.0035.
    self.assertAlmostEqual(float(drawn.flip.mean()), 0.5, delta=0.012)
    self.assertFalse(draws(augment.make(), KEY, 100).flip.any())

  def test_factors_are_uniform_around_one(self):
    drawn = draws(augment.make(photometric=0.5), KEY, 20_000)
    factors = [drawn.brightness, drawn.contrast, drawn.saturation]
    for values, half in [(f, 0.2) for f in factors] + [
      (drawn.cast[:, c], 0.05) for c in range(3)
    ]:
      uniform = stats.uniform(1 - half, 2 * half)
      self.assertGreater(stats.kstest(values, uniform.cdf).pvalue, 1e-3)
    correlations = np.corrcoef([*factors, *drawn.cast.T])
    np.testing.assert_allclose(correlations, np.eye(6), atol=0.03)

  def test_of_strength_zero_are_one(self):
    drawn = draws(augment.make(), KEY, 100)
    for name in ('brightness', 'contrast', 'saturation', 'cast'):
      np.testing.assert_array_equal(getattr(drawn, name), 1)

  def test_what_is_off_leaves_the_rest_as_it_is(self):
    some, more = (
      draws(augment.make(**keywords), KEY, 50)
      for keywords in (dict(crop_padding=2), ALL)
    )
    np.testing.assert_array_equal(some.row, more.row)
    np.testing.assert_array_equal(some.column, more.column)


class CropTest(parameterized.TestCase):
  @parameterized.product(flip=(False, True), channels=(1, 3))
  def test_equals_numpy(self, flip, channels):
    images = pictures(12, (8, 6, channels))
    got = applied(images, crop_padding=3, flip=flip)
    self.assertEqual(got.dtype, np.float32)
    augmentation = augment.make(crop_padding=3, flip=flip)
    fill = np.asarray(levels(channels))
    for index, image in enumerate(images):
      drawn = augment.drawn(augmentation, KEY, index)
      padded = np.tile(fill, (14, 12, 1))
      padded[3:11, 3:9] = image
      top, left = 3 + int(drawn.row), 3 + int(drawn.column)
      want = padded[top : top + 8, left : left + 6]
      want = want[:, ::-1] if drawn.flip else want
      np.testing.assert_array_equal(got[index], want)

  def test_padding_with_the_mean_becomes_zero(self):
    images = pictures(20)
    mean_C = images.mean(axis=(0, 1, 2), dtype=np.float32)
    augmentation = augment.make(**ALL)
    y = augment.apply(augmentation, jnp.asarray(images), KEY, fill=mean_C)
    normalised = (np.asarray(y) - mean_C) / 60
    rows = [int(augment.drawn(augmentation, KEY, i).row) for i in range(20)]
    self.assertIn(-2, rows)
    for row, image in zip(rows, normalised):
      top, bottom = max(-row, 0), max(row, 0)
      self.assertFalse(image[:top].any())
      self.assertFalse(image[8 - bottom :].any())
      self.assertTrue(image[top : 8 - bottom].any(axis=(1, 2)).all())

  def test_floating_point_images_are_cut_alike(self):
    images = pictures()
    # By single operations: two programs may round in different places.
    with jax.disable_jit():
      np.testing.assert_array_equal(
        applied(images.astype(np.float32), **ALL), applied(images, **ALL)
      )


class PhotometricTest(parameterized.TestCase):
  def test_one_after_the_other(self):
    """Brightness, contrast, saturation and cast, in float64, nothing cut."""
    images = pictures(low=90, high=120)
    got = applied(images, photometric=1.0)
    augmentation = augment.make(photometric=1.0)
    for index, image in enumerate(images):
      drawn = augment.drawn(augmentation, KEY, index)
      x = np.float64(image) * float(drawn.brightness)
      contrast, saturation = float(drawn.contrast), float(drawn.saturation)
      x = contrast * x + (1 - contrast) * grey(x).mean()
      x = saturation * x + (1 - saturation) * grey(x)[..., None]
      want = x * np.float64(drawn.cast)
      np.testing.assert_allclose(got[index], want, rtol=1e-5)

  def test_changes_no_mean_over_many_draws(self):
    image = pictures(1, low=100, high=140)
    got = applied(np.repeat(image, 4000, axis=0), photometric=0.5)
    # One draw's brightness has a standard deviation of 0.2 / sqrt(3) = 0.115.
    np.testing.assert_allclose(
      got.mean(axis=(0, 1, 2)), image.mean(axis=(0, 1, 2)), rtol=0.008
    )
    share = got.mean(axis=(1, 2, 3)) / image.mean()
    self.assertAlmostEqual(share.std(), 0.115, delta=0.01)

  def test_stays_within_grey_levels(self):
    got = applied(pictures(50), photometric=2.5)
    self.assertEqual((got.min(), got.max()), (0, 255))

  def test_grey_images_have_no_colour(self):
    images = pictures(shape=(8, 6, 1), low=90, high=120)
    got = applied(images, photometric=1.0)
    three = applied(np.repeat(images, 3, axis=-1), photometric=1.0)
    drawn = draws(augment.make(photometric=1.0), KEY, len(images))
    cast = np.asarray(drawn.cast)[:, None, None]
    np.testing.assert_allclose(three / cast, np.repeat(got, 3, -1), rtol=1e-5)


class ApplyTest(parameterized.TestCase):
  @parameterized.parameters(np.uint8, np.float32)
  def test_off_is_the_images(self, dtype):
    images = pictures().astype(dtype)
    got = applied(images)
    self.assertEqual(got.dtype, np.float32)
    np.testing.assert_array_equal(got, images.astype(np.float32))
    np.testing.assert_array_equal(applied(images, photometric=0.0), got)

  def test_an_example_depends_on_its_index_alone(self):
    images = pictures()
    whole = applied(images, **ALL)
    parts = [applied(images[i : i + 2], first=i, **ALL) for i in (0, 2, 4)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    self.assertTrue((applied(images[4:], **ALL) != whole[4:]).any())

  def test_examples_and_keys_differ(self):
    same = np.repeat(pictures(1), 8, axis=0)
    got = applied(same, **ALL)
    self.assertLen(np.unique(got.reshape(8, -1), axis=0), 8)
    other = applied(same, key=jax.random.key(6), **ALL)
    self.assertTrue((got != other).any(axis=(1, 2, 3)).all())

  def test_compiles_once_for_all_keys_and_places(self):
    augmentation = augment.make(**ALL)
    traces = []

    @jax.jit
    def step(images, key, first):
      traces.append(None)
      return augment.apply(augmentation, images, key, first, fill=levels())

    images = jnp.asarray(pictures(2))
    for seed in range(3):
      step(images, jax.random.key(seed), jnp.int32(seed))
    self.assertLen(traces, 1)

  def test_devices_keep_their_examples(self):
    """Spread over eight, nothing is sent, and each bit is the same."""
    images, augmentation = pictures(8), augment.make(**ALL)
    mesh = jax.make_mesh(
      (8,), ('batch',), axis_types=(jax.sharding.AxisType.Auto,)
    )
    spread = NamedSharding(mesh, PartitionSpec('batch'))
    apply = jax.jit(
      functools.partial(augment.apply, augmentation, fill=levels()),
      out_shardings=spread,
    )
    placed = jax.device_put(images, spread)
    compiled = apply.lower(placed, KEY).compile()
    for sent in ('all-gather', 'all-reduce', 'all-to-all', 'permute'):
      self.assertNotIn(sent, compiled.as_text())
    np.testing.assert_array_equal(compiled(placed, KEY), applied(images, **ALL))

  @parameterized.parameters(
    (dict(crop_padding=-1), 'crop_padding is -1; allowed: 0, 1, 2'),
    (dict(crop_padding=1.5), 'crop_padding is 1.5; allowed: 0, 1, 2'),
    (dict(photometric=-0.1), 'photometric is -0.1; allowed: 0'),
    (dict(photometric=2.6), 'photometric is 2.6; allowed: 0 to 2.5'),
    (dict(photometric=float('nan')), 'photometric is nan'),
  )
  def test_make_refuses(self, keywords, message):
    with self.assertRaisesRegex(ValueError, message):
      augment.make(**keywords)

  @parameterized.parameters(
    (dict(crop_padding=6), (8, 6, 3), levels(), '6, of images 8 x 6; allowed'),
    (dict(crop_padding=1), (8, 6, 3), None, 'fill is None; allowed: a grey'),
    (dict(crop_padding=1), (8, 6, 1), levels(), 'each of 1 channels'),
    (dict(photometric=1), (8, 6, 2), None, '2 channels; allowed: 1 .grey. or'),
  )
  def test_apply_refuses(self, keywords, shape, fill, message):
    images = jnp.zeros((1, *shape), jnp.uint8)
    with self.assertRaisesRegex(ValueError, message):
      augment.apply(augment.make(**keywords), images, KEY, fill=fill)


if __name__ == '__main__':
  absltest.main()
