"""Examples that fit in memory, on the device: gathered, normalised, in batches.

Images stay uint8 there, a quarter of what float32 would take; whatever a batch
needs of them is done in the step.
"""

import functools
from collections.abc import Iterator
from typing import Self

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from bn_jax import placement, types
from bn_jax.data.batches import augment
from bn_jax.data.batches import crops as crops_lib


class Resident:
  """A split that lies on the device; it is its own feed, the same at all steps.

  Attributes:
    split: the arrays.
    num_examples: N.
  """

  def __init__(self, split: types.Split):
    self.split = split
    self.num_examples = split.labels.shape[0]

  def placed(self, sharding: jax.sharding.Sharding) -> Self:
    return type(self)(placement.put(self.split, sharding))

  def feed(self, batch_size: int) -> Self:
    del batch_size  # a step gathers its batch itself
    return self

  def start(self, *, seed: int, first_step: int) -> None:
    """The order of examples lies in the state: nothing is to be found here."""

  def peek(self) -> types.Split:
    return self.split

  def take(self) -> types.Split:
    return self.split

  def close(self) -> None:
    """Nothing reads ahead."""

  def first(self, count: int) -> types.Batch:
    return first(self.split, count)

  def batches(self, batch_size: int) -> Iterator[types.Batch]:
    return padded_batches(self.split, batch_size=batch_size)

  def crops(self, batch_size: int, count: int) -> Iterator[types.Batch]:
    images, labels = map(np.asarray, (self.split.images, self.split.labels))
    take = crops_lib.crops(count).take
    for start in range(0, self.num_examples, batch_size):
      numbers = np.arange(start, start + batch_size)
      real = numbers < self.num_examples
      cut = [_cropped(take, images[i]) for i in numbers[real]]
      cut += [np.zeros_like(cut[0])] * (batch_size - len(cut))
      numbers = np.minimum(numbers, self.num_examples - 1)
      yield crops_of(self.split, np.stack(cut), labels[numbers], real)


def gather(
  split: types.Split, index_B: jax.Array, mask_B: jax.Array | None = None
) -> types.Batch:
  """The examples of a split at `index_B`, normalised per channel."""
  inputs = normalised(split, split.images[index_B].astype(jnp.float32))
  return types.Batch(inputs, split.labels[index_B], mask_B)


def augmented(
  augmentation: augment.Augmentation,
  split: types.Split,
  index_B: jax.Array,
  key: jax.Array | None = None,
  first: jax.Array | int = 0,
) -> types.Batch:
  """The examples of a split at `index_B`, changed at random, then normalised.

  Args:
    augmentation: how.
    split: with images.
    index_B: [B] of the examples.
    key: of the step, for this purpose; None leaves the images as they are.
    first: the index of the first example in the batch of the step.
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
  """Crops [B, V, H, W, C] uint8 of B examples as a batch of B * V images."""
  count = images.shape[1]
  inputs = jnp.asarray(images.reshape(-1, *images.shape[2:]), jnp.float32)
  return types.Batch(
    normalised(split, inputs),
    jnp.repeat(jnp.asarray(labels), count),
    jnp.repeat(jnp.asarray(mask), count),
  )


def _cropped(take, image: np.ndarray) -> np.ndarray:
  """The crops of an image, of its own size: [V, H, W, C]."""
  height, width, channels = image.shape
  if height != width:
    raise ValueError(
      f'an image of {height} x {width} has no crops; allowed: squares'
    )
  pillow = Image.fromarray(image[..., 0] if channels == 1 else image)
  return take(pillow, height).reshape(-1, height, width, channels)


def normalised(split: types.Split, inputs: jax.Array) -> jax.Array:
  """(x - mean) / std, along the last axis of x."""
  last = (1,) * (inputs.ndim - 1) + (-1,)
  return (inputs - split.mean.reshape(last)) / split.std.reshape(last)


def first(split: types.Split, count: int) -> types.Batch:
  """The first `count` examples of a split, as one batch."""
  return gather(split, jnp.arange(count))


def padded_batches(
  split: types.Split, *, batch_size: int
) -> Iterator[types.Batch]:
  """A whole split in order, each example once; the last batch is padded."""
  for start in range(0, split.labels.shape[0], batch_size):
    yield _padded(split, start, batch_size)


@functools.partial(jax.jit, static_argnums=2)
def _padded(split, start, batch_size):
  count = split.labels.shape[0]
  index_B = start + jnp.arange(batch_size)
  return gather(split, jnp.minimum(index_B, count - 1), index_B < count)


def channel_moments(images: np.ndarray) -> tuple[jax.Array, jax.Array]:
  """Mean and standard deviation per channel, exact; a constant has std 1.

  Args:
    images: [N, H, W, C] uint8.

  Returns:
    [C] each, in grey levels 0..255.
  """
  levels = np.arange(256, dtype=np.float64)
  moments = []
  for channel in range(images.shape[-1]):
    counts = np.bincount(images[..., channel].reshape(-1), minlength=256)
    mean = counts @ levels / counts.sum()
    std = np.sqrt(counts @ (levels - mean) ** 2 / counts.sum())
    moments.append((mean, std or 1.0))
  mean_C, std_C = np.array(moments, np.float32).T
  return jnp.asarray(mean_C), jnp.asarray(std_C)
