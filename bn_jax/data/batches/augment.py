"""Draws crops, reflections and colours at random, anew at every step.

Example i of a step draws from fold_in(key, i) alone, so that layouts, the
number of devices and micro-batches do not change the draws. Augmentation is a
part of the step, on images (uint8 or float32) that lie on the device.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from bn_jax import checks
from bn_jax.data.disk import levels

# Ranges at strength 1, see `apply`. 0.4 is that of brightness, contrast and
# saturation in fb.resnet.torch (datasets/imagenet.lua). 0.1 is the scale of its
# lighting noise, which the colour cast replaces.
_FACTOR = 0.4
_CAST = 0.1
_WORDS = 9  # random words an example: row, column, flip and the six of colour


class Augmentation(NamedTuple):
  """The random changes of a training image; none by default.

  Attributes:
    crop_padding: pixels added on each side, before a part as large as the image
      was is cut out, from any place with equal probability. He et al. (2015),
      "Deep Residual Learning", arXiv:1512.03385, section 4.2, have 4.
    flip: whether an image is mirrored left to right with probability 1/2.
    photometric: strength of the changes of brightness, contrast, saturation
      and colour, see `apply`; 0 is none, 1 the usual, 2.5 the most.
  """

  crop_padding: int = 0
  flip: bool = False
  photometric: float = 0.0


class Drawn(NamedTuple):
  """The draws of one example.

  Attributes:
    row, column: [] int32, in [-crop_padding, crop_padding]: position of the
      crop's first pixel in the image.
    flip: [] bool.
    brightness, contrast, saturation: [] float32, factors; 1 changes nothing.
    cast: [3] float32, a factor for each of red, green and blue.
  """

  row: jax.Array
  column: jax.Array
  flip: jax.Array
  brightness: jax.Array
  contrast: jax.Array
  saturation: jax.Array
  cast: jax.Array


def make(
  *, crop_padding: int = 0, flip: bool = False, photometric: float = 0.0
) -> Augmentation:
  """Returns the augmentation with these keywords; see `Augmentation`.

  Raises:
    ValueError: a keyword out of its range.
  """
  checks.count('crop_padding', crop_padding, least=0)
  checks.flag('flip', flip)
  # At most so that no factor becomes negative.
  checks.number('photometric', photometric, least=0, most=1 / _FACTOR)
  return Augmentation(crop_padding, flip, float(photometric))


def drawn(
  augmentation: Augmentation, key: jax.Array, index: jax.Array | int
) -> Drawn:
  """Returns the draws of example `index` of a step, from the step's key.

  Each draw has its own random words, so switching one off does not change the
  others.
  """
  words = jax.random.bits(jax.random.fold_in(key, index), (_WORDS,), jnp.uint32)
  padding = augmentation.crop_padding
  # The bias of the remainder is at most 2^-32 (2 padding + 1).
  corner = (words[:2] % jnp.uint32(2 * padding + 1)).astype(jnp.int32) - padding
  coin = words[2] >> 31 == 1
  uniform = (words[3:] >> 8).astype(jnp.float32) * 2.0**-23 - 1
  factors = 1 + augmentation.photometric * _FACTOR * uniform[:3]
  return Drawn(
    row=corner[0],
    column=corner[1],
    flip=coin & augmentation.flip,
    brightness=factors[0],
    contrast=factors[1],
    saturation=factors[2],
    cast=1 + augmentation.photometric * _CAST * uniform[3:],
  )


def apply(
  augmentation: Augmentation,
  images: jax.Array,
  key: jax.Array,
  first: jax.Array | int = 0,
  *,
  fill: jax.Array | None = None,
) -> jax.Array:
  """Returns the images after their random changes, in grey levels 0 to 255.

  An image is distorted, cropped and then mirrored. With grey(x) = 0.299 red +
  0.587 green + 0.114 blue and m the mean of grey(x) over the image, its pixels
  x become

    contrast brightness (saturation x + (1 - saturation) grey(x))
      + (1 - contrast) brightness m

  times `cast`, clipped to 0 to 255. These are brightness (around black),
  contrast (around the mean grey) and saturation (around the pixel's own grey),
  as in Howard (2013), "Some Improvements on Deep Convolutional Neural Network
  Based Image Classification", arXiv:1312.5402. Their order is fixed; each
  factor is uniform in 1 -+ 0.4 photometric. `cast` is a factor for each
  channel, uniform in 1 -+ 0.1 photometric; it takes the place of noise along
  principal components. Grey images have no saturation and no cast.

  With everything off, the images are only converted to float32.

  Args:
    images: [B, H, W, C], uint8, or floating point in grey levels 0 to 255.
    key: of the step, for augmentation.
    first: the index of images[0] in the batch of the step.
    fill: [C], the grey levels of the padding, if there is any. Those of the
      training split's mean become 0 by normalisation.

  Returns:
    [B, H, W, C] float32.

  Raises:
    ValueError: padding as large as a side, or without C grey levels to fill it;
      or changes of colour where C is not 1 or 3.
  """
  if augmentation == Augmentation():
    return images.astype(jnp.float32)
  _check(augmentation, images, fill)
  fill_C = jnp.zeros(images.shape[-1:]) if fill is None else fill

  def change(image_HWC, index):
    draws = drawn(augmentation, key, index)
    return _changed(augmentation, image_HWC, draws, fill_C)

  return jax.vmap(change)(images, first + jnp.arange(len(images)))


def _changed(augmentation, image_HWC, draws, fill_C) -> jax.Array:
  """Returns one image, [H, W, C] float32, after its random changes."""
  height, width, channels = image_HWC.shape
  across_W = jnp.arange(width)
  across_W = jnp.where(draws.flip, width - 1 - across_W, across_W)
  row_H, column_W = draws.row + jnp.arange(height), draws.column + across_W
  # One gather of whole pixels while they are bytes takes 0.2 ms for 128 images
  # of 32 x 32 on a CPU; a slice for each image takes 0.4 ms, 18 shifts 5 ms.
  pixel_HW = (
    jnp.clip(row_H, 0, height - 1)[:, None] * width
    + jnp.clip(column_W, 0, width - 1)[None]
  )
  pixels_KC = image_HWC.reshape(-1, channels)
  y_HWC = pixels_KC.at[pixel_HW].get(mode='promise_in_bounds')
  y_HWC = y_HWC.astype(jnp.float32)
  if augmentation.photometric:
    y_HWC = _distorted(y_HWC, image_HWC, draws)
  if not augmentation.crop_padding:
    return y_HWC
  # The padding keeps the grey level of `fill`, whatever the colours.
  inside_HW = _within(row_H, height)[:, None] & _within(column_W, width)[None]
  fill_11C = jnp.asarray(fill_C, jnp.float32)[None, None]
  return jnp.where(inside_HW[..., None], y_HWC, fill_11C)


def _distorted(y_HWC, image_HWC, draws) -> jax.Array:
  """Returns pixels y of an image in the colours drawn for it, see `apply`."""
  mean_C = image_HWC.astype(jnp.float32).mean(axis=(0, 1))
  scale = draws.contrast * draws.brightness
  shift = (1 - draws.contrast) * draws.brightness * _grey(mean_C)
  cast_C = jnp.ones(1)
  if y_HWC.shape[-1] == 3:
    grey_HW1 = _grey(y_HWC)[..., None]
    y_HWC = draws.saturation * y_HWC + (1 - draws.saturation) * grey_HW1
    cast_C = draws.cast
  return jnp.clip((scale * y_HWC + shift) * cast_C[None, None], 0, 255)


def _grey(x: jax.Array) -> jax.Array:
  """Returns the luma, [...], of channels, [..., C]."""
  if x.shape[-1] == 1:
    return x[..., 0]
  # Not a matrix product, which loses digits on GPU and TPU by default.
  return sum(share * x[..., i] for i, share in enumerate(levels.LUMA))


def _within(index: jax.Array, size: int) -> jax.Array:
  return (index >= 0) & (index < size)


def _check(augmentation, images, fill) -> None:
  """Raises ValueError for images that this augmentation cannot change."""
  _, height, width, channels = images.shape
  padding = augmentation.crop_padding
  if padding >= min(height, width):
    raise ValueError(
      f'crop_padding is {padding}, of images {height} x {width}; allowed: less '
      'than a side'
    )
  if padding and (fill is None or jnp.shape(fill) != (channels,)):
    raise ValueError(
      f'crop_padding is {padding}, fill is {fill}; allowed: a grey level for '
      f'each of {channels} channels; give the mean of the training split'
    )
  if augmentation.photometric and channels not in (1, 3):
    raise ValueError(
      f'photometric is {augmentation.photometric}, of images with {channels} '
      'channels; allowed: 1 (grey) or 3 (red, green, blue)'
    )
