"""Gathers batches of examples that lie on the device.

Images of bytes are kept as uint8, a quarter of the size of float32. A step
gathers, augments and normalises those of its batch.
"""

import functools
from collections.abc import Iterator
from typing import Self

import jax
import jax.numpy as jnp
import numpy as np

from bn_jax import placement, types
from bn_jax.data.batches import augment
from bn_jax.data.batches import crops as crops_lib
from bn_jax.data.disk import pixels

_AT_ONCE = 4096  # vectors whose squares are in memory at a time


class Resident:
  """A split on the device, and its own feed: every step gets the whole split.

  Attributes:
    split: the arrays.
    num_examples: N.
  """

  def __init__(self, split: types.Split):
    self.split = split
    self.num_examples = split.labels.shape[0]

  def moments(self) -> tuple[jax.Array, jax.Array]:
    return self.split.mean, self.split.std

  def placed(self, sharding: jax.sharding.Sharding) -> Self:
    return type(self)(placement.put(self.split, sharding))

  def head(self, count: int) -> Self:
    """Returns the first `count` examples, or all where there are fewer."""
    images, labels = (x[:count] for x in (self.split.images, self.split.labels))
    return type(self)(self.split._replace(images=images, labels=labels))

  def with_images(self, images: np.ndarray) -> Self:
    """Returns the same examples with other images."""
    return type(self)(self.split._replace(images=jnp.asarray(images)))

  def feed(self, batch_size: int) -> Self:
    del batch_size  # a step gathers its batch itself
    return self

  def start(self, *, seed: int, first_step: int) -> None:
    """Does nothing: the order of examples is part of the training state."""

  def peek(self) -> types.Split:
    return self.split

  def take(self) -> types.Split:
    return self.split

  def close(self) -> None:
    """Does nothing: no thread or process reads ahead."""

  def first(self, count: int) -> types.Batch:
    return first(self.split, count)

  def batches(self, batch_size: int) -> Iterator[types.Batch]:
    return padded_batches(self.split, batch_size=batch_size)

  def crops(self, batch_size: int, count: int) -> Iterator[types.Batch]:
    images, labels = map(np.asarray, (self.split.images, self.split.labels))
    take = crops_lib.crops(count).take
    for start in range(0, self.num_examples, batch_size):
      numbers = np.arange(start, start + batch_size)
      mask = numbers < self.num_examples
      views = [_cropped(take, images[i]) for i in numbers[mask]]
      views += [np.zeros_like(views[0])] * (batch_size - len(views))
      numbers = np.minimum(numbers, self.num_examples - 1)
      yield crops_of(self.split, np.stack(views), labels[numbers], mask)


def gather(
  split: types.Split, index_B: jax.Array, mask_B: jax.Array | None = None
) -> types.Batch:
  """Returns the examples of a split at `index_B`, normalised by channel."""
  inputs = normalised(split, split.images[index_B].astype(jnp.float32))
  return types.Batch(inputs, split.labels[index_B], mask_B)


def augmented(
  augmentation: augment.Augmentation,
  split: types.Split,
  index_B: jax.Array,
  key: jax.Array | None = None,
  first: jax.Array | int = 0,
) -> types.Batch:
  """Returns the examples of a split at `index_B`, augmented and normalised.

  Args:
    index_B: [B], places of the examples in the split, from 0 on.
    key: of the step, for augmentation; None: without augmentation.
    first: the place of the example index_B[0] in the batch of the step.
  """
  if key is None:
    return gather(split, index_B)
  pixels = augment.apply(
    augmentation, split.images[index_B], key, first, fill=split.mean
  )
  return types.Batch(normalised(split, pixels), split.labels[index_B], None)


def crops_of(
  split: types.Split, images: np.ndarray, labels: np.ndarray, mask: np.ndarray
) -> types.Batch:
  """Returns V crops of B examples, [B, V, H, W, C], as one normalised batch.

  They are in the order of the examples, the crops of one beside each other.
  """
  count = images.shape[1]
  inputs = jnp.asarray(images.reshape(-1, *images.shape[2:]), jnp.float32)
  return types.Batch(
    normalised(split, inputs),
    jnp.repeat(jnp.asarray(labels), count, axis=0),
    jnp.repeat(jnp.asarray(mask), count),
  )


def _cropped(take, image: np.ndarray) -> np.ndarray:
  """Returns the V crops of an image, each of the image's size, [V, H, W, C]."""
  height, width, channels = image.shape
  if height != width:
    raise ValueError(
      f'images are {height} x {width}; allowed for crops: squares; give '
      'resolution, pixels of a side'
    )
  return take(pixels.of_levels(image), height).reshape(
    -1, height, width, channels
  )


def normalised(split: types.Split, inputs: jax.Array) -> jax.Array:
  """Returns (x - mean) / std, by channel: the last axis of x."""
  shape = (1,) * (inputs.ndim - 1) + (-1,)
  return (inputs - split.mean.reshape(shape)) / split.std.reshape(shape)


def first(split: types.Split, count: int) -> types.Batch:
  """Returns the first `count` examples of a split, as one batch."""
  return gather(split, jnp.arange(count))


def padded_batches(
  split: types.Split, *, batch_size: int
) -> Iterator[types.Batch]:
  """Yields all examples of a split once, in order; pads the last batch."""
  for start in range(0, split.labels.shape[0], batch_size):
    yield _padded(split, start, batch_size)


@functools.partial(jax.jit, static_argnums=2)
def _padded(split, start, batch_size):
  count = split.labels.shape[0]
  index_B = start + jnp.arange(batch_size)
  return gather(split, jnp.minimum(index_B, count - 1), index_B < count)


def channel_moments(images: np.ndarray) -> tuple[jax.Array, jax.Array]:
  """Returns (mean, standard deviation) of each channel, [C] float32 each.

  Both are in the unit of the images: grey levels 0 to 255, or, of integers
  without a white, these themselves. The standard deviation of a constant
  channel is 1, so that normalising does not divide by 0.

  Args:
    images: [N, H, W, C], uint8 or float32.
  """
  moments_of = _of_bytes if images.dtype == np.uint8 else _of_numbers
  moments = [moments_of(images[..., i]) for i in range(images.shape[-1])]
  mean_C, std_C = np.array(moments, np.float32).T
  return jnp.asarray(mean_C), jnp.asarray(std_C)


def feature_moments(vectors: np.ndarray) -> tuple[jax.Array, jax.Array]:
  """Returns (mean, standard deviation) of each feature, [D] float32 each.

  The standard deviation of a constant feature is 1.

  Args:
    vectors: [N, D] float32.
  """
  mean_D = vectors.mean(0, dtype=np.float64)
  # Not the `std` of NumPy, which rounds the mean to float32 before.
  variance_D = np.zeros_like(mean_D)
  for start in range(0, len(vectors), _AT_ONCE):
    part = vectors[start : start + _AT_ONCE]
    variance_D += ((part - mean_D) ** 2).sum(0)
  std_D = np.sqrt(variance_D / len(vectors)).astype(np.float32)
  is_constant = (vectors == vectors[0]).all(0)
  std_D[is_constant | (std_D == 0)] = 1
  return jnp.asarray(mean_D, jnp.float32), jnp.asarray(std_D)


def _of_bytes(values: np.ndarray) -> tuple[float, float]:
  levels = np.arange(256, dtype=np.float64)
  counts = np.bincount(values.reshape(-1), minlength=256)
  mean = counts @ levels / counts.sum()
  std = np.sqrt(counts @ (levels - mean) ** 2 / counts.sum())
  return mean, std or 1.0


def _of_numbers(values: np.ndarray) -> tuple[float, float]:
  """Returns the moments of float32, summed in float64 image by image.

  float64 holds the sum of 2^29 equal numbers exactly, so that a constant
  channel deviates by 0.
  """
  mean = sum(x.sum(dtype=np.float64) for x in values) / values.size
  squares = sum(((x - mean) ** 2).sum(dtype=np.float64) for x in values)
  return mean, np.float32(np.sqrt(squares / values.size)) or 1.0
