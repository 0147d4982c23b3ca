"""Random crops, reflections and colours, drawn anew whenever an image is seen.

Example i of a step draws from fold_in(key, i) alone, so that layouts, the
number of devices and micro-batches change nothing. All of it is part of the
step: it takes uint8 images that lie on the device, and no file.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

# Of brightness, contrast and saturation at strength 1, as in fb.resnet.torch
# (datasets/imagenet.lua).
_FACTOR = 0.4
_CAST = 0.1
# Rec. 601: how bright red, green and blue are to the eye.
_LUMA = (0.299, 0.587, 0.114)
_WORDS = 9  # of an example: three of place, six of colour


class Augmentation(NamedTuple):
  """What is done to a training image; nothing by default.

  Attributes:
    crop_padding: pixels around the image, of which then a part of the image's
      own size is cut out, at any place with equal probability: He et al.
      (2015), "Deep Residual Learning", arXiv:1512.03385, section 4.2, with 4.
    flip: whether it is mirrored left to right with probability 1/2.
    photometric: strength of random changes of brightness, contrast, saturation
      and colour, see `apply`; 0 is none, 1 the usual.
  """

  crop_padding: int = 0
  flip: bool = False
  photometric: float = 0.0


class Drawn(NamedTuple):
  """What one example has drawn.

  Attributes:
    row, column: [] int32, in [-crop_padding, crop_padding]: the place in the
      image of the crop's first pixel.
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
  """The augmentation with these keywords; see `Augmentation`.

  Raises:
    ValueError: a keyword out of its range.
  """
  if crop_padding != int(crop_padding) or crop_padding < 0:
    raise ValueError(
      f'crop_padding is {crop_padding}; allowed: 0 or more whole pixels'
    )
  if not 0 <= photometric <= 1 / _FACTOR:
    raise ValueError(
      f'photometric is {photometric}; allowed: 0 (none) to {1 / _FACTOR:g}'
    )
  return Augmentation(int(crop_padding), bool(flip), float(photometric))


def drawn(
  augmentation: Augmentation, key: jax.Array, index: jax.Array | int
) -> Drawn:
  """What the example with this index draws from the key of a step.

  What is switched off leaves the rest as it is: each has its own words.
  """
  words = jax.random.bits(jax.random.fold_in(key, index), (_WORDS,), jnp.uint32)
  padding = augmentation.crop_padding
  # The remainder favours no place by more than 2^-32 (2 padding + 1).
  places = (words[:2] % jnp.uint32(2 * padding + 1)).astype(jnp.int32) - padding
  one_word = words[2] >> 31 == 1
  even = (words[3:] >> 8).astype(jnp.float32) * 2.0**-23 - 1
  factors = 1 + augmentation.photometric * _FACTOR * even[:3]
  return Drawn(
    row=places[0],
    column=places[1],
    flip=one_word & augmentation.flip,
    brightness=factors[0],
    contrast=factors[1],
    saturation=factors[2],
    cast=1 + augmentation.photometric * _CAST * even[3:],
  )


def apply(
  augmentation: Augmentation,
  images: jax.Array,
  key: jax.Array,
  first: jax.Array | int = 0,
  *,
  fill: jax.Array | None = None,
) -> jax.Array:
  """The images after what each of them draws, in grey levels 0 to 255.

  An image is distorted, cut out and then mirrored. Its colours become, with
  grey(x) = 0.299 red + 0.587 green + 0.114 blue and m its mean over the image,

    contrast brightness (saturation x + (1 - saturation) grey(x))
      + (1 - contrast) brightness m

  times `cast`, held within 0 to 255. That is brightness (around black),
  contrast (around the mean grey) and saturation (around the pixel's own grey)
  one after the other, each factor uniform in 1 -+ 0.4 photometric: what Howard
  (2013), "Some Improvements on Deep Convolutional Neural Network Based Image
  Classification", arXiv:1312.5402, varies; order and ranges are of this file.
  Then a colour cast, a factor a channel, uniform in 1 -+ 0.1 photometric, in
  place of noise along principal components. Grey images have no saturation and
  no cast.

  With everything off the images come back as they are, as float32.

  Args:
    augmentation: made by `make`.
    images: [B, H, W, C], uint8, or floating point in grey levels 0 to 255.
    key: of the step and of this purpose.
    first: the index of images[0] in the batch of the step.
    fill: [C], the grey level around the images, where there is padding. The
      mean of the training split is what is 0 after normalization.

  Returns:
    [B, H, W, C] float32.

  Raises:
    ValueError: no `fill` where there is padding, padding of a side or more, or
      other channels than 1 or 3 where colours change.
  """
  if augmentation == Augmentation():
    return images.astype(jnp.float32)
  _check(augmentation, images, fill)
  fill_C = jnp.zeros(images.shape[-1:]) if fill is None else fill

  def one(image_HWC, index):
    mine = drawn(augmentation, key, index)
    return _changed(augmentation, image_HWC, mine, fill_C)

  return jax.vmap(one)(images, first + jnp.arange(len(images)))


def _changed(augmentation, image_HWC, mine, fill_C) -> jax.Array:
  """One image, [H, W, C] float32, after what it has drawn."""
  height, width, channels = image_HWC.shape
  across_W = jnp.arange(width)
  across_W = jnp.where(mine.flip, width - 1 - across_W, across_W)
  row_H, column_W = mine.row + jnp.arange(height), mine.column + across_W
  # One gather of whole pixels while they are bytes: 0.2 ms for 128 images of
  # 32 x 32 on a CPU, where a slice an image takes 0.4 and 18 shifts 5.
  place_HW = (
    jnp.clip(row_H, 0, height - 1)[:, None] * width
    + jnp.clip(column_W, 0, width - 1)[None]
  )
  pixels_KC = image_HWC.reshape(-1, channels)
  y_HWC = pixels_KC.at[place_HW].get(mode='promise_in_bounds')
  y_HWC = y_HWC.astype(jnp.float32)
  if augmentation.photometric:
    y_HWC = _distorted(y_HWC, image_HWC, mine)
  if not augmentation.crop_padding:
    return y_HWC
  # The padding is no part of the image: its colours stay.
  inside_HW = _within(row_H, height)[:, None] & _within(column_W, width)[None]
  fill_11C = jnp.asarray(fill_C, jnp.float32)[None, None]
  return jnp.where(inside_HW[..., None], y_HWC, fill_11C)


def _distorted(y_HWC, image_HWC, mine) -> jax.Array:
  """Pixels of an image, their colours changed as it has drawn."""
  mean_C = image_HWC.astype(jnp.float32).mean(axis=(0, 1))
  scale = mine.contrast * mine.brightness
  shift = (1 - mine.contrast) * mine.brightness * _grey(mean_C)
  cast_C = jnp.ones(1)
  if y_HWC.shape[-1] == 3:
    grey_HW1 = _grey(y_HWC)[..., None]
    y_HWC = mine.saturation * y_HWC + (1 - mine.saturation) * grey_HW1
    cast_C = mine.cast
  return jnp.clip((scale * y_HWC + shift) * cast_C[None, None], 0, 255)


def _grey(x: jax.Array) -> jax.Array:
  """How bright the channels, [..., C], are together, [...]."""
  if x.shape[-1] == 1:
    return x[..., 0]
  # No matrix product: on GPU and TPU it might lose digits.
  return sum(share * x[..., i] for i, share in enumerate(_LUMA))


def _within(place: jax.Array, size: int) -> jax.Array:
  return (place >= 0) & (place < size)


def _check(augmentation, images, fill) -> None:
  """Raises ValueError for images that cannot be augmented so."""
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
      f'each of {channels} channels, such as the mean of the training split'
    )
  if augmentation.photometric and channels not in (1, 3):
    raise ValueError(
      f'photometric is {augmentation.photometric}, of images with {channels} '
      'channels; allowed: 1 (grey) or 3 (red, green, blue)'
    )
